//! The records of an outbox's file: how they are written, and how a damaged one is known.
//!
//! ```text
//! file    magic (8)  format version (4)  checksum of both (4)  record ...
//! record  length of the body (4)  checksum of length, kind and body (4)  kind (1)  body
//! ```
//!
//! Numbers are little endian, checksums are CRC-32C. The body of a message is its key, the time it was
//! stored at, and the PUBLISH packet of MQTT 5 that carries it.

use std::io::{self, Read};

use mqtt_codec::PacketId;
use mqtt_session::Change;

/// The first bytes of each file.
const MAGIC: [u8; 8] = *b"ternmqOB";
/// The version of the format.
pub(crate) const FORMAT: u32 = 1;
/// Bytes before the first record.
pub(crate) const HEADER: usize = 16;
/// Bytes of a record besides its body.
pub(crate) const FRAME: usize = 9;
/// Bytes of a message's body before its packet.
pub(crate) const PREFIX: usize = 16;

/// Keys are counted from 1: none is larger, and there is always a next one.
const LAST_KEY: u64 = u64::MAX / 2;

/// What happened to an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A message was handed over.
    Message {
        key: u64,
        /// Milliseconds since 1970.
        stored_at: u64,
        packet: &'a [u8],
    },
    /// A message got a packet identifier.
    Sent { packet_id: PacketId, key: u64 },
    /// PUBREC came.
    Released { packet_id: PacketId },
    /// The message under the identifier is complete, or was refused.
    Completed { packet_id: PacketId },
    /// The message is not to be sent any more, whatever identifier it has.
    Removed { key: u64 },
    /// A message of QoS 2 was received.
    Received { packet_id: PacketId },
    /// Its identifier was released.
    Forgotten { packet_id: PacketId },
    /// Whose session it is, from before the first CONNECT on.
    Session { client_id: &'a str },
    /// The server does not have the session: no identifier means anything any more, and the messages that
    /// had one wait to be sent anew.
    SessionLost,
}

impl Record<'_> {
    /// What a change of the session is here.
    pub(crate) fn of(change: Change) -> Option<Self> {
        Some(match change {
            Change::Sent { packet_id, key, .. } => Self::Sent { packet_id, key },
            Change::Dropped { key } => Self::Removed { key },
            Change::PubRecReceived { packet_id } => Self::Released { packet_id },
            Change::Completed { packet_id } => Self::Completed { packet_id },
            Change::InboundReceived { packet_id } => Self::Received { packet_id },
            Change::InboundReleased { packet_id } => Self::Forgotten { packet_id },
            _ => return None,
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Message { .. } => 1,
            Self::Sent { .. } => 2,
            Self::Released { .. } => 3,
            Self::Completed { .. } => 4,
            Self::Removed { .. } => 5,
            Self::Received { .. } => 6,
            Self::Forgotten { .. } => 7,
            Self::Session { .. } => 8,
            Self::SessionLost => 9,
        }
    }

    /// Appends it.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAME - 1]);
        out.push(self.kind());
        match self {
            Self::Message {
                key,
                stored_at,
                packet,
            } => {
                out.extend_from_slice(&key.to_le_bytes());
                out.extend_from_slice(&stored_at.to_le_bytes());
                out.extend_from_slice(packet);
            }
            Self::Sent { packet_id, key } => {
                out.extend_from_slice(&packet_id.get().to_le_bytes());
                out.extend_from_slice(&key.to_le_bytes());
            }
            Self::Removed { key } => out.extend_from_slice(&key.to_le_bytes()),
            Self::Released { packet_id }
            | Self::Completed { packet_id }
            | Self::Received { packet_id }
            | Self::Forgotten { packet_id } => {
                out.extend_from_slice(&packet_id.get().to_le_bytes());
            }
            Self::Session { client_id } => out.extend_from_slice(client_id.as_bytes()),
            Self::SessionLost => {}
        }
        let length = out.len() - start - FRAME;
        // A packet has 256 MiB at most.
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let rest = out.get(start + 8..).unwrap_or_default();
        let checksum = checksum(&[&length, rest]).to_le_bytes();
        let frame = length.iter().chain(&checksum);
        for (place, byte) in out.iter_mut().skip(start).zip(frame) {
            *place = *byte;
        }
    }

    /// Reads the body of one that was whole; `None` for what this version did not write.
    fn decode(kind: u8, body: &[u8]) -> Option<Record<'_>> {
        let packet_id = || {
            let bytes: [u8; 2] = body.get(..2)?.try_into().ok()?;
            PacketId::new(u16::from_le_bytes(bytes))
        };
        let number = |from: usize| {
            let bytes: [u8; 8] = body.get(from..from + 8)?.try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        let length = match kind {
            1 => body.len().max(PREFIX),
            2 => 10,
            3 | 4 | 6 | 7 => 2,
            5 => 8,
            8 => body.len(),
            _ => 0,
        };
        if body.len() != length {
            return None;
        }
        Some(match kind {
            1 => Record::Message {
                key: number(0).filter(|key| *key <= LAST_KEY)?,
                stored_at: number(8)?,
                packet: body.get(PREFIX..)?,
            },
            2 => Record::Sent {
                packet_id: packet_id()?,
                key: number(2)?,
            },
            3 => Record::Released {
                packet_id: packet_id()?,
            },
            4 => Record::Completed {
                packet_id: packet_id()?,
            },
            5 => Record::Removed { key: number(0)? },
            6 => Record::Received {
                packet_id: packet_id()?,
            },
            7 => Record::Forgotten {
                packet_id: packet_id()?,
            },
            8 => Record::Session {
                client_id: std::str::from_utf8(body).ok()?,
            },
            9 => Record::SessionLost,
            _ => return None,
        })
    }
}

