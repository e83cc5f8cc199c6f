//! Shared subscriptions: groups, who is in them, and which member gets a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use mqtt_codec::{PacketId, ProtocolVersion, QoS, TopicName};
use mqtt_router::{Readiness, SharedGroup, Subscription};

use crate::client::{Client, ClientKey, Link};
use crate::delivery::Delivery;
use crate::hub::Bounds;
use crate::hub::routes::{Grant, RouteKey};
use crate::hub::runs::decode_again;
use crate::message::{Envelope, Layout, Message, Parts};

/// One share name with one filter.
#[derive(Debug)]
pub(crate) struct Group {
    key: RouteKey,
    /// The whole shared filter.
    filter: Arc<str>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    turn: SharedGroup<ClientKey>,
    clients: HashMap<ClientKey, Arc<Client>, RandomState>,
}

/// A message that a group is to give to one of its members.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Remaining Message Expiry Interval, seconds.
    pub(crate) expiry: Option<u32>,
    /// A member that must not get it.
    pub(crate) but_not: Option<ClientKey>,
    /// Whether members may receive some messages only.
    pub(crate) restricted: bool,
    /// Whether it may wait for a member that is not connected.
    pub(crate) may_wait: bool,
}

/// What the message is, as far as its size is concerned.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Parts(Parts<'a>),
    /// A QoS 0 packet as a client of this version sent it.
    Packet(&'a [u8], ProtocolVersion),
}

impl Candidate<'_> {
    /// How well a member can take the message.
    fn readiness(
        &self,
        client: &Client,
        subscription: &Subscription,
        bounds: &Bounds,
    ) -> Readiness {
        if self.but_not == Some(client.key) || self.highest_qos(client).is_none() {
            return Readiness::Unavailable;
        }
        let qos = self.qos.min(subscription.options.qos);
        let at_most_once = qos == QoS::AtMostOnce;
        let has_room = if at_most_once {
            client.backlog() < bounds.outbox_bytes()
        } else {
            let room = client.room(bounds);
            match &self.content {
                Content::Parts(parts) => {
                    Delivery::cost(Message::size_of(parts)) <= room.bytes && room.messages > 0
                }
                // Of QoS 0, for all members.
                Content::Packet(..) => true,
            }
        };
        if !has_room {
            return Readiness::Unavailable;
        }
        match client.link() {
            Link::Online {
                layout,
                max_packet_size,
                ..
            } if !self.fits(client, layout, max_packet_size, qos, subscription) => {
                Readiness::Unavailable
            }
            Link::Online { .. } if client.is_busy() => Readiness::Busy,
            Link::Online { .. } => Readiness::Ready,
            Link::Offline if self.may_wait && !at_most_once => Readiness::Offline,
            Link::Offline | Link::Ended => Readiness::Unavailable,
        }
    }

    /// The highest QoS at which a member may receive the message.
    fn highest_qos(&self, client: &Client) -> Option<QoS> {
        match &self.content {
            Content::Parts(parts) if self.restricted => {
                let topic = core::str::from_utf8(parts.topic).ok()?;
                client.may_receive(TopicName::assume_valid(topic))
            }
            // Packets of a run: there is none for groups where members are restricted.
            Content::Parts(_) | Content::Packet(..) => Some(QoS::ExactlyOnce),
        }
    }

    /// Whether the packet is one that the member reads (section 3.1.2.11.4).
    fn fits(
        &self,
        client: &Client,
        layout: Layout,
        max_packet_size: u32,
        qos: QoS,
        subscription: &Subscription,
    ) -> bool {
        if max_packet_size == u32::MAX {
            return true;
        }
        let identifiers = subscription.identifier.as_slice();
        let mut properties = Vec::new();
        let (parts, expiry) = match self.content {
            Content::Parts(parts) => (parts, self.expiry),
            Content::Packet(frame, version) => {
                if identifiers.is_empty()
                    && Layout::of(version) == layout
                    && client.mount_len() == 0
                {
                    return frame.len() <= max_packet_size as usize;
                }
                match decode_again(frame, version, &mut properties) {
                    Some(decoded) => decoded,
                    None => return false,
                }
            }
        };
        let envelope = Envelope {
            qos,
            packet_id: PacketId::new(1).filter(|_| qos != QoS::AtMostOnce),
            ..Envelope::at_most_once(layout, self.retain, expiry)
                .with_identifiers(identifiers)
                .behind(client.mount_len())
        };
        parts.encoded_len(&envelope) <= max_packet_size as usize
    }
}

