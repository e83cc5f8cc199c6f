//! The engine against a naive model, on files and in memory.

use std::collections::{BTreeMap, BTreeSet};

use mqtt_codec::{PacketId, QoS, SubscriptionOptions};
use mqtt_router::Subscription;
use proptest::collection::vec;
use proptest::prelude::*;

use super::place::{Directory, Place, Program, open};
use super::{body, commit, message, packet, queued, session};
use crate::message::Message;
use crate::store::record::{BodyNumber, Contents, Key, Op, SessionNumber};

/// A session of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    expiry: u32,
    subscriptions: BTreeMap<String, QoS>,
    entries: BTreeMap<Key, (Option<BodyNumber>, String)>,
    sent: Vec<(PacketId, Key)>,
    released: Vec<PacketId>,
    received: BTreeSet<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    sessions: BTreeMap<SessionNumber, Session>,
    retained: BTreeMap<String, String>,
}

fn text(message: &Message) -> String {
    String::from_utf8(message.parts().payload.to_vec()).unwrap()
}

impl Model {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Session(number, record) => {
                self.sessions.entry(*number).or_default().expiry = record.expiry_interval;
            }
            Op::SessionEnded(number) => {
                self.sessions.remove(number);
            }
            Op::Retained(message, ..) => {
                let topic = message.topic().to_owned();
                self.retained.insert(topic, text(message));
            }
            Op::RetainedCleared(topic) => {
                self.retained.remove(&**topic);
            }
            Op::Body(..) => {}
            Op::Subscribed(number, ..)
            | Op::Unsubscribed(number, ..)
            | Op::Owes(number, ..)
            | Op::Queued(number, ..)
            | Op::Dequeued(number, ..)
            | Op::Sent(number, ..)
            | Op::Released(number, ..)
            | Op::Completed(number, ..)
            | Op::Received(number, ..)
            | Op::Forgotten(number, ..) => {
                if let Some(session) = self.sessions.get_mut(number) {
                    session.apply(op);
                }
            }
        }
    }

    fn of(contents: &Contents) -> Self {
        let sessions = contents.sessions.iter().map(|stored| {
            assert_eq!(
                &*stored.record.client_id,
                format!("client-{}", stored.number)
            );
            let filters = stored.subscriptions.iter();
            let session = Session {
                expiry: stored.record.expiry_interval,
                subscriptions: filters
                    .map(|(filter, it)| (filter.to_string(), it.options.qos))
                    .collect(),
                entries: stored
                    .entries
                    .iter()
                    .map(|(key, entry)| (*key, (entry.body, text(&entry.message))))
                    .collect(),
                sent: stored.sent.clone(),
                released: stored.released.clone(),
                received: stored.received.iter().map(|id| id.get()).collect(),
            };
            assert!(stored.entries.is_sorted_by_key(|(key, _)| *key));
            (stored.number, session)
        });
        let retained = contents.retained.iter();
        Self {
            sessions: sessions.collect(),
            retained: retained
                .map(|(message, _)| (message.topic().to_owned(), text(message)))
                .collect(),
        }
    }
}

impl Session {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Subscribed(_, filter, subscription) => {
                let qos = subscription.options.qos;
                self.subscriptions.insert(filter.to_string(), qos);
            }
            Op::Unsubscribed(_, filter) => {
                self.subscriptions.remove(&**filter);
            }
            Op::Queued(_, key, entry) => {
                let value = (entry.body, text(&entry.message));
                self.entries.insert(*key, value);
            }
            Op::Dequeued(_, key, _) => {
                self.entries.remove(key);
            }
            Op::Sent(_, id, key) => self.sent.push((*id, *key)),
            Op::Released(_, id) => {
                self.sent.retain(|(sent, _)| sent != id);
                self.released.push(*id);
            }
            Op::Completed(_, id) => {
                self.sent.retain(|(sent, _)| sent != id);
                self.released.retain(|released| released != id);
            }
            Op::Received(_, id) => {
                self.received.insert(id.get());
            }
            Op::Forgotten(_, id) => {
                self.received.remove(&id.get());
            }
            _ => {}
        }
    }
}

/// Makes the changes that a hub would: each number is used once, and an identifier when it is free.
#[derive(Debug, Default)]
struct Hub {
    model: Model,
    sessions: u64,
    bodies: u64,
    keys: u64,
    ops: Vec<Op>,
}

impl Hub {
    fn make(&mut self, op: Op) {
        self.model.apply(&op);
        self.ops.push(op);
    }

