//! A client that needs no disk: a session that ends with its connection, a message to itself at QoS 0.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};

use super::super::wire::{DISCONNECT, Link, Packet, Publish, Version, connect, publish, subscribe};

/// How long one exchange may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_micros(500);
/// Between two exchanges.
const PACE: Duration = Duration::from_millis(20);

/// Exchanges one after another in a thread of its own.
pub(super) struct Probe {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u32, Duration)>>,
}

impl Probe {
    pub(super) fn start(address: SocketAddr) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !told.load(Ordering::Relaxed) {
                slowest = slowest.max(exchange(address, count)?);
                count += 1;
                thread::sleep(PACE);
            }
            Ok((count, slowest))
        });
        Self { ending, thread }
    }

    /// How many exchanges there were, and how long the slowest took.
    pub(super) fn end(self) -> Result<(u32, Duration)> {
        self.ending.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        let (count, slowest) = ended.map_err(|_| anyhow!("the probe panicked"))??;
        ensure!(count > 0, "nobody was served at QoS 0");
        Ok((count, slowest))
    }
}

/// A new connection, a subscription, and a message that comes back.
fn exchange(address: SocketAddr, number: u32) -> Result<Duration> {
    let started = Instant::now();
    let version = Version::V5;
    let message = Publish {
        dup: false,
        qos: 0,
        retain: false,
        topic: "probe".to_owned(),
        id: 0,
        payload: number.to_be_bytes().to_vec(),
    };
    let mut link = Link::open(address, version)?;
    link.send(&connect(version, "disk-probe", true, u16::MAX));
    link.send(&subscribe(version, 1, "probe", 0));
    link.send(&publish(version, &message));
    loop {
        link.flush()?;
        let mut packets = Vec::new();
        link.receive(&mut packets)?;
        for packet in packets {
            match packet {
                Packet::Connack { code: 0, .. } | Packet::Suback { code: 0, .. } => {}
                Packet::Publish(found) if found.payload == message.payload => {
                    link.send(&DISCONNECT);
                    link.flush()?;
                    return Ok(started.elapsed());
                }
                other => bail!("a client at QoS 0 got {other:?}"),
            }
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "a client at QoS 0 was not served within {} s",
            PATIENCE.as_secs()
        );
        thread::sleep(POLL);
    }
}
