//! What the changes of one commit come to: one write at most for each record.

use core::hash::Hash;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;
use mqtt_codec::PacketId;
use mqtt_router::Subscription;

use crate::message::Message;
use crate::store::codec::{self, Flight, Marks};
use crate::store::engine::EngineError;
use crate::store::record::{
    BodyNumber, Entry, Key, Op, SessionNumber, SessionRecord, WallTime, number_after,
};
use crate::store::table::{Batch, Slice, Table, Tables};

/// Records of ended sessions that one commit removes beside its own changes.
const PORTION: usize = 4096;

type Map<K, V> = HashMap<K, V, RandomState>;
/// A message, and when it expires.
type Expiring<'o> = (&'o Message, Option<WallTime>);
/// A retained message, when it expires, and its publisher.
type Kept<'o> = (&'o Message, Option<WallTime>, Option<&'o str>);

/// What the engine knows of the records without reading them.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) marks: Marks,
    /// The sessions that have not ended. Entries below the key were there when the store was opened; for
    /// those a message that joins the queue may be a repetition.
    pub(super) live: Map<SessionNumber, Key>,
    /// Sessions that have ended, and from which key on they still have records.
    pub(super) ended: BTreeMap<SessionNumber, Key>,
    /// How many entries refer to a body.
    pub(super) references: Map<BodyNumber, u64>,
    pub(super) flights: BTreeSet<(SessionNumber, u16)>,
    pub(super) received: BTreeSet<(SessionNumber, u16)>,
    /// The next order of a [`Flight`].
    pub(super) order: u64,
    /// Retained messages that had expired when the store was opened.
    pub(super) expired: Vec<Slice>,
}

/// The change of an entry.
#[derive(Debug)]
struct EntryChange<'o> {
    /// `None`: it goes.
    entry: Option<&'o Entry>,
    /// It was stored before this commit, or may have been if it was there when the store was opened.
    before: bool,
    /// The body of an entry that was stored before.
    body: Option<BodyNumber>,
}

/// The last state of each record that a commit changes.
#[derive(Debug, Default)]
struct Changes<'o> {
    sessions: Map<SessionNumber, &'o SessionRecord>,
    ended: Vec<SessionNumber>,
    subscriptions: Map<(SessionNumber, &'o str), Option<&'o Subscription>>,
    entries: Map<(SessionNumber, Key), EntryChange<'o>>,
    flights: Map<(SessionNumber, PacketId), Option<Flight>>,
    received: Map<(SessionNumber, PacketId), bool>,
    retained: Map<&'o str, Option<Kept<'o>>>,
    owed: Map<(SessionNumber, &'o str), bool>,
    bodies: Map<BodyNumber, Expiring<'o>>,
}

/// Puts the changes into `batch`. After an error `known` is worth nothing.
pub(super) fn write<T: Table>(
    ops: &[Op],
    at: WallTime,
    known: &mut Known,
    tables: &Tables<T>,
    batch: &mut T::Batch,
) -> Result<(), EngineError> {
    let mut changes = Changes::default();
    for op in ops {
        changes.add(op, known);
    }
    let mut writer = Writer {
        known,
        tables,
        batch,
        references: Map::default(),
    };
    writer.sessions(&changes);
    writer.entries(&mut changes)?;
    writer.packets(&changes);
    writer.retained(&changes);
    writer.remove_ended()?;
    writer.bodies(&changes);
    writer.marks(at);
    Ok(())
}

impl<'o> Changes<'o> {
    fn add(&mut self, op: &'o Op, known: &mut Known) {
        match op {
            Op::Session(session, record) => {
                known.marks.next_session = known.marks.next_session.max(number_after(*session));
                if !known.ended.contains_key(session) {
                    known.live.entry(*session).or_insert(0);
                    self.sessions.insert(*session, record);
                }
            }
            Op::SessionEnded(session) => {
                if known.live.remove(session).is_some() {
                    self.ended.push(*session);
                }
            }
            Op::Body(body, message, expires_at) => {
                known.marks.next_body = known.marks.next_body.max(body.saturating_add(1));
                self.bodies.insert(*body, (&**message, *expires_at));
            }
            Op::Retained(message, expires_at, publisher) => {
                let value = Some((&**message, *expires_at, publisher.as_deref()));
                self.retained.insert(message.topic(), value);
            }
            Op::RetainedCleared(topic) => {
                self.retained.insert(topic, None);
            }
            Op::Subscribed(session, ..)
            | Op::Unsubscribed(session, ..)
            | Op::Owes(session, ..)
            | Op::Queued(session, ..)
            | Op::Dequeued(session, ..)
            | Op::Sent(session, ..)
            | Op::Released(session, ..)
            | Op::Completed(session, ..)
            | Op::Received(session, ..)
            | Op::Forgotten(session, ..) => {
                if let Some(&loaded) = known.live.get(session) {
                    self.add_to_session(op, *session, loaded, &mut known.order);
                }
            }
        }
    }

    fn add_to_session(&mut self, op: &'o Op, session: SessionNumber, loaded: Key, order: &mut u64) {
        match op {
            Op::Subscribed(_, filter, subscription) => {
                let value = Some(subscription);
                self.subscriptions.insert((session, filter), value);
            }
            Op::Unsubscribed(_, filter) => {
                self.subscriptions.insert((session, filter), None);
            }
            Op::Owes(_, filter, owes) => {
                self.owed.insert((session, filter), *owes);
            }
            Op::Queued(_, key, entry) => {
                let fresh = EntryChange {
                    entry: None,
                    before: *key < loaded,
                    body: None,
                };
                let change = self.entries.entry((session, *key)).or_insert(fresh);
                change.entry = Some(entry);
            }
            Op::Dequeued(_, key, body) => {
                let stored = EntryChange {
                    entry: None,
                    before: true,
                    body: *body,
                };
                let change = self.entries.entry((session, *key)).or_insert(stored);
                change.entry = None;
            }
            Op::Sent(_, id, key) => {
                let flight = Flight::Sent {
                    order: *order,
                    key: *key,
                };
                self.flights.insert((session, *id), Some(flight));
                *order += 1;
            }
            Op::Released(_, id) => {
                let flight = Flight::Released { order: *order };
                self.flights.insert((session, *id), Some(flight));
                *order += 1;
            }
            Op::Completed(_, id) => {
                self.flights.insert((session, *id), None);
            }
            Op::Received(_, id) => {
                self.received.insert((session, *id), true);
            }
            Op::Forgotten(_, id) => {
                self.received.insert((session, *id), false);
            }
            _ => {}
        }
    }
}

struct Writer<'w, T: Table> {
    known: &'w mut Known,
    tables: &'w Tables<T>,
    batch: &'w mut T::Batch,
    /// References to a body that came and went.
    references: Map<BodyNumber, (u64, u64)>,
}

