//! Attacks on what comes before CONNECT: TLS, WebSocket and PROXY.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    attacks::Random,
    wire::{CONNACK, Peer, connect},
};

/// The broker's connect timeout, and what a busy machine may add to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// What the broker closes at once, it closes within this time on a busy machine too.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Where the broker listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doors {
    pub(super) tls: SocketAddr,
    pub(super) websocket: SocketAddr,
    pub(super) proxy: SocketAddr,
    /// Only for users with a password.
    pub(super) password: SocketAddr,
}

/// An attack, and the counters that it must leave traces in, each with how many at least.
pub(super) struct DoorAttack {
    pub(super) name: &'static str,
    pub(super) run: fn(&Doors) -> Result<String>,
    pub(super) counted: &'static [(&'static str, u64)],
}

const GARBAGE: u64 = 3_000;
const SILENT: u64 = 3_000;
const HANDSHAKES: usize = 5_000;
const ENDLESS: u64 = 1_000;

/// Connections that are not whole in time, most of which are pushed out by newer ones before that.
const UNFINISHED: &[(&str, u64)] = &[
    (
        "refused, pushed out before CONNECT by newer connections",
        500,
    ),
    ("refused, no CONNECT in time", 500),
];

pub(super) const ATTACKS: [DoorAttack; 10] = [
    DoorAttack {
        name: "TLS: random bytes",
        run: |doors| garbage(doors.tls, b"", false),
        counted: &[("refused, TLS handshake failed", GARBAGE / 2)],
    },
    DoorAttack {
        name: "TLS: 5,000 handshakes",
        run: handshake_storm,
        counted: &[("refused, TLS handshake failed", HANDSHAKES as u64)],
    },
    DoorAttack {
        name: "TLS: 3,000 half-open",
        run: half_open,
        counted: UNFINISHED,
    },
    DoorAttack {
        name: "WebSocket: 3,000 slow",
        run: |doors| slow(doors.websocket, UPGRADE),
        counted: UNFINISHED,
    },
    DoorAttack {
        name: "PROXY: 3,000 slow",
        run: |doors| {
            slow(
                doors.proxy,
                b"PROXY TCP4 203.0.113.7 203.0.113.8 50000 1883\r\n",
            )
        },
        counted: UNFINISHED,
    },
    DoorAttack {
        name: "WebSocket: bad requests",
        run: |doors| {
            garbage(doors.websocket, b"", true)?;
            garbage(doors.websocket, b"GET /mqtt HTTP/1.1\r\n", true)
        },
        counted: &[("refused, WebSocket handshake failed", GARBAGE)],
    },
    DoorAttack {
        name: "WebSocket: broken frames",
        run: |doors| broken_frames(doors, false),
        counted: &[("refused, broken frames before CONNECT", BROKEN_ALL)],
    },
    DoorAttack {
        name: "WebSocket: and after it",
        run: |doors| broken_frames(doors, true),
        counted: &[("ended, broken frames", BROKEN_ALL)],
    },
    DoorAttack {
        name: "WebSocket: endless frames",
        run: endless_frames,
        counted: &[
            ("refused, broken frames before CONNECT", ENDLESS / 2),
            ("refused, no CONNECT", ENDLESS / 4),
        ],
    },
    DoorAttack {
        name: "PROXY: bad headers",
        run: bad_headers,
        counted: &[("refused, no PROXY header", GARBAGE)],
    },
];

/// Connections that begin with `head` and go on with random bytes; `ends`: with what ends a request or a line.
fn garbage(address: SocketAddr, head: &[u8], ends: bool) -> Result<String> {
    let mut random = Random::new();
    let mut open = Vec::new();
    for number in 0..GARBAGE {
        let mut peer = Peer::open(address)?;
        let mut bytes = head.to_vec();
        let len = 64 + random.next() % 512;
        bytes.extend((0..len).map(|_| random.next() as u8));
        if ends {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        // The broker may close before everything is written.
        _ = peer.send(&bytes);
        // What the broker waits for more of is held back, so that it is as many as can be.
        if number % 2 == 0 {
            open.push(peer);
        }
    }
    let started = Instant::now();
    for peer in &mut open {
        let left = (CONNECT_TIMEOUT + AT_ONCE).saturating_sub(started.elapsed());
        ensure!(peer.is_closed_within(left), "a connection is still open");
    }
    Ok(format!(
        "{GARBAGE} connections, the last closed after {:.1?}",
        started.elapsed()
    ))
}

/// The first bytes of a client that knows TLS, from openssl.
fn client_hello() -> Result<Vec<u8>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("openssl")?;
    let hello = (|| {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(AT_ONCE))?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let mut hello = head.to_vec();
        let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
        hello.resize(5 + len, 0);
        stream.read_exact(&mut hello[5..])?;
        Ok(hello)
    })();
    _ = client.kill();
    _ = client.wait();
    hello
}

/// Handshakes for which the broker computes its part, and which are then left.
fn handshake_storm(doors: &Doors) -> Result<String> {
    const AT_THE_SAME_TIME: usize = 8;
    let hello = client_hello()?;
    let started = Instant::now();
    let answered = thread::scope(|scope| {
        let workers = (0..AT_THE_SAME_TIME).map(|_| {
            scope.spawn(|| -> Result<usize> {
                let mut answered = 0;
                for _ in 0..HANDSHAKES / AT_THE_SAME_TIME {
                    let mut peer = Peer::open(doors.tls)?;
                    peer.stream.write_all(&hello)?;
                    let mut first = [0; 1];
                    let read = peer.stream.read_exact(&mut first);
                    answered += usize::from(read.is_ok() && first == [0x16]);
                }
                Ok(answered)
            })
        });
        let workers: Vec<_> = workers.collect();
        let mut sum = 0;
        for worker in workers {
            sum += worker.join().ok().context("a worker panicked")??;
        }
        anyhow::Ok(sum)
    })?;
    ensure!(
        answered == HANDSHAKES,
        "{answered} of {HANDSHAKES} answered"
    );
    Ok(format!("{HANDSHAKES} in {:.1?}", started.elapsed()))
}

