//! Measures and writers of the data types of section 1.5.

use bytes::BufMut;

use crate::EncodeError;

/// The bytes of Binary Data with its length.
#[inline]
pub(crate) fn binary_size(bytes: &[u8], place: &'static str) -> Result<usize, EncodeError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(EncodeError::FieldTooLong(place));
    }
    Ok(2 + bytes.len())
}

/// The bytes of a string with its length.
#[inline]
pub(crate) fn string_size(text: &str, place: &'static str) -> Result<usize, EncodeError> {
    if text.contains('\0') {
        return Err(EncodeError::NulCharacter(place));
    }
    binary_size(text.as_bytes(), place)
}

/// Writes Binary Data, or a string, whose length has been checked.
#[inline]
pub(crate) fn binary(bytes: &[u8], out: &mut impl BufMut) {
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}
