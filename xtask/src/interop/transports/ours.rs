//! This project's client through proxies of others, and over TLS and WebSocket to a broker of others.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    haproxy::free_ports,
    libraries::{Library, Place},
    mosquitto::client,
    stage::{Door, PATIENCE, Stage},
};
use crate::{
    interop::{peer::Address, program::has_subscribed},
    process::Running,
};

/// Where Debian puts the broker, which is not on everybody's path.
pub(super) const MOSQUITTO: &str = "/usr/sbin/mosquitto";
/// How often a free port is looked for: another program may take it in between.
const ATTEMPTS: usize = 5;
const USER: &str = "anna:secret";

/// Which proxy.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Socks,
    Http,
}

/// A message through a proxy that asks for a password, to a name that the proxy resolves, plain and with TLS inside.
pub(super) fn through_proxy(stage: &Stage, program: &Path, kind: Kind) -> Result<()> {
    let (_proxy, ports) = started(1, |ports| command(stage, kind, ports))?;
    let port = ports.first().context("no port")?;
    let scheme = match kind {
        Kind::Socks => "socks5h",
        Kind::Http => "http",
    };
    let authority = stage.certificates.file("ca.pem").display().to_string();
    for door in [Door::Plain, Door::Tls] {
        let mut way = vec!["-h".to_owned(), "localhost".to_owned()];
        way.extend(["-p".into(), stage.address(door)?.port.to_string()]);
        if door == Door::Tls {
            way.extend(["--cafile".into(), authority.clone()]);
        }
        let with = |user: &str| {
            let mut way = way.clone();
            way.extend([
                "--proxy".into(),
                format!("{scheme}://{user}@127.0.0.1:{port}"),
            ]);
            way
        };
        exchange(program, &with(USER), &format!("{kind:?} {door:?}"))?;
        let mut command = ours(program, "pub", &with("anna:wrong"), "5");
        let output = command.args(["-t", "refused", "-m", "x"]).output()?;
        ensure!(!output.status.success(), "the proxy let a stranger through");
    }
    Ok(())
}

fn command(stage: &Stage, kind: Kind, ports: &[u16]) -> Result<Command> {
    let port = ports.first().context("no port")?;
    let (name, password) = USER.split_once(':').context("no password")?;
    Ok(match kind {
        Kind::Socks => {
            let mut command = Command::new("microsocks");
            command.args(["-i", "127.0.0.1", "-p", &port.to_string()]);
            command.args(["-u", name, "-P", password]);
            command
        }
        Kind::Http => {
            let text = format!(
                "Listen 127.0.0.1\nPort {port}\nTimeout 60\nMaxClients 20\nBasicAuth {name} {password}\n"
            );
            let file = stage.folder.join("tinyproxy.conf");
            fs::write(&file, text)?;
            let mut command = Command::new("tinyproxy");
            command.arg("-d").arg("-c").arg(&file);
            command
        }
    })
}

/// A listener of each kind that Mosquitto has too.
const WAYS: [Door; 3] = [Door::Tls, Door::WebSocket, Door::SecureWebSocket];

/// The program, through a door of this project's broker.
pub(super) fn through_door(stage: &Stage, program: &Path, door: Door) -> Result<()> {
    let port = stage.address(door)?.port;
    exchange(program, &way(stage, door, port), &format!("{door:?}"))
}

/// The program, to Mosquitto over TLS, WebSocket, and both.
pub(super) fn to_mosquitto(stage: &Stage, program: &Path) -> Result<()> {
    let (_broker, ports) = mosquitto(stage)?;
    for (door, port) in WAYS.into_iter().zip(ports) {
        exchange(program, &way(stage, door, port), &format!("{door:?}"))?;
    }
    Ok(())
}

/// A library, to Mosquitto in the same ways.
pub(super) fn library_to_mosquitto(stage: &Stage, library: &Library<'_>) -> Result<()> {
    let (_broker, ports) = mosquitto(stage)?;
    for (door, port) in WAYS.into_iter().zip(ports) {
        let exchanged = library.exchange(&place(stage, door, port));
        exchanged.with_context(|| format!("{door:?}"))?;
    }
    Ok(())
}

