//! PUBACK, PUBREC, PUBREL and PUBCOMP, which have one form.

use alloc::vec::Vec;

use bytes::BufMut;

use crate::packet::{self, Body};
use crate::parse;
use crate::property::{self, Owner, property_set};
use crate::{
    DecodeError, EncodeError, PacketId, PacketType, ProtocolVersion, ReasonCode, UserProperty,
};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// The result (5.0); success in versions without reason codes.
    pub reason_code: ReasonCode,
    /// The properties (5.0).
    pub properties: AckProperties<'a>,
}

property_set! {
    /// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    pub struct AckProperties<'a> {
        /// The reason in words, for diagnostics.
        pub reason_string: Option<&'a str> = ReasonString,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

impl AckProperties<'_> {
    #[inline]
    fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, reason_code: ReasonCode) -> Self {
        Self {
            packet_id,
            reason_code,
            properties: AckProperties::default(),
        }
    }

    /// Decodes the body of a packet of the given type, one of the four.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    #[inline]
    pub fn decode(
        packet: PacketType,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let (rest, packet_id) = parse::packet_id(body)?;
        if rest.is_empty() {
            return Ok(Self::new(packet_id, ReasonCode::SUCCESS));
        }
        if !version.has_reason_codes() {
            parse::end(rest, packet.name())?;
        }
        let (rest, reason_code) = packet.reason_code(rest)?;
        if rest.is_empty() {
            return Ok(Self::new(packet_id, reason_code));
        }
        let (rest, properties) = property::section(rest, Owner::Packet(packet))?;
        parse::end(rest, packet.name())?;
        Ok(Self {
            packet_id,
            reason_code,
            properties,
        })
    }

    /// Bytes of the whole packet, written as the given type, one of the four.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the packet cannot be written for this version.
    #[inline]
    pub fn encoded_len(
        &self,
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Result<usize, EncodeError> {
        packet::encoded_len(&Typed { packet, ack: self }, version)
    }

    /// Writes the whole packet as the given type, one of the four. Versions without reason codes
    /// write the identifier only.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the packet cannot be written for this version, or the buffer is too
    /// small. Nothing has been written then.
    #[inline]
    pub fn encode(
        &self,
        packet: PacketType,
        version: ProtocolVersion,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        // What nearly all of them are: success, and nothing else.
        if self.reason_code == ReasonCode::SUCCESS
            && self.properties.is_empty()
            && out.remaining_mut() >= PlainAck::LEN
            && let Some(plain) = PlainAck::new(packet, self.packet_id)
        {
            out.put_slice(&plain.to_bytes());
            return Ok(());
        }
        packet::encode(&Typed { packet, ack: self }, version, out)
    }
}

/// An acknowledgement in its shortest form, four bytes in every version: success, and nothing else.
///
/// Nearly all acknowledgements have this form, and programs that handle very many of them can do without the general
/// decoder:
///
/// ```
/// use mqtt_codec::{PacketType, PlainAck};
///
/// let ack = PlainAck::recognize(&[0x40, 2, 0, 7, 0x30]).unwrap();
/// assert_eq!((ack.packet_type(), ack.packet_id().get()), (PacketType::PubAck, 7));
/// assert_eq!(PlainAck::recognize(&[0x40, 3, 0, 7, 0x10]), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlainAck {
    packet_type: PacketType,
    packet_id: PacketId,
}

impl PlainAck {
    /// Bytes of the whole packet.
    pub const LEN: usize = 4;

    /// An acknowledgement of one of the four types; `None` for other types.
    #[inline]
    #[must_use]
    pub const fn new(packet_type: PacketType, packet_id: PacketId) -> Option<Self> {
        if !packet_type.is_publish_ack() {
            return None;
        }
        Some(Self {
            packet_type,
            packet_id,
        })
    }

    /// Recognises one at the start of `input`; `None`: there is another packet, none that is whole, or one that is
    /// not well formed.
    #[inline]
    #[must_use]
    pub fn recognize(input: &[u8]) -> Option<Self> {
        let [first, 2, high, low, ..] = *input else {
            return None;
        };
        let packet_type = match first {
            0x40 => PacketType::PubAck,
            0x50 => PacketType::PubRec,
            0x62 => PacketType::PubRel,
            0x70 => PacketType::PubComp,
            _ => return None,
        };
        let packet_id = PacketId::new(u16::from_be_bytes([high, low]))?;
        Some(Self {
            packet_type,
            packet_id,
        })
    }

    /// Its type, one of the four.
    #[inline]
    #[must_use]
    pub const fn packet_type(self) -> PacketType {
        self.packet_type
    }

    /// The identifier of the PUBLISH.
    #[inline]
    #[must_use]
    pub const fn packet_id(self) -> PacketId {
        self.packet_id
    }

    /// The whole packet.
    #[inline]
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [high, low] = self.packet_id.get().to_be_bytes();
        [self.packet_type.first_byte(), 2, high, low]
    }
}

/// An acknowledgement with the type that it is written as.
struct Typed<'p, 'a> {
    packet: PacketType,
    ack: &'p Ack<'a>,
}

impl Body for Typed<'_, '_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        self.packet.first_byte()
    }

    #[inline]
    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.has_reason_codes() {
            return Ok(2);
        }
        self.packet.check_reason(self.ack.reason_code)?;
        Ok(2 + match property::content_size(&self.ack.properties)? {
            0 if self.ack.reason_code == ReasonCode::SUCCESS => 0,
            0 => 1,
            _ => 1 + property::section_size(&self.ack.properties)?,
        })
    }

    #[inline]
    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u16(self.ack.packet_id.get());
        if !version.has_reason_codes() {
            return;
        }
        let bare = self.ack.properties.is_empty();
        if !bare || self.ack.reason_code != ReasonCode::SUCCESS {
            out.put_u8(self.ack.reason_code.0);
        }
        if !bare {
            property::write_section(&self.ack.properties, out);
        }
    }
}
