//! Properties: the table of section 2.2.2.2, and one parser, measure and writer for all of them.
//!
//! A packet's property struct names the property behind each field; identifiers, wire types, and
//! which packet may carry what how often come from the table.

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use crate::parse::{self, Step};
use crate::varint;
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, MAX_REMAINING_LENGTH, PacketType, QoS, TopicName,
};

/// A name and a value that the standard gives no meaning; order and repetition are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserProperty<'a> {
    /// The name, which may be repeated.
    pub name: &'a str,
    /// The value.
    pub value: &'a str,
}

/// The identifier of a subscription: 1 to 268,435,455.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionIdentifier(NonZeroU32);

impl SubscriptionIdentifier {
    /// The identifier of this value; `None` for zero and above 268,435,455.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) if value.get() <= MAX_REMAINING_LENGTH => Some(Self(value)),
            _ => None,
        }
    }

    /// The value.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

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
    UserProperty = 0x26,
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
type Packets = u16;

const WILL: Packets = 1;
const CONNECT: Packets = PacketType::Connect.bit();
const CONNACK: Packets = PacketType::ConnAck.bit();
const PUBLISH: Packets = PacketType::Publish.bit();
const SUBSCRIBE: Packets = PacketType::Subscribe.bit();
const DISCONNECT: Packets = PacketType::Disconnect.bit();
const AUTH: Packets = PacketType::Auth.bit();
/// Packets that answer another one and may say why.
const ANSWERS: Packets = CONNACK
    | PacketType::PubAck.bit()
    | PacketType::PubRec.bit()
    | PacketType::PubRel.bit()
    | PacketType::PubComp.bit()
    | PacketType::SubAck.bit()
    | PacketType::UnsubAck.bit()
    | DISCONNECT
    | AUTH;
const ALL: Packets = ANSWERS | CONNECT | PUBLISH | WILL | SUBSCRIBE | PacketType::Unsubscribe.bit();
const NONE: Packets = 0;

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
    allowed: Packets,
    repeated: Packets,
) -> Definition {
    Definition {
        property,
        name,
        wire,
        allowed,
        repeated,
    }
}

#[rustfmt::skip]
pub(crate) static TABLE: [Definition; 27] = [
    row(Property::PayloadFormatIndicator, "Payload Format Indicator", Wire::Byte, PUBLISH | WILL, NONE),
    row(Property::MessageExpiryInterval, "Message Expiry Interval", Wire::FourByte, PUBLISH | WILL, NONE),
    row(Property::ContentType, "Content Type", Wire::Text, PUBLISH | WILL, NONE),
    row(Property::ResponseTopic, "Response Topic", Wire::Text, PUBLISH | WILL, NONE),
    row(Property::CorrelationData, "Correlation Data", Wire::Binary, PUBLISH | WILL, NONE),
    row(Property::SubscriptionIdentifier, "Subscription Identifier", Wire::Variable, PUBLISH | SUBSCRIBE, PUBLISH),
    row(Property::SessionExpiryInterval, "Session Expiry Interval", Wire::FourByte, CONNECT | CONNACK | DISCONNECT, NONE),
    row(Property::AssignedClientIdentifier, "Assigned Client Identifier", Wire::Text, CONNACK, NONE),
    row(Property::ServerKeepAlive, "Server Keep Alive", Wire::TwoByte, CONNACK, NONE),
    row(Property::AuthenticationMethod, "Authentication Method", Wire::Text, CONNECT | CONNACK | AUTH, NONE),
    row(Property::AuthenticationData, "Authentication Data", Wire::Binary, CONNECT | CONNACK | AUTH, NONE),
    row(Property::RequestProblemInformation, "Request Problem Information", Wire::Byte, CONNECT, NONE),
    row(Property::WillDelayInterval, "Will Delay Interval", Wire::FourByte, WILL, NONE),
    row(Property::RequestResponseInformation, "Request Response Information", Wire::Byte, CONNECT, NONE),
    row(Property::ResponseInformation, "Response Information", Wire::Text, CONNACK, NONE),
    row(Property::ServerReference, "Server Reference", Wire::Text, CONNACK | DISCONNECT, NONE),
    row(Property::ReasonString, "Reason String", Wire::Text, ANSWERS, NONE),
    row(Property::ReceiveMaximum, "Receive Maximum", Wire::TwoByte, CONNECT | CONNACK, NONE),
    row(Property::TopicAliasMaximum, "Topic Alias Maximum", Wire::TwoByte, CONNECT | CONNACK, NONE),
    row(Property::TopicAlias, "Topic Alias", Wire::TwoByte, PUBLISH, NONE),
    row(Property::MaximumQoS, "Maximum QoS", Wire::Byte, CONNACK, NONE),
    row(Property::RetainAvailable, "Retain Available", Wire::Byte, CONNACK, NONE),
    row(Property::UserProperty, "User Property", Wire::Pair, ALL, ALL),
    row(Property::MaximumPacketSize, "Maximum Packet Size", Wire::FourByte, CONNECT | CONNACK, NONE),
    row(Property::WildcardSubscriptionAvailable, "Wildcard Subscription Available", Wire::Byte, CONNACK, NONE),
    row(Property::SubscriptionIdentifierAvailable, "Subscription Identifier Available", Wire::Byte, CONNACK, NONE),
    row(Property::SharedSubscriptionAvailable, "Shared Subscription Available", Wire::Byte, CONNACK, NONE),
];