fn place(stage: &Stage, door: Door, port: u16) -> Place {
    // The name that is in the certificate.
    let host = "localhost".to_owned();
    Place::new(stage, door, Address { host, port })
}

/// The arguments of the program for a listener of that kind.
fn way(stage: &Stage, door: Door, port: u16) -> Vec<String> {
    let place = place(stage, door, port);
    let mut way = vec!["-h".to_owned(), place.address.host];
    way.extend(["-p".to_owned(), port.to_string()]);
    if let Some(authority) = place.authority {
        way.extend(["--cafile".to_owned(), authority.display().to_string()]);
    }
    if let Some(path) = place.path {
        way.extend(["--ws-path".to_owned(), path.to_owned()]);
    }
    way
}

/// A Mosquitto with a listener of each kind.
fn mosquitto(stage: &Stage) -> Result<(Running, Vec<u16>)> {
    started(WAYS.len(), |ports| {
        let file = |name: &str| stage.certificates.file(name).display().to_string();
        let server = format!(
            "certfile {}\nkeyfile {}\n",
            file("server.pem"),
            file("server.key")
        );
        // Without the domain its WebSocket listens on all interfaces.
        let web = "protocol websockets\nsocket_domain ipv4\n";
        let mut text = "allow_anonymous true\nuser root\npersistence false\n".to_owned();
        for (door, port) in WAYS.into_iter().zip(ports) {
            let web = if door == Door::Tls { "" } else { web };
            let server = if door == Door::WebSocket { "" } else { &server };
            text.push_str(&format!("listener {port} 127.0.0.1\n{web}{server}"));
        }
        let path = stage.folder.join("mosquitto.conf");
        fs::write(&path, text)?;
        let mut command = Command::new(MOSQUITTO);
        command.arg("-c").arg(&path);
        Ok(command)
    })
}

/// Starts a program that listens on free ports, and waits until it does.
pub(super) fn started(
    count: usize,
    command: impl Fn(&[u16]) -> Result<Command>,
) -> Result<(Running, Vec<u16>)> {
    for _ in 0..ATTEMPTS {
        let ports = free_ports(count)?;
        let mut command = command(&ports)?;
        let process = Running::start(&mut command, None)
            .with_context(|| format!("{:?}", command.get_program()))?;
        let deadline = Instant::now() + PATIENCE / 4;
        while Instant::now() < deadline {
            // In the table of the system, without a connection.
            let table = fs::read_to_string("/proc/net/tcp")?;
            let listens = |port: &u16| table.contains(&format!(":{port:04X} 00000000:0000 0A"));
            if ports.iter().all(listens) {
                return Ok((process, ports));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    bail!("it does not listen")
}

/// In both versions: a message of each quality of service, short and long.
fn exchange(program: &Path, way: &[String], name: &str) -> Result<()> {
    for version in ["311", "5"] {
        let topic = format!("ours/{}/{version}", name.replace(' ', "-"));
        let mut command = ours(program, "sub", way, version);
        command.args(["-d", "-q", "2", "-t", &topic, "-C", "4"]);
        let mut subscriber = Running::start(&mut command, None)?;
        let deadline = Instant::now() + PATIENCE;
        subscriber
            .wait_for(deadline, "SUBACK", |line| {
                has_subscribed(line).then_some(())
            })
            .with_context(|| format!("{name}, {version}"))?;
        let long = "x".repeat(100_000);
        for (qos, payload) in [("0", "zero"), ("1", "one"), ("2", "two"), ("1", &long)] {
            let mut command = ours(program, "pub", way, version);
            command.args(["-q", qos, "-t", &topic, "-s"]);
            let input = payload.as_bytes().to_vec();
            let mut publisher = Running::start(&mut command, Some(input))?;
            publisher
                .succeed(deadline)
                .with_context(|| format!("{name}, {version}, QoS {qos}"))?;
            subscriber
                .wait_for(deadline, "message", |line| (line == payload).then_some(()))
                .with_context(|| format!("{name}, {version}, QoS {qos}"))?;
        }
        subscriber.succeed(deadline)?;
    }
    Ok(())
}

fn ours(program: &Path, what: &str, way: &[String], version: &str) -> Command {
    let mut words = vec![what.to_owned()];
    words.extend_from_slice(way);
    client(&program.display().to_string(), &words, version)
}
