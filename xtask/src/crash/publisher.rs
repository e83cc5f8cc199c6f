//! A publisher: numbered messages at QoS 1 and 2, kept until the handshake is over, and sent again on
//! the next connection as the standard says.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    client::{Client, Event},
    journal::{Journal, MessageId, Promise, content},
    wire::{PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish, ack, publish},
};

/// A publisher sends a burst of messages, at most so many, and pauses for so long.
const BURST: usize = 24;
const PAUSE: Duration = Duration::from_millis(40);
/// Sizes of payloads: mostly the first limit, now and then the second.
const SIZES: (usize, usize) = (200, 16 * 1024);

/// Packet Identifier not found: what a broker says that has forgotten a finished handshake.
const NOT_FOUND: u8 = 0x92;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// PUBLISH is not answered.
    Publish,
    /// PUBREC has come, PUBCOMP has not; PUBREL was sent once, or again on a later connection.
    Release { again: bool },
}

struct InFlight {
    id: u16,
    message: MessageId,
    phase: Phase,
}

/// Where a publisher sends to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) topic: Arc<str>,
    /// Retained values keep to one QoS, so that their order is defined.
    pub(super) retained_at: Option<u8>,
}

/// One publisher.
pub(super) struct Publisher {
    number: u16,
    pub(super) client: Client,
    restless: bool,
    targets: Vec<Target>,
    /// How many messages it keeps in flight at most.
    window: usize,
    receive_maximum: usize,
    in_flight: VecDeque<InFlight>,
    next_burst: Instant,
    burst: usize,
    /// Whether PUBREC says that the message is stored, as with this broker. Elsewhere the message may
    /// go its way with PUBREL only.
    stored_at_pubrec: bool,
}

impl Publisher {
    pub(super) fn new(
        mut client: Client,
        restless: bool,
        targets: Vec<Target>,
        stored_at_pubrec: bool,
        journal: &mut Journal,
    ) -> Self {
        let window = 1 + client.random.below(64);
        Self {
            number: journal.add_publisher(),
            client,
            restless,
            targets,
            window,
            receive_maximum: 0,
            in_flight: VecDeque::new(),
            next_burst: Instant::now(),
            burst: 0,
            stored_at_pubrec,
        }
    }

    /// Everything it sent is answered.
    pub(super) fn is_done(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// One look at its connection, and where it is `producing` some messages more.
    pub(super) fn step(
        &mut self,
        now: Instant,
        address: SocketAddr,
        producing: bool,
        journal: &mut Journal,
    ) {
        let restless = self.restless && producing;
        for event in self.client.poll(now, address, restless, journal) {
            self.handle(event, journal);
        }
        if producing && self.client.is_connected() && self.client.unsent() == 0 {
            self.produce(now, journal);
        }
        self.client.flush();
    }

    /// The broker is dead: what it sent before counts.
    pub(super) fn crash(&mut self, now: Instant, journal: &mut Journal) {
        for event in self.client.last_words(now, journal) {
            self.handle(event, journal);
        }
    }

    fn produce(&mut self, now: Instant, journal: &mut Journal) {
        if now >= self.next_burst {
            self.burst = 1 + self.client.random.below(BURST);
            self.next_burst = now + self.client.random.between(Duration::ZERO, PAUSE);
        }
        let room = self.window.min(self.receive_maximum);
        while self.burst > 0 && self.in_flight.len() < room {
            self.burst -= 1;
            let random = &mut self.client.random;
            let target = &self.targets[random.below(self.targets.len())];
            let drawn = 1 + random.below(2) as u8;
            let retain = target.retained_at.is_some();
            let qos = target.retained_at.unwrap_or(drawn);
            let size = if random.once_in(100) {
                SIZES.1
            } else {
                SIZES.0
            };
            let cleared = retain && random.once_in(8);
            let length = if cleared {
                0
            } else {
                // Room for the two numbers that name the message.
                20 + random.below(size)
            };
            let message = journal.send(self.number, &target.topic, qos, retain, length);
            let taken = |id| self.in_flight.iter().any(|flight| flight.id == id);
            let id = self.client.next_id(taken);
            let phase = Phase::Publish;
            self.in_flight.push_back(InFlight { id, message, phase });
            self.transmit(id, message, false, journal);
        }
    }

    fn transmit(&mut self, id: u16, message: MessageId, dup: bool, journal: &Journal) {
        let Some(sent) = journal.message(message) else {
            return;
        };
        let packet = Publish {
            dup,
            qos: sent.qos,
            retain: sent.retain,
            topic: sent.topic.to_string(),
            id,
            payload: content(message, sent.length),
        };
        self.client.send(&publish(self.client.version, &packet));
    }

    fn handle(&mut self, event: Event, journal: &mut Journal) {
        match event {
            Event::Connected {
                present,
                receive_maximum,
            } => {
                self.receive_maximum = receive_maximum.into();
                self.resume(present, journal);
            }
            Event::Packet(Packet::Ack { first, id, reason }) => {
                self.acknowledged(first, id, reason, journal);
            }
            Event::Packet(other) => {
                let text = format!("{}: unexpected {other:?}", self.client.name);
                journal.fail(Promise::Connection, text);
            }
        }
    }

    /// Sends again, in the order of before, what is not answered. Where the session is gone, its
    /// identifiers are as well: the messages are sent anew and what was received is over.
    fn resume(&mut self, present: bool, journal: &Journal) {
        if !present {
            self.in_flight.retain(|it| it.phase == Phase::Publish);
        }
        for index in 0..self.in_flight.len() {
            let flight = &mut self.in_flight[index];
            let (id, message) = (flight.id, flight.message);
            match &mut flight.phase {
                Phase::Publish => self.transmit(id, message, present, journal),
                Phase::Release { again } => {
                    *again = true;
                    self.client.send(&ack(PUBREL, id));
                }
            }
        }
    }

    fn acknowledged(&mut self, first: u8, id: u16, reason: u8, journal: &mut Journal) {
        let found = self.in_flight.iter().position(|flight| flight.id == id);
        let Some(index) = found else {
            let text = format!("{}: {first:#04x} for {id}, not in use", self.client.name);
            return journal.fail(Promise::Connection, text);
        };
        let InFlight { message, phase, .. } = self.in_flight[index];
        let qos = journal.message(message).map_or(0, |sent| sent.qos);
        match (first, qos, phase) {
            (PUBACK, 1, Phase::Publish) => {
                journal.acknowledge(message, reason, true);
                self.in_flight.remove(index);
            }
            (PUBREC, 2, Phase::Publish) if reason >= 0x80 => {
                journal.acknowledge(message, reason, true);
                self.in_flight.remove(index);
            }
            (PUBREC, 2, _) => {
                if self.stored_at_pubrec {
                    journal.acknowledge(message, reason, false);
                }
                self.in_flight[index].phase = Phase::Release { again: false };
                self.client.send(&ack(PUBREL, id));
            }
            (PUBCOMP, 2, Phase::Release { again }) => {
                // The PUBCOMP of before may have been lost with its connection.
                if reason != 0 && !(again && reason == NOT_FOUND) {
                    let text = format!("{}: PUBCOMP {reason:#04x}", self.client.name);
                    journal.fail(Promise::Connection, text);
                }
                journal.acknowledge(message, 0, true);
                self.in_flight.remove(index);
            }
            _ => {
                let text = format!("{}: {first:#04x} for {message}", self.client.name);
                journal.fail(Promise::Connection, text);
            }
        }
    }
}
