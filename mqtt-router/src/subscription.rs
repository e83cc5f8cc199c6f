//! What one subscriber asked for with one filter.

use mqtt_codec::{SubscriptionIdentifier, SubscriptionOptions};

/// One subscription, without its filter and its subscriber: the options and the identifier it was
/// made with (MQTT 5.0, sections 3.8.2.1.2 and 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Maximum QoS, No Local, Retain As Published and Retain Handling.
    pub options: SubscriptionOptions,
    /// The Subscription Identifier that goes with each message, if there is one.
    pub identifier: Option<SubscriptionIdentifier>,
}

impl Subscription {
    /// A subscription without an identifier.
    #[must_use]
    pub const fn new(options: SubscriptionOptions) -> Self {
        Self {
            options,
            identifier: None,
        }
    }
}
