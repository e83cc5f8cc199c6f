//! What publishers and subscribers have in common: a session that never expires and is taken up again
//! after each connection.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    journal::{Journal, Promise},
    random::Random,
    wire::{DISCONNECT, Link, Packet, Version, connect},
};

/// How long a client waits after a connection that failed, and at most after one that it ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Session taken over.
const TAKEN_OVER: u8 = 0x8e;
/// How long a connection of a restless client lives.
const LIFE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What comes of a look at the connection.
pub(super) enum Event {
    /// CONNACK accepted the connection.
    Connected {
        present: bool,
        receive_maximum: u16,
    },
    Packet(Packet),
}

/// One client identifier.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) random: Random,
    /// Of its own, where it sends one.
    receive_maximum: u16,
    link: Option<Link>,
    accepted: bool,
    /// Connections that were left before their CONNACK came: the broker may hear of one only after the next, to
    /// which that is a takeover.
    left_early: usize,
    /// A CONNACK has come once: the session exists from then on.
    established: bool,
    next_try: Instant,
    ends_at: Option<Instant>,
    last_id: u16,
}

impl Client {
    pub(super) fn new(
        name: String,
        version: Version,
        receive_maximum: u16,
        random: Random,
    ) -> Self {
        Self {
            name,
            version,
            random,
            receive_maximum,
            link: None,
            accepted: false,
            left_early: 0,
            established: false,
            next_try: Instant::now(),
            ends_at: None,
            last_id: 0,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.accepted
    }

    /// How many bytes wait to be written.
    pub(super) fn unsent(&self) -> usize {
        self.link.as_ref().map_or(0, Link::unsent)
    }

    /// Reads what has come, and connects where there is no connection. A `restless` client ends its
    /// connection after a while. The connection is broken after the events where `is_connected` says so.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        address: SocketAddr,
        restless: bool,
        journal: &mut Journal,
    ) -> Vec<Event> {
        if self.link.is_none() {
            if now >= self.next_try {
                self.connect(now, address, restless, journal);
            }
            return Vec::new();
        }
        let mut events = Vec::new();
        if let Err(error) = self.receive(&mut events, false, journal) {
            if self.left_early > 0 {
                self.left_early -= 1;
            } else {
                let text = format!("{}: the broker ended the connection: {error}", self.name);
                journal.fail(Promise::Connection, text);
            }
            self.drop_link(now + PAUSE);
        } else if restless && self.ends_at.is_some_and(|end| end <= now) {
            self.leave(now);
        }
        events
    }

    /// Reads what the broker managed to send before it was killed, and forgets the connection.
    pub(super) fn last_words(&mut self, now: Instant, journal: &mut Journal) -> Vec<Event> {
        let mut events = Vec::new();
        while self.link.is_some() {
            let count = events.len();
            if self.receive(&mut events, true, journal).is_err() || events.len() == count {
                self.drop_link(now);
            }
        }
        // The broker is gone, and with it what it has not heard of.
        self.left_early = 0;
        events
    }

    /// Ends the connection, with or without a DISCONNECT.
    pub(super) fn leave(&mut self, now: Instant) {
        if let Some(link) = &mut self.link
            && self.random.once_in(2)
        {
            link.send(&DISCONNECT);
            // A connection that breaks here ends just as well.
            _ = link.flush();
        }
        let pause = self.random.between(Duration::ZERO, PAUSE);
        self.left_early += usize::from(!self.accepted);
        self.drop_link(now + pause);
    }

    /// Hands bytes to the connection; without one they are lost, as on a network.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        if let Some(link) = &mut self.link {
            link.send(bytes);
        }
    }

    /// Writes what was handed over; a broken connection shows at the next look.
    pub(super) fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            _ = link.flush();
        }
    }

    /// A packet identifier that `taken` does not know.
    pub(super) fn next_id(&mut self, taken: impl Fn(u16) -> bool) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !taken(self.last_id) {
                return self.last_id;
            }
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        address: SocketAddr,
        restless: bool,
        journal: &mut Journal,
    ) {
        match Link::open(address, self.version) {
            Ok(mut link) => {
                link.send(&connect(
                    self.version,
                    &self.name,
                    false,
                    self.receive_maximum,
                ));
                self.link = Some(link);
                self.ends_at = restless.then(|| now + self.random.between(LIFE.0, LIFE.1));
                self.flush();
            }
            Err(error) => {
                let text = format!("{}: cannot connect: {error}", self.name);
                journal.fail(Promise::Connection, text);
                self.next_try = now + PAUSE;
            }
        }
    }

    fn drop_link(&mut self, next_try: Instant) {
        self.link = None;
        self.accepted = false;
        self.next_try = next_try;
    }

    /// Where the broker is `ending`, it may say so.
    fn receive(
        &mut self,
        events: &mut Vec<Event>,
        ending: bool,
        journal: &mut Journal,
    ) -> io::Result<()> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let mut packets = Vec::new();
        let outcome = link.receive(&mut packets);
        for packet in packets {
            if ending && matches!(packet, Packet::Disconnect { .. }) {
                continue;
            }
            events.extend(self.event(packet, journal));
        }
        outcome
    }

    fn event(&mut self, packet: Packet, journal: &mut Journal) -> Option<Event> {
        match packet {
            Packet::Connack {
                present,
                code: 0,
                receive_maximum,
            } => {
                let now = journal.tick();
                if !self.established {
                    journal.established.push((self.name.clone(), now));
                }
                if self.established && !present {
                    journal.fail(Promise::Session, format!("{} has no session", self.name));
                }
                self.established = true;
                self.accepted = true;
                Some(Event::Connected {
                    present,
                    receive_maximum,
                })
            }
            Packet::Connack { code, .. } => {
                let text = format!("{}: refused with {code:#04x}", self.name);
                journal.fail(Promise::Connection, text);
                None
            }
            // The end of the connection follows.
            Packet::Disconnect { reason: TAKEN_OVER } if self.left_early > 0 => None,
            Packet::Disconnect { reason } => {
                let text = format!("{}: DISCONNECT {reason:#04x}", self.name);
                journal.fail(Promise::Connection, text);
                None
            }
            packet => Some(Event::Packet(packet)),
        }
    }
}
