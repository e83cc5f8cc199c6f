//! The attacks. Each returns a few words on what happened, or what went wrong.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::wire::{PINGREQ, PUBACK, Peer, connect, publish, subscribe};

/// The broker's connect timeout, and what a busy machine may add to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The broker's write timeout, and what a busy machine may add to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(75);
/// A violation is answered at once.
const AT_ONCE: Duration = Duration::from_secs(5);

/// An attack and its name.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) run: fn(SocketAddr) -> Result<String>,
}

pub(super) const ATTACKS: [Attack; 9] = [
    Attack {
        name: "random bytes",
        run: random_bytes,
    },
    Attack {
        name: "silent and slow",
        run: silent_and_slow,
    },
    Attack {
        name: "256 MiB announced",
        run: huge_announcement,
    },
    Attack {
        name: "30,000 levels",
        run: deep_topics,
    },
    Attack {
        name: "100,000 subscriptions",
        run: many_subscriptions,
    },
    Attack {
        name: "floods, nothing read",
        run: floods,
    },
    Attack {
        name: "subscriber reads nothing",
        run: deaf_subscriber,
    },
    Attack {
        name: "5,000 takeovers",
        run: takeovers,
    },
    Attack {
        name: "takeovers in parallel",
        run: parallel_takeovers,
    },
];

/// A generator of numbers that are the same in every run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

fn random_bytes(address: SocketAddr) -> Result<String> {
    const CONNECTIONS: u64 = 10_000;
    let mut random = Random::new();
    let mut closed = 0;
    for number in 0..CONNECTIONS {
        let mut peer = Peer::open(address)?;
        let mut bytes = if number % 2 == 0 {
            Vec::new()
        } else {
            connect(&format!("random-{number}"))
        };
        let len = random.next() % 512 + 1;
        bytes.extend((0..len).map(|_| random.next() as u8));
        // The broker may close before everything is written.
        if peer.send(&bytes).is_err() || peer.is_closed_within(Duration::from_millis(2)) {
            closed += 1;
        }
    }
    Ok(format!(
        "{CONNECTIONS} connections, {closed} closed by the broker within 2 ms"
    ))
}

