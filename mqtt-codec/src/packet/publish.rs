//! PUBLISH: a message on its way.

use alloc::vec::Vec;
use core::num::NonZeroU16;

use bytes::BufMut;

use crate::packet::{self, Body, encoder};
use crate::parse::{self, Step};
use crate::property::{self, Owner, property_set};
use crate::write;
use crate::{
    DecodeError, DecodeErrorKind, EncodeError, FixedHeader, PacketId, PacketType, ProtocolVersion,
    QoS, SubscriptionIdentifier, TopicName, UserProperty,
};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// This may be a repetition. Never set with QoS 0.
    pub dup: bool,
    /// The quality of service.
    pub qos: QoS,
    /// The server keeps the message for later subscribers, or it was kept for this one.
    pub retain: bool,
    /// The topic; `None` when a topic alias stands for it.
    pub topic: Option<TopicName<'a>>,
    /// There exactly when the QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// The application message. Whether it is what `payload_format_utf8` promises is not checked.
    pub payload: &'a [u8],
    /// The properties (5.0).
    pub properties: PublishProperties<'a>,
}

property_set! {
    /// The properties of a PUBLISH.
    pub struct PublishProperties<'a> {
        /// The payload is UTF-8 text (true) or of no stated format (false).
        pub payload_format_utf8: Option<bool> = PayloadFormatIndicator,
        /// Lifetime of the message, in seconds.
        pub message_expiry_interval: Option<u32> = MessageExpiryInterval,
        /// A number that stands for the topic.
        pub topic_alias: Option<NonZeroU16> = TopicAlias,
        /// The topic of the response to this request.
        pub response_topic: Option<TopicName<'a>> = ResponseTopic,
        /// What tells a request's sender which response this is.
        pub correlation_data: Option<&'a [u8]> = CorrelationData,
        /// The subscriptions that this message goes to. A client does not send any.
        pub subscription_identifiers: Vec<SubscriptionIdentifier> = SubscriptionIdentifier,
        /// The kind of content, as the application defines it.
        pub content_type: Option<&'a str> = ContentType,
        /// User properties, in order.
        pub user_properties: Vec<UserProperty<'a>> = User,
    }
}

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;
const PLACE: &str = "PUBLISH";

#[inline]
fn qos_of(flags: u8) -> Result<QoS, DecodeError> {
    QoS::from_bits(flags >> 1 & 0b11)
        .ok_or_else(|| DecodeError::new(DecodeErrorKind::QoS, PLACE, "MQTT-3.3.1-4"))
}

#[inline]
pub(crate) fn check_flags(flags: u8) -> Result<(), DecodeError> {
    if qos_of(flags)? == QoS::AtMostOnce && flags & DUP != 0 {
        return Err(DecodeError::new(
            DecodeErrorKind::DupWithoutQos,
            PLACE,
            "MQTT-3.3.1-2",
        ));
    }
    Ok(())
}

impl<'a> Publish<'a> {
    /// A message of QoS 0, not retained, without properties.
    #[must_use]
    pub fn new(topic: TopicName<'a>, payload: &'a [u8]) -> Self {
        Self {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: Some(topic),
            packet_id: None,
            payload,
            properties: PublishProperties::default(),
        }
    }

    /// Decodes the body of a PUBLISH, the bytes after the fixed header, with the flags of that.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when flags and body are not a PUBLISH of this version.
    #[inline]
    pub fn decode(
        flags: u8,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        match Self::decode_frequent(flags, body, version) {
            Some(publish) => Ok(publish),
            None => Self::decode_any(flags, body, version),
        }
    }

