//! One connection of a client, and what was said on it.

use core::time::Duration;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_codec::{Frame, Packet, PacketId, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::client::SILENCE;
use super::link::Link;
use super::model::Model;

/// So long a packet is on its way at most on a connection that is not slow.
const LAG: Duration = Duration::from_secs(2);

/// One connection.
pub(super) struct Conversation {
    pub(super) stream: DuplexStream,
    pub(super) link: Arc<Link>,
    pub(super) buffer: BytesMut,
    /// Answers that wait, in their order.
    pub(super) answers: VecDeque<Packet<'static>>,
    /// QoS 1 and 2 messages of this connection that are not acknowledged to the end.
    pub(super) open: BTreeSet<u16>,
    /// The number of this connection, among those of its client.
    pub(super) number: u64,
    /// How many packets were said.
    said_packets: u64,
    /// QoS 1 messages that are not acknowledged, by their identifiers.
    pub(super) once: HashMap<u16, usize>,
    /// QoS 1 messages whose PUBACK was said, as which packet, of which nothing tells yet that it arrived.
    acknowledged: Vec<(u64, usize)>,
    /// As which packets PINGREQ, SUBSCRIBE or UNSUBSCRIBE and PUBREC were said that wait for an answer.
    pub(super) pings: VecDeque<u64>,
    pub(super) asked_as: u64,
    pub(super) released_by: HashMap<u16, u64>,
    /// The SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
    pub(super) asked: Option<(PacketId, usize, bool)>,
    /// The message that is published if it ends without a farewell.
    pub(super) will: Option<usize>,
    /// Something that was first sent on this connection was acknowledged when it was stored, and so its will is stored
    /// as well: CONNACK of a session that goes on does not wait for that, nor PUBACK where nothing stored gets the message.
    pub(super) is_will_kept: bool,
    /// DISCONNECT was sent, or some of it.
    pub(super) is_farewell: bool,
    /// QoS 0 messages with an interval of which nothing tells yet that they arrived.
    pub(super) unproven: Vec<usize>,
    pub(super) begun: Instant,
    pub(super) heard: Instant,
    pub(super) said: Instant,
}

impl Conversation {
    pub(super) fn new(stream: DuplexStream, link: Arc<Link>, number: u64) -> Self {
        let now = Instant::now();
        Self {
            stream,
            link,
            buffer: BytesMut::new(),
            answers: VecDeque::new(),
            open: BTreeSet::new(),
            number,
            said_packets: 0,
            once: HashMap::new(),
            acknowledged: Vec::new(),
            pings: VecDeque::new(),
            asked_as: 0,
            released_by: HashMap::new(),
            asked: None,
            will: None,
            is_will_kept: false,
            is_farewell: false,
            unproven: Vec::new(),
            begun: now,
            heard: now,
            said: now,
        }
    }

    /// What came at an instant the broker sent no earlier than this.
    pub(super) fn sent_after(&self, came: Instant) -> Instant {
        match self.link.is_slow() {
            true => self.begun,
            false => self.begun.max(came - LAG),
        }
    }

    /// A message was acknowledged that was first sent on this connection, and so those before it arrived.
    pub(super) fn prove_before(&mut self, number: usize, model: &mut Model) {
        let proven = self.unproven.extract_if(.., |earlier| *earlier < number);
        proven.for_each(|earlier| model.arrive(earlier));
    }

    /// The number of the packet that is said next.
    pub(super) fn next_said(&self) -> u64 {
        self.said_packets
    }

    /// An answer was said.
    pub(super) fn note_answer(&mut self, answer: &Packet<'_>, said: u64) {
        match answer {
            Packet::PubAck(ack) => {
                self.open.remove(&ack.packet_id.get());
                if let Some(number) = self.once.remove(&ack.packet_id.get()) {
                    self.acknowledged.push((said, number));
                }
            }
            Packet::PubRec(ack) => {
                self.released_by.insert(ack.packet_id.get(), said);
            }
            Packet::PubComp(ack) => {
                self.open.remove(&ack.packet_id.get());
            }
            _ => {}
        }
    }

    /// The broker has answered this packet: it has the PUBACKs that were said before, those of the messages returned.
    pub(super) fn proven(&mut self, said: u64) -> Vec<usize> {
        let proven = self.acknowledged.extract_if(.., |it| it.0 < said);
        proven.map(|(_, number)| number).collect()
    }

    /// False where the connection breaks.
    pub(super) async fn say(&mut self, version: ProtocolVersion, packet: &Packet<'_>) -> bool {
        self.said = Instant::now();
        self.said_packets += 1;
        let bytes = packet.to_vec(version).unwrap();
        let written = tokio::time::timeout(SILENCE, self.stream.write_all(&bytes)).await;
        matches!(written, Ok(Ok(())))
    }

    pub(super) async fn hear(
        &mut self,
        version: ProtocolVersion,
        patience: Duration,
    ) -> Option<Frame> {
        tokio::time::timeout(patience, self.next(version))
            .await
            .ok()
            .flatten()
    }

    /// The next packet, or `None` at the end. Nothing is lost where this is dropped.
    pub(super) async fn next(&mut self, version: ProtocolVersion) -> Option<Frame> {
        loop {
            // What is found behind the end may be from before the broker lost what it says.
            if self.link.is_cut() {
                return None;
            }
            match Frame::split_from(&mut self.buffer, version, u32::MAX) {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}
