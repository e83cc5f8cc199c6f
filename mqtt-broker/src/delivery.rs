//! What is on its way to one session: the handle that `mqtt-session` queues.

use std::sync::{Arc, Weak};

use mqtt_codec::{QoS, SubscriptionIdentifier};
use mqtt_session::{Outgoing, Time, Transmission};

use crate::bundle::Bundle;
use crate::hub::Group;
use crate::message::{Envelope, Layout, Message};
use crate::store::{BodyNumber, Key};

/// One message, or several.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    One(Arc<Message>),
    /// For a session that keeps nothing: neither stored, nor chosen by a group.
    Several(Box<Bundle>),
}

/// A message, or several that follow each other, and how this receiver gets them.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) content: Content,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Bytes that the topic begins with and this receiver does not see: its mount point.
    pub(crate) mount: u16,
    /// Identifiers of the subscriptions that matched; `None` where there are none.
    pub(crate) identifiers: Option<Arc<[SubscriptionIdentifier]>>,
    /// The shared group that chose this receiver, and may choose another; not owned, since the group knows its
    /// members, and they what waits for them.
    pub(crate) group: Option<Weak<Group>>,
    /// What the store calls it within its session; 0 where the session is not stored.
    pub(crate) key: Key,
    /// Where the store has its body, if other sessions share it.
    pub(crate) body: Option<BodyNumber>,
}

impl Delivery {
    /// Bytes that a message of so many costs while it waits: the lists it stands in are up to half empty.
    pub(crate) fn cost(message: usize) -> usize {
        message + 2 * size_of::<Self>()
    }

    /// Messages that follow each other, for a session that keeps nothing.
    pub(crate) fn bundle(bundle: Bundle, qos: QoS) -> Self {
        Self {
            content: Content::Several(Box::new(bundle)),
            qos,
            retain: false,
            mount: 0,
            identifiers: None,
            group: None,
            key: 0,
            body: None,
        }
    }

    /// The topic as the broker knows it, the mount point of the receiver included.
    pub(crate) fn whole_topic(&self) -> &str {
        match &self.content {
            Content::One(message) => message.topic(),
            Content::Several(bundle) => bundle.topic(),
        }
    }

    /// The message, where it is one.
    pub(crate) fn message(&self) -> Option<&Arc<Message>> {
        match &self.content {
            Content::One(message) => Some(message),
            Content::Several(_) => None,
        }
    }

    fn envelope<'a>(&'a self, how: &Transmission) -> Envelope<'a> {
        Envelope {
            layout: Layout::of(how.version),
            qos: self.qos,
            dup: how.dup,
            retain: self.retain,
            packet_id: how.packet_id,
            alias: how.alias,
            expiry: how.expiry,
            identifiers: self.identifiers.as_deref().unwrap_or_default(),
            mount: self.mount,
        }
    }
}

impl Outgoing for Delivery {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.qos
    }

    fn expires_at(&self) -> Option<Time> {
        self.message()?.expires_at
    }

    fn topic(&self) -> &str {
        let topic = self.whole_topic();
        topic.get(usize::from(self.mount)..).unwrap_or_default()
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        match &self.content {
            Content::One(message) => message.parts().encoded_len(&self.envelope(how)),
            Content::Several(bundle) => bundle.encoded_len(self.qos, how),
        }
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        match &self.content {
            Content::One(message) => message.parts().encode(&self.envelope(how), out),
            Content::Several(bundle) => {
                bundle.encode(self.qos, how, out);
            }
        }
    }

    fn returns(&self) -> bool {
        self.group.is_some()
    }

    fn size(&self) -> usize {
        match &self.content {
            Content::One(message) => Self::cost(message.size()),
            Content::Several(bundle) => Self::cost(bundle.size()),
        }
    }

    fn key(&self) -> u64 {
        self.key
    }

    fn count(&self) -> usize {
        match &self.content {
            Content::One(_) => 1,
            Content::Several(bundle) => bundle.len(),
        }
    }

    fn split_first(&mut self) -> Option<Self> {
        match &mut self.content {
            Content::One(_) => None,
            Content::Several(bundle) => Some(Self::bundle(bundle.split_first(), self.qos)),
        }
    }

    fn encode_first(&mut self, how: &Transmission, out: &mut Vec<u8>) -> bool {
        match &mut self.content {
            Content::One(_) => false,
            Content::Several(bundle) => {
                let written = bundle.encode(self.qos, how, out);
                if written {
                    bundle.advance();
                }
                written
            }
        }
    }
}
