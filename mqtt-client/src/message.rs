//! Application Messages: what is published and what is received, owned.

use bytes::Bytes;
use mqtt_codec::{
    Publish, PublishProperties, QoS, SubscriptionIdentifier, TopicError, TopicName, UserProperty,
};

/// An Application Message: topic, payload, and how it is to be, or was, transported.
///
/// ```
/// use mqtt_client::{Message, QoS};
///
/// let message = Message::new("sensors/1/temperature", "21.5")?
///     .qos(QoS::AtLeastOnce)
///     .retain(true);
/// assert_eq!(message.topic(), "sensors/1/temperature");
/// assert_eq!(&message.payload()[..], b"21.5");
/// # Ok::<(), mqtt_client::TopicError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    /// Most messages have none.
    properties: Option<Box<MessageProperties>>,
}

/// The properties of a message without any.
static NONE: MessageProperties = MessageProperties {
    payload_format_utf8: None,
    message_expiry_interval: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    subscription_identifiers: Vec::new(),
    user_properties: Vec::new(),
};

impl Message {
    /// A message of QoS 0, not retained, without properties.
    ///
    /// # Errors
    ///
    /// If `topic` is not a Topic Name: empty, longer than 65,535 bytes, with a wildcard or a NUL.
    pub fn new(topic: impl Into<String>, payload: impl Into<Bytes>) -> Result<Self, TopicError> {
        let topic = topic.into();
        TopicName::new(&topic)?;
        Ok(Self {
            topic,
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: None,
        })
    }

    /// Copies what a PUBLISH carries; `topic` is the resolved one where an alias was used.
    pub(crate) fn copied(topic: TopicName<'_>, publish: &Publish<'_>) -> Self {
        Self {
            topic: topic.as_str().to_owned(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            properties: MessageProperties::copied(&publish.properties),
        }
    }

    /// Sets the quality of service.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// Sets the RETAIN flag.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// Sets the properties; they are not sent on a connection of MQTT 3.
    #[must_use]
    pub fn properties(mut self, properties: MessageProperties) -> Self {
        self.properties = (!properties.is_empty()).then(|| Box::new(properties));
        self
    }

    /// The Topic Name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The payload. It shares the message's memory; cloning it copies no bytes.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The quality of service it is sent with, or was received with.
    pub fn quality(&self) -> QoS {
        self.qos
    }

    /// The RETAIN flag. On a received message: it was stored before the subscription was made,
    /// or, with Retain As Published, the flag the publisher set.
    pub fn is_retained(&self) -> bool {
        self.retain
    }

    /// The properties of MQTT 5; empty on a connection of MQTT 3.
    pub fn property(&self) -> &MessageProperties {
        self.properties.as_deref().unwrap_or(&NONE)
    }
}

/// The properties of a message (MQTT 5.0, 3.3.2.3).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageProperties {
    /// Payload Format Indicator: the payload is UTF-8 (`true`) or unspecified bytes (`false`).
    pub payload_format_utf8: Option<bool>,
    /// Seconds until the message expires; on a received message, what is left of it.
    pub message_expiry_interval: Option<u32>,
    /// MIME type or any other description of the payload.
    pub content_type: Option<String>,
    /// Topic Name for the answer to a request.
    pub response_topic: Option<String>,
    /// What the requester needs to recognise the answer.
    pub correlation_data: Option<Bytes>,
    /// Identifiers of the matching subscriptions; only on received messages.
    pub subscription_identifiers: Vec<SubscriptionIdentifier>,
    /// Names and values of the application, in order; names may repeat.
    pub user_properties: Vec<(String, String)>,
}

impl MessageProperties {
    fn copied(from: &PublishProperties<'_>) -> Option<Box<Self>> {
        // The alias was resolved.
        let has_any = from.payload_format_utf8.is_some()
            || from.message_expiry_interval.is_some()
            || from.content_type.is_some()
            || from.response_topic.is_some()
            || from.correlation_data.is_some()
            || !from.subscription_identifiers.is_empty()
            || !from.user_properties.is_empty();
        has_any.then(|| {
            Box::new(Self {
                payload_format_utf8: from.payload_format_utf8,
                message_expiry_interval: from.message_expiry_interval,
                content_type: from.content_type.map(str::to_owned),
                response_topic: from.response_topic.map(|topic| topic.as_str().to_owned()),
                correlation_data: from.correlation_data.map(Bytes::copy_from_slice),
                subscription_identifiers: from.subscription_identifiers.to_vec(),
                user_properties: owned_user_properties(&from.user_properties),
            })
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Borrows user properties for the encoder.
pub(crate) fn user_properties(from: &[(String, String)]) -> Vec<UserProperty<'_>> {
    from.iter()
        .map(|(name, value)| UserProperty { name, value })
        .collect()
}

/// Copies decoded user properties.
pub(crate) fn owned_user_properties(from: &[UserProperty<'_>]) -> Vec<(String, String)> {
    from.iter()
        .map(|property| (property.name.to_owned(), property.value.to_owned()))
        .collect()
}
