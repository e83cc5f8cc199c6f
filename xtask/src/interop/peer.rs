//! The clients that talk to the broker: programs with the flags of mosquitto_pub and mosquitto_sub.
//!
//! A client with other flags joins by a small program that takes these flags, as another
//! [`Peer`] in [`Peer::all`].

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use super::message::FORMAT;
use crate::install::{self, NotInstalled};

/// A version of MQTT as the flag `-V` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3_1,
    V3_1_1,
    V5,
}

impl Version {
    pub(super) const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    fn flag(self) -> &'static str {
        match self {
            Self::V3_1 => "31",
            Self::V3_1_1 => "311",
            Self::V5 => "5",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// One client implementation.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    publish: Vec<OsString>,
    subscribe: Vec<OsString>,
    /// A program and the Debian package that brings it.
    package: Option<(&'static str, &'static str)>,
}

impl Peer {
    /// Every client, this project's as the program at `client`.
    pub(super) fn all(client: &Path) -> Vec<Self> {
        let ours = |subcommand: &str| vec![client.into(), subcommand.into()];
        vec![
            Self {
                name: "mosquitto",
                publish: vec!["mosquitto_pub".into()],
                // What it says until the first message would stay in a buffer, but for stdbuf.
                subscribe: ["stdbuf", "-oL", "mosquitto_sub"].map(Into::into).into(),
                package: Some(("mosquitto_sub", "mosquitto-clients")),
            },
            Self {
                name: "mqtt-client",
                publish: ours("pub"),
                subscribe: ours("sub"),
                package: None,
            },
        ]
    }

    /// Sees to it that the client is there.
    pub(super) fn prepare(&self) -> Result<(), NotInstalled> {
        match self.package {
            Some((program, package)) => install::apt(program, package),
            None => Ok(()),
        }
    }
}

/// Where the broker listens.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What a publisher is to send.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    Text(String),
    /// One message of these bytes, through standard input.
    Bytes(Vec<u8>),
    /// One message a line, through standard input.
    Lines(Vec<String>),
    Empty,
}

/// One run of a publisher.
#[derive(Debug, Clone)]
pub(super) struct Publication {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) topic: String,
    pub(super) payload: Payload,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Further flags.
    pub(super) extra: Vec<String>,
}

impl Publication {
    /// The command and what goes to its standard input.
    pub(super) fn command(self, peer: &Peer, address: &Address) -> (Command, Option<Vec<u8>>) {
        let mut command = base(&peer.publish, address, self.version, &self.client_id);
        command.args(["-q", &self.qos.to_string(), "-t", &self.topic]);
        if self.retain {
            command.arg("-r");
        }
        command.args(&self.extra);
        let input = match self.payload {
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
}

/// A will that a subscriber leaves with the broker.
#[derive(Debug, Clone)]
pub(super) struct Will {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

/// One run of a subscriber.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) version: Version,
    pub(super) client_id: String,
    pub(super) filters: Vec<String>,
    pub(super) qos: u8,
    /// It ends by itself after so many messages.
    pub(super) count: Option<usize>,
    /// The session outlives the connection.
    pub(super) persistent: bool,
    pub(super) will: Option<Will>,
}

impl Subscription {
    /// The command. It says on standard output when it has subscribed, then what it receives.
    pub(super) fn command(&self, peer: &Peer, address: &Address) -> Command {
        let mut command = base(&peer.subscribe, address, self.version, &self.client_id);
        command.args(["-d", "-F", FORMAT, "-q", &self.qos.to_string()]);
        for filter in &self.filters {
            command.args(["-t", filter]);
        }
        // Ends an orphan, should this program be killed.
        command.args(["-W", "120"]);
        if let Some(count) = self.count {
            command.args(["-C", &count.to_string()]);
        }
        if self.persistent {
            command.arg("-c");
            if self.version == Version::V5 {
                command.args(["-x", "300"]);
            }
        }
        if let Some(will) = &self.will {
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