/// Handshakes that are begun and go on by a byte now and then.
fn half_open(doors: &Doors) -> Result<String> {
    slow(doors.tls, &client_hello()?)
}

/// Connections that say one half of this at once, and of the other a byte now and then.
fn slow(address: SocketAddr, bytes: &[u8]) -> Result<String> {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut peers = Vec::new();
    for _ in 0..SILENT {
        let mut peer = Peer::open(address)?;
        _ = peer.send(first);
        peers.push(peer);
    }
    let started = Instant::now();
    for byte in rest {
        if started.elapsed() > CONNECT_TIMEOUT {
            break;
        }
        for peer in &mut peers {
            _ = peer.send(&[*byte]);
        }
        thread::sleep(Duration::from_secs(1));
    }
    for peer in &mut peers {
        ensure!(peer.is_closed_within(AT_ONCE), "a connection is still open");
    }
    Ok(format!(
        "{SILENT} connections closed within {:.0?}",
        started.elapsed()
    ))
}

/// The request that every connection begins with.
const UPGRADE: &[u8] =
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

/// Beginnings of streams of frames, each of which breaks RFC 6455 in another way.
const BROKEN: [&[u8]; 10] = [
    // Not masked.
    &[0x82, 0x02, 0xc0, 0],
    // A reserved bit.
    &[0xc2, 0x82, 0, 0, 0, 0, 0xc0, 0],
    &[0x92, 0x82, 0, 0, 0, 0, 0xc0, 0],
    // An opcode without a meaning.
    &[0x83, 0x80, 0, 0, 0, 0],
    // Text.
    &[0x81, 0x82, 0, 0, 0, 0, 0xc0, 0],
    // A fragment of nothing, and a message within another.
    &[0x80, 0x80, 0, 0, 0, 0],
    &[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0],
    // A control frame in fragments, and one that is too long.
    &[0x09, 0x80, 0, 0, 0, 0],
    &[0x89, 0xfe, 0, 0x7e, 0, 0, 0, 0],
    // A length of more than 63 bits.
    &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
];
/// Connections for each of them.
const BROKEN_EACH: u64 = 200;
/// All of them.
const BROKEN_ALL: u64 = BROKEN.len() as u64 * BROKEN_EACH;

/// A connection that speaks WebSocket: the answer to its request was read.
fn upgraded(address: SocketAddr) -> Result<Peer> {
    let mut peer = Peer::open(address)?;
    peer.send(UPGRADE)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101 "), "no upgrade");
    Ok(peer)
}

/// Frames that are none. The broker says so and closes at once, before CONNECT as well as after it.
fn broken_frames(doors: &Doors, connects: bool) -> Result<String> {
    let mut random = Random::new();
    let mut slowest = Duration::ZERO;
    for number in 0..BROKEN_EACH {
        for bytes in BROKEN {
            let mut peer = upgraded(doors.websocket)?;
            if connects {
                let packet = connect(&format!("broken-{number}"));
                let len = u8::try_from(packet.len()).context("a long CONNECT")?;
                peer.send(&[&[0x82, 0x80 | len, 0, 0, 0, 0], &packet[..]].concat())?;
                // CONNACK in a frame that is not masked.
                let mut answer = [0; 6];
                peer.stream.read_exact(&mut answer)?;
                ensure!(answer == [0x82, 4, CONNACK, 2, 0, 0], "{answer:02x?}");
            }
            let mut bytes = bytes.to_vec();
            bytes.extend((0..64).map(|_| random.next() as u8));
            let started = Instant::now();
            // The broker may close before everything is written.
            _ = peer.send(&bytes);
            ensure!(peer.is_closed_within(AT_ONCE), "a connection is still open");
            slowest = slowest.max(started.elapsed());
        }
    }
    Ok(format!(
        "{BROKEN_ALL} connections, each closed within {slowest:.1?}"
    ))
}

/// Frames that announce more than there may be, control frames without end, and random bytes.
fn endless_frames(doors: &Doors) -> Result<String> {
    let mut random = Random::new();
    let mut peers = Vec::new();
    for number in 0..ENDLESS {
        // Frames before the answer would be refused with the request.
        let mut peer = upgraded(doors.websocket)?;
        let mut bytes = match number % 3 {
            // 2^62 bytes are announced.
            0 => vec![0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            // PINGs without end.
            1 => [0x89, 0x80, 1, 2, 3, 4].repeat(10_000),
            _ => Vec::new(),
        };
        bytes.extend((0..512).map(|_| random.next() as u8));
        _ = peer.send(&bytes);
        peers.push(peer);
    }
    let started = Instant::now();
    for peer in &mut peers {
        let left = (CONNECT_TIMEOUT + AT_ONCE).saturating_sub(started.elapsed());
        ensure!(peer.is_closed_within(left), "a connection is still open");
    }
    Ok(format!(
        "{ENDLESS} connections, the last closed after {:.1?}",
        started.elapsed()
    ))
}

/// Headers that are none, announce much, or never end.
fn bad_headers(doors: &Doors) -> Result<String> {
    garbage(doors.proxy, b"PROXY TCP4 ", true)?;
    garbage(doors.proxy, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", false)?;
    garbage(doors.proxy, b"PROXY TCP4 1.2.3.4 ", false)
}
