//! Just enough MQTT 3.1.1 to be rude with: packets as bytes, and a blocking connection.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// How long a well-behaved exchange may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const SUBACK: u8 = 0x90;
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];

/// A packet from its first byte and its body.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        bytes.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNECT with clean session and no keep alive.
pub(super) fn connect(id: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    string(id, &mut body);
    packet(0x10, &body)
}

/// SUBSCRIBE at QoS 1.
pub(super) fn subscribe(id: u16, filters: &[String]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for filter in filters {
        string(filter, &mut body);
        body.push(1);
    }
    packet(0x82, &body)
}

/// PUBLISH at QoS 0, or at QoS 1 with an identifier.
pub(super) fn publish(topic: &str, id: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    string(topic, &mut body);
    if let Some(id) = id {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(if id.is_some() { PUBLISH | 2 } else { PUBLISH }, &body)
}

/// PUBLISH of 5.0 at QoS 0 that sets a topic alias, or uses it where the topic is empty.
pub(super) fn publish_alias(topic: &str, alias: u16) -> Vec<u8> {
    let mut body = Vec::new();
    string(topic, &mut body);
    body.extend_from_slice(&[3, 0x23]);
    body.extend_from_slice(&alias.to_be_bytes());
    packet(PUBLISH, &body)
}

/// A connection that answers within [`PATIENCE`] or counts as hung.
pub(super) struct Peer {
    pub(super) stream: TcpStream,
}

impl Peer {
    /// A connection that has said nothing yet.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// A connection whose CONNECT was accepted.
    pub(super) fn connect(address: SocketAddr, id: &str) -> Result<Self> {
        let mut peer = Self::open(address)?;
        peer.send(&connect(id))?;
        let (first, body) = peer.receive()?;
        ensure!(
            first == CONNACK && body == [0, 0],
            "refused: {first:#04x} {body:?}"
        );
        Ok(peer)
    }

    /// The same of 5.0, with a session that outlives the connection by so many seconds.
    pub(super) fn connect_v5(address: SocketAddr, id: &str, expiry: u32) -> Result<Self> {
        let mut peer = Self::open(address)?;
        let mut body = b"\0\x04MQTT\x05\0\0\0\x05\x11".to_vec();
        body.extend_from_slice(&expiry.to_be_bytes());
        string(id, &mut body);
        peer.send(&packet(0x10, &body))?;
        let (first, body) = peer.receive()?;
        ensure!(
            first == CONNACK && body.get(1) == Some(&0),
            "refused: {first:#04x} {body:?}"
        );
        Ok(peer)
    }

    /// Subscribes to one filter on 5.0, at QoS 0, and waits for SUBACK.
    pub(super) fn subscribe_v5(
        &mut self,
        id: u16,
        identifier: Option<u32>,
        filter: &str,
    ) -> Result<()> {
        let mut body = id.to_be_bytes().to_vec();
        match identifier {
            Some(number) => {
                let (low, high) = (number as u8 & 0x7f, (number >> 7) as u8);
                ensure!(high < 0x80, "an identifier of two bytes at most");
                body.extend_from_slice(&[3, 0x0b, low | 0x80, high]);
            }
            None => body.push(0),
        }
        string(filter, &mut body);
        body.push(0);
        self.send(&packet(0x82, &body))?;
        let (first, body) = self.receive().context("no SUBACK")?;
        ensure!(first == SUBACK && body.ends_with(&[0]), "not granted");
        Ok(())
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet: its first byte and its body.
    pub(super) fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let first = byte[0];
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((first, body))
    }

    /// Subscribes and waits for SUBACK.
    pub(super) fn subscribe(&mut self, filters: &[String]) -> Result<()> {
        self.send(&subscribe(1, filters))?;
        loop {
            let (first, body) = self.receive().context("no SUBACK")?;
            if first == SUBACK {
                ensure!(!body.contains(&0x80), "a subscription was refused");
                return Ok(());
            }
        }
    }

    /// Writes `bytes` again and again without ever reading, until nothing more goes out for `patience`
    /// or `limit` bytes are written; returns how many were.
    pub(super) fn flood(
        &mut self,
        bytes: &[u8],
        limit: usize,
        patience: Duration,
    ) -> Result<usize> {
        self.stream.set_write_timeout(Some(patience))?;
        let mut written = 0;
        while written < limit {
            match self.stream.write(bytes) {
                // A packet cut here is never ended: the flood is over then.
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        Ok(written)
    }

    /// Whether the other end closes the connection within `patience`; what it sends before is ignored.
    pub(super) fn is_closed_within(&mut self, patience: Duration) -> bool {
        let deadline = std::time::Instant::now() + patience;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || self.stream.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => {
                    let timed_out = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    return !timed_out.contains(&error.kind());
                }
            }
        }
    }
}
