//! Bundles: messages above QoS 0 that follow each other, as finished packets but for their identifiers.

use std::sync::Arc;

use mqtt_codec::{FixedHeader, ProtocolVersion, Publish, QoS};
use mqtt_session::{Alias, Transmission};

use crate::message::{Layout, varint_at};

/// PUBLISH packets of one topic and QoS above 0, for sessions that keep nothing of what they send: each message
/// costs such a session the copy of its bytes and an identifier. Receivers share the bytes.
///
/// What the packets say of the QoS, of DUP and of the identifier is written anew for each receiver.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    bytes: Arc<[u8]>,
    /// Where the packets stand that are left.
    at: u32,
    end: u32,
    /// How many they are.
    left: u32,
    topic_len: u16,
    layout: Layout,
}

impl Bundle {
    /// `count` packets for a topic of so many bytes, one after the other.
    pub(crate) fn new(bytes: Arc<[u8]>, count: u64, topic_len: u16, layout: Layout) -> Self {
        Self {
            at: 0,
            end: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            left: u32::try_from(count).unwrap_or(u32::MAX),
            bytes,
            topic_len,
            layout,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.left as usize
    }

    /// Bytes of the packets that are left.
    pub(crate) fn size(&self) -> usize {
        (self.end - self.at) as usize
    }

    /// The first packet, and the length of its fixed header.
    fn first(&self) -> (&[u8], usize) {
        let rest = self
            .bytes
            .get(self.at as usize..self.end as usize)
            .unwrap_or_default();
        let (remaining, width) = varint_at(rest, 1);
        let header = 1 + width;
        (rest.get(..header + remaining).unwrap_or_default(), header)
    }

    /// The topic of all its messages.
    pub(crate) fn topic(&self) -> &str {
        let (packet, header) = self.first();
        let from = header + 2;
        let topic = packet.get(from..from + usize::from(self.topic_len));
        // It was a `str` when it was decoded.
        core::str::from_utf8(topic.unwrap_or_default()).unwrap_or_default()
    }

    /// Whether the packet can be sent as it is, but for what is written anew.
    fn is_finished_for(&self, how: &Transmission) -> bool {
        how.alias == Alias::None && how.expiry.is_none() && Layout::of(how.version) == self.layout
    }

    /// Lets `use_it` have the first packet decoded; `None` cannot happen: it was decoded before.
    fn decoded<T>(&self, qos: QoS, use_it: impl FnOnce(Publish<'_>) -> Option<T>) -> Option<T> {
        let version = match self.layout {
            Layout::Plain => ProtocolVersion::V3_1_1,
            Layout::Properties => ProtocolVersion::V5,
        };
        let (packet, header_len) = self.first();
        let header = FixedHeader::parse(packet).ok()??;
        let body = packet.get(header_len..)?;
        let mut publish = Publish::decode(header.flags, body, version).ok()?;
        publish.qos = qos;
        use_it(publish)
    }

    /// Length of the first packet, sent like this.
    pub(crate) fn encoded_len(&self, qos: QoS, how: &Transmission) -> usize {
        if self.is_finished_for(how) {
            return self.first().0.len();
        }
        let len = self.decoded(qos, |publish| how.publish_len(publish).ok());
        len.unwrap_or_default()
    }

    /// Appends the first packet, sent like this; returns whether it could be.
    pub(crate) fn encode(&self, qos: QoS, how: &Transmission, out: &mut Vec<u8>) -> bool {
        if !self.is_finished_for(how) {
            let written = self.decoded(qos, |publish| how.write_publish(publish, out).ok());
            return written.is_some();
        }
        let (packet, header) = self.first();
        let start = out.len();
        out.extend_from_slice(packet);
        let id_at = start + header + 2 + usize::from(self.topic_len);
        if let Some(first) = out.get_mut(start) {
            *first = 0x30 | (qos as u8) << 1 | u8::from(how.dup) << 3;
        }
        if let (Some(id), Some(place)) = (how.packet_id, out.get_mut(id_at..id_at + 2)) {
            place.copy_from_slice(&id.get().to_be_bytes());
        }
        !packet.is_empty()
    }

    /// Goes on to the next packet.
    pub(crate) fn advance(&mut self) {
        self.at += self.first().0.len() as u32;
        self.left -= 1;
        if self.left == 0 {
            self.at = self.end;
        }
    }

    /// Takes the first packet out.
    pub(crate) fn split_first(&mut self) -> Self {
        let before = self.at;
        let mut first = self.clone();
        self.advance();
        first.at = before;
        first.end = self.at.max(before);
        first.left = 1;
        first
    }

    /// Keeps no more packets, and bytes of them, than this; returns how many it drops.
    pub(crate) fn truncate(&mut self, messages: usize, bytes: usize) -> u64 {
        if self.len() <= messages && self.size() <= bytes {
            return 0;
        }
        let mut rest = self.clone();
        let mut kept = 0;
        while kept < messages && rest.left > 0 {
            let before = rest.at;
            rest.advance();
            if (rest.at - self.at) as usize > bytes {
                rest.at = before;
                break;
            }
            kept += 1;
        }
        let dropped = self.len() - kept;
        self.end = rest.at;
        self.left = kept as u32;
        dropped as u64
    }
}
