//! Why the machine refuses an input, and who is to blame.

use mqtt_codec::{PacketId, PacketType, ReasonCode};

use crate::Role;

/// Who caused an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The peer broke the standard, or refused us: close the connection.
    Peer,
    /// The caller used the machine against its rule of use.
    Caller,
}

/// Why the machine refuses an input. After an error that is the peer's fault the connection is to be
/// closed, where the version has it with a DISCONNECT of [`reason_code`](Self::reason_code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More QoS 1 and 2 messages are unacknowledged than the peer may have.
    #[error("PUBLISH: more than {limit} messages of QoS 1 and 2 are unacknowledged")]
    ReceiveMaximumExceeded {
        /// What it may have.
        limit: u16,
        /// The end that sent the message.
        sender: Role,
    },
    /// A topic alias above the Topic Alias Maximum that the peer was told.
    #[error("PUBLISH: topic alias {alias} is above the maximum of {maximum}")]
    TopicAliasInvalid {
        /// The alias.
        alias: u16,
        /// What the peer was told.
        maximum: u16,
        /// The end that sent the message.
        sender: Role,
    },
    /// A topic alias that was never set on this connection.
    #[error("PUBLISH: topic alias {alias} was not set on this connection")]
    TopicAliasUnknown {
        /// The alias.
        alias: u16,
    },
    /// Neither topic nor alias.
    #[error("PUBLISH: neither topic nor topic alias")]
    TopicMissing,
    /// A message above the Maximum QoS that the client was told.
    #[error("PUBLISH: quality of service above the maximum")]
    QosNotSupported,
    /// A retained message although the client was told that there are none.
    #[error("PUBLISH: retained messages are not supported")]
    RetainNotSupported,
    /// A client sent a subscription identifier.
    #[error("PUBLISH: a client may not send a subscription identifier")]
    SubscriptionIdentifierSent,
    /// An acknowledgement that does not belong to the message or request of its identifier.
    #[error("{packet_type:?}: identifier {} is that of something else", packet_id.get())]
    UnexpectedAck {
        /// What came.
        packet_type: PacketType,
        /// Its identifier.
        packet_id: PacketId,
    },
    /// The server sent another packet before CONNACK.
    #[error("{packet_type:?}: came before CONNACK")]
    NotConnected {
        /// What came.
        packet_type: PacketType,
    },
    /// A CONNACK on a connection that has had one.
    #[error("CONNACK: the connection is established")]
    SecondConnAck,
    /// Session Present 1, but the client has no session or asked for a clean start.
    #[error("CONNACK: session present, but this client has none")]
    SessionPresent,
    /// The server refused the connection.
    #[error("CONNACK: refused with reason code {:#04x}", reason.0)]
    Refused {
        /// Its reason code.
        reason: ReasonCode,
    },
    /// The caller passed a packet that is not PUBACK, PUBREC, PUBREL or PUBCOMP.
    #[error("{packet_type:?}: is no acknowledgement of a PUBLISH")]
    NotAnAck {
        /// What was passed.
        packet_type: PacketType,
    },
    /// The caller passed a PUBLISH of QoS 1 or 2 without packet identifier, which the codec never gives.
    #[error("PUBLISH: no packet identifier")]
    PacketIdMissing,
}

impl Error {
    /// Who caused it.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::NotAnAck { .. } | Self::PacketIdMissing => Blame::Caller,
            _ => Blame::Peer,
        }
    }

    /// The reason code to close the connection with.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::ReceiveMaximumExceeded { .. } => ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
            Self::TopicAliasInvalid { .. } => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::QosNotSupported => ReasonCode::QOS_NOT_SUPPORTED,
            Self::RetainNotSupported => ReasonCode::RETAIN_NOT_SUPPORTED,
            Self::Refused { reason } => *reason,
            Self::NotAnAck { .. } | Self::PacketIdMissing => {
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            }
            _ => ReasonCode::PROTOCOL_ERROR,
        }
    }

    /// The clause of the standard that is broken, in the numbering of MQTT 5.0; what has no clause of
    /// its own falls under the one on protocol errors.
    #[must_use]
    pub const fn clause(&self) -> &'static str {
        match self {
            Self::ReceiveMaximumExceeded {
                sender: Role::Client,
                ..
            } => "MQTT-3.3.4-7",
            Self::ReceiveMaximumExceeded {
                sender: Role::Server,
                ..
            } => "MQTT-3.3.4-9",
            Self::TopicAliasInvalid { alias: 0, .. } => "MQTT-3.3.2-8",
            Self::TopicAliasInvalid {
                sender: Role::Client,
                ..
            } => "MQTT-3.3.2-9",
            Self::TopicAliasInvalid {
                sender: Role::Server,
                ..
            } => "MQTT-3.3.2-11",
            Self::QosNotSupported => "MQTT-3.2.2-11",
            Self::RetainNotSupported => "MQTT-3.2.2-14",
            Self::SubscriptionIdentifierSent => "MQTT-3.3.4-6",
            Self::UnexpectedAck { .. } => "MQTT-2.2.1-5",
            Self::SessionPresent => "MQTT-3.2.2-4",
            Self::PacketIdMissing => "MQTT-2.2.1-3",
            Self::NotConnected { .. } => "MQTT-3.2.0-1",
            Self::SecondConnAck => "MQTT-3.2.0-2",
            Self::Refused { .. } => "MQTT-3.2.2-7",
            _ => "MQTT-4.13.1-1",
        }
    }
}
