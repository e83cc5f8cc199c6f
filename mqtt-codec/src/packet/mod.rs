//! The fifteen packets: their types, the enum over all of them, and what their encoders share.

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod packet_type;
mod publish;
mod subscribe;
mod unsubscribe;

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::BufMut;

use crate::{
    DecodeError, EncodeError, FixedHeader, MAX_REMAINING_LENGTH, ProtocolVersion, parse, varint,
};

pub use ack::{Ack, AckProperties, PlainAck};
pub use auth::{Auth, AuthProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::{Disconnect, DisconnectProperties};
pub use packet_type::PacketType;
pub use publish::{PlainPublish, Publish, PublishProperties};
pub use subscribe::{
    RetainHandling, SubAck, Subscribe, SubscribeFilter, SubscribeProperties, SubscriptionOptions,
};
pub use unsubscribe::{UnsubAck, Unsubscribe, UnsubscribeProperties};

/// What the encoder needs of a packet.
trait Body {
    /// The first byte of the fixed header.
    fn first_byte(&self) -> u8;
    /// Bytes after the fixed header; checks everything that can make the packet unwritable.
    fn body_size(&self, version: ProtocolVersion) -> Result<usize, EncodeError>;
    /// Writes what follows the fixed header. Called after `body_size` has succeeded.
    fn write_body(&self, version: ProtocolVersion, out: &mut impl BufMut);
}

fn remaining_length(body: &impl Body, version: ProtocolVersion) -> Result<u32, EncodeError> {
    let size = body.body_size(version)?;
    match u32::try_from(size) {
        Ok(length) if length <= MAX_REMAINING_LENGTH => Ok(length),
        _ => Err(EncodeError::PacketTooLong(size)),
    }
}

#[inline]
fn encoded_len(body: &impl Body, version: ProtocolVersion) -> Result<usize, EncodeError> {
    let length = remaining_length(body, version)?;
    Ok(1 + varint::size(length) + length as usize)
}

#[inline]
fn encode(
    body: &impl Body,
    version: ProtocolVersion,
    out: &mut impl BufMut,
) -> Result<(), EncodeError> {
    begin(body, version, 0, out)?;
    body.write_body(version, out);
    Ok(())
}

/// Writes the fixed header, if there is room for the packet but for this many bytes at its end.
#[inline]
fn begin(
    body: &impl Body,
    version: ProtocolVersion,
    left_out: usize,
    out: &mut impl BufMut,
) -> Result<(), EncodeError> {
    let length = remaining_length(body, version)?;
    let needed = 1 + varint::size(length) + length as usize - left_out;
    let available = out.remaining_mut();
    if available < needed {
        return Err(EncodeError::BufferTooSmall { needed, available });
    }
    out.put_u8(body.first_byte());
    varint::write(length, out);
    Ok(())
}

/// Gives a packet its two public methods.
macro_rules! encoder {
    ($type:ident) => {
        impl $type<'_> {
            /// Bytes of the whole packet.
            ///
            /// # Errors
            ///
            /// [`EncodeError`](crate::EncodeError) when the packet cannot be written for this
            /// version.
            #[inline]
            pub fn encoded_len(
                &self,
                version: $crate::ProtocolVersion,
            ) -> Result<usize, $crate::EncodeError> {
                $crate::packet::encoded_len(self, version)
            }

            /// Writes the whole packet. What the version cannot carry is left out.
            ///
            /// A buffer that grows is filled fastest when
            /// [`encoded_len`](Self::encoded_len) bytes have been reserved.
            ///
            /// # Errors
            ///
            /// [`EncodeError`](crate::EncodeError) when the packet cannot be written for this
            /// version, or the buffer is too small. Nothing has been written then.
            #[inline]
            pub fn encode(
                &self,
                version: $crate::ProtocolVersion,
                out: &mut impl bytes::BufMut,
            ) -> Result<(), $crate::EncodeError> {
                $crate::packet::encode(self, version, out)
            }
        }
    };
}
use encoder;