impl<T: Table> Writer<'_, T> {
    fn sessions(&mut self, changes: &Changes<'_>) {
        let state = &self.tables.state;
        for (&session, record) in &changes.sessions {
            if self.known.live.contains_key(&session) {
                let value = codec::encode_session(record);
                self.batch.insert(state, codec::session_key(session), value);
            }
        }
        for &session in &changes.ended {
            self.batch.remove(state, codec::session_key(session));
            self.known.ended.insert(session, 0);
        }
        for (&(session, filter), subscription) in &changes.subscriptions {
            if !self.known.live.contains_key(&session) {
                continue;
            }
            let key = codec::subscription_key(session, filter);
            match subscription {
                Some(subscription) => {
                    let value = codec::encode_subscription(filter, subscription);
                    self.batch.insert(state, key, value);
                }
                None => self.batch.remove(state, key),
            }
        }
        for (&(session, filter), &owes) in &changes.owed {
            if !self.known.live.contains_key(&session) {
                continue;
            }
            let key = codec::owed_key(session, filter);
            if owes {
                let value = codec::encode_owed(filter);
                self.batch.insert(state, key, value);
            } else {
                self.batch.remove(state, key);
            }
        }
    }

    fn entries<'o>(&mut self, changes: &mut Changes<'o>) -> Result<(), EngineError> {
        let queue = &self.tables.queue;
        for (&(session, key), change) in &changes.entries {
            let Some(&loaded) = self.known.live.get(&session) else {
                continue;
            };
            let bytes = codec::entry_key(session, key);
            // References are counted by what is stored: a change may be a repetition, and a count that is
            // too low would cost a message.
            let before = if key < loaded || change.body.is_some() {
                let value = queue.get(bytes)?;
                value.map(|value| codec::entry_body(&value).unwrap_or_default())
            } else {
                change.before.then_some(None)
            };
            if let Some(Some(body)) = before {
                self.references.entry(body).or_default().1 += 1;
            }
            match change.entry {
                Some(entry) => {
                    if let Some(body) = entry.body {
                        self.references.entry(body).or_default().0 += 1;
                        let kept: Expiring<'o> = (&*entry.message, entry.expires_at);
                        changes.bodies.entry(body).or_insert(kept);
                        let marks = &mut self.known.marks;
                        marks.next_body = marks.next_body.max(body.saturating_add(1));
                    }
                    self.batch.insert(queue, bytes, codec::encode_entry(entry));
                }
                None if before.is_some() => self.batch.remove(queue, bytes),
                None => {}
            }
        }
        Ok(())
    }

    fn packets(&mut self, changes: &Changes<'_>) {
        let state = &self.tables.state;
        let known = &mut *self.known;
        for (&(session, id), flight) in &changes.flights {
            if !known.live.contains_key(&session) {
                continue;
            }
            let key = codec::flight_key(session, id);
            if let Some(flight) = flight {
                known.flights.insert((session, id.get()));
                self.batch.insert(state, key, codec::encode_flight(*flight));
            } else if known.flights.remove(&(session, id.get())) {
                self.batch.remove(state, key);
            }
        }
        for (&(session, id), &received) in &changes.received {
            if !known.live.contains_key(&session) {
                continue;
            }
            let key = codec::received_key(session, id);
            if received {
                if known.received.insert((session, id.get())) {
                    self.batch.insert(state, key, *b"");
                }
            } else if known.received.remove(&(session, id.get())) {
                self.batch.remove(state, key);
            }
        }
    }

    fn retained(&mut self, changes: &Changes<'_>) {
        let retained = &self.tables.retained;
        for (&topic, value) in &changes.retained {
            // No message has an empty topic; the engine would not survive one.
            if topic.is_empty() {
                continue;
            }
            match value {
                Some((message, expires_at, publisher)) => {
                    let value = codec::encode_retained(message, *expires_at, *publisher);
                    self.batch.insert(retained, topic, value);
                }
                None => self.batch.remove(retained, topic),
            }
        }
        for topic in core::mem::take(&mut self.known.expired) {
            let replaced =
                core::str::from_utf8(&topic).is_ok_and(|it| changes.retained.contains_key(it));
            if !replaced {
                self.batch.remove(retained, topic);
            }
        }
    }

    /// Removes a portion of what ended sessions left.
    fn remove_ended(&mut self) -> Result<(), EngineError> {
        let mut left = PORTION;
        while let Some((&session, &from)) = self.known.ended.first_key_value() {
            let range = codec::entry_key(session, from)..=codec::entry_key(session, Key::MAX);
            for record in self.tables.queue.range(range).take(left) {
                let (key, value) = record?;
                if let Ok(Some(body)) = codec::entry_body(&value) {
                    self.references.entry(body).or_default().1 += 1;
                }
                if let Ok((_, last)) = codec::decode_entry_key(&key) {
                    self.known.ended.insert(session, last.saturating_add(1));
                }
                self.batch.remove(&self.tables.queue, key);
                left -= 1;
            }
            if left == 0 {
                break;
            }
            let prefix = codec::session_prefix(session);
            for key in self.tables.state.keys(prefix) {
                self.batch.remove(&self.tables.state, key?);
                left = left.saturating_sub(1);
            }
            remove_session(&mut self.known.flights, session);
            remove_session(&mut self.known.received, session);
            self.known.ended.remove(&session);
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    fn bodies(&mut self, changes: &Changes<'_>) {
        let bodies = &self.tables.bodies;
        for (&body, &(come, gone)) in &self.references {
            let before = self.known.references.get(&body).copied().unwrap_or(0);
            let after = before.saturating_add(come).saturating_sub(gone);
            match (before, after) {
                (0, 0) => {}
                (_, 0) => self.batch.remove(bodies, codec::body_key(body)),
                (0, _) => {
                    if let Some((message, expires_at)) = changes.bodies.get(&body) {
                        let value = codec::encode_message(message, *expires_at);
                        self.batch.insert(bodies, codec::body_key(body), value);
                    }
                }
                _ => {}
            }
            put_or_remove(&mut self.known.references, body, after);
        }
    }

    fn marks(&mut self, at: WallTime) {
        let marks = &mut self.known.marks;
        marks.at = marks.at.max(at);
        let value = codec::encode_marks(*marks);
        let state = &self.tables.state;
        self.batch.insert(state, codec::MARKS_KEY, value);
    }
}

fn remove_session(set: &mut BTreeSet<(SessionNumber, u16)>, session: SessionNumber) {
    let of_session: Vec<_> = set
        .range((session, 0)..=(session, u16::MAX))
        .copied()
        .collect();
    for item in of_session {
        set.remove(&item);
    }
}

fn put_or_remove<K: Eq + Hash>(map: &mut Map<K, u64>, key: K, value: u64) {
    if value == 0 {
        map.remove(&key);
    } else {
        map.insert(key, value);
    }
}