    /// Decodes what nearly all are: with a topic and without properties. `None`: this is another, or none.
    ///
    /// Every caller returns the value at once. Passed on through the results of the parsers, its 150 bytes would
    /// be copied at each step, which takes longer than the parsing.
    #[inline]
    pub(crate) fn decode_frequent(
        flags: u8,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Option<Self> {
        let (len, rest) = body.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let topic = TopicName::new(str::from_utf8(topic).ok()?).ok()?;
        Self::frequent_behind(topic, flags, rest, version)
    }

    /// The same behind the topic.
    #[inline]
    fn frequent_behind(
        topic: TopicName<'a>,
        flags: u8,
        rest: &'a [u8],
        version: ProtocolVersion,
    ) -> Option<Self> {
        let qos = QoS::from_bits(flags >> 1 & 0b11)?;
        let dup = flags & DUP != 0;
        let (packet_id, rest) = if qos == QoS::AtMostOnce {
            if dup {
                return None;
            }
            (None, rest)
        } else {
            let (id, rest) = rest.split_first_chunk()?;
            (Some(PacketId::new(u16::from_be_bytes(*id))?), rest)
        };
        let payload = if version.has_properties() {
            rest.strip_prefix(&[0])?
        } else {
            rest
        };
        Some(Self {
            dup,
            qos,
            retain: flags & RETAIN != 0,
            topic: Some(topic),
            packet_id,
            payload,
            properties: PublishProperties::default(),
        })
    }

    fn decode_any(
        flags: u8,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let (rest, topic) = topic(body, version)?;
        Self::decode_rest(flags, topic, rest, version)
    }

    /// The same, faster, for a topic that is known, as it mostly is where packets follow each other:
    /// it need not be checked again. `None`: the packet is for another topic.
    ///
    /// # Errors
    ///
    /// As [`decode`](Self::decode).
    #[inline]
    pub fn decode_knowing(
        flags: u8,
        body: &'a [u8],
        version: ProtocolVersion,
        known: TopicName<'a>,
    ) -> Option<Result<Self, DecodeError>> {
        let rest = strip_topic(body, known)?;
        Some(match Self::frequent_behind(known, flags, rest, version) {
            Some(publish) => Ok(publish),
            None => Self::decode_rest(flags, Some(known), rest, version),
        })
    }

    /// Writes the packet but for its payload, which is to follow at once: for a caller that writes a large one
    /// from where it lies.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode); the buffer needs no room for the payload.
    #[inline]
    pub fn encode_head(
        &self,
        version: ProtocolVersion,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        packet::begin(self, version, self.payload.len(), out)?;
        self.write_head(version, out);
        Ok(())
    }

    /// Writes what stands between the fixed header and the payload.
    #[inline]
    fn write_head(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        let topic = self.topic.map_or("", TopicName::as_str);
        write::binary(topic.as_bytes(), out);
        if let Some(id) = self.packet_id {
            out.put_u16(id.get());
        }
        if version.has_properties() {
            property::write_section(&self.properties, out);
        }
    }

    #[inline(never)]
    fn decode_rest(
        flags: u8,
        topic: Option<TopicName<'a>>,
        rest: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        check_flags(flags)?;
        let qos = qos_of(flags)?;
        let (rest, packet_id) = if qos == QoS::AtMostOnce {
            (rest, None)
        } else {
            let (rest, id) = parse::packet_id(rest)?;
            (rest, Some(id))
        };
        let (payload, properties) = if version.has_properties() {
            property::section(rest, Owner::Packet(PacketType::Publish))?
        } else {
            (rest, PublishProperties::default())
        };
        if topic.is_none() && properties.topic_alias.is_none() {
            return Err(DecodeError::new(
                DecodeErrorKind::TopicMissing,
                PLACE,
                "section 3.3.2.1",
            ));
        }
        Ok(Self {
            dup: flags & DUP != 0,
            qos,
            retain: flags & RETAIN != 0,
            topic,
            packet_id,
            payload,
            properties,
        })
    }
}

/// What is particular to a plain PUBLISH: one that is not retained, not sent again, without properties and for
/// a topic that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlainPublish {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1, with its packet identifier.
    AtLeastOnce(PacketId),
    /// QoS 2, with its packet identifier.
    ExactlyOnce(PacketId),
}

