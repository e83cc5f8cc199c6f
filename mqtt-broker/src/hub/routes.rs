//! Subscriptions of all sessions, in shards, and the routes that are read from them.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use mqtt_codec::{QoS, SubscriptionIdentifier, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{
    Merged, Own, ShardOf, Subscription, SubscriptionTree, Targets, shard_of_filter, shard_of_topic,
};
use slab::Slab;

use crate::client::{Client, ClientKey};
use crate::counters::DropReason;
use crate::hub::group::{Group, Groups};
use crate::store::SessionNumber;
use crate::versioned::Versioned;

/// Shards by first topic level; one more holds the filters that begin with a wildcard.
const SHARDS: usize = 16;

/// A subscriber in the tree: a session, or a shared group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteKey(u32);

const GROUP_BIT: u32 = 1 << 31;

impl RouteKey {
    fn client(key: ClientKey) -> Self {
        Self(key.0)
    }

    pub(crate) fn group(number: u32) -> Self {
        Self(number | GROUP_BIT)
    }
}

/// How the messages of a route reach one session.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    /// Highest QoS of the matching subscriptions.
    pub(crate) qos: QoS,
    pub(crate) retain_as_published: bool,
    pub(crate) identifiers: Option<Arc<[SubscriptionIdentifier]>>,
}

impl Grant {
    /// The same with no higher QoS than this.
    pub(crate) fn up_to(self, highest: QoS) -> Self {
        Self {
            qos: self.qos.min(highest),
            ..self
        }
    }
}

/// What a session gets of what it published itself.
#[derive(Clone, Debug)]
pub(crate) enum OwnGrant {
    /// The same as from others.
    Same,
    /// Nothing: every matching subscription has No Local.
    Nothing,
    /// What the subscriptions without No Local grant.
    Other(Box<Grant>),
}

/// One session that a topic reaches.
#[derive(Clone, Debug)]
pub(crate) struct RouteTarget {
    pub(crate) client: Arc<Client>,
    pub(crate) grant: Grant,
    pub(crate) own: OwnGrant,
}

impl RouteTarget {
    /// What a message of `publisher` is granted.
    pub(crate) fn grant_for(&self, publisher: Option<ClientKey>) -> Result<&Grant, DropReason> {
        if publisher != Some(self.client.key) {
            return Ok(&self.grant);
        }
        match &self.own {
            OwnGrant::Same => Ok(&self.grant),
            OwnGrant::Nothing => Err(DropReason::NoLocal),
            OwnGrant::Other(grant) => Ok(grant),
        }
    }

    /// Whether a QoS 0 message is sent to this session as it came, whoever published it.
    fn is_plain(&self) -> bool {
        self.grant.identifiers.is_none()
            && matches!(self.own, OwnGrant::Same)
            && self.client.mount_len() == 0
    }
}

/// Everybody that a topic reaches. A shared group is one entry; its member is chosen for each message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    pub(crate) targets: Vec<RouteTarget>,
    pub(crate) groups: Vec<Arc<Group>>,
    plain: bool,
}

impl Route {
    /// Whether there are receivers, and each gets a QoS 0 message as it came; members of groups may not.
    pub(crate) fn is_plain(&self) -> bool {
        self.plain
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.groups.is_empty()
    }

    /// How many receivers there are, a group being one.
    pub(crate) fn len(&self) -> usize {
        self.targets.len() + self.groups.len()
    }

    /// Bytes that the route takes, about.
    pub(crate) fn size(&self) -> usize {
        let identifiers = |grant: &Grant| {
            let count = grant.identifiers.as_ref().map_or(0, |list| list.len());
            count * size_of::<SubscriptionIdentifier>()
        };
        let targets = self.targets.iter().map(|target| {
            let own = match &target.own {
                OwnGrant::Same | OwnGrant::Nothing => 0,
                OwnGrant::Other(grant) => size_of::<Grant>() + identifiers(grant),
            };
            size_of::<RouteTarget>() + identifiers(&target.grant) + own
        });
        targets.sum::<usize>() + self.groups.len() * size_of::<Arc<Group>>()
    }
}

/// Which of the trees may have subscriptions for a topic, besides those that begin with a wildcard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoutePlace(usize);

/// Which state of the subscriptions a route was read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteVersion {
    permissions: u64,
    level: u64,
    wildcard: u64,
}

/// What a walk needs besides the tree, kept by each worker.
pub(crate) type RouteScratch = Targets<RouteKey>;

/// The subscriptions of one part of the filters.
type Shard = Versioned<SubscriptionTree<RouteKey>>;

/// All subscriptions.
#[derive(Debug)]
pub(crate) struct Routes {
    levels: [Shard; SHARDS],
    wildcards: Shard,
    clients: RwLock<Slab<Arc<Client>>>,
    /// Raised when what clients may receive has changed. 0: everything, at all times.
    permissions: AtomicU64,
    groups: Groups,
    /// The route of every topic that reaches nobody.
    nobody: Arc<Route>,
}

impl Routes {
    pub(crate) fn new() -> Self {
        Self {
            levels: core::array::from_fn(|_| Shard::default()),
            wildcards: Shard::default(),
            clients: RwLock::default(),
            permissions: AtomicU64::new(0),
            groups: Groups::default(),
            nobody: Arc::default(),
        }
    }

    /// Makes a session known.
    pub(crate) fn add_client(&self, id: Arc<str>, stored: Option<SessionNumber>) -> Arc<Client> {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        let entry = clients.vacant_entry();
        let client = Arc::new(Client::new(ClientKey(entry.key() as u32), id, stored));
        entry.insert(Arc::clone(&client));
        client
    }

