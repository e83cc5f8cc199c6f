//! The lines of an export: one JSON object each, whose `kind` says which of the structures below it is.
//!
//! Times are milliseconds since the Unix epoch; bytes are base64. What is absent is not written.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mqtt_codec::{PacketId, QoS, RetainHandling, SubscriptionIdentifier};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The version of these lines.
pub(super) const FORMAT: u32 = 1;

/// What is wrong with a line, without its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// The key that is wrong, with those around it: `will.delay`. Empty if it is the whole line.
    pub(super) key: String,
    pub(super) problem: String,
}

impl BadLine {
    pub(super) fn new(key: &str, problem: impl ToString) -> Self {
        Self {
            key: key.to_owned(),
            problem: problem.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line {
    Header(Header),
    Session(Session),
    Subscription(Subscription),
    Body(Body),
    Message(Queued),
    InFlight(InFlight),
    Received(Received),
    Retained(Retained),
    End(End),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Of the export: [`FORMAT`].
    pub(super) format: u32,
    /// Of the store that was exported.
    pub(super) store_format: u16,
    /// Of the broker that exported.
    pub(super) version: String,
    /// When something was last stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_commit: Option<u64>,
    /// Damaged records that were left out.
    pub(super) skipped: u64,
}

/// What belongs to a session follows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Session {
    /// Its number, which those that belong to it refer to.
    pub(super) session: u64,
    pub(super) client_id: String,
    /// The user that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    /// It belongs to clients without a user name. Else, without a user: to whoever comes first.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(super) anonymous: bool,
    /// Seconds; 4,294,967,295: for ever.
    pub(super) expiry_interval: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) will: Option<Will>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Will {
    /// Seconds.
    pub(super) delay: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) due: Option<u64>,
    /// The level of the protocol of its client.
    pub(super) level: u8,
    /// The PUBLISH packet of MQTT 5.0.
    pub(super) publish: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscription {
    pub(super) session: u64,
    pub(super) filter: String,
    #[serde(with = "qos")]
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    #[serde(with = "retain_handling")]
    pub(super) retain_handling: RetainHandling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identifier: Option<Identifier>,
    /// It has not got all of its retained messages.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(super) owed: bool,
}

/// What several sessions wait for; it stands before the first message that refers to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) body: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    pub(super) message: Content,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    pub(super) topic: String,
    /// At which it was published.
    #[serde(with = "qos")]
    pub(super) qos: QoS,
    /// Those properties of the PUBLISH that are passed on unaltered, as in the packet without their length.
    pub(super) properties: Bytes,
    pub(super) payload: Bytes,
}

/// A message that a session waits for, or that is in flight. It has either a body or a message of its own.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queued {
    pub(super) session: u64,
    /// Its place in the order of the session.
    pub(super) key: u64,
    #[serde(with = "qos")]
    pub(super) qos: QoS,
    pub(super) retain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identifiers: Option<Vec<Identifier>>,
    /// The shared subscription that chose the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<Content>,
}

/// A QoS 2 message on its way to the client, in the order of sending.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InFlight {
    pub(super) session: u64,
    #[serde(with = "packet_id")]
    pub(super) packet_id: PacketId,
    /// The message; absent once PUBREC came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<u64>,
}

/// The identifier of a QoS 2 message from the client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Received {
    pub(super) session: u64,
    #[serde(with = "packet_id")]
    pub(super) packet_id: PacketId,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retained {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<u64>,
    /// The client identifier of its publisher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publisher: Option<String>,
    pub(super) message: Content,
}

/// The last line: an export without it is not complete.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    /// How many lines there are before this one.
    pub(super) lines: u64,
}

impl Line {
    pub(super) fn parse(text: &[u8]) -> Result<Self, BadLine> {
        let mut object: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| BadLine::new("", error))?;
        let kind = object
            .remove("kind")
            .ok_or_else(|| BadLine::new("kind", "is missing"))?;
        match kind.as_str().unwrap_or_default() {
            "header" => fields(object).map(Self::Header),
            "session" => fields(object).map(Self::Session),
            "subscription" => fields(object).map(Self::Subscription),
            "body" => fields(object).map(Self::Body),
            "message" => fields(object).map(Self::Message),
            "in_flight" => fields(object).map(Self::InFlight),
            "received" => fields(object).map(Self::Received),
            "retained" => fields(object).map(Self::Retained),
            "end" => fields(object).map(Self::End),
            _ => Err(BadLine::new("kind", format_args!("unknown: {kind}"))),
        }
    }
}

fn fields<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, BadLine> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let path = error.path().to_string();
        BadLine {
            // A dot: the whole line, of which a key is missing; the message names it.
            key: if path == "." { String::new() } else { path },
            problem: error.into_inner().to_string(),
        }
    })
}

/// Bytes, in JSON as base64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(D::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Identifier(pub(super) SubscriptionIdentifier);

impl Serialize for Identifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.get())
    }
}

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        SubscriptionIdentifier::new(u32::deserialize(deserializer)?)
            .map(Self)
            .ok_or_else(|| D::Error::custom("not from 1 to 268,435,455"))
    }
}

mod qos {
    use super::*;

    pub(super) fn serialize<S: Serializer>(qos: &QoS, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*qos as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<QoS, D::Error> {
        QoS::from_bits(u8::deserialize(input)?).ok_or_else(|| D::Error::custom("not 0, 1 or 2"))
    }
}

mod retain_handling {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        handling: &RetainHandling,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*handling as u8)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<RetainHandling, D::Error> {
        match u8::deserialize(input)? {
            0 => Ok(RetainHandling::Always),
            1 => Ok(RetainHandling::IfNew),
            2 => Ok(RetainHandling::Never),
            _ => Err(D::Error::custom("not 0, 1 or 2")),
        }
    }
}

mod packet_id {
    use super::*;

    pub(super) fn serialize<S: Serializer>(id: &PacketId, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u16(id.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<PacketId, D::Error> {
        PacketId::new(u16::deserialize(input)?).ok_or_else(|| D::Error::custom("is 0"))
    }
}
