//! One publisher of a load: its messages, its window and its acknowledgements.

use mqtt_codec::{FixedHeader, PacketId, PacketType, ProtocolVersion, QoS};

use super::wire::{self, Stamp, Template};

/// Packet identifiers there are: message `n` has identifier `n` modulo this, plus 1.
const IDENTIFIERS: u64 = 65_535;
/// The largest window: the identifiers of a window and of what it leaves behind stay distinct.
pub(super) const LARGEST_WINDOW: u64 = 30_000;

/// Where a message of QoS 1 or 2 stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Done,
    /// PUBACK or PUBREC is due.
    Sent,
    /// PUBCOMP is due.
    Received,
}

/// What was wrong with acknowledgements.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Complaints {
    /// Acknowledgements of nothing that was sent.
    pub(super) unknown: u64,
    /// Acknowledgements with a reason code of failure.
    pub(super) refused: u64,
    /// PUBACKs or PUBRECs in another order than the PUBLISHes.
    pub(super) out_of_order: u64,
    /// Packets that have no business there or are malformed.
    pub(super) protocol: u64,
    /// DISCONNECT packets of the server.
    pub(super) disconnects: u64,
}

/// A publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) token: usize,
    index: u32,
    qos: QoS,
    templates: Vec<Template>,
    /// Messages, and deliveries that they must cause.
    pub(super) sent: u64,
    pub(super) expected: u64,
    /// Deliveries that count as over: they have come, or are given up.
    pub(super) over: u64,
    /// Messages whose last acknowledgement has come.
    pub(super) acknowledged: u64,
    /// The message whose first acknowledgement is due next.
    next: u64,
    /// Everything below is done.
    settled: u64,
    /// The stage of each message from `settled` on: a ring.
    stages: Vec<Stage>,
    pub(super) window: u64,
    per_message: f64,
    /// Messages that it sends in all.
    pub(super) count: u64,
}

impl Publisher {
    pub(super) fn new(
        token: usize,
        index: usize,
        qos: QoS,
        templates: Vec<Template>,
        window: u64,
        per_message: f64,
        count: u64,
    ) -> Self {
        let ring = if qos == QoS::AtMostOnce {
            0
        } else {
            (window as usize * 2).next_power_of_two()
        };
        Self {
            token,
            index: index as u32,
            qos,
            templates,
            sent: 0,
            expected: 0,
            over: 0,
            acknowledged: 0,
            next: 0,
            settled: 0,
            stages: vec![Stage::Done; ring],
            window,
            per_message,
            count,
        }
    }

    /// How many messages are still to be sent.
    #[inline]
    pub(super) fn left(&self) -> u64 {
        self.count - self.sent
    }

    pub(super) fn has_more(&self) -> bool {
        self.left() > 0
    }

    /// How many messages may go now: those under way and those unacknowledged are within the
    /// window.
    #[inline]
    pub(super) fn room(&self, window: u64) -> u64 {
        let flying = (self.expected.saturating_sub(self.over) as f64 / self.per_message) as u64;
        let room = window.saturating_sub(flying).min(self.left());
        if self.qos == QoS::AtMostOnce {
            return room;
        }
        let ring = self.stages.len() as u64;
        room.min(self.window.saturating_sub(self.sent - self.acknowledged))
            .min(ring.saturating_sub(self.sent - self.settled))
    }

    /// The template of the message of this number.
    #[inline]
    pub(super) fn template(&self, number: u64) -> &Template {
        match &*self.templates {
            [one] => one,
            many => &many[(number % many.len() as u64) as usize],
        }
    }

    /// Writes the next message, which causes this many deliveries.
    #[inline]
    pub(super) fn publish(&mut self, time: u64, deliveries: u64, out: &mut Vec<u8>) {
        let number = self.sent;
        let id = if self.qos == QoS::AtMostOnce {
            None
        } else {
            *self.stage(number) = Stage::Sent;
            PacketId::new((number % IDENTIFIERS) as u16 + 1)
        };
        let stamp = Stamp {
            publisher: self.index,
            number,
            time,
        };
        self.template(number).write(id, stamp, out);
        self.sent += 1;
        self.expected += deliveries;
    }

    /// Gives up everything that is under way.
    pub(super) fn give_up(&mut self) {
        self.over = self.expected;
    }

    fn stage(&mut self, number: u64) -> &mut Stage {
        // A power of two of stages.
        let slot = number as usize & (self.stages.len() - 1);
        &mut self.stages[slot]
    }

    /// The message of an identifier, if it is one under way.
    fn message(&self, id: PacketId) -> Option<u64> {
        let behind =
            (u64::from(id.get()) - 1 + IDENTIFIERS - self.settled % IDENTIFIERS) % IDENTIFIERS;
        let number = self.settled + behind;
        (number < self.sent).then_some(number)
    }

