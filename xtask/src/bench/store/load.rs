//! The load: publishers that keep a window of QoS 1 messages unacknowledged, and the session that takes them.
//!
//! All packets of a publisher are made before it begins, so that little is left to do for each message.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

const PUBLISHERS: usize = 10;
const WINDOW: usize = 100;
/// Level 4 is 3.1.1.
const LEVEL: u8 = 4;
const CLEAN: u8 = 2;
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PUBACK: usize = 4;
/// So long a peer may say nothing.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often one that only receives looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// What a load has sent, and how long the acknowledgements took.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) acknowledged: u64,
    /// By the receiver, if one was connected.
    pub(super) received: u64,
    pub(super) time: Duration,
    /// From a message to its acknowledgement, sorted.
    latencies: Vec<Duration>,
}

impl Done {
    /// What so many of 1,000 acknowledgements took at most.
    pub(super) fn latency(&self, permille: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = self.latencies.len() * permille / 1_000;
        self.latencies
            .get(at.min(last))
            .copied()
            .unwrap_or_default()
    }
}

/// Has the session there that takes the messages, connected or not, and publishes for a time.
pub(super) fn run(
    address: SocketAddr,
    payload: usize,
    time: Duration,
    online: bool,
) -> Result<Done> {
    let receiver = subscribe(address)?;
    let over = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let receiving = if online {
        let (over, received) = (Arc::clone(&over), Arc::clone(&received));
        Some(thread::spawn(move || receive(receiver, &over, &received)))
    } else {
        disconnect(receiver)?;
        None
    };
    let mut publishers = Vec::new();
    for number in 0..PUBLISHERS {
        publishers.push(Publisher::new(address, number, payload)?);
    }
    let started = Instant::now();
    let end = started + time;
    let running: Vec<JoinHandle<Result<Vec<Duration>>>> = publishers
        .into_iter()
        .map(|publisher| thread::spawn(move || publisher.run(end)))
        .collect();
    let mut latencies = Vec::new();
    for publisher in running {
        let done = publisher.join();
        latencies.extend(done.map_err(|_| anyhow!("a publisher panicked"))??);
    }
    let time = started.elapsed();
    over.store(true, Ordering::Relaxed);
    if let Some(receiving) = receiving {
        let done = receiving.join();
        done.map_err(|_| anyhow!("the receiver panicked"))??;
    }
    latencies.sort_unstable();
    Ok(Done {
        acknowledged: latencies.len() as u64,
        received: received.load(Ordering::Relaxed),
        time,
        latencies,
    })
}

fn connect(address: SocketAddr, client: &str, flags: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', LEVEL, flags, 0, 0];
    put_text(client, &mut body);
    stream.write_all(&packet(0x10, &body))?;
    let mut answer = [0; CONNACK.len()];
    stream.read_exact(&mut answer).context("no CONNACK")?;
    // The session may be there already.
    ensure!(answer[3] == 0, "CONNACK {answer:?}");
    Ok(stream)
}

fn subscribe(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect(address, "bench-receiver", 0)?;
    let mut body = vec![0, 1];
    put_text("bench/#", &mut body);
    body.push(1);
    stream.write_all(&packet(0x82, &body))?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).context("no SUBACK")?;
    ensure!(answer == [0x90, 3, 0, 1, 1], "SUBACK {answer:?}");
    Ok(stream)
}

fn disconnect(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&[0xE0, 0])?;
    // Its end is seen when the broker has closed the connection.
    ensure!(stream.read(&mut [0])? == 0, "an answer to DISCONNECT");
    Ok(())
}

