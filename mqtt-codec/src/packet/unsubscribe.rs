//! UNSUBSCRIBE and UNSUBACK.

use alloc::vec::Vec;

use bytes::BufMut;

use crate::packet::{AckProperties, Body, encoder};
use crate::parse;
use crate::property::{self, Owner, property_set};
use crate::write;
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, PacketId, PacketType, ProtocolVersion, ReasonCode,
    TopicFilter, UserProperty,
};

/// A client unsubscribes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The identifier that UNSUBACK repeats.
    pub packet_id: PacketId,
    /// The filters, at least one.
    pub filters: Vec<TopicFilter<'a>>,
    /// The properties (5.0).
    pub properties: UnsubscribeProperties<'a>,
}

property_set! {
    /// The properties of an UNSUBSCRIBE.
    pub struct UnsubscribeProperties<'a> {
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

impl<'a> Unsubscribe<'a> {
    /// An UNSUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: Vec<TopicFilter<'a>>) -> Self {
        Self {
            packet_id,
            filters,
            properties: UnsubscribeProperties::default(),
        }
    }

    /// Decodes the body of an UNSUBSCRIBE.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let (rest, packet_id) = parse::packet_id(body)?;
        let (rest, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::Unsubscribe))?
        } else {
            (rest, UnsubscribeProperties::default())
        };
        let filters = parse::list(
            rest,
            || DecodeError::new(DecodeErrorKind::EmptyList, "UNSUBSCRIBE", "MQTT-3.10.3-2"),
            |input| parse::topic_filter(input, "topic filter"),
        )?;
        Ok(Self {
            packet_id,
            filters,
            properties,
        })
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if self.filters.is_empty() {
            return Err(EncodeError::EmptyList(PacketType::Unsubscribe));
        }
        let mut size = 2;
        if version.has_properties() {
            size += property::section_size(&self.properties)?;
        }
        for filter in &self.filters {
            size += 2 + filter.as_str().len();
        }
        Ok(size)
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u16(self.packet_id.get());
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
        for filter in &self.filters {
            write::binary(filter.as_str().as_bytes(), out);
        }
    }
}

encoder!(Unsubscribe);

/// The answer to an UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One code for each filter, in order (5.0); empty in versions without reason codes.
    pub reason_codes: Vec<ReasonCode>,
    /// The properties (5.0).
    pub properties: AckProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// An UNSUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason_codes: Vec<ReasonCode>) -> Self {
        Self {
            packet_id,
            reason_codes,
            properties: AckProperties::default(),
        }
    }

    /// Decodes the body of an UNSUBACK.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        const PLACE: &str = "UNSUBACK";
        let (rest, packet_id) = parse::packet_id(body)?;
        if !version.has_reason_codes() {
            parse::end(rest, PLACE)?;
            return Ok(Self::new(packet_id, Vec::new()));
        }
        let (rest, properties) = property::section(rest, Owner::Packet(PacketType::UnsubAck))?;
        let reason_codes = parse::list(
            rest,
            || DecodeError::new(DecodeErrorKind::EmptyList, PLACE, "MQTT-3.11.3-1"),
            |input| PacketType::UnsubAck.reason_code(input),
        )?;
        Ok(Self {
            packet_id,
            reason_codes,
            properties,
        })
    }
}

impl Body for UnsubAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::UnsubAck.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.has_reason_codes() {
            return Ok(2);
        }
        if self.reason_codes.is_empty() {
            return Err(EncodeError::EmptyList(PacketType::UnsubAck));
        }
        for code in &self.reason_codes {
            PacketType::UnsubAck.check_reason(*code)?;
        }
        Ok(2 + property::section_size(&self.properties)? + self.reason_codes.len())
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u16(self.packet_id.get());
        if version.has_reason_codes() {
            property::write_section(&self.properties, out);
            for code in &self.reason_codes {
                out.put_u8(code.0);
            }
        }
    }
}

encoder!(UnsubAck);
