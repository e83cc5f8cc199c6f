//! haproxy in front of the broker, which tells it by the PROXY protocol for whom it speaks.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    mosquitto::{Subscriber, ensure_refused, port, publish, tls},
    stage::{Door, PATIENCE, Stage},
};
use crate::{interop::peer::Address, process::Running};

/// Where Debian puts it.
pub(super) const PROGRAM: &str = "/usr/sbin/haproxy";
/// Where the clients come from; haproxy comes from 127.0.0.1.
const CLIENT: &str = "127.0.0.23";
/// How often a free port is looked for: another program may take it in between.
const ATTEMPTS: usize = 5;

/// A running haproxy, and its ports in the order of its doors.
struct Haproxy {
    _process: Running,
    ports: Vec<u16>,
}

impl Haproxy {
    /// One port for each pair of an option of `server` and a door behind it.
    fn start(stage: &Stage, ways: &[(&str, Door)]) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let ports = free_ports(ways.len())?;
            let mut text = "global\n\tmaxconn 200\ndefaults\n\tmode tcp\n\ttimeout connect 5s\n\t\
                            timeout client 30s\n\ttimeout server 30s\n"
                .to_owned();
            for ((option, door), port) in ways.iter().zip(&ports) {
                let address = stage.address(*door)?;
                text.push_str(&format!(
                    "listen port{port}\n\tbind 127.0.0.1:{port}\n\tserver broker {}:{} {option}\n",
                    address.host, address.port
                ));
            }
            let file = stage.folder.join("haproxy.cfg");
            fs::write(&file, text)?;
            let mut process =
                Running::start(Command::new(PROGRAM).arg("-db").arg("-f").arg(&file), None)?;
            match wait_for_ports(&mut process, &ports) {
                Ok(()) => {
                    return Ok(Self {
                        _process: process,
                        ports,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt")?)
    }

    fn way(&self, number: usize) -> Result<Vec<String>> {
        let port_number = *self.ports.get(number).context("no such port")?;
        let mut way = port(&Address {
            host: "127.0.0.1".into(),
            port: port_number,
        });
        way.extend(["-A".into(), CLIENT.into()]);
        Ok(way)
    }
}

pub(super) fn free_ports(count: usize) -> Result<Vec<u16>> {
    let sockets = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()?;
    let ports = sockets.iter().map(|socket| Ok(socket.local_addr()?.port()));
    ports.collect()
}

/// It says nothing when it is ready; its ports do, in the table of the system, without a connection.
fn wait_for_ports(process: &mut Running, ports: &[u16]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let table = fs::read_to_string("/proc/net/tcp")?;
        let listens = |port: &u16| table.contains(&format!(":{port:04X} 00000000:0000 0A"));
        if ports.iter().all(listens) {
            return Ok(());
        }
        let said = process.lines_with("[ALERT]");
        if !said.is_empty() || Instant::now() > deadline {
            bail!("haproxy is not ready: {said:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(super) fn check(stage: &mut Stage) -> Result<()> {
    let haproxy = Haproxy::start(
        stage,
        &[
            ("send-proxy", Door::Proxy),
            ("send-proxy-v2", Door::Proxy),
            ("send-proxy", Door::ProxyTls),
            ("send-proxy-v2", Door::ProxyTls),
        ],
    )?;
    let authority = stage.certificates.file("ca.pem").display().to_string();
    for (number, name) in ["v1", "v2", "v1-tls", "v2-tls"].into_iter().enumerate() {
        let mut way = haproxy.way(number)?;
        if name.ends_with("tls") {
            way.extend(["--cafile".into(), authority.clone()]);
        }
        let topic = format!("proxy/{name}");
        let mut subscriber = Subscriber::new(&way, "5", &topic, 1)?;
        let client_id = format!("behind-{name}");
        publish(&way, "311", &topic, "through", &["-i", &client_id])?;
        subscriber.expect(&topic, "through")?;
        subscriber.end()?;
        let line = stage.connected(&client_id)?;
        ensure!(
            line.contains(&format!("peer={CLIENT}:")),
            "{name}: the address of the client is not known: {line}"
        );
    }
    // Who comes without a header is not served, nor who is no proxy that is trusted.
    ensure_refused(
        &port(stage.address(Door::Proxy)?),
        "311",
        "without a header",
    )?;
    stage.refused("PROXY")?;
    let mut stranger = port(stage.address(Door::Proxy)?);
    stranger.extend(["-A".into(), CLIENT.into()]);
    ensure_refused(&stranger, "311", "from an address that is not trusted")?;
    stage.refused("not from a proxy that is trusted")?;
    ensure_refused(
        &tls(&stage.certificates, stage.address(Door::ProxyTls)?, None),
        "311",
        "without a header",
    )?;
    stage.refused("PROXY")
}
