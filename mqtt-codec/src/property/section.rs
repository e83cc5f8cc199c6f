//! A property section: one parser, measure and writer for the properties of every packet.

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use super::table::{Definition, Packets, Property, WILL, Wire, definition};
use super::{SubscriptionIdentifier, UserProperty};
use crate::parse::{self, Step};
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, MAX_REMAINING_LENGTH, PacketType, QoS, TopicName,
};
use crate::{varint, write};

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

    fn size(self, property: Property) -> Result<usize, EncodeError> {
        Ok(match self {
            Self::Byte(_) => 1,
            Self::TwoByte(_) => 2,
            Self::FourByte(_) => 4,
            Self::Variable(value) => varint::size(value),
            Self::Text(text) => write::string_size(text, property.name())?,
            Self::Binary(bytes) => write::binary_size(bytes, property.name())?,
            Self::Pair(pair) => {
                write::string_size(pair.name, property.name())?
                    + write::string_size(pair.value, property.name())?
            }
        })
    }

    fn write(self, out: &mut impl BufMut) {
        match self {
            Self::Byte(value) => out.put_u8(value),
            Self::TwoByte(value) => out.put_u16(value),
            Self::FourByte(value) => out.put_u32(value),
            Self::Variable(value) => varint::write(value, out),
            Self::Text(text) => write::binary(text.as_bytes(), out),
            Self::Binary(bytes) => write::binary(bytes, out),
            Self::Pair(pair) => {
                write::binary(pair.name.as_bytes(), out);
                write::binary(pair.value.as_bytes(), out);
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use core::fmt::Debug;

    use super::super::table::TABLE;
    use super::*;
    use crate::{
        AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
        PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
    };

    fn sample(wire: Wire) -> Value<'static> {
        match wire {
            Wire::Byte => Value::Byte(1),
            Wire::TwoByte => Value::TwoByte(2),
            Wire::FourByte => Value::FourByte(3),
            Wire::Variable => Value::Variable(4),
            Wire::Text => Value::Text("a"),
            Wire::Binary => Value::Binary(b"b"),
            Wire::Pair => Value::Pair(UserProperty {
                name: "c",
                value: "d",
            }),
        }
    }

    fn wire(value: Value<'_>) -> Wire {
        match value {
            Value::Byte(_) => Wire::Byte,
            Value::TwoByte(_) => Wire::TwoByte,
            Value::FourByte(_) => Wire::FourByte,
            Value::Variable(_) => Wire::Variable,
            Value::Text(_) => Wire::Text,
            Value::Binary(_) => Wire::Binary,
            Value::Pair(_) => Wire::Pair,
        }
    }

    /// A struct has a field for every property that the table allows it, of the table's wire
    /// type, and for no other; a list exactly where the table lets it be repeated.
    fn check<P: PropertySet<'static> + Debug>(owner: Owner) {
        for row in &TABLE {
            let mut properties = P::default();
            let value = sample(row.wire);
            let allowed = row.allowed & owner.bit() != 0;
            assert_eq!(properties.put(row.property, value), allowed, "{row:?}");
            let repeats = allowed && row.repeated & owner.bit() != 0;
            if allowed {
                properties.put(row.property, value);
            }
            let mut count = 0;
            properties.for_each(|property, value| {
                assert_eq!(property, row.property);
                assert_eq!(wire(value), row.wire);
                count += 1;
            });
            assert_eq!(
                count,
                usize::from(allowed) + usize::from(repeats),
                "{row:?}"
            );
        }
    }

    #[test]
    fn structs_agree_with_the_table() {
        check::<WillProperties<'_>>(Owner::Will);
        for packet in PacketType::ALL {
            let owner = Owner::Packet(packet);
            match packet {
                PacketType::Connect => check::<ConnectProperties<'_>>(owner),
                PacketType::ConnAck => check::<ConnAckProperties<'_>>(owner),
                PacketType::Publish => check::<PublishProperties<'_>>(owner),
                PacketType::PubAck
                | PacketType::PubRec
                | PacketType::PubRel
                | PacketType::PubComp
                | PacketType::SubAck
                | PacketType::UnsubAck => check::<AckProperties<'_>>(owner),
                PacketType::Subscribe => check::<SubscribeProperties<'_>>(owner),
                PacketType::Unsubscribe => check::<UnsubscribeProperties<'_>>(owner),
                PacketType::Disconnect => check::<DisconnectProperties<'_>>(owner),
                PacketType::Auth => check::<AuthProperties<'_>>(owner),
                PacketType::PingReq | PacketType::PingResp => {
                    assert!(TABLE.iter().all(|row| row.allowed & packet.bit() == 0));
                }
            }
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_identifiers() {
        assert!(TABLE.is_sorted_by_key(|row| row.property as u8));
        for row in &TABLE {
            assert!((row.property as u8) < 64, "`fill` keeps one bit for each");
            assert_eq!(row.repeated & !row.allowed, 0);
        }
    }
    /// Properties are as long as a packet may be, and no longer.
    #[test]
    fn the_longest_properties() {
        let long = "x".repeat(usize::from(u16::MAX));
        let pair = |name, value| UserProperty { name, value };
        // An identifier and two lengths besides the texts.
        let each = 5 + 2 * long.len();
        let most = MAX_REMAINING_LENGTH as usize;
        let rest = most % each - 5;
        assert!(rest > long.len());
        let (name, value) = (long.as_str(), &long[..rest - long.len()]);
        let mut properties = AckProperties {
            user_properties: alloc::vec![pair(name, name); most / each],
            ..AckProperties::default()
        };
        properties.user_properties.push(pair(name, value));
        assert_eq!(content_size(&properties), Ok(most));
        assert_eq!(section_size(&properties), Ok(most + 4));
        properties.user_properties.push(pair("", ""));
        let too_long = Err(EncodeError::PacketTooLong(most + 5));
        assert_eq!(content_size(&properties), too_long);
        assert_eq!(section_size(&properties), too_long);
    }
}