fn definition(identifier: u32) -> Option<&'static Definition> {
    let index = TABLE
        .binary_search_by_key(&identifier, |row| row.property as u32)
        .ok()?;
    TABLE.get(index)
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

/// A value as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Byte(u8),
    TwoByte(u16),
    FourByte(u32),
    Variable(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(UserProperty<'a>),
}

impl<'a> Value<'a> {
    fn parse(input: &'a [u8], row: &'static Definition) -> Step<'a, Self> {
        let place = row.name;
        Ok(match row.wire {
            Wire::Byte => {
                let (rest, value) = parse::byte(input, place)?;
                (rest, Self::Byte(value))
            }
            Wire::TwoByte => {
                let (rest, value) = parse::two_bytes(input, place)?;
                (rest, Self::TwoByte(value))
            }
            Wire::FourByte => {
                let (rest, value) = parse::four_bytes(input, place)?;
                (rest, Self::FourByte(value))
            }
            Wire::Variable => {
                let (rest, value) = parse::variable(input, place)?;
                (rest, Self::Variable(value))
            }
            Wire::Text => {
                let (rest, value) = parse::string(input, place)?;
                (rest, Self::Text(value))
            }
            Wire::Binary => {
                let (rest, value) = parse::binary(input, place)?;
                (rest, Self::Binary(value))
            }
            Wire::Pair => {
                let (rest, name) = parse::string(input, place)?;
                let (rest, value) = parse::string(rest, place)?;
                (rest, Self::Pair(UserProperty { name, value }))
            }
        })
    }

    #[cfg(test)]
    fn wire(self) -> Wire {
        match self {
            Self::Byte(_) => Wire::Byte,
            Self::TwoByte(_) => Wire::TwoByte,
            Self::FourByte(_) => Wire::FourByte,
            Self::Variable(_) => Wire::Variable,
            Self::Text(_) => Wire::Text,
            Self::Binary(_) => Wire::Binary,
            Self::Pair(_) => Wire::Pair,
        }
    }

    fn size(self, property: Property) -> Result<usize, EncodeError> {
        Ok(match self {
            Self::Byte(_) => 1,
            Self::TwoByte(_) => 2,
            Self::FourByte(_) => 4,
            Self::Variable(value) => varint::size(value),
            Self::Text(text) => string_size(text, property.name())?,
            Self::Binary(bytes) => binary_size(bytes, property.name())?,
            Self::Pair(pair) => {
                string_size(pair.name, property.name())? + string_size(pair.value, property.name())?
            }
        })
    }

    fn write(self, out: &mut impl BufMut) {
        match self {
            Self::Byte(value) => out.put_u8(value),
            Self::TwoByte(value) => out.put_u16(value),
            Self::FourByte(value) => out.put_u32(value),
            Self::Variable(value) => varint::write(value, out),
            Self::Text(text) => write_binary(text.as_bytes(), out),
            Self::Binary(bytes) => write_binary(bytes, out),
            Self::Pair(pair) => {
                write_binary(pair.name.as_bytes(), out);
                write_binary(pair.value.as_bytes(), out);
            }
        }
    }
}

