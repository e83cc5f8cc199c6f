//! The fixed header, and whole packets cut from a stream of bytes.

use bytes::{Bytes, BytesMut};

use crate::{DecodeError, DecodeErrorKind, Packet, PacketType, ProtocolVersion, Publish, varint};

/// The first bytes of a packet: type, flags and remaining length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    /// What packet follows.
    pub packet_type: PacketType,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// Bytes after the fixed header.
    pub remaining_length: u32,
    /// Bytes of the fixed header itself, 2 to 5.
    pub header_len: u8,
}

impl FixedHeader {
    /// Reads the fixed header at the start of a stream; `None` means that more bytes are needed.
    ///
    /// The flags are checked as far as that does not depend on the version:
    /// [`check_version`](Self::check_version) does the rest.
    ///
    /// # Errors
    ///
    /// A reserved packet type, reserved flags, QoS 3 or DUP with QoS 0 in the first byte, or a
    /// length that is not a Variable Byte Integer; each as soon as the byte is there.
    #[inline]
    pub fn parse(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        // What most packets begin with: a valid first byte, and a length of one byte.
        if let [first, length @ 0..0x80, ..] = *input
            && let Some(packet_type) = PacketType::from_bits(first >> 4)
            && packet_type.has_flags(first & 0x0F)
        {
            return Ok(Some(Self {
                packet_type,
                flags: first & 0x0F,
                remaining_length: u32::from(length),
                header_len: 2,
            }));
        }
        Self::parse_any(input)
    }

    fn parse_any(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else {
            return Ok(None);
        };
        let Some(packet_type) = PacketType::from_bits(first >> 4) else {
            return Err(DecodeError::new(
                DecodeErrorKind::PacketType(first >> 4),
                "fixed header",
                "section 2.1.2",
            ));
        };
        let flags = first & 0x0F;
        packet_type.check_flags(flags)?;
        let Some((remaining_length, len)) = varint::read(rest, "remaining length")? else {
            return Ok(None);
        };
        Ok(Some(Self {
            packet_type,
            flags,
            remaining_length,
            header_len: 1 + len,
        }))
    }

    /// Bytes of the whole packet, which are at most 268,435,460.
    #[inline]
    #[must_use]
    pub const fn frame_len(self) -> usize {
        self.header_len as usize + self.remaining_length as usize
    }

    /// Checks what [`parse`](Self::parse) leaves to the version: AUTH is a packet of 5.0 only, and
    /// only 3.1 has the DUP flag on PUBREL, SUBSCRIBE and UNSUBSCRIBE.
    ///
    /// # Errors
    ///
    /// When the version has no such packet or no such flags.
    #[inline]
    pub fn check_version(self, version: ProtocolVersion) -> Result<(), DecodeError> {
        match self.packet_type {
            PacketType::Auth if !version.has_enhanced_authentication() => Err(DecodeError::new(
                DecodeErrorKind::PacketType(15),
                "fixed header",
                "section 2.1.2",
            )),
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe
                if self.flags != 0b0010 && !version.has_dup_on_requests() =>
            {
                Err(self.packet_type.invalid_flags(self.flags))
            }
            _ => Ok(()),
        }
    }

    /// Checks the size of the whole packet against a limit, in bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeErrorKind::PacketTooLarge`] when it is above the limit.
    #[inline]
    pub fn check_size(self, limit: u32) -> Result<(), DecodeError> {
        // At most 5 + 268,435,455.
        let size = self.frame_len() as u32;
        if size > limit {
            return Err(DecodeError::new(
                DecodeErrorKind::PacketTooLarge { size, limit },
                "fixed header",
                "section 3.1.2.11.4",
            ));
        }
        Ok(())
    }
}

/// Decodes the packet at the start of a stream and returns it with the number of its bytes.
///
/// `None` means that the packet is not whole yet: read more bytes and call again with all of them.
/// The version is the one of the connection; a CONNECT carries its own, and the argument is
/// ignored. `max_packet_size` is the limit for the whole packet in bytes, which is checked before
/// its body is there.
///
/// # Errors
///
/// [`DecodeError`] when the bytes are not a packet of this version, however many follow.
#[inline]
pub fn decode<'a>(
    input: &'a [u8],
    version: ProtocolVersion,
    max_packet_size: u32,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(header) = FixedHeader::parse(input)? else {
        return Ok(None);
    };
    header.check_version(version)?;
    header.check_size(max_packet_size)?;
    let len = header.frame_len();
    let Some(body) = input.get(usize::from(header.header_len)..len) else {
        return Ok(None);
    };
    if header.packet_type == PacketType::Publish
        && let Some(publish) = Publish::decode_frequent(header.flags, body, version)
    {
        return Ok(Some((Packet::Publish(publish), len)));
    }
    Ok(Some((Packet::decode_any(header, body, version)?, len)))
}

/// One whole packet that owns its bytes, for callers that keep packets beyond the read buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    header: FixedHeader,
    bytes: Bytes,
}

impl Frame {
    /// Splits the first packet off a read buffer, without copying it; `None` means that it is not
    /// whole yet. `max_packet_size` limits the whole packet, in bytes.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the fixed header is wrong or announces a packet above the limit.
    pub fn split_from(
        buffer: &mut BytesMut,
        version: ProtocolVersion,
        max_packet_size: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let Some(header) = FixedHeader::parse(buffer)? else {
            return Ok(None);
        };
        header.check_version(version)?;
        header.check_size(max_packet_size)?;
        if buffer.len() < header.frame_len() {
            return Ok(None);
        }
        let bytes = buffer.split_to(header.frame_len()).freeze();
        Ok(Some(Self { header, bytes }))
    }

    /// The fixed header.
    #[must_use]
    pub const fn header(&self) -> FixedHeader {
        self.header
    }

    /// The bytes of the whole packet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the whole packet.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Decodes the packet.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the body is not one of this version.
    pub fn packet(&self, version: ProtocolVersion) -> Result<Packet<'_>, DecodeError> {
        let body = self
            .bytes
            .get(usize::from(self.header.header_len)..)
            .unwrap_or_default();
        Packet::decode(self.header, body, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_reads_what_the_general_one_reads() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                let input = [first, second, 0x7F];
                for input in [&input[..2], &input[..]] {
                    assert_eq!(FixedHeader::parse(input), FixedHeader::parse_any(input));
                }
            }
        }
    }
}
