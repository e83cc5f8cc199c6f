//! The broker under test: built here and started on a free port, or one that runs already.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::peer::Address;
use crate::{
    process::Running,
    step::execute,
    workspace::{Metadata, cargo, root},
};

/// How long the broker may take to say that it listens, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// The programs of the workspace, built with `profile`.
pub(crate) struct Programs {
    pub(crate) broker: PathBuf,
    pub(crate) client: PathBuf,
    /// Where tools are kept that a chore installs for itself.
    pub(crate) tools: PathBuf,
}

impl Programs {
    /// Builds the client, and the broker if one is to be started.
    pub(crate) fn build(profile: &str, with_broker: bool) -> Result<Self> {
        let mut command = cargo();
        command.args(["build", "--locked", "--profile", profile]);
        command.args(["--bin", "mqtt-client"]);
        if with_broker {
            command.args(["--bin", "mqtt-broker"]);
        }
        execute(&mut command)?;
        let metadata = Metadata::read(&root().join("Cargo.toml"), false)?;
        let folder = match profile {
            "dev" | "test" => "debug",
            "bench" => "release",
            other => other,
        };
        let folder = metadata.target_directory.join(folder);
        Ok(Self {
            broker: folder.join("mqtt-broker"),
            client: folder.join("mqtt-client"),
            tools: metadata.target_directory.join("interop"),
        })
    }
}

/// A broker that was started here; it ends when this is dropped, at the latest.
pub(crate) struct Broker {
    process: Running,
    pub(crate) address: Address,
}

impl Broker {
    /// Starts the program on a free port of the loopback interface, with its state in memory.
    pub(crate) fn start(program: &PathBuf) -> Result<Self> {
        Self::start_with(Command::new(program))
    }

    /// The same with the arguments that the command has already.
    pub(crate) fn start_with(mut command: Command) -> Result<Self> {
        command.args(["--listen", "127.0.0.1:0", "--in-memory"]);
        let mut process = Running::start(&mut command, None)?;
        let deadline = Instant::now() + PATIENCE;
        let address = process.wait_for(deadline, "a line `listening on tcp://`", |line| {
            parse_address(line.strip_prefix("listening on tcp://")?).ok()
        })?;
        Ok(Self { process, address })
    }

    /// Its process identifier.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// What it has printed so far that contains `text`.
    pub(crate) fn lines_with(&mut self, text: &str) -> Vec<String> {
        self.process.lines_with(text)
    }

    /// Stops it as an operator would (SIGTERM); it must end with exit code 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.terminate(Instant::now() + PATIENCE)
    }
}

/// HOST:PORT, an IPv6 host in brackets.
pub(crate) fn parse_address(text: &str) -> Result<Address> {
    let (host, port) = text.trim().rsplit_once(':').context("HOST:PORT expected")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ensure!(!host.is_empty(), "HOST:PORT expected");
    Ok(Address {
        host: host.to_owned(),
        port: port.parse().context("the port is no number")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        let address = parse_address("127.0.0.1:1883").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 1883));
        assert_eq!(parse_address("[::1]:1").unwrap().host, "::1");
        assert!(parse_address("1883").is_err());
        assert!(parse_address("host:port").is_err());
    }
}