/// The header of a file.
pub(crate) fn header() -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let version = FORMAT.to_le_bytes();
    let checksum = checksum(&[&MAGIC, &version]).to_le_bytes();
    let bytes = MAGIC.iter().chain(&version).chain(&checksum);
    for (place, byte) in header.iter_mut().zip(bytes) {
        *place = *byte;
    }
    header
}

/// The format version that a header names; `None` if it is no header.
pub(crate) fn version(header: &[u8; HEADER]) -> Option<u32> {
    let (magic, rest) = header.split_first_chunk::<8>()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    let (sum, _) = rest.split_first_chunk::<4>()?;
    let is_whole = checksum(&[magic, version]) == u32::from_le_bytes(*sum);
    (*magic == MAGIC && is_whole).then(|| u32::from_le_bytes(*version))
}

/// What [`scan`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// Whole records up to this place, and no further ones.
    Until(u64),
    /// A whole record at this place that this version did not write.
    Unknown(u64),
}

/// Passes each whole record, from `start` on, to `each` with its place, up to the first that is not whole.
///
/// # Errors
///
/// If the file cannot be read, which is not the same as its end.
pub(crate) fn scan(
    mut file: impl Read,
    start: u64,
    length: u64,
    mut each: impl FnMut(u64, Record<'_>),
) -> io::Result<Scanned> {
    let mut place = start;
    let mut body = Vec::new();
    loop {
        let left = length.saturating_sub(place);
        if left < FRAME as u64 {
            return Ok(Scanned::Until(place));
        }
        let mut frame = [0; FRAME];
        file.read_exact(&mut frame)?;
        let [a, b, c, d, e, f, g, h, kind] = frame;
        let size = u64::from(u32::from_le_bytes([a, b, c, d]));
        if size > left - FRAME as u64 {
            return Ok(Scanned::Until(place));
        }
        body.clear();
        // The size is within that of the file.
        file.by_ref().take(size).read_to_end(&mut body)?;
        let sum = u32::from_le_bytes([e, f, g, h]);
        if checksum(&[&[a, b, c, d], &[kind], &body]) != sum {
            return Ok(Scanned::Until(place));
        }
        match Record::decode(kind, &body) {
            Some(record) => each(place, record),
            None => return Ok(Scanned::Unknown(place)),
        }
        place += FRAME as u64 + size;
    }
}

/// The parts of a message's record that was read back whole: when it was stored, and its packet.
pub(crate) fn message(record: &[u8]) -> Option<(u64, &[u8])> {
    let (frame, body) = record.split_first_chunk::<FRAME>()?;
    let [a, b, c, d, e, f, g, h, kind] = *frame;
    if checksum(&[&[a, b, c, d], &[kind], body]) != u32::from_le_bytes([e, f, g, h]) {
        return None;
    }
    match Record::decode(kind, body)? {
        Record::Message {
            stored_at, packet, ..
        } => Some((stored_at, packet)),
        _ => None,
    }
}

/// CRC-32C of the parts together.
fn checksum(parts: &[&[u8]]) -> u32 {
    let mut sum = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        let index = (sum as u8 ^ byte) as usize;
        // A byte is an index of the table.
        sum = TABLE.get(index).copied().unwrap_or(0) ^ (sum >> 8);
    }
    !sum
}

/// The remainders of each byte.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = index as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 {
                (sum >> 1) ^ 0x82f6_3b78
            } else {
                sum >> 1
            };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(checksum(&[b"1234", b"56789"]), 0xe306_9283);
    }

    #[test]
    fn a_header_names_its_version() {
        assert_eq!(version(&header()), Some(FORMAT));
        let mut other = header();
        other[8] = 2;
        assert_eq!(version(&other), None);
    }
}
