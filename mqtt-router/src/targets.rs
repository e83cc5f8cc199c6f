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
    /// Their identifiers, in ascending order, each once. Four fit without an allocation.
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
/// [`finish`](Self::finish) reads the result.
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

    /// Adds all subscriptions of `tree` that match `topic` to what is there; returns what that cost, as
    /// [`SubscriptionTree::for_each_match`] does.
    pub fn collect(&mut self, tree: &SubscriptionTree<K>, topic: TopicName<'_>) -> usize {
        tree.for_each_match(topic, |key, subscription| self.add(key, subscription))
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
            self.list[at].add(&subscription);
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

    /// Finishes what was collected: the targets, in the order their keys were first added. More may be
    /// added afterwards, and finished again.
    pub fn finish(&mut self) -> &[Target<K>] {
        self.list.iter_mut().for_each(Target::finish);
        &self.list
    }

    /// Takes the targets out, in the order their keys were first added, and keeps the memory.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = Target<K>> + '_ {
        self.finish();
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

impl<K> Target<K> {
    fn new(key: K, subscription: &Subscription) -> Self {
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

    /// Adds another subscription of the same key. Identifiers may repeat, and `own` may be `Other` without
    /// need, until [`finish`](Self::finish): so each subscription costs the same, however many there are.
    fn add(&mut self, subscription: &Subscription) {
        if subscription.options.no_local {
            if self.own == Own::Same {
                self.own = Own::Other(self.delivery.clone());
            }
        } else {
            match &mut self.own {
                Own::Same => {}
                Own::Nothing => self.own = Own::Other(Merged::new(subscription)),
                Own::Other(own) => own.add(subscription),
            }
        }
        self.delivery.add(subscription);
    }

    fn finish(&mut self) {
        self.delivery.finish();
        if let Own::Other(own) = &mut self.own {
            own.finish();
            if *own == self.delivery {
                self.own = Own::Same;
            }
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
    fn new(subscription: &Subscription) -> Self {
        Self {
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            identifiers: subscription.identifier.into_iter().collect(),
        }
    }

    fn add(&mut self, subscription: &Subscription) {
        self.qos = self.qos.max(subscription.options.qos);
        self.retain_as_published |= subscription.options.retain_as_published;
        self.identifiers.extend(subscription.identifier);
    }

    fn finish(&mut self) {
        if self.identifiers.len() > 1 {
            self.identifiers.sort_unstable();
            self.identifiers.dedup();
        }
    }
}
