//! The packets of the load generator, encoded once and patched where messages differ.

use bytes::BufMut;
use mqtt_codec::{
    Ack, ConnAck, Connect, DecodeError, Disconnect, EncodeError, FixedHeader, Packet, PacketId,
    PacketType, ProtocolVersion, Publish, QoS, ReasonCode, Subscribe, SubscribeFilter,
    SubscribeProperties, TopicFilter, TopicName, Unsubscribe, UnsubscribeProperties,
};

/// Bytes at the start of a payload that say which message it is: publisher, number, time.
pub(super) const STAMP: usize = 4 + 8 + 8;
/// What the rest of a payload is filled with.
const FILLER: u8 = b'.';

/// What a payload says of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) publisher: u32,
    /// The publisher's messages are numbered from 0.
    pub(super) number: u64,
    /// When it was sent, in nanoseconds of the run's clock.
    pub(super) time: u64,
}

impl Stamp {
    /// Reads the stamp of a payload that must have `size` bytes.
    #[inline]
    pub(super) fn read(payload: &[u8], size: usize) -> Option<Self> {
        if payload.len() != size {
            return None;
        }
        let (publisher, rest) = payload.split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        // The last byte stands for the rest: comparing all of it would cost more than the load.
        if rest.last().is_some_and(|last| *last != FILLER) {
            return None;
        }
        Some(Self {
            publisher: u32::from_be_bytes(*publisher),
            number: u64::from_be_bytes(*number),
            time: u64::from_be_bytes(*time),
        })
    }

    #[inline]
    fn bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..4].copy_from_slice(&self.publisher.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.number.to_be_bytes());
        bytes[12..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }
}

/// A PUBLISH that is encoded once, and copied for each message with its identifier and stamp.
#[derive(Debug)]
pub(super) struct Template {
    topic: String,
    bytes: Vec<u8>,
    /// Bytes from the start of the packet identifier, or of the payload at QoS 0, to the end.
    identifier: usize,
    payload: usize,
}

impl Template {
    /// `payload` is in bytes, and not less than [`STAMP`].
    pub(super) fn new(
        topic: &str,
        qos: QoS,
        retain: bool,
        payload: usize,
        version: ProtocolVersion,
    ) -> Result<Self, EncodeError> {
        let content = vec![FILLER; payload.max(STAMP)];
        let mut publish = Publish::new(TopicName::assume_valid(topic), &content);
        publish.qos = qos;
        publish.retain = retain;
        publish.packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let mut bytes = Vec::new();
        publish.encode(version, &mut bytes)?;
        let behind_identifier = usize::from(version.has_properties()) + content.len();
        Ok(Self {
            topic: topic.to_owned(),
            bytes,
            identifier: behind_identifier + 2 * usize::from(qos != QoS::AtMostOnce),
            payload: content.len(),
        })
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends one message.
    #[inline]
    pub(super) fn write(&self, id: Option<PacketId>, stamp: Stamp, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        let end = out.len();
        if let Some(id) = id {
            let at = end - self.identifier;
            out[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
        }
        let at = end - self.payload;
        out[at..at + STAMP].copy_from_slice(&stamp.bytes());
    }
}

/// Who connects: what all CONNECT packets of a run have in common.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) version: ProtocolVersion,
    pub(super) keep_alive: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<Vec<u8>>,
    /// What every client identifier begins with.
    pub(super) prefix: String,
    /// Sessions outlive their connections.
    pub(super) lasting: bool,
}

/// How long a session lasts that outlives its connection, in seconds.
const LASTING: u32 = 24 * 60 * 60;

impl Identity {
    pub(super) fn connect(&self, name: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let client_id = format!("{}{name}", self.prefix);
        let mut connect = Connect::new(self.version, &client_id);
        connect.keep_alive = self.keep_alive;
        connect.clean_start = !self.lasting;
        connect.properties.session_expiry_interval =
            (self.lasting && self.version.has_session_expiry()).then_some(LASTING);
        connect.username = self.username.as_deref();
        connect.password = self.password.as_deref();
        connect.encode(self.version, out)
    }
}

/// Appends a SUBSCRIBE of these filters, which must be valid.
pub(super) fn subscribe(
    id: PacketId,
    filters: &[String],
    qos: QoS,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    Subscribe {
        packet_id: id,
        filters: filters
            .iter()
            .map(|filter| SubscribeFilter::new(TopicFilter::assume_valid(filter), qos))
            .collect(),
        properties: SubscribeProperties::default(),
    }
    .encode(version, out)
}

/// Appends an UNSUBSCRIBE of a filter, which must be valid.
pub(super) fn unsubscribe(
    id: PacketId,
    filter: &str,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    Unsubscribe {
        packet_id: id,
        filters: vec![TopicFilter::assume_valid(filter)],
        properties: UnsubscribeProperties::default(),
    }
    .encode(version, out)
}

/// Appends an acknowledgement without properties, which is the same four bytes in every version.
#[inline]
pub(super) fn acknowledge(packet: PacketType, id: PacketId, out: &mut Vec<u8>) {
    let flags = if packet == PacketType::PubRel {
        0b0010
    } else {
        0
    };
    out.put_u8((packet as u8) << 4 | flags);
    out.put_u8(2);
    out.put_u16(id.get());
}

/// Appends a PINGREQ.
pub(super) fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[(PacketType::PingReq as u8) << 4, 0]);
}

