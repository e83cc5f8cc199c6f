//! AUTH: a step of enhanced authentication (5.0).

use alloc::vec::Vec;

use bytes::BufMut;

use crate::packet::{Body, encoder};
use crate::parse;
use crate::property::{self, Owner, property_set};
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, PacketType, ProtocolVersion, ReasonCode,
    UserProperty,
};

/// A step of enhanced authentication.
///
/// The method may only be absent in a packet of success that has no properties at all, for which
/// the standard has a short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason_code: ReasonCode,
    /// The properties.
    pub properties: AuthProperties<'a>,
}

property_set! {
    /// The properties of an AUTH.
    pub struct AuthProperties<'a> {
        /// The method of enhanced authentication.
        pub authentication_method: Option<&'a str> = AuthenticationMethod,
        /// Data of that method.
        pub authentication_data: Option<&'a [u8]> = AuthenticationData,
        /// The reason in words, for diagnostics.
        pub reason_string: Option<&'a str> = ReasonString,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const PLACE: &str = "AUTH";

impl<'a> Auth<'a> {
    /// A step of the given method, without data.
    #[must_use]
    pub fn new(reason_code: ReasonCode, method: &'a str) -> Self {
        Self {
            reason_code,
            properties: AuthProperties {
                authentication_method: Some(method),
                ..AuthProperties::default()
            },
        }
    }

    /// Decodes the body of an AUTH.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet, or the version does not have it.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        if !version.has_enhanced_authentication() {
            return Err(DecodeError::new(
                DecodeErrorKind::PacketType(PacketType::Auth as u8),
                PLACE,
                "section 2.1.2",
            ));
        }
        if body.is_empty() {
            return Ok(Self {
                reason_code: ReasonCode::SUCCESS,
                properties: AuthProperties::default(),
            });
        }
        let (rest, reason_code) = PacketType::Auth.reason_code(body)?;
        let (rest, properties) = property::section(rest, Owner::Packet(PacketType::Auth))?;
        parse::end(rest, PLACE)?;
        let auth = Self {
            reason_code,
            properties,
        };
        if auth.lacks_method() {
            return Err(DecodeError::new(
                DecodeErrorKind::AuthenticationMethodMissing,
                PLACE,
                "section 3.15.2.2.2",
            ));
        }
        Ok(auth)
    }

    fn is_short(&self) -> bool {
        self.reason_code == ReasonCode::SUCCESS && self.properties == AuthProperties::default()
    }

    fn lacks_method(&self) -> bool {
        self.properties.authentication_method.is_none() && !self.is_short()
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Auth.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        if !version.has_enhanced_authentication() {
            return Err(EncodeError::NotInVersion {
                packet: PacketType::Auth,
                version,
            });
        }
        PacketType::Auth.check_reason(self.reason_code)?;
        if self.lacks_method() {
            return Err(EncodeError::AuthenticationMethodMissing);
        }
        if self.is_short() {
            return Ok(0);
        }
        Ok(1 + property::section_size(&self.properties)?)
    }

    fn write_body(&self, _: ProtocolVersion, out: &mut impl BufMut) {
        if !self.is_short() {
            out.put_u8(self.reason_code.0);
            property::write_section(&self.properties, out);
        }
    }
}

encoder!(Auth);
