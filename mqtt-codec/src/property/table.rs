//! The table of section 2.2.2.2: every property with its identifier, name, wire type and packets.

use crate::{DecodeError, DecodeErrorKind, PacketType};

/// The 27 properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Property {
    PayloadFormatIndicator = 0x01,
    MessageExpiryInterval = 0x02,
    ContentType = 0x03,
    ResponseTopic = 0x08,
    CorrelationData = 0x09,
    SubscriptionIdentifier = 0x0B,
    SessionExpiryInterval = 0x11,
    AssignedClientIdentifier = 0x12,
    ServerKeepAlive = 0x13,
    AuthenticationMethod = 0x15,
    AuthenticationData = 0x16,
    RequestProblemInformation = 0x17,
    WillDelayInterval = 0x18,
    RequestResponseInformation = 0x19,
    ResponseInformation = 0x1A,
    ServerReference = 0x1C,
    ReasonString = 0x1F,
    ReceiveMaximum = 0x21,
    TopicAliasMaximum = 0x22,
    TopicAlias = 0x23,
    MaximumQoS = 0x24,
    RetainAvailable = 0x25,
    User = 0x26,
    MaximumPacketSize = 0x27,
    WildcardSubscriptionAvailable = 0x28,
    SubscriptionIdentifierAvailable = 0x29,
    SharedSubscriptionAvailable = 0x2A,
}

/// The form of a value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Byte,
    TwoByte,
    FourByte,
    Variable,
    Text,
    Binary,
    Pair,
}

/// A set of packets, one bit for each [`PacketType`]; bit 0, a reserved packet type, stands for
/// the properties of the Will.
pub(crate) type Packets = u16;

pub(crate) const WILL: Packets = 1;
const CONNECT: Packets = PacketType::Connect.bit();
const CONNACK: Packets = PacketType::ConnAck.bit();
const PUBLISH: Packets = PacketType::Publish.bit();
const SUBSCRIBE: Packets = PacketType::Subscribe.bit();
const DISCONNECT: Packets = PacketType::Disconnect.bit();
const AUTH: Packets = PacketType::Auth.bit();
/// Packets that answer another one and may say why.
const ANSWERS: Packets = any(&[
    CONNACK,
    PacketType::PubAck.bit(),
    PacketType::PubRec.bit(),
    PacketType::PubRel.bit(),
    PacketType::PubComp.bit(),
    PacketType::SubAck.bit(),
    PacketType::UnsubAck.bit(),
    DISCONNECT,
    AUTH,
]);
const ALL: Packets = any(&[
    ANSWERS,
    CONNECT,
    PUBLISH,
    WILL,
    SUBSCRIBE,
    PacketType::Unsubscribe.bit(),
]);

/// What is in any of some sets.
const fn any(mut sets: &[Packets]) -> Packets {
    let mut all = 0;
    while let [first, rest @ ..] = sets {
        all |= *first;
        sets = rest;
    }
    all
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) property: Property,
    pub(crate) name: &'static str,
    pub(crate) wire: Wire,
    /// The packets that may carry it.
    pub(crate) allowed: Packets,
    /// Those of them that may carry it more than once.
    pub(crate) repeated: Packets,
}

const fn row(
    property: Property,
    name: &'static str,
    wire: Wire,
    allowed: &[Packets],
    repeated: &[Packets],
) -> Definition {
    Definition {
        property,
        name,
        wire,
        allowed: any(allowed),
        repeated: any(repeated),
    }
}

