//! What happened, line by line: a hash of all of it, and the end of it in words.

use core::fmt;
use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

/// Lines that are kept to be shown.
const LAST: usize = 40;

/// The events of one run.
pub(super) struct Trace {
    begun: Instant,
    print: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hash: Xxh3,
    events: u64,
    last: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(print: bool) -> Self {
        Self {
            begun: Instant::now(),
            print,
            state: Mutex::default(),
        }
    }

    pub(super) fn note(&self, event: fmt::Arguments<'_>) {
        let micros = self.begun.elapsed().as_micros();
        let line = format!(
            "{:>4}.{:06} {event}",
            micros / 1_000_000,
            micros % 1_000_000
        );
        let mut state = self.state.lock().unwrap();
        if self.print {
            println!("{line}");
        }
        state.hash.update(line.as_bytes());
        state.events += 1;
        if state.last.len() == LAST {
            state.last.pop_front();
        }
        state.last.push_back(line);
    }

    /// The hash of all lines, and how many there are.
    pub(super) fn sum(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.hash.digest(), state.events)
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.state.lock().unwrap().last.iter().cloned().collect()
    }
}
