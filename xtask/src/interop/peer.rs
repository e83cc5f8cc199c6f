//! The clients that talk to the broker, and what is asked of them.

use std::{fmt, path::Path};

use super::{library::Library, program::Program};
use crate::install::NotInstalled;

/// The name of this project's library.
pub(super) const OURS: &str = "ternmq";

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V3_1,
    V3_1_1,
    V5,
}

impl Version {
    pub(super) const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    /// As the flag `-V` of mosquitto's programs names it.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::V3_1 => "31",
            Self::V3_1_1 => "311",
            Self::V5 => "5",
        }
    }

    /// The protocol level of CONNECT.
    pub(super) fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5 => 5,
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
    pub(super) kind: Kind,
}

/// How a client implementation is driven.
#[derive(Debug)]
pub(super) enum Kind {
    /// A process for each publisher and subscriber.
    Program(Program),
    /// A process that holds many clients and takes commands.
    Library(Library),
}

impl Peer {
    /// Every client, this project's as the program at `client`, libraries below the folder `tools`.
    pub(super) fn all(client: &Path, tools: &Path) -> Vec<Self> {
        vec![
            Self {
                name: "mosquitto",
                kind: Kind::Program(Program::mosquitto()),
            },
            Self {
                name: "mqtt-client",
                kind: Kind::Program(Program::ours(client)),
            },
            Self {
                name: "paho",
                kind: Kind::Library(Library::paho(tools)),
            },
            Self {
                name: "mqtt.js",
                kind: Kind::Library(Library::mqtt_js(tools)),
            },
            Self {
                name: OURS,
                kind: Kind::Library(Library::ours(tools)),
            },
        ]
    }

    /// Sees to it that the client is there.
    pub(super) fn prepare(&self) -> Result<(), NotInstalled> {
        match &self.kind {
            Kind::Program(program) => program.prepare(),
            Kind::Library(library) => library.prepare(),
        }
    }

    pub(super) fn is_library(&self) -> bool {
        matches!(self.kind, Kind::Library(_))
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
    /// One message of these bytes.
    Bytes(Vec<u8>),
    /// One message a line.
    Lines(Vec<String>),
    Empty,
}

impl Payload {
    /// The payload of each message.
    pub(super) fn each(self) -> Vec<Vec<u8>> {
        match self {
            Self::Text(text) => vec![text.into_bytes()],
            Self::Bytes(bytes) => vec![bytes],
            Self::Lines(lines) => lines.into_iter().map(String::into_bytes).collect(),
            Self::Empty => vec![Vec::new()],
        }
    }
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
    /// It is done after so many messages; a program then ends by itself.
    pub(super) count: Option<usize>,
    /// The session outlives the connection.
    pub(super) persistent: bool,
    pub(super) will: Option<Will>,
}
