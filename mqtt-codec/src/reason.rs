//! Reason codes: the values of section 2.4 and the packets that carry each of them.

use core::fmt;

use crate::PacketType;

/// The result of an operation; 0x80 and above are failures.
///
/// One code may have two names, as 0x00 does: success, normal disconnection, granted QoS 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(pub u8);

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $constant:ident = $value:literal $name:literal [$($packet:ident)*];)*) => {
        impl ReasonCode {
            $(
                #[doc = concat!($name, ".")]
                $(#[$doc])*
                pub const $constant: Self = Self($value);
            )*
            /// Name and packets of each code, in the order of the codes.
            const TABLE: &'static [(Self, &'static str, u16)] = &[
                $((Self::$constant, $name, 0 $(| PacketType::$packet.bit())*),)*
            ];
        }
    };
}

reason_codes! {
    SUCCESS = 0x00 "Success" [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    GRANTED_QOS_1 = 0x01 "Granted QoS 1" [SubAck];
    GRANTED_QOS_2 = 0x02 "Granted QoS 2" [SubAck];
    DISCONNECT_WITH_WILL = 0x04 "Disconnect with Will Message" [Disconnect];
    NO_MATCHING_SUBSCRIBERS = 0x10 "No matching subscribers" [PubAck PubRec];
    NO_SUBSCRIPTION_EXISTED = 0x11 "No subscription existed" [UnsubAck];
    CONTINUE_AUTHENTICATION = 0x18 "Continue authentication" [Auth];
    REAUTHENTICATE = 0x19 "Re-authenticate" [Auth];
    UNSPECIFIED_ERROR = 0x80 "Unspecified error"
        [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    MALFORMED_PACKET = 0x81 "Malformed Packet" [ConnAck Disconnect];
    PROTOCOL_ERROR = 0x82 "Protocol Error" [ConnAck Disconnect];
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83 "Implementation specific error"
        [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    UNSUPPORTED_PROTOCOL_VERSION = 0x84 "Unsupported Protocol Version" [ConnAck];
    CLIENT_IDENTIFIER_NOT_VALID = 0x85 "Client Identifier not valid" [ConnAck];
    BAD_USER_NAME_OR_PASSWORD = 0x86 "Bad User Name or Password" [ConnAck];
    NOT_AUTHORIZED = 0x87 "Not authorized" [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    SERVER_UNAVAILABLE = 0x88 "Server unavailable" [ConnAck];
    SERVER_BUSY = 0x89 "Server busy" [ConnAck Disconnect];
    BANNED = 0x8A "Banned" [ConnAck];
    SERVER_SHUTTING_DOWN = 0x8B "Server shutting down" [Disconnect];
    BAD_AUTHENTICATION_METHOD = 0x8C "Bad authentication method" [ConnAck Disconnect];
    KEEP_ALIVE_TIMEOUT = 0x8D "Keep Alive timeout" [Disconnect];
    SESSION_TAKEN_OVER = 0x8E "Session taken over" [Disconnect];
    TOPIC_FILTER_INVALID = 0x8F "Topic Filter invalid" [SubAck UnsubAck Disconnect];
    TOPIC_NAME_INVALID = 0x90 "Topic Name invalid" [ConnAck PubAck PubRec Disconnect];
    PACKET_IDENTIFIER_IN_USE = 0x91 "Packet Identifier in use" [PubAck PubRec SubAck UnsubAck];
    PACKET_IDENTIFIER_NOT_FOUND = 0x92 "Packet Identifier not found" [PubRel PubComp];
    RECEIVE_MAXIMUM_EXCEEDED = 0x93 "Receive Maximum exceeded" [Disconnect];
    TOPIC_ALIAS_INVALID = 0x94 "Topic Alias invalid" [Disconnect];
    PACKET_TOO_LARGE = 0x95 "Packet too large" [ConnAck Disconnect];
    MESSAGE_RATE_TOO_HIGH = 0x96 "Message rate too high" [Disconnect];
    QUOTA_EXCEEDED = 0x97 "Quota exceeded" [ConnAck PubAck PubRec SubAck Disconnect];
    ADMINISTRATIVE_ACTION = 0x98 "Administrative action" [Disconnect];
    PAYLOAD_FORMAT_INVALID = 0x99 "Payload format invalid" [ConnAck PubAck PubRec Disconnect];
    RETAIN_NOT_SUPPORTED = 0x9A "Retain not supported" [ConnAck Disconnect];
    QOS_NOT_SUPPORTED = 0x9B "QoS not supported" [ConnAck Disconnect];
    USE_ANOTHER_SERVER = 0x9C "Use another server" [ConnAck Disconnect];
    SERVER_MOVED = 0x9D "Server moved" [ConnAck Disconnect];
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E "Shared Subscriptions not supported"
        [SubAck Disconnect];
    CONNECTION_RATE_EXCEEDED = 0x9F "Connection rate exceeded" [ConnAck Disconnect];
    MAXIMUM_CONNECT_TIME = 0xA0 "Maximum connect time" [Disconnect];
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1 "Subscription Identifiers not supported"
        [SubAck Disconnect];
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2 "Wildcard Subscriptions not supported"
        [SubAck Disconnect];
}

impl ReasonCode {
    /// Normal disconnection.
    pub const NORMAL_DISCONNECTION: Self = Self::SUCCESS;
    /// Granted QoS 0.
    pub const GRANTED_QOS_0: Self = Self::SUCCESS;

    /// Whether the operation failed: 0x80 and above.
    #[inline]
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The standard's name of the code; "Unknown" for a value that it does not define.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().map_or("Unknown", |(_, name, _)| *name)
    }

    /// Whether a packet of this type may carry the code.
    #[inline]
    #[must_use]
    pub fn is_allowed_in(self, packet: PacketType) -> bool {
        self.entry()
            .is_some_and(|(_, _, packets)| packets & packet.bit() != 0)
    }

    fn entry(self) -> Option<&'static (Self, &'static str, u16)> {
        let index = Self::TABLE
            .binary_search_by_key(&self, |(code, _, _)| *code)
            .ok()?;
        Self::TABLE.get(index)
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReasonCode({:#04x} {})", self.0, self.name())
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.name())
    }
}

impl From<crate::QoS> for ReasonCode {
    /// The code of SUBACK that grants this QoS.
    fn from(qos: crate::QoS) -> Self {
        Self(qos as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_codes() {
        assert!(ReasonCode::TABLE.is_sorted_by_key(|(code, _, _)| *code));
    }

    #[test]
    fn codes_have_names_and_packets() {
        assert_eq!(
            ReasonCode(0x9E).name(),
            "Shared Subscriptions not supported"
        );
        assert_eq!(ReasonCode(0x03).name(), "Unknown");
        assert!(ReasonCode(0x92).is_allowed_in(PacketType::PubComp));
        assert!(!ReasonCode(0x92).is_allowed_in(PacketType::PubAck));
        assert!(!ReasonCode(0x03).is_allowed_in(PacketType::SubAck));
        assert!(ReasonCode(0x80).is_error());
        assert!(!ReasonCode(0x7F).is_error());
    }
}
