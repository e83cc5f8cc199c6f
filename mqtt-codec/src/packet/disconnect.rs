//! DISCONNECT: the last packet of a connection.

use alloc::vec::Vec;

use bytes::BufMut;

use crate::packet::{Body, encoder};
use crate::parse;
use crate::property::{self, Owner, property_set};
use crate::{DecodeError, EncodeError, PacketType, ProtocolVersion, ReasonCode, UserProperty};

/// The last packet of a connection. Before 5.0 only a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why (5.0); normal disconnection in versions without reason codes.
    pub reason_code: ReasonCode,
    /// The properties (5.0).
    pub properties: DisconnectProperties<'a>,
}

property_set! {
    /// The properties of a DISCONNECT.
    pub struct DisconnectProperties<'a> {
        /// How long the session outlives the connection, in seconds, in place of what CONNECT
        /// said. A server does not send it.
        pub session_expiry_interval: Option<u32> = SessionExpiryInterval,
        /// The reason in words, for diagnostics.
        pub reason_string: Option<&'a str> = ReasonString,
        /// Another server to use.
        pub server_reference: Option<&'a str> = ServerReference,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const PLACE: &str = "DISCONNECT";

impl<'a> Disconnect<'a> {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            reason_code,
            properties: DisconnectProperties::default(),
        }
    }

    /// Decodes the body of a DISCONNECT.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        if body.is_empty() {
            return Ok(Self::new(ReasonCode::NORMAL_DISCONNECTION));
        }
        if !version.has_reason_codes() {
            parse::end(body, PLACE)?;
        }
        let (rest, reason_code) = PacketType::Disconnect.reason_code(body)?;
        if rest.is_empty() {
            return Ok(Self::new(reason_code));
        }
        let (rest, properties) = property::section(rest, Owner::Packet(PacketType::Disconnect))?;
        parse::end(rest, PLACE)?;
        Ok(Self {
            reason_code,
            properties,
        })
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.has_reason_codes() {
            return Ok(0);
        }
        PacketType::Disconnect.check_reason(self.reason_code)?;
        Ok(match property::content_size(&self.properties)? {
            0 if self.reason_code == ReasonCode::NORMAL_DISCONNECTION => 0,
            0 => 1,
            _ => 1 + property::section_size(&self.properties)?,
        })
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        if !version.has_reason_codes() {
            return;
        }
        let bare = self.properties == DisconnectProperties::default();
        if !bare || self.reason_code != ReasonCode::NORMAL_DISCONNECTION {
            out.put_u8(self.reason_code.0);
        }
        if !bare {
            property::write_section(&self.properties, out);
        }
    }
}

encoder!(Disconnect);