    /// Forgets a session that has no subscription any more.
    pub(crate) fn remove_client(&self, key: ClientKey) {
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        clients.try_remove(key.0 as usize);
    }

    /// Every session known now.
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        clients
            .iter()
            .map(|(_, client)| Arc::clone(client))
            .collect()
    }

    /// Which state of the permissions a decision must have been taken in to hold now; 0: nobody is restricted.
    pub(crate) fn permissions(&self) -> u64 {
        self.permissions.load(Ordering::Acquire)
    }

    /// What was decided before no longer holds.
    pub(crate) fn permissions_changed(&self) {
        self.permissions.fetch_add(1, Ordering::AcqRel);
    }

    /// The group of a whole shared filter.
    pub(crate) fn group(&self, filter: &str) -> Option<Arc<Group>> {
        self.groups.find(filter)
    }

    fn shard(&self, filter: &str) -> &Shard {
        match shard_of_filter(filter, SHARDS) {
            ShardOf::Wildcard => &self.wildcards,
            ShardOf::Level(number) => &self.levels[number % SHARDS],
        }
    }

    fn insert(
        &self,
        filter: TopicFilter<'_>,
        key: RouteKey,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let insert = |tree: &mut SubscriptionTree<RouteKey>| tree.insert(filter, key, subscription);
        self.shard(filter.as_str())
            .change(insert, SubscriptionTree::version)
    }

    fn remove(&self, filter: &str, key: RouteKey) -> Option<Subscription> {
        let remove = |tree: &mut SubscriptionTree<RouteKey>| tree.remove(filter, key);
        self.shard(filter).change(remove, SubscriptionTree::version)
    }

    /// Adds or replaces a subscription; returns whether there was none for this filter before.
    pub(crate) fn subscribe(
        &self,
        client: &Arc<Client>,
        filter: TopicFilter<'_>,
        subscription: Subscription,
    ) -> bool {
        let Some(shared) = filter.shared() else {
            return self
                .insert(filter, RouteKey::client(client.key), subscription)
                .is_none();
        };
        self.groups
            .join(filter.as_str(), client, subscription, |key| {
                // The group stands in the tree for its members; their options apply when one is chosen.
                self.insert(
                    shared.filter,
                    key,
                    Subscription::new(SubscriptionOptions::default()),
                );
            })
    }

    /// Removes a subscription; returns whether there was one.
    pub(crate) fn unsubscribe(&self, client: &Client, filter: TopicFilter<'_>) -> bool {
        let Some(shared) = filter.shared() else {
            return self
                .remove(filter.as_str(), RouteKey::client(client.key))
                .is_some();
        };
        self.groups.leave(filter.as_str(), client.key, |key| {
            self.remove(shared.filter.as_str(), key);
        })
    }

    /// Where the subscriptions are that a route for `topic` is read from.
    pub(crate) fn place(topic: TopicName<'_>) -> RoutePlace {
        RoutePlace(shard_of_topic(topic.as_str(), SHARDS) % SHARDS)
    }

    /// The state that a route must have been read from to be used now.
    pub(crate) fn version(&self, place: RoutePlace) -> RouteVersion {
        RouteVersion {
            permissions: self.permissions(),
            level: self.levels[place.0].version(),
            wildcard: self.wildcards.version(),
        }
    }

    /// Reads the route for `topic` from the trees; returns as well what the walk cost, in nodes and
    /// subscriptions.
    pub(crate) fn route(
        &self,
        topic: TopicName<'_>,
        place: RoutePlace,
        scratch: &mut RouteScratch,
    ) -> (Arc<Route>, usize) {
        scratch.clear();
        let mut cost = 0;
        // Held throughout: a key that a tree knows cannot pass on to another session before it is looked up.
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        for shard in [&self.levels[place.0], &self.wildcards] {
            cost += scratch.collect(&shard.read(), topic);
        }
        if scratch.is_empty() {
            return (Arc::clone(&self.nobody), cost);
        }
        let mut route = Route::default();
        let restricted = self.permissions() != 0;
        for target in scratch.finish() {
            let key = target.key;
            if key.0 & GROUP_BIT != 0 {
                route.groups.extend(self.groups.get(key));
            } else if let Some(client) = clients.get(key.0 as usize) {
                let highest = match restricted {
                    false => QoS::ExactlyOnce,
                    // As if there were no such subscription.
                    true => match client.may_receive(topic) {
                        Some(highest) => highest,
                        None => continue,
                    },
                };
                route.targets.push(RouteTarget {
                    client: Arc::clone(client),
                    grant: Grant::from(&target.delivery).up_to(highest),
                    own: match &target.own {
                        Own::Same => OwnGrant::Same,
                        Own::Nothing => OwnGrant::Nothing,
                        Own::Other(merged) => {
                            OwnGrant::Other(Box::new(Grant::from(merged).up_to(highest)))
                        }
                    },
                });
            }
        }
        route.plain = !route.is_empty()
            // Who of a group may receive a message is asked for each.
            && (!restricted || route.groups.is_empty())
            && route.targets.iter().all(RouteTarget::is_plain);
        (Arc::new(route), cost)
    }
}

impl From<&Merged> for Grant {
    fn from(merged: &Merged) -> Self {
        Self {
            qos: merged.qos,
            retain_as_published: merged.retain_as_published,
            identifiers: (!merged.identifiers.is_empty())
                .then(|| merged.identifiers.as_slice().into()),
        }
    }
}
