//! Wills: kept with the connection, published when it ends without a farewell.

use mqtt_codec::{
    FixedHeader, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, TopicName,
    UserProperty, Will, WillProperties,
};

use crate::store::{WallTime, WillRecord};

/// A will that outlives the CONNECT it came with. In a box: most connections have none.
#[derive(Clone, Debug)]
pub(crate) struct StoredWill(Box<Content>);

#[derive(Clone, Debug)]
struct Content {
    version: ProtocolVersion,
    delay: u32,
    qos: QoS,
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
        Self(Box::new(Content {
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
        }))
    }

    /// Seconds between the end of the connection and the publication.
    pub(crate) fn delay(&self) -> u32 {
        self.0.delay
    }

    /// The will as the store keeps it.
    pub(crate) fn record(&self, due: Option<WallTime>) -> Option<WillRecord> {
        let (_, publish) = self.publish()?;
        let mut bytes = Vec::new();
        let mut publish = publish;
        // QoS above 0 needs an identifier to be encoded.
        publish.packet_id = PacketId::new(1).filter(|_| self.0.qos != QoS::AtMostOnce);
        publish.encode(ProtocolVersion::V5, &mut bytes).ok()?;
        Some(WillRecord {
            delay: self.0.delay,
            due,
            level: self.0.version.level(),
            publish: bytes.into(),
        })
    }

    /// A will that was stored; `None` if the record makes no sense.
    pub(crate) fn from_record(record: &WillRecord) -> Option<Self> {
        let header = FixedHeader::parse(&record.publish).ok()??;
        let body = record.publish.get(usize::from(header.header_len)..)?;
        let publish = Publish::decode(header.flags, body, ProtocolVersion::V5).ok()?;
        let PublishProperties {
            payload_format_utf8,
            message_expiry_interval,
            content_type,
            response_topic,
            correlation_data,
            user_properties,
            ..
        } = publish.properties;
        let will = Will {
            topic: publish.topic?,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: WillProperties {
                delay_interval: Some(record.delay),
                payload_format_utf8,
                message_expiry_interval,
                content_type,
                response_topic,
                correlation_data,
                user_properties,
            },
        };
        let version = ProtocolVersion::ALL
            .into_iter()
            .find(|version| version.level() == record.level)?;
        Some(Self::new(&will, version))
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        self.0.version
    }

    /// The PUBLISH that carries the will out. `None` cannot happen: the topic was valid in CONNECT.
    pub(crate) fn publish(&self) -> Option<(TopicName<'_>, Publish<'_>)> {
        let topic = TopicName::new(&self.0.topic).ok()?;
        let mut publish = Publish::new(topic, &self.0.payload);
        publish.qos = self.0.qos;
        publish.retain = self.0.retain;
        publish.properties = PublishProperties {
            payload_format_utf8: self.0.payload_format_utf8,
            message_expiry_interval: self.0.message_expiry_interval,
            content_type: self.0.content_type.as_deref(),
            response_topic: self
                .0
                .response_topic
                .as_deref()
                .and_then(|topic| TopicName::new(topic).ok()),
            correlation_data: self.0.correlation_data.as_deref(),
            user_properties: self
                .0
                .user_properties
                .iter()
                .map(|(name, value)| UserProperty { name, value })
                .collect(),
            ..PublishProperties::default()
        };
        Some((topic, publish))
    }
}
