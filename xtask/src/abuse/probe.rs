//! What well-behaved clients notice during an attack: a message every 100 ms, and the broker's memory.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::wire::{PUBLISH, Peer, publish};

/// Between two messages of the probe.
const INTERVAL: Duration = Duration::from_millis(100);

/// What the probe saw.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The longest time between two messages.
    pub(super) gap: Duration,
    /// The largest resident set of the broker, in KiB.
    pub(super) memory: u64,
    pub(super) messages: u64,
}

/// A publisher and a subscriber that go on while something else happens.
pub(super) struct Probe {
    stop: Arc<AtomicBool>,
    memory: Arc<AtomicU64>,
    publisher: JoinHandle<Result<()>>,
    subscriber: JoinHandle<Result<(Duration, u64)>>,
    sampler: JoinHandle<()>,
}

impl Probe {
    pub(super) fn start(address: SocketAddr, process: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let memory = Arc::new(AtomicU64::new(0));
        let mut receiver = Peer::connect(address, "probe-subscriber")?;
        receiver.subscribe(&["probe".to_owned()])?;
        let mut sender = Peer::connect(address, "probe-publisher")?;

        let stopped = Arc::clone(&stop);
        let publisher = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sender.send(&publish("probe", None, b"message"))?;
                thread::sleep(INTERVAL);
            }
            sender.send(&publish("probe", None, b"end"))?;
            Ok(())
        });
        let subscriber = thread::spawn(move || {
            let (mut longest, mut messages, mut last) = (Duration::ZERO, 0, Instant::now());
            loop {
                let (first, body) = receiver.receive()?;
                longest = longest.max(last.elapsed());
                last = Instant::now();
                if first & 0xf0 == PUBLISH && body.ends_with(b"end") {
                    return Ok((longest, messages));
                }
                messages += 1;
            }
        });
        let (stopped, peak) = (Arc::clone(&stop), Arc::clone(&memory));
        let sampler = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                peak.fetch_max(resident(process).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(INTERVAL / 5);
            }
        });
        Ok(Self {
            stop,
            memory,
            publisher,
            subscriber,
            sampler,
        })
    }

    /// Ends the probe; an error if a message of it was lost or its connections broke.
    pub(super) fn finish(self) -> Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let gone = |_| anyhow!("the probe panicked");
        self.publisher.join().map_err(gone)??;
        let (gap, messages) = self.subscriber.join().map_err(gone)??;
        self.sampler.join().map_err(gone)?;
        Ok(Seen {
            gap,
            memory: self.memory.load(Ordering::Relaxed),
            messages,
        })
    }
}

/// Resident set of a process in KiB.
fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
