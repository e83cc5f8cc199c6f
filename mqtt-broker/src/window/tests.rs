//! The window against a naive store: whatever happens, each message comes once, and those of a publisher in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use mqtt_codec::QoS;
use proptest::collection::vec;
use proptest::prelude::*;

use super::Window;
use crate::amount::Amount;
use crate::message::{Message, Parts};
use crate::store::{Entry, Key, Portion, Rest};

const PUBLISHERS: usize = 3;
/// What each message costs.
const SIZE: usize = 10;

fn entry() -> Entry {
    let parts = Parts {
        topic: b"t",
        properties: b"",
        payload: b"",
    };
    Entry {
        message: Arc::new(Message::new(parts, QoS::AtLeastOnce, None)),
        expires_at: None,
        body: None,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: None,
        group: None,
    }
}

/// Its publisher and its number: a key may come again after a restart.
type Name = (usize, u64);

/// Messages on their way from a publisher to the session.
#[derive(Clone, Debug, Default)]
struct Batch {
    messages: Vec<(Key, Name)>,
    is_submitted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(usize),
    Submit(usize),
    /// With how many of the messages another member of a group takes.
    Flush(usize, usize),
    /// A message of the session's own task.
    Own,
    Collect,
    Read(usize),
    Consume(usize),
    Disconnect(usize),
    Connect,
    Restart(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let publisher = 0..PUBLISHERS;
    prop_oneof![
        8 => publisher.clone().prop_map(Step::Publish),
        4 => publisher.clone().prop_map(Step::Submit),
        4 => (publisher, prop_oneof![5 => Just(0), 1 => 1..3_usize])
            .prop_map(|(one, gone)| Step::Flush(one, gone)),
        1 => Just(Step::Own),
        5 => Just(Step::Collect),
        3 => (1..6_usize).prop_map(Step::Read),
        4 => (1..6_usize).prop_map(Step::Consume),
        1 => (0..4_usize).prop_map(Step::Disconnect),
        2 => Just(Step::Connect),
        1 => (0..4_usize).prop_map(Step::Restart),
    ]
}

#[derive(Debug)]
struct World {
    window: Window,
    /// What costs of messages is counted.
    queued: Amount,
    next_key: Key,
    last: u64,
    batches: [Batch; PUBLISHERS],
    store: BTreeMap<Key, Name>,
    outbox: Vec<Key>,
    queue: VecDeque<Key>,
    is_online: bool,
    /// What is being read.
    reading: Option<(Key, Key)>,
    delivered: Vec<Name>,
    expected: Vec<Name>,
}

impl World {
    fn new() -> Self {
        Self {
            window: Window::new(),
            queued: Amount::default(),
            next_key: 1,
            last: 0,
            batches: Default::default(),
            store: BTreeMap::new(),
            outbox: Vec::new(),
            queue: VecDeque::new(),
            is_online: false,
            reading: None,
            delivered: Vec::new(),
            expected: Vec::new(),
        }
    }

    fn message(&mut self, publisher: usize) -> (Key, Name) {
        self.next_key += 1;
        self.last += 1;
        (self.next_key - 1, (publisher, self.last))
    }

    fn submit(&mut self, publisher: usize) {
        let batch = &mut self.batches[publisher];
        if !batch.is_submitted {
            batch.is_submitted = true;
            let names = batch.messages.iter().map(|(_, name)| *name);
            self.expected.extend(names);
            self.store.extend(batch.messages.iter().copied());
        }
    }