/// Any packet, as a view of borrowed data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client asks for a connection. Boxed, as is CONNACK: they are large and rare.
    Connect(Box<Connect<'a>>),
    /// The server's answer to CONNECT.
    ConnAck(Box<ConnAck<'a>>),
    /// A message.
    Publish(Publish<'a>),
    /// The answer to a PUBLISH of QoS 1.
    PubAck(Ack<'a>),
    /// The first answer to a PUBLISH of QoS 2.
    PubRec(Ack<'a>),
    /// The answer to PUBREC.
    PubRel(Ack<'a>),
    /// The answer to PUBREL.
    PubComp(Ack<'a>),
    /// A client subscribes.
    Subscribe(Subscribe<'a>),
    /// The answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client unsubscribes.
    Unsubscribe(Unsubscribe<'a>),
    /// The answer to UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// A client asks for a sign of life.
    PingReq,
    /// The answer to PINGREQ.
    PingResp,
    /// The last packet of a connection.
    Disconnect(Disconnect<'a>),
    /// A step of enhanced authentication.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes the body of a whole packet, the `remaining_length` bytes after the fixed header.
    ///
    /// The version is the one of the connection; a CONNECT carries its own, and the argument is
    /// ignored.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when header and body are not a packet of this version.
    #[inline]
    pub fn decode(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        if header.packet_type == PacketType::Publish
            && let Some(publish) = Publish::decode_frequent(header.flags, body, version)
        {
            return Ok(Self::Publish(publish));
        }
        Self::decode_any(header, body, version)
    }

    #[inline(never)]
    pub(crate) fn decode_any(
        header: FixedHeader,
        body: &'a [u8],
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_type = header.packet_type;
        packet_type.check_flags(header.flags)?;
        if packet_type != PacketType::Connect {
            header.check_version(version)?;
        }
        Ok(match packet_type {
            PacketType::Connect => Self::Connect(Box::new(Connect::decode(body)?)),
            PacketType::ConnAck => Self::ConnAck(Box::new(ConnAck::decode(body, version)?)),
            PacketType::Publish => Self::Publish(Publish::decode(header.flags, body, version)?),
            PacketType::PubAck => Self::PubAck(Ack::decode(packet_type, body, version)?),
            PacketType::PubRec => Self::PubRec(Ack::decode(packet_type, body, version)?),
            PacketType::PubRel => Self::PubRel(Ack::decode(packet_type, body, version)?),
            PacketType::PubComp => Self::PubComp(Ack::decode(packet_type, body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            PacketType::SubAck => Self::SubAck(SubAck::decode(body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::UnsubAck => Self::UnsubAck(UnsubAck::decode(body, version)?),
            PacketType::PingReq => {
                parse::end(body, "PINGREQ")?;
                Self::PingReq
            }
            PacketType::PingResp => {
                parse::end(body, "PINGRESP")?;
                Self::PingResp
            }
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, version)?),
        })
    }

    /// The type of the packet.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Bytes of the whole packet.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the packet cannot be written for this version.
    pub fn encoded_len(&self, version: ProtocolVersion) -> Result<usize, EncodeError> {
        match self {
            Self::Connect(packet) => packet.encoded_len(version),
            Self::ConnAck(packet) => packet.encoded_len(version),
            Self::Publish(packet) => packet.encoded_len(version),
            Self::PubAck(packet)
            | Self::PubRec(packet)
            | Self::PubRel(packet)
            | Self::PubComp(packet) => packet.encoded_len(self.packet_type(), version),
            Self::Subscribe(packet) => packet.encoded_len(version),
            Self::SubAck(packet) => packet.encoded_len(version),
            Self::Unsubscribe(packet) => packet.encoded_len(version),
            Self::UnsubAck(packet) => packet.encoded_len(version),
            Self::PingReq | Self::PingResp => Ok(2),
            Self::Disconnect(packet) => packet.encoded_len(version),
            Self::Auth(packet) => packet.encoded_len(version),
        }
    }

    /// Writes the whole packet. Properties, reason codes and options that the version cannot
    /// carry are left out; the version of a CONNECT is its own, and the argument is ignored.
    ///
    /// A buffer that grows is filled fastest when [`encoded_len`](Self::encoded_len) bytes have
    /// been reserved.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the packet cannot be written for this version, or the buffer is too
    /// small. Nothing has been written then.
    pub fn encode(
        &self,
        version: ProtocolVersion,
        out: &mut impl BufMut,
    ) -> Result<(), EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(version, out),
            Self::ConnAck(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::PubAck(packet)
            | Self::PubRec(packet)
            | Self::PubRel(packet)
            | Self::PubComp(packet) => packet.encode(self.packet_type(), version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::SubAck(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::UnsubAck(packet) => packet.encode(version, out),
            Self::PingReq | Self::PingResp => encode(&Ping(self.packet_type()), version, out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }

    /// The whole packet in a buffer of its own.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the packet cannot be written for this version.
    pub fn to_vec(&self, version: ProtocolVersion) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(self.encoded_len(version)?);
        self.encode(version, &mut out)?;
        Ok(out)
    }
}

/// PINGREQ or PINGRESP: a fixed header and no more.
struct Ping(PacketType);

impl Body for Ping {
    fn first_byte(&self) -> u8 {
        (self.0 as u8) << 4
    }

    fn body_size(&self, _: ProtocolVersion) -> Result<usize, EncodeError> {
        Ok(0)
    }

    fn write_body(&self, _: ProtocolVersion, _: &mut impl BufMut) {}
}