/// Acknowledges all that comes, until it is over and nothing comes any more.
fn receive(mut stream: TcpStream, over: &AtomicBool, received: &AtomicU64) -> Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    let mut buffer = vec![0; 256 * 1024];
    let mut held = 0;
    let mut acks = Vec::new();
    loop {
        match stream.read(&mut buffer[held..]) {
            Ok(0) => return Ok(()),
            Ok(length) => held += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if over.load(Ordering::Relaxed) {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
        let mut done = 0;
        let mut count = 0;
        while let Some((length, id)) = publish(&buffer[done..held]) {
            acks.extend_from_slice(&[0x40, 2, id[0], id[1]]);
            done += length;
            count += 1;
        }
        ensure!(done > 0 || held < buffer.len(), "a packet is too large");
        buffer.copy_within(done..held, 0);
        held -= done;
        if !acks.is_empty() {
            stream.write_all(&acks)?;
            acks.clear();
            received.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// The length of the PUBLISH at QoS 1 that the bytes begin with, and its identifier; `None` if it is not whole.
fn publish(bytes: &[u8]) -> Option<(usize, [u8; 2])> {
    let mut remaining = 0;
    let mut head = 1;
    loop {
        let byte = *bytes.get(head)?;
        remaining |= usize::from(byte & 0x7F) << (7 * (head - 1));
        head += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let whole = bytes.get(..head + remaining)?;
    let topic = usize::from(u16::from_be_bytes([
        *whole.get(head)?,
        *whole.get(head + 1)?,
    ]));
    let id = whole.get(head + 2 + topic..head + 4 + topic)?;
    Some((whole.len(), id.try_into().ok()?))
}

struct Publisher {
    stream: TcpStream,
    /// As many packets as the window has, each with its identifier.
    packets: Vec<u8>,
    /// Bytes of each.
    length: usize,
}

impl Publisher {
    fn new(address: SocketAddr, number: usize, payload: usize) -> Result<Self> {
        let stream = connect(address, &format!("bench-{number}"), CLEAN)?;
        let mut packets = Vec::new();
        for id in 1..=WINDOW as u16 {
            let mut body = Vec::new();
            put_text(&format!("bench/{number}"), &mut body);
            body.extend_from_slice(&id.to_be_bytes());
            body.resize(body.len() + payload, b'x');
            packets.extend(packet(0x32, &body));
        }
        Ok(Self {
            stream,
            length: packets.len() / WINDOW,
            packets,
        })
    }

    /// Publishes until `end` and waits for the last acknowledgements; returns what each took.
    fn run(mut self, end: Instant) -> Result<Vec<Duration>> {
        let mut sent = vec![Instant::now(); WINDOW];
        let mut latencies = Vec::new();
        self.stream.write_all(&self.packets)?;
        // The place of the oldest in the window, and how many are unacknowledged.
        let (mut oldest, mut open) = (0, WINDOW);
        let mut answers = [0; WINDOW * PUBACK];
        let mut held = 0;
        while open > 0 {
            let length = self.stream.read(&mut answers[held..])?;
            ensure!(length > 0, "the broker closed the connection");
            held += length;
            let now = Instant::now();
            let whole = held / PUBACK;
            for answer in answers[..whole * PUBACK].chunks_exact(PUBACK) {
                let id = (oldest + 1) as u16;
                let [high, low] = id.to_be_bytes();
                ensure!(
                    answer == [0x40, 2, high, low],
                    "{answer:?} for PUBLISH {id}"
                );
                latencies.push(now - sent[oldest]);
                sent[oldest] = now;
                oldest = (oldest + 1) % WINDOW;
            }
            answers.copy_within(whole * PUBACK..held, 0);
            held -= whole * PUBACK;
            open -= whole;
            if now < end {
                // Those that were acknowledged go again.
                let first = (oldest + WINDOW - whole) % WINDOW;
                let until = (first + whole).min(WINDOW);
                self.send(first, until)?;
                self.send(0, first + whole - until)?;
                open += whole;
            }
        }
        Ok(latencies)
    }

    fn send(&mut self, first: usize, until: usize) -> Result<()> {
        let bytes = &self.packets[first * self.length..until * self.length];
        Ok(self.stream.write_all(bytes)?)
    }
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let byte = (left & 0x7F) as u8;
        left >>= 7;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_is_found_when_it_is_whole() {
        let mut body = Vec::new();
        put_text("a/b", &mut body);
        body.extend_from_slice(&[1, 2]);
        body.resize(300, 0);
        let whole = packet(0x32, &body);
        assert_eq!(publish(&whole), Some((303, [1, 2])));
        assert_eq!(publish(&whole[..302]), None);
        assert_eq!(publish(&whole[..2]), None);
    }
}
