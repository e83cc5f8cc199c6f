//! One message on its way to one session: the handle that `mqtt-session` queues.

use std::sync::{Arc, Weak};

use mqtt_codec::{QoS, SubscriptionIdentifier};
use mqtt_session::{Outgoing, Time, Transmission};

use crate::hub::Group;
use crate::message::{Envelope, Layout, Message};
use crate::store::{BodyNumber, Key};

/// A message and how this receiver gets it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
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
    fn qos(&self) -> QoS {
        self.qos
    }

    fn expires_at(&self) -> Option<Time> {
        self.message.expires_at
    }

    fn topic(&self) -> &str {
        let topic = self.message.topic();
        topic.get(usize::from(self.mount)..).unwrap_or_default()
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        self.message.parts().encoded_len(&self.envelope(how))
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        self.message.parts().encode(&self.envelope(how), out);
    }

    fn returns(&self) -> bool {
        self.group.is_some()
    }

    fn size(&self) -> usize {
        Self::cost(self.message.size())
    }

    fn key(&self) -> u64 {
        self.key
    }
}
