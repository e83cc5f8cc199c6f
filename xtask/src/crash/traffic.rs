//! All the clients of a run, driven by one thread.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    client::Client,
    journal::{Journal, Promise},
    judge,
    publisher::{Publisher, Target},
    random::Random,
    subscriber::{Habit, Subscriber},
    wire::Version,
};
use crate::step::seconds;

const PUBLISHERS: usize = 4;
/// Retained topics of each publisher.
const RETAINED: usize = 3;
const HABITS: [Habit; 8] = [
    Habit::Steady,
    Habit::Steady,
    Habit::Restless,
    Habit::Restless,
    Habit::Restless,
    Habit::Absent,
    Habit::Absent,
    Habit::Absent,
];
const AREAS: [&str; 3] = ["a", "b", "c"];
/// Topics of each area; every publisher sends to all of them.
const TOPICS: usize = 3;
/// What matches the retained topics.
pub(super) const RETAINED_FILTER: &str = "kept/#";
/// Between two looks at connections on which nothing happens.
const POLL: Duration = Duration::from_micros(300);
/// Between two looks at what ends the traffic.
const LOOK: Duration = Duration::from_millis(20);
/// Draining has failed when nothing has come for so long.
const STALLED: Duration = Duration::from_secs(5);
/// Draining has failed after so long.
const LONGEST: Duration = Duration::from_secs(600);
/// How long repeats that should not come are waited for in the end.
const REPEATS: Duration = Duration::from_millis(300);
/// What is missing is counted after a silence of this length.
const QUIET: Duration = Duration::from_millis(100);

/// The clients and what they have seen.
pub(super) struct Traffic {
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    pub(super) journal: Journal,
}

impl Traffic {
    /// `stored_at_pubrec`: the broker promises that a message is safe with PUBREC already.
    pub(super) fn new(random: &mut Random, stored_at_pubrec: bool) -> Self {
        Self::with([Version::V5, Version::V311], random, stored_at_pubrec)
    }

    /// Publishers are told what is refused.
    pub(super) fn told_of_refusals(random: &mut Random) -> Self {
        Self::with([Version::V5; 2], random, true)
    }

    fn with(versions: [Version; 2], random: &mut Random, stored_at_pubrec: bool) -> Self {
        let mut journal = Journal::default();
        let version = |number: usize| versions[number % 2];
        let publishers = (0..PUBLISHERS).map(|number| {
            let name = format!("crash-publisher-{number}");
            let client = Client::new(name, version(number), u16::MAX, random.fork());
            let targets = targets(number);
            Publisher::new(client, number >= 2, targets, stored_at_pubrec, &mut journal)
        });
        let publishers = publishers.collect();
        let subscribers = HABITS.iter().enumerate().map(|(number, habit)| {
            let name = format!("crash-subscriber-{number}");
            let receive_maximum = 32 + random.below(60) as u16;
            let filters = filters(number, random);
            let client = Client::new(name, version(number), receive_maximum, random.fork());
            Subscriber::new(client, *habit, &filters, &mut journal)
        });
        Self {
            publishers,
            subscribers: subscribers.collect(),
            journal,
        }
    }

    /// Traffic until `end`.
    pub(super) fn run(&mut self, address: SocketAddr, end: Instant) {
        for subscriber in &mut self.subscribers {
            subscriber.begin();
        }
        while Instant::now() < end {
            self.step(address, true);
        }
    }

    /// Traffic until `done` says so; false if it has not by `end`.
    pub(super) fn run_until(
        &mut self,
        address: SocketAddr,
        end: Instant,
        mut done: impl FnMut(&Journal) -> bool,
    ) -> bool {
        let mut next_look = Instant::now();
        while Instant::now() < end {
            self.step(address, true);
            if Instant::now() >= next_look {
                if done(&self.journal) {
                    return true;
                }
                next_look = Instant::now() + LOOK;
            }
        }
        false
    }

