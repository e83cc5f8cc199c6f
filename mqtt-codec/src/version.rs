//! The protocol versions, and what each of them can do.

use core::fmt;

/// A version of the protocol, as a CONNECT names it.
///
/// Other crates ask for capabilities instead of comparing versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V3_1,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V3_1_1,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    /// The version that a protocol name and level stand for.
    #[must_use]
    pub fn from_name_and_level(name: &str, level: u8) -> Option<Self> {
        match (name, level) {
            ("MQIsdp", 3) => Some(Self::V3_1),
            ("MQTT", 4) => Some(Self::V3_1_1),
            ("MQTT", 5) => Some(Self::V5),
            _ => None,
        }
    }

    /// The protocol level byte of CONNECT: 3, 4 or 5.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V3_1 => 3,
            Self::V3_1_1 => 4,
            Self::V5 => 5,
        }
    }

    /// The protocol name of CONNECT: `MQIsdp` or `MQTT`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3_1 => "MQIsdp",
            Self::V3_1_1 | Self::V5 => "MQTT",
        }
    }

    /// Packets carry properties.
    #[must_use]
    pub const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// PUBACK, PUBREC, PUBREL, PUBCOMP, UNSUBACK and DISCONNECT carry reason codes, and CONNACK
    /// and SUBACK carry the full set of them.
    #[must_use]
    pub const fn has_reason_codes(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Subscriptions have No Local, Retain As Published and Retain Handling.
    #[must_use]
    pub const fn has_subscription_options(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The server may send DISCONNECT.
    #[must_use]
    pub const fn has_server_disconnect(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The AUTH packet exists.
    #[must_use]
    pub const fn has_enhanced_authentication(self) -> bool {
        matches!(self, Self::V5)
    }

    /// A session ends a stated time after its connection. Without it, clean start means a session
    /// that ends with its connection, and its absence one that never expires.
    #[must_use]
    pub const fn has_session_expiry(self) -> bool {
        matches!(self, Self::V5)
    }

    /// CONNACK tells whether a session was resumed.
    #[must_use]
    pub const fn has_session_present(self) -> bool {
        !matches!(self, Self::V3_1)
    }

    /// The server may assign a Client Identifier to a client that sent an empty one. In 3.1 an
    /// empty identifier is not allowed at all.
    #[must_use]
    pub const fn has_empty_client_id(self) -> bool {
        !matches!(self, Self::V3_1)
    }

    /// A password may come without a user name.
    #[must_use]
    pub const fn has_password_without_username(self) -> bool {
        matches!(self, Self::V5)
    }

    /// PUBREL, SUBSCRIBE and UNSUBSCRIBE may carry the DUP flag.
    #[must_use]
    pub(crate) const fn has_dup_on_requests(self) -> bool {
        matches!(self, Self::V3_1)
    }

    /// User name and password may be missing although their flags are set.
    #[must_use]
    pub(crate) const fn has_optional_credentials(self) -> bool {
        matches!(self, Self::V3_1)
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3_1 => "3.1",
            Self::V3_1_1 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}
