//! The packet types, with the flags and reason codes of each.

use crate::parse;
use crate::{DecodeError, DecodeErrorKind, EncodeError, ReasonCode};

/// The type of a packet, the high four bits of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// CONNECT.
    Connect = 1,
    /// CONNACK.
    ConnAck = 2,
    /// PUBLISH.
    Publish = 3,
    /// PUBACK.
    PubAck = 4,
    /// PUBREC.
    PubRec = 5,
    /// PUBREL.
    PubRel = 6,
    /// PUBCOMP.
    PubComp = 7,
    /// SUBSCRIBE.
    Subscribe = 8,
    /// SUBACK.
    SubAck = 9,
    /// UNSUBSCRIBE.
    Unsubscribe = 10,
    /// UNSUBACK.
    UnsubAck = 11,
    /// PINGREQ.
    PingReq = 12,
    /// PINGRESP.
    PingResp = 13,
    /// DISCONNECT.
    Disconnect = 14,
    /// AUTH.
    Auth = 15,
}

impl PacketType {
    /// All packet types, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::PingReq,
        Self::PingResp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// PUBACK, PUBREC, PUBREL or PUBCOMP: the packets of [`Ack`](crate::Ack).
    #[inline]
    #[must_use]
    pub const fn is_publish_ack(self) -> bool {
        matches!(
            self,
            Self::PubAck | Self::PubRec | Self::PubRel | Self::PubComp
        )
    }

    /// The packet type of a number; `None` for 0 and above 15.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The standard's name, in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }

    /// The bit of this type in a set of packets.
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// The first byte of the fixed header, of every packet but PUBLISH.
    pub(super) const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// The flags of every packet but PUBLISH.
    const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// Whether it may have these flags in every version.
    #[inline]
    pub(crate) const fn has_flags(self, flags: u8) -> bool {
        match self {
            // Neither QoS 3 nor DUP at QoS 0.
            Self::Publish => flags & 0b0110 != 0b0110 && flags & 0b1110 != 0b1000,
            _ => flags == self.flags(),
        }
    }

    /// Checks the flags of the fixed header. The DUP flag that 3.1 has on three packets passes:
    /// [`FixedHeader::check_version`] looks at it.
    #[inline]
    pub(crate) fn check_flags(self, flags: u8) -> Result<(), DecodeError> {
        match self {
            Self::Publish => super::publish::check_flags(flags),
            Self::PubRel | Self::Subscribe | Self::Unsubscribe if flags & 0b0111 == 0b0010 => {
                Ok(())
            }
            _ if flags == self.flags() => Ok(()),
            _ => Err(self.invalid_flags(flags)),
        }
    }

    #[cold]
    pub(crate) const fn invalid_flags(self, flags: u8) -> DecodeError {
        let clause = match self {
            Self::PubRel => "MQTT-3.6.1-1",
            Self::Subscribe => "MQTT-3.8.1-1",
            Self::Unsubscribe => "MQTT-3.10.1-1",
            Self::Disconnect => "MQTT-3.14.1-1",
            Self::Auth => "MQTT-3.15.1-1",
            _ => "MQTT-2.1.3-1",
        };
        DecodeError::new(DecodeErrorKind::Flags(flags), self.name(), clause)
    }

    /// The statement that names the reason codes of this packet.
    const fn reason_clause(self) -> &'static str {
        match self {
            Self::ConnAck => "MQTT-3.2.2-8",
            Self::PubAck => "MQTT-3.4.2-1",
            Self::PubRec => "MQTT-3.5.2-1",
            Self::PubRel => "MQTT-3.6.2-1",
            Self::PubComp => "MQTT-3.7.2-1",
            Self::SubAck => "MQTT-3.9.3-2",
            Self::UnsubAck => "MQTT-3.11.3-2",
            Self::Disconnect => "MQTT-3.14.2-1",
            Self::Auth => "MQTT-3.15.2-1",
            _ => "section 2.4",
        }
    }

    /// Reads a reason code, one of those of this packet.
    #[inline]
    pub(super) fn reason_code(self, input: &[u8]) -> parse::Step<'_, ReasonCode> {
        let (rest, value) = parse::byte(input, "reason code")?;
        let code = ReasonCode(value);
        if code.is_allowed_in(self) {
            Ok((rest, code))
        } else {
            Err(self.invalid_reason(value).into())
        }
    }

    #[cold]
    pub(super) const fn invalid_reason(self, value: u8) -> DecodeError {
        DecodeError::new(
            DecodeErrorKind::ReasonCode(value),
            self.name(),
            self.reason_clause(),
        )
    }

    pub(super) fn check_reason(self, code: ReasonCode) -> Result<(), EncodeError> {
        if code.is_allowed_in(self) {
            Ok(())
        } else {
            Err(EncodeError::ReasonCode { packet: self, code })
        }
    }
}