    fn step(&mut self, kind: u8, pick: u8, other: u8) {
        let number = u64::from(pick) % self.sessions.max(1);
        let name = format!("{}", other % 4);
        self.keys += 1;
        match kind {
            ..14 if self.sessions == 0 || kind == 0 => {
                self.make(session(self.sessions, 1));
                self.sessions += 1;
            }
            1 => {
                if self.model.sessions.contains_key(&number) {
                    self.make(session(number, 2));
                }
            }
            2 => self.make(Op::SessionEnded(number)),
            3 | 4 => {
                let options = SubscriptionOptions::new(QoS::from_bits(kind - 3).unwrap());
                let subscription = Subscription::new(options);
                self.make(Op::Subscribed(number, name.into(), subscription));
            }
            5 => self.make(Op::Unsubscribed(number, name.into())),
            6 => self.make(queued(number, self.keys, None)),
            7 | 8 => {
                let first = self.bodies;
                self.bodies += 1;
                self.make(body(first));
                for number in 0..self.sessions {
                    if other >> (number % 8) & 1 == 1 {
                        self.make(queued(number, self.keys, Some(first)));
                    }
                }
            }
            9..=11 => {
                let Some(stored) = self.model.sessions.get(&number) else {
                    return self.make(Op::Dequeued(number, self.keys, None));
                };
                let nth = usize::from(other) % stored.entries.len().max(1);
                if let Some((&key, &(body, _))) = stored.entries.iter().nth(nth) {
                    self.make(Op::Dequeued(number, key, body));
                    if other & 1 == 1 {
                        // To another member of a shared group, before it is taken from the first.
                        let taken = self.ops.pop().unwrap();
                        let to = u64::from(other) % self.sessions.max(1);
                        self.make(queued(to, self.keys, body));
                        self.ops.push(taken);
                    }
                }
            }
            12 => self.flight(number, u16::from(other % 4) + 1),
            13 => {
                let id = packet(u16::from(other % 4) + 1);
                let there = self.model.sessions.get(&number);
                if there.is_some_and(|it| it.received.contains(&id.get())) {
                    self.make(Op::Forgotten(number, id));
                } else {
                    self.make(Op::Received(number, id));
                }
            }
            14 => self.make(Op::Retained(
                message(&name, &self.keys.to_string()),
                None,
                None,
            )),
            _ => self.make(Op::RetainedCleared(name.into())),
        }
    }

    fn flight(&mut self, number: SessionNumber, id: u16) {
        let id = packet(id);
        let there = self.model.sessions.get(&number);
        let is_sent = there.is_some_and(|it| it.sent.iter().any(|(sent, _)| *sent == id));
        let is_released = there.is_some_and(|it| it.released.contains(&id));
        self.make(match (is_sent, is_released) {
            (true, _) => Op::Released(number, id),
            (_, true) => Op::Completed(number, id),
            _ => Op::Sent(number, id, self.keys),
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Go,
    Reopen,
    /// Again on an engine newly opened, as after an error that came too late.
    Repeat,
    /// The same in two parts, with whatever follows.
    RepeatInParts,
}

/// The steps of a commit, as [`Hub::step`] takes them, and what comes after it.
type Case = Vec<(Vec<(u8, u8, u8)>, Then)>;

fn check<P: Place>(commits: Case) -> Result<(), TestCaseError> {
    let place = P::default();
    let mut engine = open(&place).0;
    let mut hub = Hub::default();
    for (steps, then) in commits {
        for (kind, pick, other) in steps {
            hub.step(kind, pick, other);
        }
        let ops = core::mem::take(&mut hub.ops);
        commit(&mut engine, &ops);
        if let Then::Go = then {
            continue;
        }
        drop(engine);
        let opened = open(&place);
        engine = opened.0;
        prop_assert_eq!(&Model::of(&opened.1), &hub.model);
        prop_assert!(opened.1.next_session >= hub.sessions);
        prop_assert!(opened.1.next_body >= hub.bodies);
        match then {
            Then::Repeat => commit(&mut engine, &ops),
            Then::RepeatInParts => {
                let (first, second) = ops.split_at(ops.len() / 2);
                commit(&mut engine, first);
                commit(&mut engine, second);
            }
            Then::Go | Then::Reopen => {}
        }
    }
    drop(engine);
    let (mut engine, contents) = open(&place);
    prop_assert_eq!(Model::of(&contents), hub.model);
    // Nothing stays behind when all sessions end.
    let ends: Vec<_> = (0..hub.sessions).map(Op::SessionEnded).collect();
    commit(&mut engine, &ends);
    prop_assert_eq!(engine.records(), [0, 0]);
    Ok(())
}

fn cases() -> impl Strategy<Value = Case> {
    let then = prop_oneof![6 => Just(Then::Go), 1 => Just(Then::Reopen), 1 => Just(Then::Repeat),
        1 => Just(Then::RepeatInParts)];
    vec(
        (vec((0..16_u8, any::<u8>(), any::<u8>()), 0..24), then),
        1..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_was_committed_comes_back_from_files(commits in cases()) {
        check::<Directory>(commits)?;
    }

    #[test]
    fn what_was_committed_comes_back_from_memory(commits in cases()) {
        check::<Program>(commits)?;
    }
}
