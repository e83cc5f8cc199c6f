//! An Application Message as the broker keeps it: one compact copy, written out for any receiver.

use mqtt_codec::{
    EncodeError, PacketId, ProtocolVersion, Publish, QoS, SubscriptionIdentifier, TopicName,
};
use mqtt_session::{Alias, Time};

use crate::mount::Seen;

/// Which of the two forms of PUBLISH a receiver reads: with a property section or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// MQTT 3.1 and 3.1.1.
    Plain,
    /// MQTT 5.0.
    Properties,
}

impl Layout {
    pub(crate) fn of(version: ProtocolVersion) -> Self {
        if version.has_properties() {
            Self::Properties
        } else {
            Self::Plain
        }
    }
}

/// What is the same in the PUBLISH of every receiver of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) topic: &'a [u8],
    /// Encoded properties that are forwarded unaltered: all but expiry, alias and identifiers.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// What differs from receiver to receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) layout: Layout,
    pub(crate) qos: QoS,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    /// Present exactly when `qos` is not 0.
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) alias: Alias,
    /// Remaining Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
    pub(crate) identifiers: &'a [SubscriptionIdentifier],
    /// Bytes that the topic begins with and the receiver does not see: its mount point.
    pub(crate) mount: u16,
}

impl<'a> Envelope<'a> {
    pub(crate) fn at_most_once(layout: Layout, retain: bool, expiry: Option<u32>) -> Self {
        Self {
            layout,
            qos: QoS::AtMostOnce,
            dup: false,
            retain,
            packet_id: None,
            alias: Alias::None,
            expiry,
            identifiers: &[],
            mount: 0,
        }
    }

    /// For a receiver with a mount point of so many bytes.
    pub(crate) fn behind(self, mount: u16) -> Self {
        Self { mount, ..self }
    }

    pub(crate) fn with_identifiers(self, identifiers: &'a [SubscriptionIdentifier]) -> Self {
        Self {
            identifiers,
            ..self
        }
    }

