//! A look at a broker that was started on what a power cut left: every session is taken up and what it
//! holds is received.

use std::{
    collections::HashSet,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::super::{
    journal::{Failure, Journal, MessageId, Promise, identify},
    judge,
    wire::{
        DISCONNECT, Link, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish, Version, ack, connect,
    },
};

/// What is owed may take so long after the last packet, on a machine that has other things to do.
const STALLED: Duration = Duration::from_secs(10);
/// Nothing more comes after a silence of this length.
const QUIET: Duration = Duration::from_millis(30);
/// All of it may take so long.
const LONGEST: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_micros(300);

/// A client that has its session taken up, as `Traffic::clients` names it.
pub(super) type Name = (String, Version, Option<usize>);

struct Client<'a> {
    name: &'a str,
    session: Option<usize>,
    link: Link,
    connected: bool,
    /// Received at QoS 2 before the power cut, and released: they must not come again.
    released: HashSet<MessageId>,
    before: HashSet<MessageId>,
    unreleased: HashSet<u16>,
}

/// Receives all that the sessions hold, adds it to the journal, and judges that.
pub(super) fn judge(
    address: SocketAddr,
    clients: &[Name],
    mut journal: Journal,
) -> Result<Vec<Failure>> {
    let mut connected = Vec::new();
    for (name, version, session) in clients {
        if !journal.established.iter().any(|(known, _)| known == name) {
            continue;
        }
        let mut link = Link::open(address, *version)?;
        link.send(&connect(*version, name, false, u16::MAX));
        let kept = session.map(|session| &journal.sessions[session]);
        connected.push(Client {
            name,
            session: *session,
            link,
            connected: false,
            released: kept.map_or_else(HashSet::new, |it| {
                it.released.iter().map(|(message, _)| *message).collect()
            }),
            before: kept.map_or_else(HashSet::new, |it| {
                it.deliveries.iter().map(|it| it.message).collect()
            }),
            unreleased: HashSet::new(),
        });
    }
    let begun = Instant::now();
    let (mut last, mut next_count) = (begun, begun + QUIET);
    loop {
        let now = Instant::now();
        for client in &mut connected {
            if client.step(&mut journal)? {
                last = now;
            }
        }
        let settled = connected
            .iter()
            .all(|client| client.connected && client.unreleased.is_empty());
        if now - last > QUIET && settled && now >= next_count {
            if judge::missing(&journal) == 0 {
                break;
            }
            next_count = now + QUIET * 4;
        }
        if now - last > STALLED {
            break;
        }
        ensure!(now - begun < LONGEST, "messages still come");
        if last != now {
            thread::sleep(POLL);
        }
    }
    for client in &mut connected {
        if !client.connected {
            let text = format!("{} gets no CONNACK", client.name);
            journal.fail(Promise::Session, text);
        }
        client.link.send(&DISCONNECT);
        client.link.flush()?;
    }
    let mut failures = judge::judge(&journal);
    // Who had no answer yet asks again; here nobody does.
    failures.retain(|failure| failure.promise != Promise::Unanswered);
    Ok(failures)
}

impl Client<'_> {
    /// One look at the connection; false where nothing came.
    fn step(&mut self, journal: &mut Journal) -> Result<bool> {
        let mut packets = Vec::new();
        self.link.receive(&mut packets)?;
        let came = !packets.is_empty();
        for packet in packets {
            match packet {
                Packet::Connack {
                    present, code: 0, ..
                } => {
                    self.connected = true;
                    if !present {
                        let text = format!("{} has no session", self.name);
                        journal.fail(Promise::Session, text);
                    }
                }
                Packet::Publish(message) => self.message(&message, journal),
                Packet::Ack {
                    first: PUBREL, id, ..
                } => {
                    self.unreleased.remove(&id);
                    self.link.send(&ack(PUBCOMP, id));
                }
                other => bail!("{}: unexpected {other:?}", self.name),
            }
        }
        self.link.flush()?;
        Ok(came)
    }

    fn message(&mut self, message: &Publish, journal: &mut Journal) {
        match message.qos {
            1 => self.link.send(&ack(PUBACK, message.id)),
            2 => {
                self.unreleased.insert(message.id);
                self.link.send(&ack(PUBREC, message.id));
            }
            _ => {}
        }
        let Some(session) = self.session else {
            let text = format!("{} got a message", self.name);
            return journal.fail(Promise::Unsubscribed, text);
        };
        if message.retain || message.payload.is_empty() {
            return;
        }
        // Handshakes at QoS 2 that were not over begin again: that is no second delivery.
        let again = message.qos == 2
            && identify(&message.payload)
                .is_some_and(|id| self.before.contains(&id) && !self.released.contains(&id));
        if !again {
            journal.deliver(session, &message.topic, &message.payload, message.qos);
        }
    }
}