/// The bytes of Binary Data with its length.
#[inline]
pub(crate) fn binary_size(bytes: &[u8], place: &'static str) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong(place));
    }
    Ok(2 + bytes.len())
}

/// The bytes of a string with its length.
#[inline]
pub(crate) fn string_size(text: &str, place: &'static str) -> Result<usize, EncodeError> {
    if text.contains('\0') {
        return Err(EncodeError::NulCharacter(place));
    }
    binary_size(text.as_bytes(), place)
}

/// Writes Binary Data, or a string, whose length has been checked.
#[inline]
pub(crate) fn write_binary(bytes: &[u8], out: &mut impl BufMut) {
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

/// A Rust type that stands for a property's value.
pub(crate) trait PropertyValue<'a>: Sized {
    /// `None` when the value is excluded by the property's definition.
    fn from_wire(value: Value<'a>) -> Option<Self>;
    fn to_wire(&self) -> Value<'a>;
}

macro_rules! property_value {
    ($type:ty, $wire:ident, $read:expr, $write:expr) => {
        impl<'a> PropertyValue<'a> for $type {
            fn from_wire(value: Value<'a>) -> Option<Self> {
                match value {
                    Value::$wire(value) => $read(value),
                    _ => None,
                }
            }

            fn to_wire(&self) -> Value<'a> {
                Value::$wire($write(*self))
            }
        }
    };
}