impl PlainPublish {
    /// Recognises one by its fixed header and its body; `None`: it is none, or is not well formed.
    ///
    /// Nothing else of it needs to be decoded then: what follows the topic, the packet identifier and the
    /// empty property section is the payload. For a receiver that passes packets on as they came:
    /// publishers send many to one topic.
    #[inline]
    #[must_use]
    pub fn recognize(
        header: FixedHeader,
        body: &[u8],
        version: ProtocolVersion,
        topic: TopicName<'_>,
    ) -> Option<Self> {
        if header.packet_type != PacketType::Publish || header.flags & (DUP | RETAIN) != 0 {
            return None;
        }
        let mut rest = strip_topic(body, topic)?;
        let mut packet_id = || {
            let (id, behind) = rest.split_first_chunk()?;
            rest = behind;
            PacketId::new(u16::from_be_bytes(*id))
        };
        let plain = match header.flags {
            0 => Self::AtMostOnce,
            0b0010 => Self::AtLeastOnce(packet_id()?),
            0b0100 => Self::ExactlyOnce(packet_id()?),
            _ => return None,
        };
        (!version.has_properties() || rest.first() == Some(&0)).then_some(plain)
    }

    /// Its quality of service.
    #[inline]
    #[must_use]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// Its packet identifier, which it has above QoS 0.
    #[inline]
    #[must_use]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}

/// What follows the topic in the body of a PUBLISH, if the topic is this one.
#[inline]
fn strip_topic<'a>(body: &'a [u8], topic: TopicName<'_>) -> Option<&'a [u8]> {
    let topic = topic.as_str().as_bytes();
    let (len, rest) = body.split_first_chunk()?;
    if usize::from(u16::from_be_bytes(*len)) != topic.len() {
        return None;
    }
    rest.strip_prefix(topic)
}

#[inline]
fn topic<'a>(body: &'a [u8], version: ProtocolVersion) -> Step<'a, Option<TopicName<'a>>> {
    const PLACE: &str = "topic name";
    if version.has_properties() {
        return parse::optional_topic_name(body, PLACE);
    }
    let (rest, name) = parse::topic_name(body, PLACE)?;
    Ok((rest, Some(name)))
}

impl Body for Publish<'_> {
    #[inline]
    fn first_byte(&self) -> u8 {
        (PacketType::Publish as u8) << 4
            | if self.dup { DUP } else { 0 }
            | (self.qos as u8) << 1
            | u8::from(self.retain)
    }

    #[inline]
    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        let id = match (self.qos, self.packet_id) {
            (QoS::AtMostOnce, None) => 0,
            (QoS::AtMostOnce, Some(_)) => return Err(EncodeError::PacketIdUnexpected),
            (_, None) => return Err(EncodeError::PacketIdMissing),
            (_, Some(_)) => 2,
        };
        if self.dup && self.qos == QoS::AtMostOnce {
            return Err(EncodeError::DupWithoutQos);
        }
        let topic = match self.topic {
            // The length of a topic name has been checked.
            Some(topic) => 2 + topic.as_str().len(),
            None if version.has_properties() && self.properties.topic_alias.is_some() => 2,
            None => return Err(EncodeError::TopicMissing),
        };
        let properties = if version.has_properties() {
            property::section_size(&self.properties)?
        } else {
            0
        };
        Ok(topic + id + properties + self.payload.len())
    }

    #[inline]
    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut) {
        self.write_head(version, out);
        out.put_slice(self.payload);
    }
}

encoder!(Publish);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way accepts nothing that the long one does not, and reads it as that does.
        #[test]
        fn the_frequent_form_is_decoded_as_any(
            flags in 0_u8..16,
            topic in "[a/+#é\0]{0,20}",
            id in 0_u16..3,
            length in 0_u8..3,
            rest in vec(0_u8..4, 0..4),
            cut in 0_usize..30,
        ) {
            let mut body = Vec::from([0, topic.len() as u8]);
            body.extend(topic.as_bytes());
            body.extend(id.to_be_bytes());
            body.push(length);
            body.extend(rest);
            body.truncate(cut);
            for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
                if let Some(publish) = Publish::decode_frequent(flags, &body, version) {
                    prop_assert_eq!(Ok(publish), Publish::decode_any(flags, &body, version));
                } else if let Ok(publish) = Publish::decode_any(flags, &body, version) {
                    // What it leaves to the other is not what most packets are.
                    prop_assert!(publish.topic.is_none() || version == ProtocolVersion::V5);
                    prop_assert_ne!(publish.properties, PublishProperties::default());
                }
            }
        }
    }
}
