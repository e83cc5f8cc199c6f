//! The receiving side of a load: every PUBLISH is acknowledged, checked and accounted for.

use hdrhistogram::Histogram;
use mqtt_codec::{FixedHeader, PacketType, ProtocolVersion, Publish, QoS};

use super::ledger::{Ledger, Scoreboard};
use super::load::{Load, Shape};
use super::publisher::{Complaints, Publisher};
use super::wire::{self, Stamp};

/// What was wrong with messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Damage {
    /// Messages that had not to come to this subscriber, or that nobody sent.
    pub(super) misrouted: u64,
    /// Payloads that are not what was sent.
    pub(super) corrupt: u64,
    pub(super) wrong_qos: u64,
    /// Messages with the DUP flag, which no broken connection explains.
    pub(super) dup_flag: u64,
    /// Messages that came to one member of a group after a later one of their publisher.
    pub(super) out_of_order: u64,
}

/// The account of a run.
#[derive(Debug)]
pub(super) struct Account {
    load: Load,
    version: ProtocolVersion,
    qos: QoS,
    payload: usize,
    ledger: Ledger,
    /// Of each publisher, where its messages are shared out.
    boards: Vec<Scoreboard>,
    pub(super) damage: Damage,
    /// Of all connections, publishers included.
    pub(super) complaints: Complaints,
    /// Messages that came, repeated ones included.
    pub(super) delivered: u64,
    /// Nanoseconds from the stamp to the arrival.
    pub(super) latency: Histogram<u64>,
    /// A latency that several messages in a row had, and their number.
    run: (u64, u64),
    /// The slowest subscriber of all must be looked for.
    stale: bool,
}

impl Account {
    pub(super) fn new(
        load: Load,
        version: ProtocolVersion,
        qos: QoS,
        payload: usize,
        span: u64,
    ) -> Self {
        let boards = match load.shape {
            Shape::Shared => load.publishers,
            _ => 0,
        };
        Self {
            ledger: Ledger::new(load.tracks()),
            boards: (0..boards)
                .map(|_| Scoreboard::new(span as usize))
                .collect(),
            load,
            version,
            qos,
            payload,
            damage: Damage::default(),
            complaints: Complaints::default(),
            delivered: 0,
            latency: super::report::histogram(),
            run: (0, 0),
            stale: false,
        }
    }

    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// Takes a packet that came to a subscriber at `now`.
    #[inline]
    pub(super) fn handle(
        &mut self,
        subscriber: usize,
        header: FixedHeader,
        body: &[u8],
        now: u64,
        publishers: &mut [Publisher],
        out: &mut Vec<u8>,
    ) {
        if header.packet_type != PacketType::Publish {
            self.handle_other(header, body, out);
            return;
        }
        let Ok(publish) = Publish::decode(header.flags, body, self.version) else {
            self.complaints.protocol += 1;
            return;
        };
        if let Some(id) = publish.packet_id {
            let answer = match publish.qos {
                QoS::ExactlyOnce => PacketType::PubRec,
                _ => PacketType::PubAck,
            };
            wire::acknowledge(answer, id, out);
        }
        self.damage.wrong_qos += u64::from(publish.qos != self.qos);
        self.damage.dup_flag += u64::from(publish.dup);
        let Some(stamp) = Stamp::read(publish.payload, self.payload) else {
            self.damage.corrupt += 1;
            return;
        };
        let index = stamp.publisher as usize;
        let Some(publisher) = publishers.get_mut(index) else {
            self.damage.corrupt += 1;
            return;
        };
        let topic = publisher.template(stamp.number).topic();
        if publish.topic.is_none_or(|name| name.as_str() != topic) || stamp.number >= publisher.sent
        {
            self.damage.misrouted += 1;
            return;
        }
        let Some(place) = self.load.place(subscriber, index, stamp.number) else {
            self.damage.misrouted += 1;
            return;
        };
        self.delivered += 1;
        self.time(now.saturating_sub(stamp.time));
        match self.load.shape {
            Shape::Pairs | Shape::Fanin => {
                self.ledger.note(place.track, place.number);
                // What was lost on the way is over as well.
                publisher.over = publisher.over.max(self.ledger.next(place.track));
            }
            Shape::Fanout => {
                self.ledger.note(place.track, place.number);
                self.stale = true;
            }
            Shape::Wild => {
                publisher.over += u64::from(self.ledger.note(place.track, place.number));
            }
            Shape::Shared => {
                // A member sees some numbers only; that they come in order is all there is to check.
                let due = self.ledger.next(place.track);
                self.damage.out_of_order += u64::from(place.number < due);
                self.ledger.skip_to(place.track, place.number + 1);
                if let Some(board) = self.boards.get_mut(index) {
                    publisher.over += u64::from(board.note(place.number));
                }
            }
        }
    }

    fn handle_other(&mut self, header: FixedHeader, body: &[u8], out: &mut Vec<u8>) {
        match header.packet_type {
            PacketType::PubRel => match wire::ack(header, body, self.version) {
                Ok((id, _)) => wire::acknowledge(PacketType::PubComp, id, out),
                Err(_) => self.complaints.protocol += 1,
            },
            PacketType::Disconnect => self.complaints.disconnects += 1,
            PacketType::PingResp => {}
            _ => self.complaints.protocol += 1,
        }
    }

    /// Messages that were written together have come together: they are noted as one.
    #[inline]
    fn time(&mut self, latency: u64) {
        if self.run.0 == latency {
            self.run.1 += 1;
            return;
        }
        self.note_latency();
        self.run = (latency, 1);
    }

    /// Puts what is still held back into the histogram.
    pub(super) fn note_latency(&mut self) {
        let (latency, count) = std::mem::take(&mut self.run);
        if count > 0 {
            self.latency.saturating_record_n(latency, count);
        }
    }

    /// Forgets the latencies so far.
    pub(super) fn forget_latency(&mut self) {
        self.run = (0, 0);
        self.latency.reset();
    }

    /// Lets the publisher of a fan-out know how far the slowest subscriber is.
    #[inline]
    pub(super) fn settle(&mut self, publishers: &mut [Publisher]) {
        if std::mem::take(&mut self.stale)
            && let [publisher] = publishers
        {
            let slowest = self.ledger.slowest() * self.load.subscribers as u64;
            publisher.over = publisher.over.max(slowest);
        }
    }

    /// Messages that came for the first time.
    pub(super) fn received(&self) -> u64 {
        match self.load.shape {
            Shape::Shared => self.boards.iter().map(|board| board.received).sum(),
            _ => self.ledger.received,
        }
    }

    pub(super) fn duplicated(&self) -> u64 {
        match self.load.shape {
            Shape::Shared => self.boards.iter().map(|board| board.duplicated).sum(),
            _ => self.ledger.duplicated,
        }
    }

    pub(super) fn out_of_order(&self) -> u64 {
        self.damage.out_of_order + self.ledger.out_of_order
    }
}