property_value!(u16, TwoByte, Some, |value| value);
property_value!(u32, FourByte, Some, |value| value);
property_value!(NonZeroU16, TwoByte, Self::new, Self::get);
property_value!(NonZeroU32, FourByte, Self::new, Self::get);
property_value!(&'a str, Text, Some, |value| value);
property_value!(&'a [u8], Binary, Some, |value| value);
property_value!(UserProperty<'a>, Pair, Some, |value| value);
property_value!(SubscriptionIdentifier, Variable, Self::new, Self::get);
property_value!(
    TopicName<'a>,
    Text,
    |text| Self::new(text).ok(),
    Self::as_str
);
property_value!(
    bool,
    Byte,
    |value| match value {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    },
    u8::from
);
// Maximum QoS, the only property of this type, is 0 or 1.
property_value!(
    QoS,
    Byte,
    |value| match value {
        0 => Some(Self::AtMostOnce),
        1 => Some(Self::AtLeastOnce),
        _ => None,
    },
    |qos| qos as u8
);

/// A field of a property struct: an option, or a list.
pub(crate) trait Slot<'a> {
    /// False when the value is excluded by the property's definition.
    fn put(&mut self, value: Value<'a>) -> bool;
    fn for_each(&self, each: &mut impl FnMut(Value<'a>));
}

impl<'a, T: PropertyValue<'a>> Slot<'a> for Option<T> {
    fn put(&mut self, value: Value<'a>) -> bool {
        *self = T::from_wire(value);
        self.is_some()
    }

    #[inline]
    fn for_each(&self, each: &mut impl FnMut(Value<'a>)) {
        if let Some(value) = self {
            each(value.to_wire());
        }
    }
}

impl<'a, T: PropertyValue<'a>> Slot<'a> for Vec<T> {
    fn put(&mut self, value: Value<'a>) -> bool {
        match T::from_wire(value) {
            Some(value) => {
                self.push(value);
                true
            }
            None => false,
        }
    }

    #[inline]
    fn for_each(&self, each: &mut impl FnMut(Value<'a>)) {
        for value in self {
            each(value.to_wire());
        }
    }
}

/// The properties of one kind of packet.
pub(crate) trait PropertySet<'a>: Default {
    /// Puts a value into its field; false when it is excluded, or there is no such field.
    fn put(&mut self, property: Property, value: Value<'a>) -> bool;
    fn for_each(&self, each: impl FnMut(Property, Value<'a>));
}

/// Defines a property struct: its fields, each with the property behind it.
macro_rules! property_set {
    (
        $(#[$meta:meta])*
        pub struct $name:ident<'a> {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty = $property:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name<'a> {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl<'a> $crate::property::PropertySet<'a> for $name<'a> {
            fn put(
                &mut self,
                property: $crate::property::Property,
                value: $crate::property::Value<'a>,
            ) -> bool {
                match property {
                    $($crate::property::Property::$property => {
                        $crate::property::Slot::put(&mut self.$field, value)
                    })*
                    _ => false,
                }
            }

            #[inline]
            fn for_each(
                &self,
                mut each: impl FnMut($crate::property::Property, $crate::property::Value<'a>),
            ) {
                $($crate::property::Slot::for_each(&self.$field, &mut |value| {
                    each($crate::property::Property::$property, value);
                });)*
            }
        }
    };
}
pub(crate) use property_set;

/// The packet whose properties are read; the Will has a section of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    Packet(PacketType),
    Will,
}

impl Owner {
    const fn bit(self) -> Packets {
        match self {
            Self::Packet(packet) => packet.bit(),
            Self::Will => WILL,
        }
    }
}

/// Reads a property section: its length and its properties.
#[inline]
pub(crate) fn section<'a, P: PropertySet<'a>>(input: &'a [u8], owner: Owner) -> Step<'a, P> {
    let (input, len) = parse::variable(input, "property length")?;
    let mut properties = P::default();
    if len == 0 {
        return Ok((input, properties));
    }
    let (rest, section) = parse::bytes(input, len as usize, "properties")?;
    fill(section, owner, &mut properties)?;
    Ok((rest, properties))
}

fn fill<'a>(
    mut section: &'a [u8],
    owner: Owner,
    properties: &mut impl PropertySet<'a>,
) -> Result<(), DecodeError> {
    const CLAUSE: &str = "section 2.2.2.2";
    // One bit for each identifier, all of which are below 64.
    let mut seen = 0_u64;
    while !section.is_empty() {
        let (rest, identifier) = parse::variable(section, "property identifier")?;
        let Some(row) = definition(identifier) else {
            return Err(DecodeError::new(
                DecodeErrorKind::UnknownProperty(identifier),
                "properties",
                CLAUSE,
            ));
        };
        if row.allowed & owner.bit() == 0 {
            return Err(DecodeError::new(
                DecodeErrorKind::MisplacedProperty,
                row.name,
                CLAUSE,
            ));
        }
        let bit = 1 << identifier;
        if seen & bit != 0 && row.repeated & owner.bit() == 0 {
            return Err(DecodeError::new(
                DecodeErrorKind::RepeatedProperty,
                row.name,
                CLAUSE,
            ));
        }
        seen |= bit;
        let (rest, value) = Value::parse(rest, row)?;
        if !properties.put(row.property, value) {
            return Err(row.property.invalid());
        }
        section = rest;
    }
    Ok(())
}

/// The bytes of the properties, without those of their length.
#[inline]
pub(crate) fn content_size<'a>(properties: &impl PropertySet<'a>) -> Result<usize, EncodeError> {
    let mut size = Ok(0);
    properties.for_each(|property, value| {
        size = size.and_then(|sum| Ok(sum + 1 + value.size(property)?));
    });
    let size = size?;
    if size > MAX_REMAINING_LENGTH as usize {
        return Err(EncodeError::PacketTooLong(size));
    }
    Ok(size)
}

/// The bytes of a property section with its length.
#[inline]
pub(crate) fn section_size<'a>(properties: &impl PropertySet<'a>) -> Result<usize, EncodeError> {
    let content = content_size(properties)?;
    Ok(varint::size(content as u32) + content)
}

/// Writes a property section, which has been measured.
#[inline]
pub(crate) fn write_section<'a>(properties: &impl PropertySet<'a>, out: &mut impl BufMut) {
    // Measuring has shown that this does not fail.
    let content = content_size(properties).unwrap_or(0);
    varint::write(content as u32, out);
    properties.for_each(|property, value| {
        out.put_u8(property as u8);
        value.write(out);
    });
}