#[rustfmt::skip]
pub(crate) static TABLE: [Definition; 27] = [
    row(Property::PayloadFormatIndicator, "Payload Format Indicator", Wire::Byte, &[PUBLISH, WILL], &[]),
    row(Property::MessageExpiryInterval, "Message Expiry Interval", Wire::FourByte, &[PUBLISH, WILL], &[]),
    row(Property::ContentType, "Content Type", Wire::Text, &[PUBLISH, WILL], &[]),
    row(Property::ResponseTopic, "Response Topic", Wire::Text, &[PUBLISH, WILL], &[]),
    row(Property::CorrelationData, "Correlation Data", Wire::Binary, &[PUBLISH, WILL], &[]),
    row(Property::SubscriptionIdentifier, "Subscription Identifier", Wire::Variable, &[PUBLISH, SUBSCRIBE], &[PUBLISH]),
    row(Property::SessionExpiryInterval, "Session Expiry Interval", Wire::FourByte, &[CONNECT, CONNACK, DISCONNECT], &[]),
    row(Property::AssignedClientIdentifier, "Assigned Client Identifier", Wire::Text, &[CONNACK], &[]),
    row(Property::ServerKeepAlive, "Server Keep Alive", Wire::TwoByte, &[CONNACK], &[]),
    row(Property::AuthenticationMethod, "Authentication Method", Wire::Text, &[CONNECT, CONNACK, AUTH], &[]),
    row(Property::AuthenticationData, "Authentication Data", Wire::Binary, &[CONNECT, CONNACK, AUTH], &[]),
    row(Property::RequestProblemInformation, "Request Problem Information", Wire::Byte, &[CONNECT], &[]),
    row(Property::WillDelayInterval, "Will Delay Interval", Wire::FourByte, &[WILL], &[]),
    row(Property::RequestResponseInformation, "Request Response Information", Wire::Byte, &[CONNECT], &[]),
    row(Property::ResponseInformation, "Response Information", Wire::Text, &[CONNACK], &[]),
    row(Property::ServerReference, "Server Reference", Wire::Text, &[CONNACK, DISCONNECT], &[]),
    row(Property::ReasonString, "Reason String", Wire::Text, &[ANSWERS], &[]),
    row(Property::ReceiveMaximum, "Receive Maximum", Wire::TwoByte, &[CONNECT, CONNACK], &[]),
    row(Property::TopicAliasMaximum, "Topic Alias Maximum", Wire::TwoByte, &[CONNECT, CONNACK], &[]),
    row(Property::TopicAlias, "Topic Alias", Wire::TwoByte, &[PUBLISH], &[]),
    row(Property::MaximumQoS, "Maximum QoS", Wire::Byte, &[CONNACK], &[]),
    row(Property::RetainAvailable, "Retain Available", Wire::Byte, &[CONNACK], &[]),
    row(Property::User, "User Property", Wire::Pair, &[ALL], &[ALL]),
    row(Property::MaximumPacketSize, "Maximum Packet Size", Wire::FourByte, &[CONNECT, CONNACK], &[]),
    row(Property::WildcardSubscriptionAvailable, "Wildcard Subscription Available", Wire::Byte, &[CONNACK], &[]),
    row(Property::SubscriptionIdentifierAvailable, "Subscription Identifier Available", Wire::Byte, &[CONNACK], &[]),
    row(Property::SharedSubscriptionAvailable, "Shared Subscription Available", Wire::Byte, &[CONNACK], &[]),
];

/// The row of each identifier in [`TABLE`]; past its end where there is none.
static ROWS: [u8; 64] = rows();

#[allow(
    clippy::indexing_slicing,
    reason = "evaluated when the crate is compiled"
)]
const fn rows() -> [u8; 64] {
    let mut rows = [u8::MAX; 64];
    let mut row = 0;
    while row < TABLE.len() {
        rows[TABLE[row].property as usize] = row as u8;
        row += 1;
    }
    rows
}

#[inline]
pub(crate) fn definition(identifier: u32) -> Option<&'static Definition> {
    let row = ROWS.get(identifier as usize)?;
    TABLE.get(usize::from(*row))
}