    fn topic_sent(&self, topic: &'a [u8]) -> &'a [u8] {
        if matches!(self.alias, Alias::Use(_)) {
            &[]
        } else {
            topic.get(usize::from(self.mount)..).unwrap_or_default()
        }
    }

    fn alias_number(&self) -> Option<u16> {
        match self.alias {
            Alias::None => None,
            Alias::Set(number) | Alias::Use(number) => Some(number.get()),
        }
    }

    /// Bytes of the properties that only this receiver's packet carries.
    fn own_properties_len(&self) -> usize {
        let identifiers: usize = self
            .identifiers
            .iter()
            .map(|id| 1 + varint_len(id.get() as usize))
            .sum();
        identifiers + self.alias_number().map_or(0, |_| 3) + self.expiry.map_or(0, |_| 5)
    }
}

impl<'a> Parts<'a> {
    /// The properties as the receiver sees them.
    fn seen(&self, envelope: &Envelope<'a>) -> Seen<'a> {
        let mount = self.topic.get(..usize::from(envelope.mount));
        Seen::new(self.properties, mount.unwrap_or_default())
    }

    fn remaining_len(&self, envelope: &Envelope<'a>) -> usize {
        let mut len = 2 + envelope.topic_sent(self.topic).len() + self.payload.len();
        if envelope.packet_id.is_some() {
            len += 2;
        }
        if envelope.layout == Layout::Properties {
            let properties = self.seen(envelope).len() + envelope.own_properties_len();
            len += varint_len(properties) + properties;
        }
        len
    }

    /// Length of the whole packet in bytes.
    pub(crate) fn encoded_len(&self, envelope: &Envelope<'a>) -> usize {
        let remaining = self.remaining_len(envelope);
        1 + varint_len(remaining) + remaining
    }

    /// Appends the packet to `out`.
    pub(crate) fn encode(&self, envelope: &Envelope<'a>, out: &mut Vec<u8>) {
        out.reserve(self.remaining_len(envelope) + 5);
        self.encode_head(envelope, out);
        out.extend_from_slice(self.payload);
    }

    /// Appends the packet up to its payload to `out`.
    pub(crate) fn encode_head(&self, envelope: &Envelope<'a>, out: &mut Vec<u8>) {
        let remaining = self.remaining_len(envelope);
        let flags =
            u8::from(envelope.dup) << 3 | (envelope.qos as u8) << 1 | u8::from(envelope.retain);
        out.push(0x30 | flags);
        put_varint(remaining, out);
        let topic = envelope.topic_sent(self.topic);
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        out.extend_from_slice(topic);
        if let Some(id) = envelope.packet_id {
            out.extend_from_slice(&id.get().to_be_bytes());
        }
        if envelope.layout == Layout::Properties {
            let seen = self.seen(envelope);
            put_varint(seen.len() + envelope.own_properties_len(), out);
            if let Some(seconds) = envelope.expiry {
                out.push(0x02);
                out.extend_from_slice(&seconds.to_be_bytes());
            }
            for id in envelope.identifiers {
                out.push(0x0b);
                put_varint(id.get() as usize, out);
            }
            if let Some(alias) = envelope.alias_number() {
                out.push(0x23);
                out.extend_from_slice(&alias.to_be_bytes());
            }
            seen.encode(out);
        }
    }
}

/// A message that outlives the read it came with.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) qos: QoS,
    /// When the Message Expiry Interval passes.
    pub(crate) expires_at: Option<Time>,
    topic_len: u16,
    properties_len: u32,
    /// Topic, forwarded properties, payload.
    bytes: Box<[u8]>,
}

impl Message {
    pub(crate) fn new(parts: Parts<'_>, qos: QoS, expires_at: Option<Time>) -> Self {
        let mut bytes =
            Vec::with_capacity(parts.topic.len() + parts.properties.len() + parts.payload.len());
        bytes.extend_from_slice(parts.topic);
        bytes.extend_from_slice(parts.properties);
        bytes.extend_from_slice(parts.payload);
        Self {
            qos,
            expires_at,
            topic_len: parts.topic.len() as u16,
            properties_len: parts.properties.len() as u32,
            bytes: bytes.into_boxed_slice(),
        }
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let (topic, rest) = self.bytes.split_at(usize::from(self.topic_len));
        let (properties, payload) = rest.split_at(self.properties_len as usize);
        Parts {
            topic,
            properties,
            payload,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        // The bytes were a `str` when they were copied.
        core::str::from_utf8(self.parts().topic).unwrap_or_default()
    }

    /// Bytes that the message costs whoever keeps it.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }

    /// The same before the message is made.
    pub(crate) fn size_of(parts: &Parts<'_>) -> usize {
        parts.topic.len() + parts.properties.len() + parts.payload.len() + size_of::<Self>()
    }

    /// Remaining Message Expiry Interval in whole seconds. `None`: it never expires.
    pub(crate) fn remaining(&self, now: Time) -> Option<u32> {
        Some(seconds_until(self.expires_at?, now))
    }

    /// Whether the Message Expiry Interval has passed.
    pub(crate) fn is_expired(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// Encodes those properties of `publish` that are forwarded unaltered, into `out`, which is emptied first.
/// `topic` is the topic of the message, which the packet itself may leave to an alias.
pub(crate) fn forwarded_properties<'p>(
    publish: &Publish<'p>,
    topic: TopicName<'p>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    out.clear();
    let properties = &publish.properties;
    if properties.payload_format_utf8.is_none()
        && properties.response_topic.is_none()
        && properties.correlation_data.is_none()
        && properties.content_type.is_none()
        && properties.user_properties.is_empty()
    {
        return Ok(());
    }
    // The codec writes the properties inside a packet; a packet with no payload ends with them.
    let mut bare = publish.clone();
    bare.dup = false;
    bare.retain = false;
    bare.qos = QoS::AtMostOnce;
    bare.packet_id = None;
    bare.topic = Some(topic);
    bare.payload = &[];
    bare.properties.message_expiry_interval = None;
    bare.properties.topic_alias = None;
    bare.properties.subscription_identifiers.clear();
    bare.encode(ProtocolVersion::V5, out)?;
    let header = 1 + varint_at(out, 1).1;
    let topic = usize::from(u16::from_be_bytes([out[header], out[header + 1]]));
    let start = header + 2 + topic;
    let (_, width) = varint_at(out, start);
    out.drain(..start + width);
    Ok(())
}

/// Whole seconds until `end`, rounded up, so that a message does not expire early by rounding.
pub(crate) fn seconds_until(end: Time, now: Time) -> u32 {
    let left = end.saturating_since(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// Writes another Message Expiry Interval into a packet of [`Parts::encode`], where it comes first among the
/// properties. A packet without one stays as it is.
pub(crate) fn set_expiry(packet: &mut [u8], seconds: u32) {
    let header = 1 + varint_at(packet, 1).1;
    let Some([high, low]) = packet.get(header..header + 2) else {
        return;
    };
    let properties = header + 2 + usize::from(u16::from_be_bytes([*high, *low]));
    let (len, width) = varint_at(packet, properties);
    let at = properties + width;
    if len >= 5
        && packet.get(at) == Some(&0x02)
        && let Some(value) = packet.get_mut(at + 1..at + 5)
    {
        value.copy_from_slice(&seconds.to_be_bytes());
    }
}

fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Value and width of a variable byte integer that the codec wrote.
pub(crate) fn varint_at(bytes: &[u8], at: usize) -> (usize, usize) {
    let mut value = 0;
    for (width, byte) in bytes.iter().skip(at).take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * width);
        if byte & 0x80 == 0 {
            return (value, width + 1);
        }
    }
    (value, 4)
}
