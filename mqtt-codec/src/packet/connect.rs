//! CONNECT: a client asks for a connection.

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use bytes::BufMut;

use crate::packet::{Body, encoder};
use crate::parse::{self, Step};
use crate::property::{self, Owner, property_set};
use crate::write;
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, PacketType, ProtocolVersion, QoS, TopicName,
    UserProperty,
};

/// A client asks for a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version of the connection. The packet is encoded in this version, whatever the
    /// argument of the encoder.
    pub version: ProtocolVersion,
    /// The client identifier; empty when the server is to choose one.
    pub client_id: &'a str,
    /// An existing session is discarded; Clean Session before 5.0.
    pub clean_start: bool,
    /// The longest time between two packets of the client, in seconds; 0 is no limit.
    pub keep_alive: u16,
    /// The message that the server publishes when the connection breaks.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub username: Option<&'a str>,
    /// The password. Before 5.0 only with a user name.
    pub password: Option<&'a [u8]>,
    /// The properties (5.0).
    pub properties: ConnectProperties<'a>,
}

/// The message that the server publishes when the connection breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// The topic.
    pub topic: TopicName<'a>,
    /// The application message.
    pub payload: &'a [u8],
    /// The quality of service.
    pub qos: QoS,
    /// It is published as a retained message.
    pub retain: bool,
    /// The properties (5.0).
    pub properties: WillProperties<'a>,
}

impl<'a> Will<'a> {
    /// A will of QoS 0, not retained, without properties.
    #[must_use]
    pub fn new(topic: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            properties: WillProperties::default(),
        }
    }
}

property_set! {
    /// The properties of a Will.
    pub struct WillProperties<'a> {
        /// How long the server waits before it publishes the will, in seconds; 0 if absent.
        pub delay_interval: Option<u32> = WillDelayInterval,
        /// The payload is UTF-8 text (true) or of no stated format (false).
        pub payload_format_utf8: Option<bool> = PayloadFormatIndicator,
        /// Lifetime of the message, in seconds.
        pub message_expiry_interval: Option<u32> = MessageExpiryInterval,
        /// The kind of content, as the application defines it.
        pub content_type: Option<&'a str> = ContentType,
        /// The topic of the response to this request.
        pub response_topic: Option<TopicName<'a>> = ResponseTopic,
        /// What tells a request's sender which response this is.
        pub correlation_data: Option<&'a [u8]> = CorrelationData,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

property_set! {
    /// The properties of a CONNECT.
    pub struct ConnectProperties<'a> {
        /// How long the session outlives the connection, in seconds; 0 if absent, 0xFFFF_FFFF is
        /// for ever.
        pub session_expiry_interval: Option<u32> = SessionExpiryInterval,
        /// How many unacknowledged messages of QoS 1 and 2 the client accepts; 65,535 if absent.
        pub receive_maximum: Option<NonZeroU16> = ReceiveMaximum,
        /// The largest packet that the client accepts, in bytes; no limit if absent.
        pub maximum_packet_size: Option<NonZeroU32> = MaximumPacketSize,
        /// The highest topic alias that the client accepts; 0 if absent.
        pub topic_alias_maximum: Option<u16> = TopicAliasMaximum,
        /// The client asks for response information; false if absent.
        pub request_response_information: Option<bool> = RequestResponseInformation,
        /// The server may explain failures; true if absent.
        pub request_problem_information: Option<bool> = RequestProblemInformation,
        /// The method of enhanced authentication.
        pub authentication_method: Option<&'a str> = AuthenticationMethod,
        /// Data of that method. Not without a method.
        pub authentication_data: Option<&'a [u8]> = AuthenticationData,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const PLACE: &str = "CONNECT";

const RESERVED: u8 = 1;
const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b11 << WILL_QOS_SHIFT;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USERNAME: u8 = 1 << 7;

impl<'a> Connect<'a> {
    /// A CONNECT with clean start, without keep alive, will, credentials and properties.
    #[must_use]
    pub fn new(version: ProtocolVersion, client_id: &'a str) -> Self {
        Self {
            version,
            client_id,
            clean_start: true,
            keep_alive: 0,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    /// Decodes the body of a CONNECT of any version.
    ///
    /// Whether the client identifier is acceptable is the server's business, as it has an answer
    /// for one that is not.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not a CONNECT;
    /// [`DecodeErrorKind::UnsupportedVersion`] when it is one of an unknown version, whose fields
    /// after the protocol level are not looked at.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let (rest, version) = version(body)?;
        let (rest, flags) = parse::byte(rest, "connect flags")?;
        check_flags(flags, version)?;
        let (rest, keep_alive) = parse::two_bytes(rest, "keep alive")?;
        let (rest, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::Connect))?
        } else {
            (rest, ConnectProperties::default())
        };
        if lacks_method(&properties) {
            return Err(DecodeError::new(
                DecodeErrorKind::AuthenticationMethodMissing,
                PLACE,
                "section 3.1.2.11.10",
            ));
        }
        let (rest, client_id) = parse::string(rest, "client identifier")?;
        let (rest, will) = if flags & WILL == 0 {
            (rest, None)
        } else {
            let (rest, will) = Will::parse(rest, flags, version)?;
            (rest, Some(will))
        };
        // A 3.1 client may end the packet here, whatever its flags.
        let present = |flag, rest: &[u8]| {
            flags & flag != 0 && !(rest.is_empty() && version.has_optional_credentials())
        };
        let (rest, username) = if present(USERNAME, rest) {
            let (rest, username) = parse::string(rest, "user name")?;
            (rest, Some(username))
        } else {
            (rest, None)
        };
        let (rest, password) = if present(PASSWORD, rest) {
            let (rest, password) = parse::binary(rest, "password")?;
            (rest, Some(password))
        } else {
            (rest, None)
        };
        parse::end(rest, PLACE)?;
        Ok(Self {
            version,
            client_id,
            clean_start: flags & CLEAN_START != 0,
            keep_alive,
            will,
            username,
            password,
            properties,
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos as u8) << WILL_QOS_SHIFT;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        flags
    }
}

/// Reads protocol name and level.
fn version(input: &[u8]) -> Step<'_, ProtocolVersion> {
    const NAME: &str = "protocol name";
    let (rest, name) = parse::string(input, NAME)?;
    if !ProtocolVersion::ALL
        .iter()
        .any(|known| known.name() == name)
    {
        let kind = DecodeErrorKind::ProtocolName;
        return Err(DecodeError::new(kind, NAME, "MQTT-3.1.2-1").into());
    }
    let (rest, level) = parse::byte(rest, "protocol version")?;
    let version = ProtocolVersion::from_name_and_level(name, level).ok_or_else(|| {
        let kind = DecodeErrorKind::UnsupportedVersion { level };
        DecodeError::new(kind, "protocol version", "MQTT-3.1.2-2")
    })?;
    Ok((rest, version))
}

fn check_flags(flags: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    const PLACE: &str = "connect flags";
    let invalid = |clause| {
        Err(DecodeError::new(
            DecodeErrorKind::ConnectFlags(flags),
            PLACE,
            clause,
        ))
    };
    if flags & RESERVED != 0 {
        return invalid("MQTT-3.1.2-3");
    }
    if flags & WILL == 0 {
        if flags & WILL_QOS != 0 {
            return invalid("MQTT-3.1.2-11");
        }
        if flags & WILL_RETAIN != 0 {
            return invalid("MQTT-3.1.2-13");
        }
    }
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::new(
            DecodeErrorKind::QoS,
            PLACE,
            "MQTT-3.1.2-12",
        ));
    }
    if flags & (USERNAME | PASSWORD) == PASSWORD && !version.has_password_without_username() {
        return invalid("MQTT3-3.1.2-22");
    }
    Ok(())
}

