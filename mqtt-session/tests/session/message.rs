//! A message of the tests, which carries its key as its payload.

use mqtt_codec::{Publish, QoS, TopicName};
use mqtt_session::{Outgoing, Time, Transmission};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) key: u64,
    pub(crate) qos: QoS,
    pub(crate) topic: String,
    pub(crate) expires_at: Option<Time>,
    /// Bytes after the key.
    pub(crate) padding: usize,
}

impl Message {
    pub(crate) fn new(key: u64, qos: QoS) -> Self {
        Self {
            key,
            qos,
            topic: "a/topic".into(),
            expires_at: None,
            padding: 0,
        }
    }

    fn with_view<R>(&self, f: impl FnOnce(Publish<'_>) -> R) -> R {
        let mut payload = self.key.to_be_bytes().to_vec();
        payload.resize(8 + self.padding, 0);
        let mut view = Publish::new(TopicName::new(&self.topic).unwrap(), &payload);
        view.qos = self.qos;
        f(view)
    }
}

impl Outgoing for Message {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.qos
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        self.with_view(|view| how.publish_len(view).unwrap())
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        let before = out.len();
        self.with_view(|view| how.write_publish(view, out).unwrap());
        assert_eq!(out.len() - before, self.encoded_len(how));
    }

    fn expires_at(&self) -> Option<Time> {
        self.expires_at
    }

    fn size(&self) -> usize {
        self.topic.len() + 8 + self.padding
    }

    fn key(&self) -> u64 {
        self.key
    }
}

/// The key that a payload carries.
pub(crate) fn key_of(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[..8].try_into().unwrap())
}
