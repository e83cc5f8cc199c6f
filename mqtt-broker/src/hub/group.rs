//! Shared subscriptions: groups, who is in them, and which member gets a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use mqtt_codec::QoS;
use mqtt_router::{Readiness, SharedGroup, Subscription};
use slab::Slab;

use crate::client::{Client, ClientKey, Link};
use crate::config::Config;
use crate::hub::routes::{Grant, RouteKey};

/// One share name with one filter.
#[derive(Debug)]
pub(crate) struct Group {
    key: RouteKey,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    turn: SharedGroup<ClientKey>,
    clients: HashMap<ClientKey, Arc<Client>, RandomState>,
}

impl Group {
    /// Chooses the member that gets the next message: one that is connected and has room, else one that is
    /// connected, else, above QoS 0, one whose session waits for its client. With `instead_of`, another
    /// member than that one, and only among those connected.
    pub(crate) fn choose(
        &self,
        qos: QoS,
        config: &Config,
        instead_of: Option<ClientKey>,
    ) -> Option<(Arc<Client>, Grant)> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Members { turn, clients } = &*members;
        let (key, subscription) = turn.choose(|key| {
            let Some(client) = clients.get(key) else {
                return Readiness::Unavailable;
            };
            if client.queued() >= config.queue_bytes || instead_of == Some(*key) {
                return Readiness::Unavailable;
            }
            match client.link() {
                Link::Online { .. } if client.is_busy() => Readiness::Busy,
                Link::Online { .. } => Readiness::Ready,
                Link::Offline if qos != QoS::AtMostOnce && instead_of.is_none() => {
                    Readiness::Offline
                }
                Link::Offline | Link::Ended => Readiness::Unavailable,
            }
        })?;
        let grant = Grant {
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            identifiers: subscription
                .identifier
                .map(|identifier| [identifier].as_slice().into()),
        };
        clients.get(&key).map(|client| (Arc::clone(client), grant))
    }
}

/// All groups, by the text of the whole shared filter.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    all: Mutex<AllGroups>,
}

#[derive(Debug, Default)]
struct AllGroups {
    by_filter: HashMap<Box<str>, Arc<Group>, RandomState>,
    by_key: Slab<Arc<Group>>,
}

impl Groups {
    pub(crate) fn get(&self, key: RouteKey) -> Option<Arc<Group>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.by_key.get(key.group_number()).map(Arc::clone)
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
        let AllGroups { by_filter, by_key } = &mut *all;
        let group = by_filter.entry(filter.into()).or_insert_with(|| {
            let entry = by_key.vacant_entry();
            let key = RouteKey::group(entry.key() as u32);
            let group = Arc::new(Group {
                key,
                members: Mutex::default(),
            });
            entry.insert(Arc::clone(&group));
            enter(key);
            group
        });
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
            all.by_key.try_remove(group.key.group_number());
        }
        left
    }
}
