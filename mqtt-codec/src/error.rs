//! Why a packet was rejected, or cannot be written: one error for each direction.

use core::fmt;

use thiserror::Error;

use crate::{PacketType, ProtocolVersion, ReasonCode, TopicError};

/// What is wrong with received bytes.
///
/// The kind says what rule was broken, [`clause`](Self::clause) where the standard states it and
/// [`reason_code`](Self::reason_code) what to tell the peer. Too few bytes are not an error: see
/// [`decode`](crate::decode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{place}: {kind} [{clause}]")]
pub struct DecodeError {
    kind: DecodeErrorKind,
    place: &'static str,
    clause: &'static str,
}

impl DecodeError {
    #[cold]
    pub(crate) const fn new(
        kind: DecodeErrorKind,
        place: &'static str,
        clause: &'static str,
    ) -> Self {
        Self {
            kind,
            place,
            clause,
        }
    }

    /// What rule was broken.
    #[must_use]
    pub const fn kind(&self) -> DecodeErrorKind {
        self.kind
    }

    /// The field or packet that broke it.
    #[must_use]
    pub const fn place(&self) -> &'static str {
        self.place
    }

    /// The statement of the standard, such as `MQTT-3.3.1-4`.
    ///
    /// Numbers are those of MQTT 5.0; a rule that only 3.1.1 has bears 3.1.1's number and the
    /// prefix `MQTT3`. A rule without a number is given as `section 2.2.2.2` of 5.0.
    #[must_use]
    pub const fn clause(&self) -> &'static str {
        self.clause
    }

    /// The reason code for the CONNACK or DISCONNECT that answers this error.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        self.kind.reason_code()
    }

    /// The version in whose format a server answers a CONNECT of an unsupported version: CONNACK
    /// with return code 0x01 in 3.1 and 3.1.1, with reason code 0x84 in 5.0. `None` for all other
    /// errors.
    #[must_use]
    pub const fn answer_version(&self) -> Option<ProtocolVersion> {
        match self.kind {
            DecodeErrorKind::UnsupportedVersion { level } => Some(match level {
                0..=3 => ProtocolVersion::V3_1,
                4 => ProtocolVersion::V3_1_1,
                _ => ProtocolVersion::V5,
            }),
            _ => None,
        }
    }
}

/// The rule that received bytes break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// A packet type that is reserved, or that this version does not have.
    #[error("reserved packet type {0}")]
    PacketType(u8),
    /// Reserved fixed-header flags are not as listed.
    #[error("invalid fixed-header flags {0:#06b}")]
    Flags(u8),
    /// DUP is set on a QoS 0 PUBLISH.
    #[error("DUP with QoS 0")]
    DupWithoutQos,
    /// A QoS of 3.
    #[error("QoS 3")]
    QoS,
    /// A Variable Byte Integer that continues past its fourth byte or is not in its shortest form.
    #[error("invalid variable byte integer")]
    VariableByteInteger,
    /// The packet is larger than the limit given to the decoder.
    #[error("packet of {size} bytes is larger than the limit of {limit}")]
    PacketTooLarge {
        /// Bytes of the whole packet, as its fixed header announces.
        size: u32,
        /// The limit.
        limit: u32,
    },
    /// A field runs past the end of its packet, or of its property section.
    #[error("runs past the end")]
    Truncated,
    /// Bytes are left after the last field.
    #[error("bytes after the last field")]
    TrailingBytes,
    /// A string is not well-formed UTF-8.
    #[error("not UTF-8")]
    Utf8,
    /// A string contains U+0000.
    #[error("contains U+0000")]
    NulCharacter,
    /// A Packet Identifier of zero.
    #[error("packet identifier 0")]
    ZeroPacketId,
    /// A topic name that is not one.
    #[error("invalid topic name: {0}")]
    TopicName(TopicError),
    /// A topic filter that is not one.
    #[error("invalid topic filter: {0}")]
    TopicFilter(TopicError),
    /// Neither a topic name nor a topic alias.
    #[error("neither topic name nor topic alias")]
    TopicMissing,
    /// No property has this identifier.
    #[error("unknown property {0:#04x}")]
    UnknownProperty(u32),
    /// The property is not allowed in this packet.
    #[error("property not allowed here")]
    MisplacedProperty,
    /// The property is repeated but may only be there once.
    #[error("repeated property")]
    RepeatedProperty,
    /// The property has a value that its definition excludes.
    #[error("property value not allowed")]
    PropertyValue,
    /// A topic alias of zero.
    #[error("topic alias 0")]
    ZeroTopicAlias,
    /// Authentication data without an authentication method.
    #[error("authentication data without method")]
    AuthenticationMethodMissing,
    /// The reason code is not one of this packet's.
    #[error("reason code {0:#04x} not allowed here")]
    ReasonCode(u8),
    /// The protocol name is neither `MQTT` nor `MQIsdp`.
    #[error("unknown protocol name")]
    ProtocolName,
    /// The protocol name is known, but not with this level.
    #[error("unsupported protocol level {level}")]
    UnsupportedVersion {
        /// The protocol level of the CONNECT.
        level: u8,
    },
    /// The reserved connect flag is set, or flags contradict each other.
    #[error("invalid connect flags {0:#010b}")]
    ConnectFlags(u8),
    /// Reserved bits of the Connect Acknowledge Flags are set.
    #[error("invalid connect acknowledge flags {0:#010b}")]
    ConnAckFlags(u8),
    /// Session Present in a CONNACK that refuses the connection.
    #[error("session present in a refusal")]
    SessionPresent,
    /// A list that must have an element has none.
    #[error("empty list")]
    EmptyList,
    /// Reserved bits of the subscription options are set.
    #[error("reserved subscription option bits {0:#010b}")]
    SubscriptionOptions(u8),
    /// A QoS of 3 in subscription options.
    #[error("QoS 3 in subscription options")]
    SubscriptionQoS,
    /// Retain Handling 3.
    #[error("retain handling 3")]
    RetainHandling,
    /// No Local on a shared subscription.
    #[error("no local on a shared subscription")]
    NoLocalShared,
}

