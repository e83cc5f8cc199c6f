//! Shared subscriptions: groups, who is in them, and which member gets a message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use mqtt_codec::QoS;
use mqtt_router::{Readiness, SharedGroup, Subscription};
use slab::Slab;

use crate::client::{Client, ClientKey, Link};
use crate::hub::routes::RouteKey;

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
    /// Chooses the member that gets the next message: one that is connected and has room, else, above
    /// QoS 0, one whose session waits for its client.
    pub(crate) fn choose(
        &self,
        qos: QoS,
        queue_bytes: usize,
    ) -> Option<(Arc<Client>, Subscription)> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Members { turn, clients } = &mut *members;
        let (key, subscription) = turn.choose(|key| {
            let Some(client) = clients.get(key) else {
                return Readiness::Unavailable;
            };
            match client.link() {
                Link::Ended => Readiness::Unavailable,
                Link::Offline if qos == QoS::AtMostOnce => Readiness::Unavailable,
                _ if client.queued() >= queue_bytes => Readiness::Unavailable,
                Link::Offline => Readiness::Offline,
                Link::Online { .. } => Readiness::Ready,
            }
        })?;
        clients
            .get(&key)
            .map(|client| (Arc::clone(client), subscription))
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