impl Property {
    /// The standard's name.
    pub(crate) fn name(self) -> &'static str {
        definition(self as u32).map_or("property", |row| row.name)
    }

    /// The statement that excludes a value of this property, and of another its section.
    fn value_clause(self) -> &'static str {
        match self {
            Self::TopicAlias => "MQTT-3.3.2-8",
            Self::ResponseTopic => "MQTT-3.3.2-14",
            Self::PayloadFormatIndicator => "section 3.3.2.3.2",
            Self::SubscriptionIdentifier => "section 3.8.2.1.2",
            Self::RequestProblemInformation => "section 3.1.2.11.7",
            Self::RequestResponseInformation => "section 3.1.2.11.6",
            Self::ReceiveMaximum => "section 3.1.2.11.3",
            Self::MaximumPacketSize => "section 3.1.2.11.4",
            Self::MaximumQoS => "section 3.2.2.3.4",
            Self::RetainAvailable => "section 3.2.2.3.5",
            Self::WildcardSubscriptionAvailable => "section 3.2.2.3.11",
            Self::SubscriptionIdentifierAvailable => "section 3.2.2.3.12",
            Self::SharedSubscriptionAvailable => "section 3.2.2.3.13",
            _ => "section 2.2.2.2",
        }
    }

    #[cold]
    pub(crate) fn invalid(self) -> DecodeError {
        let kind = match self {
            Self::TopicAlias => DecodeErrorKind::ZeroTopicAlias,
            _ => DecodeErrorKind::PropertyValue,
        };
        DecodeError::new(kind, self.name(), self.value_clause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every row is found by its identifier, as are its name and the place of an error; nothing else is found.
    #[test]
    fn rows_are_found_by_their_identifiers() {
        for identifier in 0..300 {
            let expected = TABLE.iter().find(|row| row.property as u32 == identifier);
            let found = definition(identifier);
            assert_eq!(
                found.map(|row| (row.property, row.name, row.wire, row.allowed, row.repeated)),
                expected.map(|row| (row.property, row.name, row.wire, row.allowed, row.repeated)),
            );
            if let Some(row) = found {
                assert_eq!(row.property.name(), row.name);
                assert_eq!(row.property.invalid().place(), row.name);
            }
        }
        assert_eq!(Property::User.name(), "User Property");
    }

    /// A value that is excluded is told with the statement or the section of its property.
    #[test]
    fn excluded_values_are_told_with_their_clause() {
        use DecodeErrorKind::{PropertyValue, ZeroTopicAlias};
        let expected = [
            (Property::TopicAlias, ZeroTopicAlias, "MQTT-3.3.2-8"),
            (Property::ResponseTopic, PropertyValue, "MQTT-3.3.2-14"),
            (
                Property::PayloadFormatIndicator,
                PropertyValue,
                "section 3.3.2.3.2",
            ),
            (
                Property::SubscriptionIdentifier,
                PropertyValue,
                "section 3.8.2.1.2",
            ),
            (
                Property::RequestProblemInformation,
                PropertyValue,
                "section 3.1.2.11.7",
            ),
            (
                Property::RequestResponseInformation,
                PropertyValue,
                "section 3.1.2.11.6",
            ),
            (
                Property::ReceiveMaximum,
                PropertyValue,
                "section 3.1.2.11.3",
            ),
            (
                Property::MaximumPacketSize,
                PropertyValue,
                "section 3.1.2.11.4",
            ),
            (Property::MaximumQoS, PropertyValue, "section 3.2.2.3.4"),
            (
                Property::RetainAvailable,
                PropertyValue,
                "section 3.2.2.3.5",
            ),
            (
                Property::WildcardSubscriptionAvailable,
                PropertyValue,
                "section 3.2.2.3.11",
            ),
            (
                Property::SubscriptionIdentifierAvailable,
                PropertyValue,
                "section 3.2.2.3.12",
            ),
            (
                Property::SharedSubscriptionAvailable,
                PropertyValue,
                "section 3.2.2.3.13",
            ),
        ];
        for (property, kind, clause) in expected {
            let error = property.invalid();
            assert_eq!(
                (error.kind(), error.clause()),
                (kind, clause),
                "{property:?}"
            );
        }
    }
}