    /// Everybody with a session: name, version, and the number of the session in the journal.
    pub(super) fn clients(&self) -> Vec<(String, Version, Option<usize>)> {
        let publishers = self.publishers.iter().map(|it| (&it.client, None));
        let subscribers = self.subscribers.iter().enumerate();
        let subscribers = subscribers.map(|(session, it)| (&it.client, Some(session)));
        let all = publishers.chain(subscribers);
        all.map(|(client, session)| (client.name.clone(), client.version, session))
            .collect()
    }

    /// The connections break: what was sent on them before is still read.
    pub(super) fn crash(&mut self) {
        let now = Instant::now();
        for publisher in &mut self.publishers {
            publisher.crash(now, &mut self.journal);
        }
        for subscriber in &mut self.subscribers {
            subscriber.crash(now, &mut self.journal);
        }
    }

    /// Everybody is there and no message is new, until all that is owed has come or nothing comes any
    /// more.
    pub(super) fn drain(&mut self, address: SocketAddr) {
        let (mut last, mut since) = (self.journal.now(), Instant::now());
        let (begun, mut next_count) = (since, since);
        loop {
            self.step(address, false);
            let now = Instant::now();
            if self.journal.now() != last {
                (last, since) = (self.journal.now(), now);
            }
            if now - since > STALLED {
                return;
            }
            if now - begun > LONGEST {
                let text = format!("messages still come after {}", seconds(LONGEST));
                return self.journal.fail(Promise::Unanswered, text);
            }
            let done = self.publishers.iter().all(Publisher::is_done)
                && self.subscribers.iter().all(Subscriber::is_done);
            // Counting takes time: not while messages still come.
            if done && now - since > QUIET && now >= next_count {
                next_count = now + QUIET;
                if judge::missing(&self.journal) == 0 {
                    break;
                }
            }
        }
        let end = Instant::now() + REPEATS;
        while Instant::now() < end {
            self.step(address, false);
        }
    }

    /// One look at each connection; a short sleep where nothing came of it.
    fn step(&mut self, address: SocketAddr, lively: bool) {
        let before = self.journal.now();
        let now = Instant::now();
        for publisher in &mut self.publishers {
            publisher.step(now, address, lively, &mut self.journal);
        }
        for subscriber in &mut self.subscribers {
            subscriber.step(now, address, lively, &mut self.journal);
        }
        if self.journal.now() == before {
            thread::sleep(POLL);
        }
    }
}

/// The topics of all, and retained ones of its own.
fn targets(publisher: usize) -> Vec<Target> {
    let shared = AREAS.iter().flat_map(|area| {
        (0..TOPICS).map(move |number| Target {
            topic: Arc::from(format!("crash/{area}/{number}")),
            retained_at: None,
        })
    });
    let own = (0..RETAINED).map(|number| Target {
        topic: Arc::from(format!("kept/{publisher}/{number}")),
        retained_at: Some(1 + (number % 2) as u8),
    });
    shared.chain(own).collect()
}

/// Filters that do not overlap, so that each message is owed once: of each area the whole, one level or
/// single topics. One area of every second subscriber comes and goes.
fn filters(subscriber: usize, random: &mut Random) -> Vec<(String, u8, bool)> {
    let changing = (!subscriber.is_multiple_of(2)).then(|| random.below(AREAS.len()));
    let mut filters = Vec::new();
    for (index, area) in AREAS.iter().enumerate() {
        let changes = changing == Some(index);
        let qos = if random.once_in(3) { 1 } else { 2 };
        match random.below(3) {
            0 => filters.push((format!("crash/{area}/#"), qos, changes)),
            1 => filters.push((format!("crash/{area}/+"), qos, changes)),
            _ => filters.extend((1..TOPICS).map(|number| {
                let topic = format!("crash/{area}/{number}");
                (topic, qos, changes)
            })),
        }
    }
    if subscriber.is_multiple_of(2) {
        let qos = 1 + random.below(2) as u8;
        filters.push((RETAINED_FILTER.to_owned(), qos, false));
    }
    filters
}
