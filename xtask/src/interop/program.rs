//! Clients that are programs with the flags of mosquitto_pub and mosquitto_sub.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    message::FORMAT,
    peer::{Address, Payload, Publication, Subscription, Version},
};
use crate::install::{self, NotInstalled};

/// How a client of this kind is called.
#[derive(Debug)]
pub(super) struct Program {
    publish: Vec<OsString>,
    subscribe: Vec<OsString>,
    /// A program and the Debian package that brings it.
    package: Option<(&'static str, &'static str)>,
}

impl Program {
    /// The clients that come with mosquitto.
    pub(super) fn mosquitto() -> Self {
        Self {
            publish: vec!["mosquitto_pub".into()],
            // What it says until the first message would stay in a buffer, but for stdbuf.
            subscribe: ["stdbuf", "-oL", "mosquitto_sub"].map(Into::into).into(),
            package: Some(("mosquitto_sub", "mosquitto-clients")),
        }
    }

    /// This project's client, as the program at `path`.
    pub(super) fn ours(path: &Path) -> Self {
        Self {
            publish: vec![path.into(), "pub".into()],
            subscribe: vec![path.into(), "sub".into()],
            package: None,
        }
    }

    /// The program that publishes.
    pub(super) fn path(&self) -> Option<&Path> {
        self.publish.first().map(Path::new)
    }

    /// Sees to it that the program is there.
    pub(super) fn prepare(&self) -> Result<(), NotInstalled> {
        match self.package {
            Some((program, package)) => install::apt(program, package),
            None => Ok(()),
        }
    }

    /// The command of a publisher and what goes to its standard input.
    pub(super) fn publish(
        &self,
        what: Publication,
        address: &Address,
    ) -> (Command, Option<Vec<u8>>) {
        let mut command = base(&self.publish, address, what.version, &what.client_id);
        command.args(["-q", &what.qos.to_string(), "-t", &what.topic]);
        if what.retain {
            command.arg("-r");
        }
        let input = match what.payload {
            Payload::Text(text) => {
                command.args(["-m", &text]);
                None
            }
            Payload::Bytes(bytes) => {
                command.arg("-s");
                Some(bytes)
            }
            Payload::Lines(lines) => {
                command.arg("-l");
                Some((lines.join("\n") + "\n").into_bytes())
            }
            Payload::Empty => {
                command.arg("-n");
                None
            }
        };
        (command, input)
    }

    /// The command of a subscriber. It says on standard output when it has subscribed, then what it
    /// receives.
    pub(super) fn subscribe(&self, what: &Subscription, address: &Address) -> Command {
        let mut command = base(&self.subscribe, address, what.version, &what.client_id);
        command.args(["-d", "-F", FORMAT, "-q", &what.qos.to_string()]);
        for filter in &what.filters {
            command.args(["-t", filter]);
        }
        // Ends an orphan, should this program be killed.
        command.args(["-W", "120"]);
        if let Some(count) = what.count {
            command.args(["-C", &count.to_string()]);
        }
        if what.persistent {
            command.arg("-c");
            if what.version == Version::V5 {
                command.args(["-x", "300"]);
            }
        }
        if let Some(will) = &what.will {
            command.args(["--will-topic", &will.topic, "--will-payload", &will.payload]);
            command.args(["--will-qos", &will.qos.to_string()]);
            if will.retain {
                command.arg("--will-retain");
            }
        }
        command
    }
}

/// Whether this line of a subscriber's output says that the broker has answered SUBSCRIBE; what it
/// prints further may come after the message it ends with.
pub(super) fn has_subscribed(line: &str) -> bool {
    line.contains("received SUBACK")
}

fn base(program: &[OsString], address: &Address, version: Version, client_id: &str) -> Command {
    let (first, rest) = program
        .split_first()
        .map_or_else(|| ("false".into(), [].as_slice()), |(p, r)| (p.clone(), r));
    let mut command = Command::new(first);
    // A person's option files and variables must not change what is tested.
    for variable in ["MQTT_HOST", "MQTT_PORT", "MQTT_USERNAME", "MQTT_PASSWORD"] {
        command.env_remove(variable);
    }
    command.env("XDG_CONFIG_HOME", PathBuf::from("/nonexistent"));
    command.args(rest);
    command.args(["-h", &address.host, "-p", &address.port.to_string()]);
    command.args(["-V", version.flag(), "-i", client_id]);
    command
}
