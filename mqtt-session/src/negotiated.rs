//! What holds on a connection: the outcome of CONNECT and CONNACK.

use core::num::{NonZeroU16, NonZeroU32};

use mqtt_codec::{ProtocolVersion, QoS};

use crate::Role;

/// The limits of one direction, set by the end that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many QoS 1 and 2 messages may be unacknowledged.
    pub receive_maximum: NonZeroU16,
    /// The largest packet in bytes; None: what the protocol allows.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The highest topic alias; 0: none.
    pub topic_alias_maximum: u16,
}

impl Limits {
    /// What holds where nothing is said: 65,535 messages, no limit of size, no topic alias.
    pub const STANDARD: Self = Self {
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
    };
}

/// What holds on a connection: the outcome of CONNECT and CONNACK, the same words for every version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Negotiated {
    /// Which end this is.
    pub role: Role,
    /// The version of the connection.
    pub version: ProtocolVersion,
    /// The keep alive in force, in seconds; 0: none.
    pub keep_alive: u16,
    /// Clean Start, or Clean Session of v3.
    pub clean_start: bool,
    /// Whether the session goes on from an earlier connection. At a server: it was connected before,
    /// or restored, and the client asks for no clean start.
    pub session_present: bool,
    /// How long the session outlives the connection, in seconds; `u32::MAX`: for ever. Clean Session 1
    /// of v3 is 0, Clean Session 0 is for ever.
    pub session_expiry_interval: u32,
    /// What the peer must keep to.
    pub inbound: Limits,
    /// What this end keeps to.
    pub outbound: Limits,
    /// The highest quality of service that the server takes.
    pub maximum_qos: QoS,
    /// Whether the server takes retained messages.
    pub retain_available: bool,
    /// Whether the server takes wildcards in subscriptions.
    pub wildcard_subscription_available: bool,
    /// Whether the server takes subscription identifiers.
    pub subscription_identifiers_available: bool,
    /// Whether the server takes shared subscriptions.
    pub shared_subscription_available: bool,
    /// Whether the client wants Reason String and User Property in acknowledgements.
    pub problem_information: bool,
    /// Whether the client asked for Response Information.
    pub response_information: bool,
}
