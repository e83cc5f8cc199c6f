//! Reads and writes the parts of a record.

use mqtt_codec::PacketId;

use crate::store::record::WallTime;

/// A record that this broker cannot have written: what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Undecodable(pub(super) &'static str);

const SHORT: Undecodable = Undecodable("too short");
pub(super) const NOT_UTF8: Undecodable = Undecodable("text is not UTF-8");

/// What is left of a key or a value.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next byte if it is this one.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        match self.0.split_first() {
            Some((&first, rest)) if first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    pub(super) fn byte(&mut self) -> Result<u8, Undecodable> {
        let (&first, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (&first, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Undecodable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Undecodable("number out of range"))
    }

    pub(super) fn varint_u32(&mut self) -> Result<u32, Undecodable> {
        u32::try_from(self.varint()?).map_err(|_| Undecodable("number out of range"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Undecodable> {
        let len = usize::try_from(self.varint()?).map_err(|_| SHORT)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Undecodable> {
        core::str::from_utf8(self.bytes()?).map_err(|_| NOT_UTF8)
    }

    pub(super) fn time(&mut self) -> Result<Option<WallTime>, Undecodable> {
        Ok(self.varint()?.checked_sub(1).map(WallTime))
    }

    pub(super) fn packet_id(&mut self) -> Result<PacketId, Undecodable> {
        PacketId::new(u16::from_be_bytes(self.array()?)).ok_or(Undecodable("packet identifier 0"))
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    pub(super) fn end(&self) -> Result<(), Undecodable> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Undecodable("too long"))
        }
    }
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn put_time(time: Option<WallTime>, out: &mut Vec<u8>) {
    put_varint(time.map_or(0, |time| time.0.saturating_add(1)), out);
}
