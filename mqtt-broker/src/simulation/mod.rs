//! The whole broker in a world of its own, where a seed decides everything: time is virtual, connections are cut, slow
//! or half open, the disk fails and loses its power, the broker is killed; and what each session must receive is known.
//!
//! A run is one thread without a runtime for I/O: the threads of the store are steps of it. The same seed gives the
//! same events, each at the same instant. `cargo xtask simulate` runs as many as it is told.

mod client;
mod conversation;
mod disk;
mod expiry;
mod groups;
mod link;
mod model;
mod random;
mod repeats;
mod retained;
mod tests;
mod trace;
mod wills;
mod world;

use std::cell::Cell;
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::Duration;

use mqtt_codec::QoS;
use tokio::runtime::Builder;

use self::client::{Client, Role};
use self::disk::Plant;
use self::random::Random;
use self::world::World;
use crate::config::Durability;

/// What came of one run.
#[derive(Debug)]
struct Outcome {
    /// Of all events.
    hash: u64,
    events: u64,
    acknowledged: usize,
    delivered: usize,
    retained_delivered: usize,
    /// What expired before it came to anybody.
    expired: usize,
    /// Wills that were due in the storm and found to have come, one for each session.
    wills: usize,
    failures: Vec<String>,
    /// The last events.
    last: Vec<String>,
}

/// Real time that no run takes, a second being usual, however busy the machine is.
const HANGS: Duration = Duration::from_secs(900);

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts what panics in tasks, where nobody else would hear of it.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// Runs a seed, on a thread of its own: what a thread remembers of earlier runs plays no part.
fn run(seed: u64, plant: Option<Plant>, print: bool) -> Outcome {
    count_panics();
    let work = move || {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(crate::hub::waits)
            .build()
            .unwrap();
        runtime.block_on(live(seed, plant, print))
    };
    let (done, outcome) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    match outcome.recv_timeout(HANGS) {
        Ok(outcome) => outcome,
        Err(_) => Outcome {
            hash: 0,
            events: 0,
            acknowledged: 0,
            delivered: 0,
            retained_delivered: 0,
            expired: 0,
            wills: 0,
            failures: vec![
                "it does not end: a task has turns without end, while time stands still".to_owned(),
            ],
            last: Vec::new(),
        },
    }
}

async fn live(seed: u64, plant: Option<Plant>, print: bool) -> Outcome {
    let mut random = Random::new(seed);
    let mut cast = Vec::new();
    for _ in 0..1 + random.below(3) {
        let level = *random.pick(&[Durability::Disk, Durability::Disk, Durability::Memory]);
        cast.push((level, Role::Publisher));
    }
    for _ in 0..2 + random.below(4) {
        let levels = [
            Durability::Disk,
            Durability::Disk,
            Durability::Os,
            Durability::Memory,
        ];
        let filters = filters(&mut random);
        cast.push((*random.pick(&levels), Role::Subscriber { filters }));
    }
    if !random.once_in(3) {
        // In every second run members of different levels share what comes.
        let is_mixed = random.once_in(2);
        for index in 0..2 + random.below(3) {
            let levels = [Durability::Disk, Durability::Os, Durability::Memory];
            let level = match is_mixed && index > 0 {
                true => *random.pick(&levels),
                false => Durability::Disk,
            };
            let filters = shared(&mut random);
            cast.push((level, Role::Subscriber { filters }));
        }
    }
    let levels = cast.iter().map(|(level, _)| *level).collect();
    let world = World::new(levels, plant, print);
    for (index, (level, role)) in cast.into_iter().enumerate() {
        world
            .trace
            .note(format_args!("{index} is {level:?}, {role:?}"));
        let client = Client::new(&world, index, level, role, random.fork());
        tokio::spawn(client.run());
    }
    let length = random.millis(5_000..40_000);
    world.run(length, random.fork()).await;
    outcome(&world)
}

/// Some of different kinds, none twice.
fn filters(random: &mut Random) -> Vec<(String, QoS)> {
    let all = [
        "t/#", "t/+/1", "t/+/2", "t/0/#", "t/1/2", "kept/#", "kept/0/#", "will/#", "#",
    ];
    let mut chosen = Vec::new();
    for filter in all {
        if random.once_in(if filter == "will/#" { 2 } else { 3 }) {
            let qos = *random.pick(&[
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
                QoS::ExactlyOnce,
                QoS::ExactlyOnce,
            ]);
            chosen.push((filter.to_owned(), qos));
        }
    }
    if chosen.is_empty() {
        chosen.push(("t/#".to_owned(), QoS::ExactlyOnce));
    }
    chosen
}

/// Those of a member of one or two groups, which have no topic in common.
fn shared(random: &mut Random) -> Vec<(String, QoS)> {
    let all: [&[&str]; 5] = [
        &["$share/g/t/#"],
        &["$share/g/t/#"],
        &["$share/g/t/#"],
        &["$share/h/t/+/1", "$share/h/t/+/2"],
        &["$share/g/t/0/#", "$share/g/kept/#"],
    ];
    let filters = random.pick(&all).iter();
    filters
        .map(|filter| {
            let levels = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce];
            ((*filter).to_owned(), *random.pick(&levels))
        })
        .collect()
}

fn outcome(world: &Arc<World>) -> Outcome {
    let mut model = world.model();
    let panics = PANICS.get();
    if panics > 0 {
        model.fail(format!("{panics} tasks of the broker panicked"));
    }
    let (hash, events) = world.trace.sum();
    Outcome {
        hash,
        events,
        acknowledged: model.acknowledged(),
        delivered: model.delivered,
        retained_delivered: model.retained_delivered,
        expired: model.expired(),
        wills: model.wills.kept(),
        failures: core::mem::take(&mut model.failures),
        last: world.trace.last(),
    }
}
