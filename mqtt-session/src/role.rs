//! Which end of a connection this is.

use mqtt_codec::PacketType;

/// Which end of the connection the machine plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It sent CONNECT.
    Client,
    /// It answers CONNECT.
    Server,
}

impl Role {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// Whether this end may send packets of this type (the table of section 2.1.2).
    ///
    /// The machine does not check the direction of packets: the caller, who tells them apart, asks
    /// `role.peer().may_send(packet_type)` for each it receives.
    #[must_use]
    pub const fn may_send(self, packet_type: PacketType) -> bool {
        match packet_type {
            PacketType::Connect
            | PacketType::Subscribe
            | PacketType::Unsubscribe
            | PacketType::PingReq => {
                matches!(self, Self::Client)
            }
            PacketType::ConnAck
            | PacketType::SubAck
            | PacketType::UnsubAck
            | PacketType::PingResp => {
                matches!(self, Self::Server)
            }
            PacketType::Publish
            | PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::Disconnect
            | PacketType::Auth => true,
        }
    }
}
