//! Parsers of the data types of section 1.5. The input is the body of one whole packet, so a
//! field that runs past its end is an error, never a call for more bytes.

use alloc::vec::Vec;
use core::str;

use nom::IResult;
use nom::bytes::complete::take;
use nom::error::{ErrorKind, ParseError};
use nom::number::complete::{be_u8, be_u16, be_u32};

use crate::{DecodeError, DecodeErrorKind, PacketId, TopicFilter, TopicName, varint};

/// What a parser returns: the rest of the input and the value.
pub(crate) type Step<'a, T> = IResult<&'a [u8], T, DecodeError>;

/// Where the standard says what becomes of a packet that cannot be parsed.
const MALFORMED: &str = "MQTT-4.13.1-1";

impl From<DecodeError> for nom::Err<DecodeError> {
    fn from(error: DecodeError) -> Self {
        Self::Failure(error)
    }
}

impl From<nom::Err<Self>> for DecodeError {
    fn from(error: nom::Err<Self>) -> Self {
        match error {
            nom::Err::Error(error) | nom::Err::Failure(error) => error,
            // Complete parsers do not return this.
            nom::Err::Incomplete(_) => truncated("packet"),
        }
    }
}

impl<I> ParseError<I> for DecodeError {
    fn from_error_kind(_: I, _: ErrorKind) -> Self {
        truncated("packet")
    }

    fn append(_: I, _: ErrorKind, other: Self) -> Self {
        other
    }
}

#[cold]
pub(crate) const fn truncated(place: &'static str) -> DecodeError {
    DecodeError::new(DecodeErrorKind::Truncated, place, MALFORMED)
}

/// Ends the parsing of a packet: no byte may be left.
#[inline]
pub(crate) fn end(rest: &[u8], place: &'static str) -> Result<(), DecodeError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::new(
            DecodeErrorKind::TrailingBytes,
            place,
            MALFORMED,
        ))
    }
}

/// Names the field that ended too early; the parsers of nom do not know it.
#[inline]
fn named<'a, T>(step: IResult<&'a [u8], T, ()>, place: &'static str) -> Step<'a, T> {
    step.map_err(|_| truncated(place).into())
}

#[inline]
pub(crate) fn byte<'a>(input: &'a [u8], place: &'static str) -> Step<'a, u8> {
    named(be_u8(input), place)
}

#[inline]
pub(crate) fn two_bytes<'a>(input: &'a [u8], place: &'static str) -> Step<'a, u16> {
    named(be_u16(input), place)
}

#[inline]
pub(crate) fn four_bytes<'a>(input: &'a [u8], place: &'static str) -> Step<'a, u32> {
    named(be_u32(input), place)
}

#[inline]
pub(crate) fn variable<'a>(input: &'a [u8], place: &'static str) -> Step<'a, u32> {
    let (value, len) = varint::read(input, place)?.ok_or_else(|| truncated(place))?;
    let (rest, _) = bytes(input, usize::from(len), place)?;
    Ok((rest, value))
}

#[inline]
pub(crate) fn bytes<'a>(input: &'a [u8], len: usize, place: &'static str) -> Step<'a, &'a [u8]> {
    named(take(len)(input), place)
}

/// Binary Data: a two-byte length and that many bytes.
#[inline]
pub(crate) fn binary<'a>(input: &'a [u8], place: &'static str) -> Step<'a, &'a [u8]> {
    let (input, len) = two_bytes(input, place)?;
    bytes(input, usize::from(len), place)
}

#[inline]
fn utf8<'a>(bytes: &'a [u8], place: &'static str) -> Result<&'a str, DecodeError> {
    str::from_utf8(bytes)
        .map_err(|_| DecodeError::new(DecodeErrorKind::Utf8, place, "MQTT-1.5.4-1"))
}

/// UTF-8 Encoded String. U+FEFF is kept; control characters and non-characters are allowed.
#[inline]
pub(crate) fn string<'a>(input: &'a [u8], place: &'static str) -> Step<'a, &'a str> {
    let (rest, bytes) = binary(input, place)?;
    let text = utf8(bytes, place)?;
    if bytes.contains(&0) {
        return Err(DecodeError::new(DecodeErrorKind::NulCharacter, place, "MQTT-1.5.4-2").into());
    }
    Ok((rest, text))
}

/// A topic name of at least one character.
#[inline]
pub(crate) fn topic_name<'a>(input: &'a [u8], place: &'static str) -> Step<'a, TopicName<'a>> {
    let (rest, bytes) = binary(input, place)?;
    // Rejects U+0000 as well.
    let name = TopicName::new(utf8(bytes, place)?).map_err(|error| {
        DecodeError::new(DecodeErrorKind::TopicName(error), place, error.clause())
    })?;
    Ok((rest, name))
}

#[inline]
pub(crate) fn topic_filter<'a>(input: &'a [u8], place: &'static str) -> Step<'a, TopicFilter<'a>> {
    let (rest, bytes) = binary(input, place)?;
    let filter = TopicFilter::new(utf8(bytes, place)?).map_err(|error| {
        DecodeError::new(DecodeErrorKind::TopicFilter(error), place, error.clause())
    })?;
    Ok((rest, filter))
}

#[inline]
pub(crate) fn packet_id(input: &[u8]) -> Step<'_, PacketId> {
    const PLACE: &str = "packet identifier";
    let (rest, value) = two_bytes(input, PLACE)?;
    let id = PacketId::new(value)
        .ok_or_else(|| DecodeError::new(DecodeErrorKind::ZeroPacketId, PLACE, "MQTT-2.2.1-3"))?;
    Ok((rest, id))
}

/// A topic name, or nothing where a topic alias may stand for it.
#[inline]
pub(crate) fn optional_topic_name<'a>(
    input: &'a [u8],
    place: &'static str,
) -> Step<'a, Option<TopicName<'a>>> {
    if let Some((&[0, 0], rest)) = input.split_first_chunk() {
        return Ok((rest, None));
    }
    let (rest, name) = topic_name(input, place)?;
    Ok((rest, Some(name)))
}

/// Applies a parser until no byte is left; at least once.
pub(crate) fn list<'a, T>(
    mut input: &'a [u8],
    empty: impl FnOnce() -> DecodeError,
    mut item: impl FnMut(&'a [u8]) -> Step<'a, T>,
) -> Result<Vec<T>, DecodeError> {
    if input.is_empty() {
        return Err(empty());
    }
    // Grows with what is there, never with what is announced.
    let mut items = Vec::new();
    while !input.is_empty() {
        let (rest, value) = item(input)?;
        items.push(value);
        input = rest;
    }
    Ok(items)
}
