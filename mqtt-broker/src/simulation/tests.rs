//! Seeds that must pass, a seed that is repeated, and planted mistakes that must be found.

use core::time::Duration;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::disk::Plant;
use super::{Outcome, run};

/// More than twice as many as it takes.
const SEEDS_PER_PLANT: u64 = 250;

const FEW: u64 = 20;

/// How a failed seed is told.
fn told(seed: u64, outcome: &Outcome) -> String {
    let failures = outcome.failures.join("\n  ");
    let last = outcome.last.join("\n    ");
    format!(
        "seed {seed}:\n  {failures}\n  the last events:\n    {last}\nto repeat: cargo xtask simulate --seed {seed}"
    )
}

/// The same seed gives the same events at the same instants, and another one gives others.
#[test]
fn a_seed_repeats_a_run() {
    for seed in 100..104 {
        let [first, second] = [(); 2].map(|()| run(seed, None, false));
        assert!(first.events > 100);
        assert_eq!(
            (first.hash, first.events),
            (second.hash, second.events),
            "seed {seed}"
        );
    }
    assert_ne!(run(100, None, false).hash, run(101, None, false).hash);
}

/// Each planted mistake is found before so many seeds have been tried.
#[test]
fn planted_mistakes_are_found() {
    let next = AtomicU64::new(0);
    let missed = Mutex::new(Vec::new());
    let try_all = || {
        while let Some(plant) = Plant::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            let found = (0..SEEDS_PER_PLANT).find_map(|seed| {
                let first = run(seed, Some(*plant), false).failures.into_iter().next()?;
                Some((seed, first))
            });
            println!("{plant:?}: {found:?}");
            if found.is_none() {
                missed.lock().unwrap().push(*plant);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(try_all);
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{missed:?} are not found");
}

fn workers() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Every promise is kept, in as many seeds as `cargo xtask simulate` says, on all processors; without it in a few.
#[test]
fn seeds() {
    let first = number("SIMULATE_FIRST").unwrap_or(0);
    let count = number("SIMULATE_COUNT").unwrap_or(FEW);
    let print = count == 1;
    let (next, events) = (AtomicU64::new(0), AtomicU64::new(0));
    let [acknowledged, delivered, retained, expired, wills] = [const { AtomicU64::new(0) }; 5];
    let failed = Mutex::new(Vec::new());
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let seed = first + index;
                    let outcome = run(seed, None, print);
                    if print {
                        println!("events {}, hash {:016x}", outcome.events, outcome.hash);
                    }
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    acknowledged.fetch_add(outcome.acknowledged as u64, Ordering::Relaxed);
                    delivered.fetch_add(outcome.delivered as u64, Ordering::Relaxed);
                    retained.fetch_add(outcome.retained_delivered as u64, Ordering::Relaxed);
                    expired.fetch_add(outcome.expired as u64, Ordering::Relaxed);
                    wills.fetch_add(outcome.wills as u64, Ordering::Relaxed);
                    if !outcome.failures.is_empty() {
                        println!("{}", told(seed, &outcome));
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!(
        "{count} seeds from {first} in {:.1?}: {} events, {} messages acknowledged, {} delivered, {} for new subscriptions, {} expired, {} wills in time while things failed; failed: {failed:?}",
        Duration::from_millis(begun.elapsed().as_millis() as u64),
        events.into_inner(),
        acknowledged.into_inner(),
        delivered.into_inner(),
        retained.into_inner(),
        expired.into_inner(),
        wills.into_inner(),
    );
    assert!(failed.is_empty(), "seeds failed: {failed:?}");
}
