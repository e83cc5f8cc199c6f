//! What the server said when it accepted the connection, and what happens to it later.

use std::sync::Arc;

use mqtt_codec::{ConnAck, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::Negotiated;

use crate::{Error, Options, Target, message};

/// What holds on a connection: the server's CONNACK, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The version of the connection.
    pub version: ProtocolVersion,
    /// Whether the session goes on from an earlier connection.
    pub session_present: bool,
    /// The Client Identifier: this client's, or the one that the server assigned.
    pub client_id: String,
    /// The keep alive in force, in seconds; 0: none.
    pub keep_alive: u16,
    /// Seconds that the session outlives the connection; `u32::MAX`: for ever.
    pub session_expiry_interval: u32,
    /// How many messages of QoS 1 and 2 may be sent without an acknowledgement.
    pub receive_maximum: u16,
    /// The largest packet that the server takes, in bytes; `None`: what the protocol allows.
    pub maximum_packet_size: Option<u32>,
    /// How many topic aliases are used towards the server.
    pub topic_alias_maximum: u16,
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
    /// Base of response topics, if the server gives one.
    pub response_information: Option<String>,
    /// A reason in words.
    pub reason_string: Option<String>,
    /// Names and values of the server.
    pub user_properties: Vec<(String, String)>,
}

impl ServerInfo {
    /// What was asked for, before any server has spoken.
    pub(crate) fn requested(options: &Options) -> Self {
        let connack = ConnAck::new(ReasonCode::SUCCESS);
        Self::new(options, &options.requested(), &connack)
    }

    /// Whether messages say for which subscriptions they were sent.
    pub(crate) fn has_subscription_identifiers(&self) -> bool {
        self.version.has_properties() && self.subscription_identifiers_available
    }

    pub(crate) fn new(options: &Options, negotiated: &Negotiated, connack: &ConnAck<'_>) -> Self {
        let properties = &connack.properties;
        Self {
            version: negotiated.version,
            session_present: negotiated.session_present,
            client_id: properties
                .assigned_client_identifier
                .unwrap_or(&options.client_id)
                .to_owned(),
            keep_alive: negotiated.keep_alive,
            session_expiry_interval: negotiated.session_expiry_interval,
            receive_maximum: negotiated.outbound.receive_maximum.get(),
            maximum_packet_size: negotiated
                .outbound
                .maximum_packet_size
                .map(|size| size.get()),
            topic_alias_maximum: negotiated.outbound.topic_alias_maximum,
            maximum_qos: negotiated.maximum_qos,
            retain_available: negotiated.retain_available,
            wildcard_subscription_available: negotiated.wildcard_subscription_available,
            subscription_identifiers_available: negotiated.subscription_identifiers_available,
            shared_subscription_available: negotiated.shared_subscription_available,
            response_information: properties.response_information.map(str::to_owned),
            reason_string: properties.reason_string.map(str::to_owned),
            user_properties: message::owned_user_properties(&properties.user_properties),
        }
    }
}

/// What happens to the connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A connection was made: whether the session goes on, and the limits of the server. The first one
    /// is told to the first caller of [`Client::events`](crate::Client::events), also after
    /// [`Client::connect`](crate::Client::connect).
    Connected(Arc<ServerInfo>),
    /// The connection was lost, or could not be made; another attempt will be made.
    Disconnected(Error),
    /// The server did not have the session any more: the subscriptions are made again, and messages
    /// that came meanwhile are lost.
    SessionLost,
    /// The server refused to make a subscription again; its stream ends.
    SubscriptionLost {
        /// The filter.
        filter: String,
        /// Why.
        reason: ReasonCode,
    },
    /// The server says to use another one.
    Redirected {
        /// The other one, which is tried next.
        target: Target,
        /// It moved for good; otherwise the first one is used again after this one.
        permanently: bool,
    },
}
