//! Wills: kept with the connection, published when it ends without a farewell.

use mqtt_codec::{
    ProtocolVersion, Publish, PublishProperties, TopicName, UserProperty, Will, WillProperties,
};

/// A will that outlives the CONNECT it came with.
#[derive(Clone, Debug)]
pub(crate) struct StoredWill {
    version: ProtocolVersion,
    /// Seconds between the end of the connection and the publication.
    pub(crate) delay: u32,
    qos: mqtt_codec::QoS,
    retain: bool,
    topic: Box<str>,
    payload: Box<[u8]>,
    payload_format_utf8: Option<bool>,
    message_expiry_interval: Option<u32>,
    content_type: Option<Box<str>>,
    response_topic: Option<Box<str>>,
    correlation_data: Option<Box<[u8]>>,
    user_properties: Vec<(Box<str>, Box<str>)>,
}

impl StoredWill {
    pub(crate) fn new(will: &Will<'_>, version: ProtocolVersion) -> Self {
        let WillProperties {
            delay_interval,
            payload_format_utf8,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
        } = &will.properties;
        Self {
            version,
            delay: delay_interval.unwrap_or(0),
            qos: will.qos,
            retain: will.retain,
            topic: will.topic.as_str().into(),
            payload: will.payload.into(),
            payload_format_utf8: *payload_format_utf8,
            message_expiry_interval: *message_expiry_interval,
            content_type: content_type.map(Into::into),
            response_topic: response_topic.map(|topic| topic.as_str().into()),
            correlation_data: correlation_data.map(Into::into),
            user_properties: user_properties
                .iter()
                .map(|pair| (pair.name.into(), pair.value.into()))
                .collect(),
        }
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        self.version
    }

    /// The PUBLISH that carries the will out. `None` cannot happen: the topic was valid in CONNECT.
    pub(crate) fn publish(&self) -> Option<(TopicName<'_>, Publish<'_>)> {
        let topic = TopicName::new(&self.topic).ok()?;
        let mut publish = Publish::new(topic, &self.payload);
        publish.qos = self.qos;
        publish.retain = self.retain;
        publish.properties = PublishProperties {
            payload_format_utf8: self.payload_format_utf8,
            message_expiry_interval: self.message_expiry_interval,
            content_type: self.content_type.as_deref(),
            response_topic: self
                .response_topic
                .as_deref()
                .and_then(|topic| TopicName::new(topic).ok()),
            correlation_data: self.correlation_data.as_deref(),
            user_properties: self
                .user_properties
                .iter()
                .map(|(name, value)| UserProperty { name, value })
                .collect(),
            ..PublishProperties::default()
        };
        Some((topic, publish))
    }
}
