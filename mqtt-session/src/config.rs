//! What the caller decides about its connections.

use core::{
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};

use mqtt_codec::{ProtocolVersion, QoS};

const fn non_zero(n: u16) -> NonZeroU16 {
    match NonZeroU16::new(n) {
        Some(n) => n,
        None => NonZeroU16::MIN,
    }
}

/// What a server grants to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// How many QoS 1 and 2 messages a client may have unacknowledged. Clients of v3 are not told and
    /// not held to it. Default 1,024.
    pub receive_maximum: NonZeroU16,
    /// The largest packet a client may send, in bytes. The machine announces it; the decoder enforces
    /// it. Default 2,000,000.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias a client may use; 0: none. Default 16.
    pub topic_alias_maximum: u16,
    /// How many topic aliases are used towards a client that allows them; 0: none. Default 16.
    pub topic_alias_limit: u16,
    /// How many QoS 1 and 2 messages may be unacknowledged towards a client of v5, whatever more it
    /// allows. Default 65,535.
    pub send_maximum: NonZeroU16,
    /// The same towards a client of v3, which has no word for it. Default 256.
    pub send_maximum_v3: NonZeroU16,
    /// The longest keep alive in seconds: a client of v5 that asks for more, or for none, is told this
    /// one. Clients of v3 cannot be told and keep theirs. Default: none.
    pub keep_alive_maximum: Option<NonZeroU16>,
    /// The longest time a session outlives its connection, in seconds. Default `u32::MAX`: for ever.
    pub session_expiry_maximum: u32,
    /// The highest quality of service. Default 2.
    pub maximum_qos: QoS,
    /// Whether there are retained messages. Default yes.
    pub retain_available: bool,
    /// Whether there are wildcard subscriptions. Default yes.
    pub wildcard_subscription_available: bool,
    /// Whether there are subscription identifiers. Default yes.
    pub subscription_identifiers_available: bool,
    /// Whether there are shared subscriptions. Default yes.
    pub shared_subscription_available: bool,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            receive_maximum: non_zero(1_024),
            maximum_packet_size: NonZeroU32::new(2_000_000),
            topic_alias_maximum: 16,
            topic_alias_limit: 16,
            send_maximum: NonZeroU16::MAX,
            send_maximum_v3: non_zero(256),
            keep_alive_maximum: None,
            session_expiry_maximum: u32::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
        }
    }
}

/// What a client asks for. The caller writes CONNECT from the same values
/// ([`connect_properties`](Self::connect_properties)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// The version it speaks.
    pub version: ProtocolVersion,
    /// Clean Start, or Clean Session of v3. Default yes.
    pub clean_start: bool,
    /// Take over a session of the server that this client knows nothing of, against [MQTT-3.2.2-4]:
    /// for a command that runs again and again under one client identifier. Default no.
    pub adopt_session: bool,
    /// Keep alive in seconds; 0: none. Default 60.
    pub keep_alive: u16,
    /// How long to wait for PINGRESP. Default: as long as the keep alive.
    pub ping_timeout: Option<Duration>,
    /// How long the session outlives the connection, in seconds. Default 0. Of no effect in v3, where
    /// `clean_start` decides.
    pub session_expiry_interval: u32,
    /// How many QoS 1 and 2 messages the server may have unacknowledged. Default 1,024.
    pub receive_maximum: NonZeroU16,
    /// The largest packet the server may send, in bytes. The decoder enforces it. Default: no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias the server may use; 0: none. Default 16.
    pub topic_alias_maximum: u16,
    /// How many topic aliases are used towards a server that allows them; 0: none. Default 16.
    pub topic_alias_limit: u16,
    /// How many QoS 1 and 2 messages may be unacknowledged towards the server, whatever more it
    /// allows. Default 256.
    pub send_maximum: NonZeroU16,
    /// Whether Reason String and User Property are wanted in acknowledgements. Default yes.
    pub problem_information: bool,
    /// Whether Response Information is asked for. Default no.
    pub response_information: bool,
    /// Report QoS 0 messages with [`Event::Sent`](crate::Event::Sent) when they are written. Default no.
    pub report_sent: bool,
}

impl ClientConfig {
    /// The defaults for a version.
    #[must_use]
    pub const fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            clean_start: true,
            adopt_session: false,
            keep_alive: 60,
            ping_timeout: None,
            session_expiry_interval: 0,
            receive_maximum: non_zero(1_024),
            maximum_packet_size: None,
            topic_alias_maximum: 16,
            topic_alias_limit: 16,
            send_maximum: non_zero(256),
            problem_information: true,
            response_information: false,
            report_sent: false,
        }
    }
}