/// Appends a DISCONNECT without properties.
pub(super) fn disconnect(version: ProtocolVersion, out: &mut Vec<u8>) {
    let packet = Disconnect::new(ReasonCode::SUCCESS);
    // It has nothing that could be too long.
    let _ = packet.encode(version, out);
}

/// Decodes a CONNACK; anything else is an error in words.
pub(super) fn connack<'a>(
    header: FixedHeader,
    body: &'a [u8],
    version: ProtocolVersion,
) -> Result<ConnAck<'a>, String> {
    match Packet::decode(header, body, version) {
        Ok(Packet::ConnAck(connack)) if connack.reason_code.is_error() => Err(format!(
            "CONNECT was refused: {}{}",
            connack.reason_code.name(),
            connack
                .properties
                .reason_string
                .map(|text| format!(" ({text})"))
                .unwrap_or_default()
        )),
        Ok(Packet::ConnAck(connack)) => Ok(*connack),
        Ok(packet) => Err(format!(
            "{} in place of CONNACK",
            packet.packet_type().name()
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// Identifier and reason code of an acknowledgement.
#[inline]
pub(super) fn ack(
    header: FixedHeader,
    body: &[u8],
    version: ProtocolVersion,
) -> Result<(PacketId, ReasonCode), DecodeError> {
    let ack = Ack::decode(header.packet_type, body, version)?;
    Ok((ack.packet_id, ack.reason_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_the_packet_that_the_codec_would_write() {
        for version in ProtocolVersion::ALL {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let template = Template::new("a/b", qos, true, 200, version).unwrap();
                let id = (qos != QoS::AtMostOnce).then(|| PacketId::new(0x1234).unwrap());
                let stamp = Stamp {
                    publisher: 7,
                    number: 1 << 40,
                    time: u64::MAX,
                };
                let mut bytes = b"before".to_vec();
                template.write(id, stamp, &mut bytes);
                let bytes = bytes.split_off(6);
                assert_eq!(bytes.len(), template.len());
                let (packet, len) = mqtt_codec::decode(&bytes, version, 1000).unwrap().unwrap();
                assert_eq!(len, bytes.len());
                let Packet::Publish(publish) = packet else {
                    panic!("not a PUBLISH");
                };
                assert_eq!((publish.qos, publish.packet_id), (qos, id));
                assert!(publish.retain);
                assert_eq!(publish.topic.unwrap().as_str(), template.topic());
                assert_eq!(Stamp::read(publish.payload, 200), Some(stamp));
            }
        }
    }

    #[test]
    fn a_damaged_payload_has_no_stamp() {
        let template =
            Template::new("a", QoS::AtMostOnce, false, 64, ProtocolVersion::V3_1_1).unwrap();
        let stamp = Stamp {
            publisher: 0,
            number: 0,
            time: 0,
        };
        let mut bytes = Vec::new();
        template.write(None, stamp, &mut bytes);
        let mut payload = bytes.split_off(bytes.len() - 64);
        assert!(Stamp::read(&payload, 64).is_some());
        assert!(Stamp::read(&payload, 65).is_none());
        assert!(Stamp::read(&payload[..STAMP - 1], STAMP - 1).is_none());
        payload[63] ^= 0x55;
        assert!(Stamp::read(&payload, 64).is_none());
    }
}
