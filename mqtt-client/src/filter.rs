//! What is asked for with SUBSCRIBE.

use mqtt_codec::{
    PacketId, QoS, RetainHandling, Subscribe, SubscribeFilter, SubscribeProperties,
    SubscriptionIdentifier, SubscriptionOptions, TopicError, TopicFilter,
};

use crate::message;

/// A Topic Filter with its subscription options.
///
/// ```
/// use mqtt_client::{Filter, QoS};
///
/// let filter = Filter::new("sensors/+/temperature")?.qos(QoS::AtLeastOnce).no_local(true);
/// # Ok::<(), mqtt_client::TopicError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    filter: String,
    options: SubscriptionOptions,
}

impl Filter {
    /// A filter for QoS 0 with the other options off.
    ///
    /// # Errors
    ///
    /// If `filter` is not a Topic Filter.
    pub fn new(filter: impl Into<String>) -> Result<Self, TopicError> {
        let filter = filter.into();
        TopicFilter::new(&filter)?;
        Ok(Self {
            filter,
            options: SubscriptionOptions::new(QoS::AtMostOnce),
        })
    }

    /// The highest quality of service to receive with.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.options.qos = qos;
        self
    }

    /// Do not receive what this client publishes (MQTT 5).
    #[must_use]
    pub fn no_local(mut self, no_local: bool) -> Self {
        self.options.no_local = no_local;
        self
    }

    /// Keep the RETAIN flag as the publisher set it (MQTT 5).
    #[must_use]
    pub fn retain_as_published(mut self, keep: bool) -> Self {
        self.options.retain_as_published = keep;
        self
    }

    /// When to receive the retained messages (MQTT 5; always in MQTT 3).
    #[must_use]
    pub fn retain_handling(mut self, handling: RetainHandling) -> Self {
        self.options.retain_handling = handling;
        self
    }

    /// The quality of service asked for.
    pub(crate) fn quality(&self) -> QoS {
        self.options.qos
    }

    /// Whether it has a wildcard.
    pub(crate) fn has_wildcards(&self) -> bool {
        TopicFilter::assume_valid(&self.filter).has_wildcards()
    }

    /// Whether it is that of a shared subscription.
    pub(crate) fn is_shared(&self) -> bool {
        TopicFilter::assume_valid(&self.filter).shared().is_some()
    }

    /// The text of the filter.
    pub fn as_str(&self) -> &str {
        &self.filter
    }
}

/// What goes into SUBSCRIBE besides the filters (MQTT 5).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    pub(crate) identifier: Option<SubscriptionIdentifier>,
    pub(crate) user_properties: Vec<(String, String)>,
}

impl SubscribeOptions {
    /// Nothing besides the filters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The Subscription Identifier that messages for these filters are to carry.
    #[must_use]
    pub fn identifier(mut self, identifier: SubscriptionIdentifier) -> Self {
        self.identifier = Some(identifier);
        self
    }

    /// Adds a User Property.
    #[must_use]
    pub fn user_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_properties.push((name.into(), value.into()));
        self
    }
}

/// The packet of a request.
pub(crate) fn packet<'a>(
    packet_id: PacketId,
    filters: &'a [Filter],
    options: &'a SubscribeOptions,
) -> Subscribe<'a> {
    let filters = filters.iter();
    Subscribe {
        packet_id,
        filters: filters
            .map(|filter| SubscribeFilter {
                filter: TopicFilter::assume_valid(&filter.filter),
                options: filter.options,
            })
            .collect(),
        properties: SubscribeProperties {
            subscription_identifier: options.identifier,
            user_properties: message::user_properties(&options.user_properties),
        },
    }
}
