//! The packets of a client in MQTT 3.1.1 and 5.0, and a connection that never blocks. It shares no
//! code with the broker, so that no mistake cancels out.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long the broker's side may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How much one look at a connection reads, so that the others get their turn.
const READ: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V311,
    V5,
}

/// What a broker sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    Connack {
        present: bool,
        code: u8,
        receive_maximum: u16,
    },
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP: its first byte tells.
    Ack {
        first: u8,
        id: u16,
        reason: u8,
    },
    Suback {
        id: u16,
        code: u8,
    },
    Unsuback {
        id: u16,
    },
    Pingresp,
    Disconnect {
        reason: u8,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    /// 0 at QoS 0.
    pub(super) id: u16,
    pub(super) payload: Vec<u8>,
}

pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const PINGREQ: [u8; 2] = [0xc0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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

fn string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNECT without keep alive. With `clean` the session begins anew and ends with the connection, else
/// it never expires.
pub(super) fn connect(version: Version, name: &str, clean: bool, receive_maximum: u16) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.extend([if clean { 2 } else { 0 }, 0, 0]);
    if version == Version::V5 {
        let expiry = if clean { 0 } else { u32::MAX };
        body.extend([8, 0x11]);
        body.extend_from_slice(&expiry.to_be_bytes());
        body.push(0x21);
        body.extend_from_slice(&receive_maximum.to_be_bytes());
    }
    string(name, &mut body);
    packet(0x10, &body)
}

pub(super) fn publish(version: Version, message: &Publish) -> Vec<u8> {
    let mut body = Vec::new();
    string(&message.topic, &mut body);
    if message.qos > 0 {
        body.extend_from_slice(&message.id.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend_from_slice(&message.payload);
    let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
    packet(0x30 | flags, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub(super) fn subscribe(version: Version, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = request(version, id, filter);
    body.push(qos);
    packet(0x82, &body)
}

pub(super) fn unsubscribe(version: Version, id: u16, filter: &str) -> Vec<u8> {
    packet(0xa2, &request(version, id, filter))
}

fn request(version: Version, id: u16, filter: &str) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    string(filter, &mut body);
    body
}

/// What is left to read of a packet.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn length(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }

    /// The properties where the version has some.
    fn properties(&mut self, version: Version) -> Option<Self> {
        if version == Version::V311 {
            return Some(Self(&[]));
        }
        let length = self.length()?;
        self.take(length).map(Self)
    }

    /// Skips the value of a property, and returns it where it has two bytes.
    fn property(&mut self, id: u8) -> Option<u16> {
        match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => self.byte().map(u16::from),
            0x13 | 0x21..=0x23 => self.number(),
            0x02 | 0x11 | 0x18 | 0x27 => self.take(4).map(|_| 0),
            0x0b => self.length().map(|_| 0),
            0x26 => self.string().and_then(|_| self.string()).map(|_| 0),
            _ => self.string().map(|_| 0),
        }
    }
}

/// The first packet in `bytes` and how many of them it takes; `Ok(None)` where it is incomplete.
fn decode(version: Version, bytes: &[u8]) -> io::Result<Option<(Packet, usize)>> {
    let mut rest = Bytes(bytes);
    let (Some(first), Some(length)) = (rest.byte(), rest.length()) else {
        return if bytes.len() > 4 {
            Err(malformed(bytes))
        } else {
            Ok(None)
        };
    };
    let Some(body) = rest.take(length) else {
        return Ok(None);
    };
    let packet = body_of(version, first, Bytes(body)).ok_or_else(|| malformed(bytes))?;
    Ok(Some((packet, bytes.len() - rest.0.len())))
}

fn malformed(bytes: &[u8]) -> io::Error {
    let shown = &bytes[..bytes.len().min(16)];
    io::Error::other(format!("a malformed packet: {shown:02x?}"))
}

fn body_of(version: Version, first: u8, mut body: Bytes<'_>) -> Option<Packet> {
    Some(match first >> 4 {
        2 => {
            let present = body.byte()? & 1 == 1;
            let code = body.byte()?;
            let mut receive_maximum = u16::MAX;
            let mut properties = body.properties(version)?;
            while let Some(id) = properties.byte() {
                let value = properties.property(id)?;
                if id == 0x21 {
                    receive_maximum = value;
                }
            }
            Packet::Connack {
                present,
                code,
                receive_maximum,
            }
        }
        3 => {
            let topic = String::from_utf8(body.string()?.to_vec()).ok()?;
            let qos = first >> 1 & 3;
            let id = if qos > 0 { body.number()? } else { 0 };
            body.properties(version)?;
            Packet::Publish(Publish {
                dup: first & 8 != 0,
                qos,
                retain: first & 1 != 0,
                topic,
                id,
                payload: body.0.to_vec(),
            })
        }
        4..=7 => Packet::Ack {
            first,
            id: body.number()?,
            reason: body.byte().unwrap_or(0),
        },
        9 => {
            let id = body.number()?;
            body.properties(version)?;
            Packet::Suback {
                id,
                code: body.byte()?,
            }
        }
        11 => Packet::Unsuback { id: body.number()? },
        13 => Packet::Pingresp,
        14 => Packet::Disconnect {
            reason: body.byte().unwrap_or(0),
        },
        _ => return None,
    })
}

/// A connection that is looked at again and again; nothing on it blocks but its beginning.
pub(super) struct Link {
    stream: TcpStream,
    version: Version,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Link {
    pub(super) fn open(address: SocketAddr, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            version,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.outgoing.extend_from_slice(bytes);
    }

    /// How much waits to be written.
    pub(super) fn unsent(&self) -> usize {
        self.outgoing.len()
    }

    /// Writes what can be written now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(count) => _ = self.outgoing.drain(..count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds the packets that have come to `packets`; an error once the connection is closed or broken,
    /// after the packets before that.
    pub(super) fn receive(&mut self, packets: &mut Vec<Packet>) -> io::Result<()> {
        let mut buffer = [0; READ];
        let outcome = match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.incoming.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        };
        let mut used = 0;
        while let Some((packet, count)) = decode(self.version, &self.incoming[used..])? {
            packets.push(packet);
            used += count;
        }
        self.incoming.drain(..used);
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_went() {
        for version in [Version::V311, Version::V5] {
            let message = Publish {
                dup: true,
                qos: 2,
                retain: true,
                topic: "a/b".to_owned(),
                id: 513,
                payload: vec![b'x'; 300],
            };
            let bytes = publish(version, &message);
            let expected = Some((Packet::Publish(message), bytes.len()));
            assert_eq!(decode(version, &bytes).unwrap(), expected);
            for cut in 0..bytes.len() {
                assert_eq!(decode(version, &bytes[..cut]).unwrap(), None);
            }
        }
    }

    #[test]
    fn the_receive_maximum_is_found_among_other_properties() {
        // CONNACK: session present, success, 8 bytes of properties: topic alias maximum 16,
        // receive maximum 1024, retain available.
        let bytes = [0x20, 11, 1, 0, 8, 0x22, 0, 16, 0x21, 4, 0, 0x25, 1];
        let (packet, _) = decode(Version::V5, &bytes).unwrap().unwrap();
        let expected = Packet::Connack {
            present: true,
            code: 0,
            receive_maximum: 1_024,
        };
        assert_eq!(packet, expected);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(decode(Version::V5, &[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
        assert!(decode(Version::V5, &[0xf0, 0]).is_err());
        assert!(decode(Version::V311, &[0x40, 1, 0]).is_err());
    }
}