    fn flush(&mut self, publisher: usize, gone: usize) {
        self.submit(publisher);
        let batch = core::mem::take(&mut self.batches[publisher]);
        for (number, (key, name)) in batch.messages.into_iter().enumerate() {
            if number < gone && !self.is_online {
                self.store.remove(&key);
                self.expected.retain(|expected| *expected != name);
                self.window.come(key);
                continue;
            }
            self.queued += Amount::of_one(SIZE);
            let room = if self.is_online { 4 * SIZE } else { SIZE };
            let room = room.saturating_sub(self.queue.len() * SIZE);
            if self.window.admit(key, SIZE, false, room) {
                self.outbox.push(key);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(publisher) => {
                if !self.batches[publisher].is_submitted {
                    let message = self.message(publisher);
                    self.batches[publisher].messages.push(message);
                }
            }
            Step::Submit(publisher) => self.submit(publisher),
            Step::Flush(publisher, gone) => self.flush(publisher, gone),
            Step::Own => {
                if self.is_online && !self.window.is_on_disk() {
                    let (key, name) = self.message(PUBLISHERS);
                    self.store.insert(key, name);
                    self.expected.push(name);
                    self.queued += Amount::of_one(SIZE);
                    if self.window.hold(key, SIZE, false) {
                        self.queue.push_back(key);
                    }
                }
            }
            Step::Collect if self.is_online => {
                self.queue.extend(self.outbox.drain(..));
                let taken = self.window.take(|portion| {
                    let messages = portion.entries.len();
                    let bytes = messages * SIZE;
                    (Amount { messages, bytes }, 0)
                });
                assert_eq!(taken.missing, Amount::default());
                if let Some(portion) = taken.portion {
                    self.queue
                        .extend(portion.entries.into_iter().map(|(key, _)| key));
                }
                if self.queue.len() <= 2
                    && let Some(keys) = self.window.read_on()
                {
                    assert_eq!(self.reading.replace(keys), None);
                }
            }
            Step::Read(count) => {
                if let Some((from, until)) = self.reading.take() {
                    let keys: Vec<_> = self.store.range(from..until).map(|it| *it.0).collect();
                    let next = keys.get(count).copied().unwrap_or(until);
                    let keys = keys.into_iter().take(count);
                    let portion = Portion {
                        from,
                        next,
                        entries: keys.map(|key| (key, entry())).collect(),
                    };
                    self.window.arrive(portion, self.is_online);
                }
            }
            Step::Consume(count) if self.is_online => {
                for _ in 0..count {
                    let Some(key) = self.queue.pop_front() else {
                        break;
                    };
                    let name = self.store.remove(&key).expect("a key that is stored");
                    self.delivered.push(name);
                    self.queued = self.queued.saturating_sub(Amount::of_one(SIZE));
                }
            }
            Step::Disconnect(keep) if self.is_online => {
                self.is_online = false;
                self.window.drop_portion();
                let all = self.queue.iter().chain(&self.outbox);
                if let Some(cut) = all.skip(keep).min().copied() {
                    let before = self.queue.len() + self.outbox.len();
                    self.queue.retain(|key| *key < cut);
                    self.outbox.retain(|key| *key < cut);
                    let messages = before - self.queue.len() - self.outbox.len();
                    let bytes = messages * SIZE;
                    self.window.give_back(cut, Amount { messages, bytes }, 0);
                }
            }
            Step::Connect => self.is_online = true,
            Step::Restart(held) => self.restart(held),
            Step::Collect | Step::Consume(_) | Step::Disconnect(_) => {}
        }
    }

    fn restart(&mut self, held: usize) {
        self.is_online = false;
        self.reading = None;
        self.outbox.clear();
        self.batches = Default::default();
        self.queue = self.store.keys().take(held).copied().collect();
        let mut rest = self.store.keys().skip(held).copied();
        let rest = rest.next().map(|first| {
            let behind = rest.clone().count();
            let amount = Amount {
                messages: 1 + behind,
                bytes: (1 + behind) * SIZE,
            };
            let rest = Rest {
                first,
                last: rest.last().unwrap_or(first),
                messages: amount.messages,
                bytes: amount.bytes,
                shared: 0,
            };
            (rest, amount)
        });
        let last = self.store.keys().next_back().copied().unwrap_or_default();
        self.window = Window::new();
        self.window.restore(last, rest);
        self.next_key = last + 1;
        let messages = self.store.len();
        let bytes = messages * SIZE;
        self.queued = Amount { messages, bytes };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn each_message_comes_once_and_in_order(steps in vec(step(), 0..200)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for publisher in 0..PUBLISHERS {
            world.flush(publisher, 0);
        }
        world.step(Step::Connect);
        for _ in 0..10_000 {
            if world.store.is_empty() {
                break;
            }
            for step in [Step::Collect, Step::Read(3), Step::Consume(2)] {
                world.step(step);
            }
        }
        world.step(Step::Collect);
        prop_assert!(!world.window.is_on_disk());
        prop_assert_eq!(world.queued, Amount::default());
        let mut delivered = world.delivered.clone();
        delivered.sort_by_key(|(publisher, _)| *publisher);
        for one in delivered.windows(2) {
            prop_assert!(one[0].0 < one[1].0 || one[0].1 < one[1].1, "order: {:?}", one);
        }
        world.expected.sort_unstable();
        prop_assert_eq!(delivered, world.expected);
    }
}

/// However much comes, no more is held in memory than the window, and the rest is counted.
#[test]
fn who_does_not_keep_up_reads_later() {
    let mut window = Window::new();
    let held = (1..10_000).filter(|key| window.admit(*key, SIZE, false, 3 * SIZE));
    assert_eq!(held.collect::<Vec<_>>(), [1, 2, 3]);
    let messages = 9_996;
    let bytes = messages * SIZE;
    assert_eq!(window.on_disk(), (Amount { messages, bytes }, 0));
    assert_eq!(window.read_on(), Some((4, 10_000)));
    assert_eq!(window.read_on(), None, "one part is read at a time");
}

/// What fits is held in memory without a look at the disk, however much comes and goes.
#[test]
fn who_keeps_up_does_not_read() {
    let mut window = Window::new();
    for key in 1..10_000 {
        assert!(window.admit(key, SIZE, false, 2 * SIZE));
        if key % 2 == 0 {
            let taken = window.take(|_| unreachable!());
            assert!(taken.portion.is_none() && !taken.is_on_disk);
        }
    }
    assert_eq!(window.read_on(), None);
}

/// A part that was read before messages were given back to the disk is not taken for what follows now.
#[test]
fn what_is_given_back_is_read_again() {
    let mut window = Window::new();
    for key in 1..=3 {
        assert_eq!(window.admit(key, SIZE, false, 2 * SIZE), key < 3);
    }
    assert_eq!(window.read_on(), Some((3, 4)));
    window.give_back(2, Amount::of_one(SIZE), 0);
    let portion = Portion {
        from: 3,
        next: 4,
        entries: vec![(3, entry())],
    };
    window.arrive(portion, true);
    let taken = window.take(|_| unreachable!());
    assert!(taken.portion.is_none() && taken.is_on_disk);
    assert_eq!(window.read_on(), Some((2, 4)));
}

/// A message that is damaged and left out does not count for ever.
#[test]
fn what_is_missing_is_told() {
    let mut window = Window::new();
    for key in 1..=2 {
        assert!(!window.admit(key, SIZE, key == 1, 0));
    }
    assert_eq!(window.on_disk().1, 1);
    assert_eq!(window.read_on(), Some((1, 3)));
    let portion = Portion {
        from: 1,
        next: 3,
        entries: vec![(2, entry())],
    };
    window.arrive(portion, true);
    let taken = window.take(|_| (Amount::of_one(SIZE), 0));
    assert_eq!(taken.missing, Amount::of_one(SIZE));
    assert!(!taken.is_on_disk);
}