    /// Takes a packet from the broker.
    #[inline]
    pub(super) fn handle(
        &mut self,
        header: FixedHeader,
        body: &[u8],
        version: ProtocolVersion,
        complaints: &mut Complaints,
        out: &mut Vec<u8>,
    ) {
        let packet = header.packet_type;
        match packet {
            PacketType::PubAck | PacketType::PubRec | PacketType::PubComp
                if self.qos != QoS::AtMostOnce => {}
            PacketType::PingResp => return,
            PacketType::Disconnect => {
                complaints.disconnects += 1;
                return;
            }
            _ => {
                complaints.protocol += 1;
                return;
            }
        }
        let Ok((id, reason)) = wire::ack(header, body, version) else {
            complaints.protocol += 1;
            return;
        };
        let Some(number) = self.message(id) else {
            complaints.unknown += 1;
            return;
        };
        let stage = *self.stage(number);
        let after = match (packet, self.qos, stage) {
            (PacketType::PubAck, QoS::AtLeastOnce, Stage::Sent)
            | (PacketType::PubComp, QoS::ExactlyOnce, Stage::Received) => Stage::Done,
            (PacketType::PubRec, QoS::ExactlyOnce, Stage::Sent) if reason.is_error() => Stage::Done,
            (PacketType::PubRec, QoS::ExactlyOnce, Stage::Sent) => {
                wire::acknowledge(PacketType::PubRel, id, out);
                Stage::Received
            }
            _ => {
                complaints.unknown += 1;
                return;
            }
        };
        complaints.refused += u64::from(reason.is_error());
        if stage == Stage::Sent {
            complaints.out_of_order += u64::from(number != self.next);
            self.next = self.next.max(number + 1);
        }
        *self.stage(number) = after;
        if after == Stage::Done {
            self.acknowledged += 1;
            while self.settled < self.sent {
                let settled = self.settled;
                if *self.stage(settled) != Stage::Done {
                    break;
                }
                self.settled += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_codec::ReasonCode;

    use super::*;

    const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;

    fn publisher(qos: QoS, window: u64) -> Publisher {
        let template = Template::new("a", qos, false, 64, VERSION).unwrap();
        Publisher::new(0, 0, qos, vec![template], window, 1.0, u64::MAX)
    }

    fn acknowledge(
        publisher: &mut Publisher,
        packet: PacketType,
        id: u16,
        complaints: &mut Complaints,
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::acknowledge(packet, PacketId::new(id).unwrap(), &mut bytes);
        let header = FixedHeader::parse(&bytes).unwrap().unwrap();
        let mut out = Vec::new();
        publisher.handle(header, &bytes[2..], VERSION, complaints, &mut out);
        out
    }

    /// Past the end of the identifiers, with a window that is always full.
    #[test]
    fn acknowledgements_are_matched_across_the_wrap() {
        let mut publisher = publisher(QoS::AtLeastOnce, 100);
        let mut complaints = Complaints::default();
        let mut id = 0_u16;
        let mut out = Vec::new();
        for _ in 0..200_000 {
            while publisher.room(100) > 0 {
                publisher.publish(0, 1, &mut out);
                publisher.over += 1;
            }
            out.clear();
            id = if id == u16::MAX { 1 } else { id + 1 };
            acknowledge(&mut publisher, PacketType::PubAck, id, &mut complaints);
        }
        assert_eq!(publisher.acknowledged, 200_000);
        assert_eq!(publisher.sent, 200_099);
        assert_eq!(complaints.unknown + complaints.out_of_order, 0);
    }

    #[test]
    fn wrong_acknowledgements_are_counted() {
        let mut publisher = publisher(QoS::ExactlyOnce, 4);
        let mut complaints = Complaints::default();
        for _ in 0..3 {
            publisher.publish(0, 1, &mut Vec::new());
        }
        let mut told = |packet, id| acknowledge(&mut publisher, packet, id, &mut complaints);
        assert!(told(PacketType::PubRec, 4).is_empty());
        assert!(told(PacketType::PubComp, 1).is_empty());
        assert!(told(PacketType::PubAck, 1).is_empty());
        assert_eq!(told(PacketType::PubRec, 2).len(), 4);
        assert_eq!(told(PacketType::PubRec, 1).len(), 4);
        assert!(told(PacketType::PubComp, 2).is_empty());
        assert!(told(PacketType::PubComp, 2).is_empty());
        assert_eq!(complaints.unknown, 4);
        assert_eq!(complaints.out_of_order, 2);
        assert_eq!((publisher.acknowledged, publisher.settled), (1, 0));
    }

    #[test]
    fn a_refusal_ends_a_message() {
        let mut publisher = publisher(QoS::ExactlyOnce, 4);
        let mut complaints = Complaints::default();
        publisher.publish(0, 1, &mut Vec::new());
        let mut bytes = Vec::new();
        mqtt_codec::Ack::new(PacketId::MIN, ReasonCode::QUOTA_EXCEEDED)
            .encode(PacketType::PubRec, ProtocolVersion::V5, &mut bytes)
            .unwrap();
        let header = FixedHeader::parse(&bytes).unwrap().unwrap();
        let mut out = Vec::new();
        publisher.handle(
            header,
            &bytes[2..],
            ProtocolVersion::V5,
            &mut complaints,
            &mut out,
        );
        assert_eq!((complaints.refused, publisher.settled), (1, 1));
        assert!(out.is_empty());
    }
}
