//! CONNACK: the server's answer to CONNECT.

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use crate::packet::{Body, encoder};
use crate::parse;
use crate::property::{self, Owner, property_set};
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, PacketType, ProtocolVersion, QoS, ReasonCode,
    UserProperty,
};

/// The server's answer to a CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The server resumes a session. Not in 3.1, which cannot tell.
    pub session_present: bool,
    /// The result, always as a code of 5.0: the return codes 1 to 5 of 3.1 and 3.1.1 are 0x84,
    /// 0x85, 0x88, 0x86 and 0x87, and any other failure is written as 3, server unavailable.
    pub reason_code: ReasonCode,
    /// The properties (5.0).
    pub properties: ConnAckProperties<'a>,
}

property_set! {
    /// The properties of a CONNACK.
    pub struct ConnAckProperties<'a> {
        /// How long the session outlives the connection, in seconds, when that is not what the
        /// client asked for; 0xFFFF_FFFF is for ever.
        pub session_expiry_interval: Option<u32> = SessionExpiryInterval,
        /// How many unacknowledged messages of QoS 1 and 2 the server accepts; 65,535 if absent.
        pub receive_maximum: Option<NonZeroU16> = ReceiveMaximum,
        /// The highest QoS that the server accepts, 0 or 1; 2 if absent.
        pub maximum_qos: Option<QoS> = MaximumQoS,
        /// The server keeps retained messages; true if absent.
        pub retain_available: Option<bool> = RetainAvailable,
        /// The largest packet that the server accepts, in bytes; no limit if absent.
        pub maximum_packet_size: Option<NonZeroU32> = MaximumPacketSize,
        /// The identifier that the server gave to a client that had none.
        pub assigned_client_identifier: Option<&'a str> = AssignedClientIdentifier,
        /// The highest topic alias that the server accepts; 0 if absent.
        pub topic_alias_maximum: Option<u16> = TopicAliasMaximum,
        /// The reason in words, for diagnostics.
        pub reason_string: Option<&'a str> = ReasonString,
        /// The server accepts wildcards in filters; true if absent.
        pub wildcard_subscription_available: Option<bool> = WildcardSubscriptionAvailable,
        /// The server accepts subscription identifiers; true if absent.
        pub subscription_identifiers_available: Option<bool> = SubscriptionIdentifierAvailable,
        /// The server accepts shared subscriptions; true if absent.
        pub shared_subscription_available: Option<bool> = SharedSubscriptionAvailable,
        /// The keep alive, in seconds, that replaces the client's.
        pub server_keep_alive: Option<u16> = ServerKeepAlive,
        /// What the client may build response topics from.
        pub response_information: Option<&'a str> = ResponseInformation,
        /// Another server to use.
        pub server_reference: Option<&'a str> = ServerReference,
        /// The method of enhanced authentication.
        pub authentication_method: Option<&'a str> = AuthenticationMethod,
        /// Data of that method.
        pub authentication_data: Option<&'a [u8]> = AuthenticationData,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const PLACE: &str = "CONNACK";

/// The codes of 5.0 for the return codes of 3.1 and 3.1.1, which index them.
const RETURN_CODES: [ReasonCode; 6] = [
    ReasonCode::SUCCESS,
    ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
    ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    ReasonCode::SERVER_UNAVAILABLE,
    ReasonCode::BAD_USER_NAME_OR_PASSWORD,
    ReasonCode::NOT_AUTHORIZED,
];
const RETURN_SERVER_UNAVAILABLE: usize = 3;

impl ReasonCode {
    /// The byte that stands for it in a CONNACK of this version. Before 5.0 there were five return codes for refusals;
    /// "Server unavailable" stands for all that they lack.
    #[must_use]
    pub fn connect_code(self, version: ProtocolVersion) -> u8 {
        if version.has_reason_codes() {
            return self.0;
        }
        let code = RETURN_CODES.iter().position(|reason| *reason == self);
        code.unwrap_or(RETURN_SERVER_UNAVAILABLE) as u8
    }
}

impl<'a> ConnAck<'a> {
    /// An answer without session and properties.
    #[must_use]
    pub fn new(reason_code: ReasonCode) -> Self {
        Self {
            session_present: false,
            reason_code,
            properties: ConnAckProperties::default(),
        }
    }

    /// Decodes the body of a CONNACK.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this packet and version.
    pub fn decode(body: &'a [u8], version: ProtocolVersion) -> Result<Self, DecodeError> {
        let (rest, flags) = parse::byte(body, "connect acknowledge flags")?;
        if flags & !1 != 0 {
            return Err(DecodeError::new(
                DecodeErrorKind::ConnAckFlags(flags),
                PLACE,
                "MQTT-3.2.2-1",
            ));
        }
        let session_present = flags == 1 && version.has_session_present();
        let (rest, reason_code) = if version.has_reason_codes() {
            PacketType::ConnAck.reason_code(rest)?
        } else {
            let (rest, code) = parse::byte(rest, "return code")?;
            let reason = RETURN_CODES
                .get(usize::from(code))
                .ok_or_else(|| PacketType::ConnAck.invalid_reason(code))?;
            (rest, *reason)
        };
        if session_present && reason_code != ReasonCode::SUCCESS {
            return Err(DecodeError::new(
                DecodeErrorKind::SessionPresent,
                PLACE,
                "MQTT-3.2.2-6",
            ));
        }
        let (rest, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::ConnAck))?
        } else {
            (rest, ConnAckProperties::default())
        };
        parse::end(rest, PLACE)?;
        Ok(Self {
            session_present,
            reason_code,
            properties,
        })
    }
}

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::ConnAck.first_byte()
    }

    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        PacketType::ConnAck.check_reason(self.reason_code)?;
        if self.session_present && self.reason_code != ReasonCode::SUCCESS {
            return Err(EncodeError::SessionPresent);
        }
        if !version.has_properties() {
            return Ok(2);
        }
        if self.properties.maximum_qos == Some(QoS::ExactlyOnce) {
            return Err(EncodeError::MaximumQos);
        }
        Ok(2 + property::section_size(&self.properties)?)
    }

    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        out.put_u8(u8::from(
            self.session_present && version.has_session_present(),
        ));
        out.put_u8(self.reason_code.connect_code(version));
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
    }
}

encoder!(ConnAck);