fn silent_and_slow(address: SocketAddr) -> Result<String> {
    const SILENT: usize = 1_000;
    const SLOW: usize = 50;
    let started = Instant::now();
    let mut silent = (0..SILENT)
        .map(|_| Peer::open(address))
        .collect::<Result<Vec<_>>>()?;
    let mut slow = (0..SLOW)
        .map(|_| Peer::open(address))
        .collect::<Result<Vec<_>>>()?;
    let hello = connect("slow-client-with-a-long-identifier");
    for byte in &hello {
        // What is closed already cannot be written to.
        let open = slow
            .iter_mut()
            .filter(|peer| peer.stream.peer_addr().is_ok());
        if open
            .map(|peer| peer.send(&[*byte]))
            .filter(|sent| sent.is_ok())
            .count()
            == 0
        {
            break;
        }
        if started.elapsed() > CONNECT_TIMEOUT {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    for peer in silent.iter_mut().chain(&mut slow) {
        let left = (CONNECT_TIMEOUT + AT_ONCE).saturating_sub(started.elapsed());
        ensure!(
            peer.is_closed_within(left),
            "a connection without CONNECT is still open"
        );
    }
    Ok(format!(
        "{} connections closed after {:.0?}",
        SILENT + SLOW,
        started.elapsed()
    ))
}

fn huge_announcement(address: SocketAddr) -> Result<String> {
    let announced = [0xff, 0xff, 0xff, 0x7f];
    let mut before = Peer::open(address)?;
    before.send(&[&[0x10], &announced[..]].concat())?;
    ensure!(
        before.is_closed_within(AT_ONCE),
        "a CONNECT of 256 MiB is awaited"
    );
    let mut after = Peer::connect(address, "huge")?;
    after.send(&[&[0x30], &announced[..]].concat())?;
    ensure!(
        after.is_closed_within(AT_ONCE),
        "a PUBLISH of 256 MiB is awaited"
    );
    Ok("closed on the header".to_owned())
}

fn deep_topics(address: SocketAddr) -> Result<String> {
    let topic = "/".repeat(29_999);
    let wildcards = format!("{}+", "+/".repeat(29_999));
    let mut peer = Peer::connect(address, "deep")?;
    let started = Instant::now();
    peer.subscribe(&[topic.clone(), wildcards, format!("{topic}#")])?;
    for _ in 0..100 {
        peer.send(&publish(&topic, None, b"deep"))?;
        let (_, body) = peer.receive().context("the message did not come back")?;
        ensure!(body.ends_with(b"deep"), "another message came");
    }
    Ok(format!(
        "3 filters, 100 messages there and back in {:.0?}",
        started.elapsed()
    ))
}

fn many_subscriptions(address: SocketAddr) -> Result<String> {
    const FILTERS: usize = 100_000;
    let mut peer = Peer::connect(address, "greedy")?;
    let started = Instant::now();
    for block in 0..FILTERS / 1_000 {
        let filters: Vec<String> = (0..1_000)
            .map(|number| format!("greedy/{block}/{number}/+"))
            .collect();
        peer.subscribe(&filters)?;
    }
    let made = started.elapsed();
    peer.send(&publish("greedy/7/77/x", None, b"hit"))?;
    let (_, body) = peer.receive().context("the message did not come")?;
    ensure!(body.ends_with(b"hit"), "another message came");
    drop(peer);
    Ok(format!("{FILTERS} made in {made:.1?}"))
}

/// Clients that write and never read. What they provoke is bounded, and so is their time.
fn floods(address: SocketAddr) -> Result<String> {
    const LIMIT: usize = 256 << 20;
    let patience = Duration::from_secs(2);
    let subscribe_all: Vec<String> = (0..20).map(|number| format!("flood/{number}/#")).collect();
    let floods = [
        ("PINGREQ", PINGREQ.repeat(8_192)),
        ("SUBSCRIBE", subscribe(7, &subscribe_all).repeat(16)),
        (
            "QoS 1",
            publish("flooded", Some(9), &[b'x'; 64]).repeat(128),
        ),
    ];
    let mut notes = Vec::new();
    let mut peers = Vec::new();
    for (name, bytes) in floods {
        let mut peer = Peer::connect(address, &format!("flood-{name}"))?;
        let written = peer.flood(&bytes, LIMIT, patience)?;
        ensure!(
            written < LIMIT,
            "{name}: {LIMIT} bytes were taken without an answer read"
        );
        notes.push(format!("{name} stopped at {} KiB", written >> 10));
        peers.push((name, peer, Instant::now()));
    }
    for (name, peer, since) in peers {
        let mut closed = false;
        while since.elapsed() < WRITE_TIMEOUT && !closed {
            closed = is_closed(&peer);
            thread::sleep(AT_ONCE / 10);
        }
        ensure!(
            closed,
            "{name}: the connection is open after {:.0?}",
            since.elapsed()
        );
    }
    Ok(notes.join(", "))
}

/// Whether the system knows that the other end is gone, found without reading what it sent.
fn is_closed(peer: &Peer) -> bool {
    use std::io::Write;
    let mut stream = &peer.stream;
    match stream.write_all(&[0xc0]) {
        Ok(_) => false,
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

fn deaf_subscriber(address: SocketAddr) -> Result<String> {
    const BYTES: usize = 200 << 20;
    let mut deaf = Peer::connect(address, "deaf")?;
    deaf.send(&subscribe(1, &["deaf/#".to_owned()]))?;
    let mut sender = Peer::connect(address, "loud")?;
    let block = publish("deaf/0", None, &[b'x'; 1_000]).repeat(64);
    let mut sent = 0;
    while sent < BYTES / 2 {
        sender.send(&block)?;
        sent += block.len();
    }
    let mut acknowledged = 0_u32;
    while sent < BYTES {
        let packet = publish("deaf/1", Some(1), &[b'x'; 1_000]);
        sender.send(&packet)?;
        let (first, _) = sender.receive().context("no PUBACK")?;
        ensure!(first == PUBACK, "no PUBACK but {first:#04x}");
        acknowledged += 1;
        sent += packet.len();
        // The bound is reached after 16 MiB; a part of the flood shows that it holds.
        if acknowledged == 40_000 {
            break;
        }
    }
    Ok(format!(
        "{} MiB at it, {acknowledged} of them QoS 1",
        sent >> 20
    ))
}

fn takeovers(address: SocketAddr) -> Result<String> {
    const TAKEOVERS: u32 = 5_000;
    let started = Instant::now();
    let mut last = Peer::connect(address, "wanted")?;
    for _ in 0..TAKEOVERS {
        last = Peer::connect(address, "wanted")?;
    }
    last.send(&PINGREQ)?;
    let (first, _) = last.receive().context("the last connection is dead")?;
    ensure!(first == 0xd0, "no PINGRESP but {first:#04x}");
    Ok(format!("{:.0?} each", started.elapsed() / TAKEOVERS))
}

fn parallel_takeovers(address: SocketAddr) -> Result<String> {
    const CONNECTIONS: usize = 500;
    let mut peers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut peer = Peer::open(address)?;
        peer.send(&connect("contended"))?;
        peers.push(peer);
    }
    let mut accepted = 0;
    for peer in &mut peers {
        // All of them are accepted in turn, and all but one are taken over.
        if peer
            .receive()
            .is_ok_and(|(first, body)| first == 0x20 && body == [0, 0])
        {
            accepted += 1;
        }
    }
    ensure!(
        accepted == CONNECTIONS,
        "{accepted} of {CONNECTIONS} were accepted"
    );
    let closed = peers
        .iter_mut()
        .map(|peer| peer.is_closed_within(Duration::from_millis(20)));
    let closed = closed.filter(|closed| *closed).count();
    ensure!(
        closed == CONNECTIONS - 1,
        "{closed} of {CONNECTIONS} were closed"
    );
    Ok(format!("{CONNECTIONS} at once, one is left"))
}