impl Group {
    /// The whole shared filter, share name included.
    pub(crate) fn filter(&self) -> &Arc<str> {
        &self.filter
    }

    /// Whether any member may receive messages of a topic.
    pub(crate) fn may_receive(&self, topic: TopicName<'_>) -> bool {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut clients = members.clients.values();
        clients.any(|client| client.may_receive(topic).is_some())
    }

    /// Chooses the member that gets a message: one that is connected and has room, else one that is
    /// connected, else, above QoS 0, one whose session waits for its client. Returns as well how many members
    /// were asked.
    pub(crate) fn choose(
        &self,
        candidate: &Candidate<'_>,
        bounds: &Bounds,
    ) -> (Option<(Arc<Client>, Grant)>, usize) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Members { turn, clients } = &*members;
        let mut asked = 0;
        let chosen = turn.choose(|key, subscription| {
            asked += 1;
            clients.get(key).map_or(Readiness::Unavailable, |client| {
                candidate.readiness(client, subscription, bounds)
            })
        });
        let chosen = chosen.and_then(|(key, subscription)| {
            let grant = Grant {
                qos: subscription.options.qos,
                retain_as_published: subscription.options.retain_as_published,
                identifiers: subscription
                    .identifier
                    .map(|identifier| [identifier].as_slice().into()),
            };
            let client = clients.get(&key)?;
            let grant = grant.up_to(candidate.highest_qos(client)?);
            Some((Arc::clone(client), grant))
        });
        (chosen, asked)
    }
}

/// All groups, by the text of the whole shared filter.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    all: Mutex<AllGroups>,
}

#[derive(Debug, Default)]
struct AllGroups {
    by_filter: HashMap<Arc<str>, Arc<Group>, RandomState>,
    by_key: HashMap<RouteKey, Arc<Group>, RandomState>,
    /// The number of the next group. A number comes again only after all others, so that a route that is
    /// being read does not take a new group for one that has gone.
    next: u32,
}

impl AllGroups {
    fn free_key(&mut self) -> RouteKey {
        loop {
            let key = RouteKey::group(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.by_key.contains_key(&key) {
                return key;
            }
        }
    }
}

impl Groups {
    pub(crate) fn get(&self, key: RouteKey) -> Option<Arc<Group>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.by_key.get(&key).map(Arc::clone)
    }

    /// The group of a whole shared filter.
    pub(crate) fn find(&self, filter: &str) -> Option<Arc<Group>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.by_filter.get(filter).map(Arc::clone)
    }

    /// Adds or replaces a member; `enter` is called for a group that did not exist. Returns whether the
    /// member is new.
    pub(crate) fn join(
        &self,
        filter: &str,
        client: &Arc<Client>,
        subscription: Subscription,
        enter: impl FnOnce(RouteKey),
    ) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let group = match all.by_filter.get(filter) {
            Some(group) => Arc::clone(group),
            None => {
                let key = all.free_key();
                let group = Arc::new(Group {
                    key,
                    filter: filter.into(),
                    members: Mutex::default(),
                });
                all.by_key.insert(key, Arc::clone(&group));
                all.by_filter
                    .insert(Arc::clone(&group.filter), Arc::clone(&group));
                enter(key);
                group
            }
        };
        let mut members = group.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.clients.insert(client.key, Arc::clone(client));
        members.turn.insert(client.key, subscription).is_none()
    }

    /// Removes a member; `exit` is called when it was the last. Returns whether it was a member.
    pub(crate) fn leave(&self, filter: &str, key: ClientKey, exit: impl FnOnce(RouteKey)) -> bool {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = all.by_filter.get(filter).map(Arc::clone) else {
            return false;
        };
        let mut members = group.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.clients.remove(&key);
        let left = members.turn.remove(&key).is_some();
        if members.clients.is_empty() {
            exit(group.key);
            all.by_filter.remove(filter);
            all.by_key.remove(&group.key);
        }
        left
    }
}