impl DecodeErrorKind {
    /// The reason code for the CONNACK or DISCONNECT that answers this error.
    #[must_use]
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::PacketTooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::ProtocolName | Self::UnsupportedVersion { .. } => {
                ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
            }
            Self::TopicName(error) => match error {
                TopicError::NulCharacter | TopicError::TooLong => ReasonCode::MALFORMED_PACKET,
                _ => ReasonCode::TOPIC_NAME_INVALID,
            },
            Self::TopicFilter(error) => match error {
                TopicError::NulCharacter | TopicError::TooLong => ReasonCode::MALFORMED_PACKET,
                _ => ReasonCode::TOPIC_FILTER_INVALID,
            },
            Self::ZeroTopicAlias => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::TopicMissing
            | Self::RepeatedProperty
            | Self::PropertyValue
            | Self::AuthenticationMethodMissing
            | Self::ReasonCode(_)
            | Self::SessionPresent
            | Self::EmptyList
            | Self::SubscriptionQoS
            | Self::RetainHandling
            | Self::NoLocalShared => ReasonCode::PROTOCOL_ERROR,
            Self::PacketType(_)
            | Self::Flags(_)
            | Self::DupWithoutQos
            | Self::QoS
            | Self::VariableByteInteger
            | Self::Truncated
            | Self::TrailingBytes
            | Self::Utf8
            | Self::NulCharacter
            | Self::ZeroPacketId
            | Self::UnknownProperty(_)
            | Self::MisplacedProperty
            | Self::ConnectFlags(_)
            | Self::ConnAckFlags(_)
            | Self::SubscriptionOptions(_) => ReasonCode::MALFORMED_PACKET,
        }
    }
}

/// Why a packet cannot be written. Nothing has been written when one is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A string or binary field is longer than 65,535 bytes.
    #[error("{0} is longer than 65535 bytes")]
    FieldTooLong(&'static str),
    /// A string contains U+0000.
    #[error("{0} contains U+0000")]
    NulCharacter(&'static str),
    /// The remaining length would be above 268,435,455.
    #[error("remaining length of {0} bytes is above 268435455")]
    PacketTooLong(usize),
    /// The list of filters or reason codes is empty.
    #[error("{0} without an element in its list")]
    EmptyList(PacketType),
    /// A PUBLISH of QoS 1 or 2 has no packet identifier.
    #[error("PUBLISH of QoS 1 or 2 without a packet identifier")]
    PacketIdMissing,
    /// A PUBLISH of QoS 0 has a packet identifier.
    #[error("PUBLISH of QoS 0 with a packet identifier")]
    PacketIdUnexpected,
    /// A PUBLISH of QoS 0 has DUP set.
    #[error("PUBLISH of QoS 0 with DUP")]
    DupWithoutQos,
    /// A PUBLISH has no topic name and no topic alias that could stand for it.
    #[error("PUBLISH without topic name and topic alias")]
    TopicMissing,
    /// The packet does not have this reason code.
    #[error("{packet} cannot carry reason code {code}")]
    ReasonCode {
        /// The packet.
        packet: PacketType,
        /// The code.
        code: ReasonCode,
    },
    /// The version does not have this packet.
    #[error("MQTT {version} does not have {packet}")]
    NotInVersion {
        /// The packet.
        packet: PacketType,
        /// The version it was to be written for.
        version: ProtocolVersion,
    },
    /// The version allows no password without a user name.
    #[error("password without user name")]
    PasswordWithoutUsername,
    /// Authentication data without an authentication method.
    #[error("authentication data without authentication method")]
    AuthenticationMethodMissing,
    /// Session Present in a CONNACK that refuses the connection.
    #[error("session present in a refusal")]
    SessionPresent,
    /// A Maximum QoS of 2 in a CONNACK, which says that by leaving it out.
    #[error("maximum QoS of 2, which is said by leaving it out")]
    MaximumQos,
    /// No Local on a shared subscription.
    #[error("no local on a shared subscription")]
    NoLocalShared,
    /// The buffer cannot take the packet.
    #[error("buffer takes {available} bytes, the packet needs {needed}")]
    BufferTooSmall {
        /// Bytes of the packet.
        needed: usize,
        /// Bytes the buffer can still take.
        available: usize,
    },
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
