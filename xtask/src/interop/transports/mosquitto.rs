//! mosquitto's programs over TLS, with certificates, and through a socket in the file system.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{
    certificates::Certificates,
    stage::{Door, PATIENCE, Stage},
};
use crate::{
    interop::{peer::Address, program::has_subscribed},
    process::Running,
};

pub(in crate::interop) const VERSIONS: [&str; 3] = ["31", "311", "5"];

/// What a client of mosquitto is told about the way to the broker.
pub(in crate::interop) type Way = Vec<String>;

/// The way to a port.
pub(in crate::interop) fn port(address: &Address) -> Way {
    vec![
        "-h".into(),
        address.host.clone(),
        "-p".into(),
        address.port.to_string(),
    ]
}

/// The way through TLS, with a certificate of the client if one is named.
pub(in crate::interop) fn tls(
    certificates: &Certificates,
    address: &Address,
    identity: Option<&str>,
) -> Way {
    let mut way = port(address);
    let file = |name: &str| certificates.file(name).display().to_string();
    way.extend(["--cafile".into(), file("ca.pem")]);
    if let Some(name) = identity {
        way.extend(["--cert".into(), file(&format!("{name}.pem"))]);
        way.extend(["--key".into(), file(&format!("{name}.key"))]);
    }
    way
}

/// The way through a socket in the file system.
pub(super) fn unix(path: &Path) -> Way {
    vec!["--unix".into(), path.display().to_string()]
}

/// One of mosquitto's programs, which is ended after a while.
pub(in crate::interop) fn client(program: &str, way: &[String], version: &str) -> Command {
    let mut command = Command::new("timeout");
    // What a subscriber says until the first message would stay in a buffer, but for stdbuf.
    command.args([&PATIENCE.as_secs().to_string(), "stdbuf", "-oL", program]);
    // A person's option files and variables must not change what is tested.
    for variable in ["MQTT_HOST", "MQTT_PORT", "MQTT_USERNAME", "MQTT_PASSWORD"] {
        command.env_remove(variable);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command.args(way).args(["-V", version]);
    command
}

/// A subscriber that has subscribed.
pub(in crate::interop) struct Subscriber {
    process: Running,
}

impl Subscriber {
    /// Subscribes and waits for the answer. It ends after so many messages.
    pub(in crate::interop) fn new(
        way: &[String],
        version: &str,
        filter: &str,
        count: usize,
    ) -> Result<Self> {
        let mut command = client("mosquitto_sub", way, version);
        command.args(["-d", "-v", "-q", "2", "-t", filter]);
        command.args(["-C", &count.to_string()]);
        let mut process = Running::start(&mut command, None)?;
        let deadline = Instant::now() + PATIENCE;
        process.wait_for(deadline, "SUBACK", |line| {
            has_subscribed(line).then_some(())
        })?;
        Ok(Self { process })
    }

    /// The next message must be this.
    pub(in crate::interop) fn expect(&mut self, topic: &str, payload: &str) -> Result<()> {
        let expected = format!("{topic} {payload}");
        let deadline = Instant::now() + PATIENCE;
        self.process
            .wait_for(deadline, "message", |line| (line == expected).then_some(()))
    }

    pub(in crate::interop) fn end(mut self) -> Result<()> {
        self.process.succeed(Instant::now() + PATIENCE)
    }
}

/// Publishes one message, with more arguments if need be.
pub(in crate::interop) fn publish(
    way: &[String],
    version: &str,
    topic: &str,
    payload: &str,
    more: &[&str],
) -> Result<()> {
    let mut command = client("mosquitto_pub", way, version);
    command
        .args(["-q", "2", "-t", topic, "-m", payload])
        .args(more);
    Running::start(&mut command, None)?.succeed(Instant::now() + PATIENCE)
}

/// A publisher must not get in.
pub(in crate::interop) fn ensure_refused(way: &[String], version: &str, why: &str) -> Result<()> {
    let mut command = client("mosquitto_pub", way, version);
    command.args(["-t", "refused", "-m", "refused"]);
    let output = command.output().context("mosquitto_pub")?;
    ensure!(!output.status.success(), "it got in {why}");
    Ok(())
}

/// In every version: what is published on the way arrives on the way, in short and long.
fn there_and_back(way: &[String], name: &str) -> Result<()> {
    // More than a record of TLS, and less than an argument may be.
    let long = "x".repeat(100_000);
    for version in VERSIONS {
        let topic = format!("{name}/{version}");
        let mut subscriber = Subscriber::new(way, version, &topic, 2)?;
        for payload in ["short", &long] {
            publish(way, version, &topic, payload, &[])?;
            subscriber.expect(&topic, payload)?;
        }
        subscriber.end()?;
    }
    Ok(())
}

pub(super) fn over_tls(stage: &mut Stage) -> Result<()> {
    let address = stage.address(Door::Tls)?;
    let way = tls(&stage.certificates, address, None);
    there_and_back(&way, "tls")?;
    for version in ["tlsv1.2", "tlsv1.3"] {
        publish(
            &way,
            "5",
            "tls/version",
            version,
            &["--tls-version", version],
        )?;
    }
    // A client that does not trust the authority does not come in, nor one without TLS.
    let own = stage.certificates.file("client.pem").display().to_string();
    let mut distrust = port(stage.address(Door::Tls)?);
    distrust.extend(["--cafile".into(), own]);
    ensure_refused(&distrust, "311", "though it does not trust the broker")?;
    ensure_refused(&port(stage.address(Door::Tls)?), "311", "without TLS")?;
    stage.refused("TLS handshake")
}

pub(super) fn with_certificate(stage: &mut Stage) -> Result<()> {
    let address = stage.address(Door::MutualTls)?.clone();
    let way = tls(&stage.certificates, &address, Some("client"));
    there_and_back(&way, "mutual")?;
    publish(&way, "5", "mutual/user", "x", &["-i", "mutual-client"])?;
    let line = stage.connected("mutual-client")?;
    ensure!(
        line.contains("user=\"client\""),
        "its certificate does not say who it is: {line}"
    );
    let without = tls(&stage.certificates, &address, None);
    ensure_refused(&without, "311", "without a certificate")?;
    stage.refused("TLS handshake")
}

pub(super) fn through_unix_socket(stage: &mut Stage) -> Result<()> {
    there_and_back(&unix(&stage.unix_socket()), "unix")
}
