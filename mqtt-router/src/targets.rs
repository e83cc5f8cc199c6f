//! Overlapping subscriptions of one subscriber, merged into one delivery.
//!
//! A server may deliver one copy for all the filters of a client that match, with the highest QoS
//! among them and all their identifiers (MQTT 5.0, section 3.3.4). No Local belongs to each
//! subscription, so what a client gets of its own messages may be less than what it gets of others.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use mqtt_codec::{QoS, SubscriptionIdentifier, TopicName};
use smallvec::SmallVec;

use crate::arena::position;
use crate::subscription::Subscription;
use crate::trie::SubscriptionTree;

/// Up to this many targets a scan is as fast as the index.
const SCANNED: usize = 16;

/// How one message goes to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The highest QoS granted by the subscriptions.
    pub qos: QoS,
    /// Whether any of them asked for Retain As Published.
    pub retain_as_published: bool,
    /// Their identifiers, in the order they were added, each once. Four fit without an allocation.
    pub identifiers: SmallVec<[SubscriptionIdentifier; 4]>,
}

/// How a message goes to a subscriber that published it itself, when the subscriptions with No Local
/// are left out [MQTT-3.8.3-3].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// As to everyone else: No Local makes no difference.
    Same,
    /// Not at all.
    Nothing,
    /// As merged from the subscriptions without No Local.
    Other(Merged),
}

/// One subscriber that gets a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<K> {
    /// The subscriber.
    pub key: K,
    /// How the message goes to it.
    pub delivery: Merged,
    /// How it goes to it if it is the publisher.
    pub own: Own,
}

/// Collects the subscriptions that match a topic, one [`Target`] a key.
///
/// Meant to be kept and used again: [`clear`](Self::clear) keeps the memory, and collecting allocates
/// only to grow beyond the largest result so far or for more than four identifiers in one target.
#[derive(Debug, Clone)]
pub struct Targets<K> {
    list: Vec<Target<K>>,
    /// Positions in `list` by key; empty while the list is short.
    index: HashTable<u32>,
    hasher: RandomState,
}

impl<K> Default for Targets<K> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> Targets<K> {
    /// An empty collector.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all targets.
    pub fn clear(&mut self) {
        self.list.clear();
        self.index.clear();
    }

    /// Adds all subscriptions of `tree` that match `topic` to what is there.
    pub fn collect(&mut self, tree: &SubscriptionTree<K>, topic: TopicName<'_>) {
        tree.for_each_match(topic, |key, subscription| self.add(key, subscription));
    }

    /// Adds one subscription.
    pub fn add(&mut self, key: K, subscription: Subscription) {
        let at = if self.index.is_empty() {
            self.list.iter().position(|target| target.key == key)
        } else {
            let hash = self.hasher.hash_one(key);
            self.index
                .find(hash, |&at| self.list[at as usize].key == key)
                .map(|&at| at as usize)
        };
        if let Some(at) = at {
            self.list[at].merge(&subscription);
            return;
        }
        let at = position(self.list.len());
        self.list.push(Target::new(key, &subscription));
        let Self {
            list,
            index,
            hasher,
        } = self;
        let hash_at = |&at: &u32| hasher.hash_one(list[at as usize].key);
        if !index.is_empty() {
            index.insert_unique(hash_at(&at), at, hash_at);
        } else if list.len() > SCANNED {
            for at in 0..=at {
                index.insert_unique(hash_at(&at), at, hash_at);
            }
        }
    }

    /// The targets, in the order their keys were first added.
    #[must_use]
    pub fn as_slice(&self) -> &[Target<K>] {
        &self.list
    }

    /// The targets, in the order their keys were first added.
    pub fn iter(&self) -> core::slice::Iter<'_, Target<K>> {
        self.list.iter()
    }

    /// Takes the targets out, in the order their keys were first added, and keeps the memory.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Target<K>> + '_ {
        self.index.clear();
        self.list.drain(..)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a, K: Copy + Eq + Hash> IntoIterator for &'a Targets<K> {
    type Item = &'a Target<K>;
    type IntoIter = core::slice::Iter<'a, Target<K>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K> Target<K> {
    /// What `key` gets by one subscription.
    #[must_use]
    pub fn new(key: K, subscription: &Subscription) -> Self {
        Self {
            key,
            delivery: Merged::new(subscription),
            own: if subscription.options.no_local {
                Own::Nothing
            } else {
                Own::Same
            },
        }
    }

    /// Adds another subscription of the same key.
    pub fn merge(&mut self, subscription: &Subscription) {
        if subscription.options.no_local {
            if self.own == Own::Same {
                let before = self.delivery.clone();
                self.delivery.merge(subscription);
                if self.delivery != before {
                    self.own = Own::Other(before);
                }
                return;
            }
            self.delivery.merge(subscription);
            return;
        }
        self.delivery.merge(subscription);
        let own = match core::mem::replace(&mut self.own, Own::Same) {
            Own::Same => return,
            Own::Nothing => Merged::new(subscription),
            Own::Other(mut own) => {
                own.merge(subscription);
                own
            }
        };
        if own != self.delivery {
            self.own = Own::Other(own);
        }
    }

    /// How the message goes to this target: `published_by_it` says whether it is the publisher. None
    /// if it does not get it.
    #[must_use]
    pub fn delivery_to(&self, published_by_it: bool) -> Option<&Merged> {
        match &self.own {
            Own::Nothing if published_by_it => None,
            Own::Other(own) if published_by_it => Some(own),
            _ => Some(&self.delivery),
        }
    }
}

impl Merged {
    /// What one subscription gives.
    #[must_use]
    pub fn new(subscription: &Subscription) -> Self {
        Self {
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            identifiers: subscription.identifier.into_iter().collect(),
        }
    }

    /// Adds another subscription.
    pub fn merge(&mut self, subscription: &Subscription) {
        self.qos = self.qos.max(subscription.options.qos);
        self.retain_as_published |= subscription.options.retain_as_published;
        if let Some(identifier) = subscription.identifier
            && !self.identifiers.contains(&identifier)
        {
            self.identifiers.push(identifier);
        }
    }
}
