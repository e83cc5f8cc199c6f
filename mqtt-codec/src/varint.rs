//! Variable Byte Integers: one to four bytes of seven bits, least significant first.

use bytes::BufMut;

use crate::{DecodeError, DecodeErrorKind};

/// The largest Variable Byte Integer, and so the largest remaining length of a packet, in bytes.
pub const MAX_REMAINING_LENGTH: u32 = 268_435_455;

const CLAUSE: &str = "MQTT-1.5.5-1";

/// Reads the value at the start of `input` and the number of its bytes; `None` when it goes on
/// past the input. A fourth byte that announces a fifth, and a last byte of zero that a shorter
/// form would not need, are errors as soon as they are seen.
#[inline]
pub(crate) fn read(input: &[u8], place: &'static str) -> Result<Option<(u32, u8)>, DecodeError> {
    // Nearly all are of one byte.
    if let Some(&byte) = input.first()
        && byte < 0x80
    {
        return Ok(Some((u32::from(byte), 1)));
    }
    let mut value = 0;
    let mut len = 0_u8;
    for &byte in input.iter().take(4) {
        value |= u32::from(byte & 0x7F) << (7 * u32::from(len));
        len += 1;
        if byte & 0x80 == 0 {
            // It is not the first: that one has been dealt with.
            if byte == 0 {
                return Err(invalid(place));
            }
            return Ok(Some((value, len)));
        }
    }
    if len == 4 {
        return Err(invalid(place));
    }
    Ok(None)
}

#[cold]
fn invalid(place: &'static str) -> DecodeError {
    DecodeError::new(DecodeErrorKind::VariableByteInteger, place, CLAUSE)
}

/// The number of bytes of a value's encoding. The value is at most [`MAX_REMAINING_LENGTH`].
#[inline]
pub(crate) const fn size(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Writes a value, which is at most [`MAX_REMAINING_LENGTH`].
#[inline]
pub(crate) fn write(mut value: u32, out: &mut impl BufMut) {
    while value > 0x7F {
        out.put_u8((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