fn lacks_method(properties: &ConnectProperties<'_>) -> bool {
    properties.authentication_data.is_some() && properties.authentication_method.is_none()
}

impl<'a> Will<'a> {
    fn parse(input: &'a [u8], flags: u8, version: ProtocolVersion) -> Step<'a, Self> {
        let (rest, properties) = if version.has_properties() {
            property::section(input, Owner::Will)?
        } else {
            (input, WillProperties::default())
        };
        let (rest, topic) = parse::topic_name(rest, "will topic")?;
        let (rest, payload) = parse::binary(rest, "will payload")?;
        let qos = QoS::from_bits((flags & WILL_QOS) >> WILL_QOS_SHIFT)
            .ok_or_else(|| DecodeError::new(DecodeErrorKind::QoS, PLACE, "MQTT-3.1.2-12"))?;
        let will = Self {
            topic,
            payload,
            qos,
            retain: flags & WILL_RETAIN != 0,
            properties,
        };
        Ok((rest, will))
    }

    fn size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let properties = if version.has_properties() {
            property::section_size(&self.properties)?
        } else {
            0
        };
        let payload = write::binary_size(self.payload, "will payload")?;
        Ok(properties + 2 + self.topic.as_str().len() + payload)
    }

    fn write(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
        write::binary(self.topic.as_str().as_bytes(), out);
        write::binary(self.payload, out);
    }
}

impl Body for Connect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Connect.first_byte()
    }

    fn body_size(&self, _: ProtocolVersion) -> Result<usize, EncodeError> {
        let version = self.version;
        if self.password.is_some()
            && self.username.is_none()
            && !version.has_password_without_username()
        {
            return Err(EncodeError::PasswordWithoutUsername);
        }
        // Protocol name, level, flags and keep alive.
        let mut size = 2 + version.name().len() + 1 + 1 + 2;
        if version.has_properties() {
            if lacks_method(&self.properties) {
                return Err(EncodeError::AuthenticationMethodMissing);
            }
            size += property::section_size(&self.properties)?;
        }
        size += write::string_size(self.client_id, "client identifier")?;
        if let Some(will) = &self.will {
            size += will.size(version)?;
        }
        if let Some(username) = self.username {
            size += write::string_size(username, "user name")?;
        }
        if let Some(password) = self.password {
            size += write::binary_size(password, "password")?;
        }
        Ok(size)
    }

    fn write_body(&self, _: ProtocolVersion, out: &mut impl BufMut) {
        let version = self.version;
        write::binary(version.name().as_bytes(), out);
        out.put_u8(version.level());
        out.put_u8(self.flags());
        out.put_u16(self.keep_alive);
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
        write::binary(self.client_id.as_bytes(), out);
        if let Some(will) = &self.will {
            will.write(version, out);
        }
        if let Some(username) = self.username {
            write::binary(username.as_bytes(), out);
        }
        if let Some(password) = self.password {
            write::binary(password, out);
        }
    }
}

encoder!(Connect);
