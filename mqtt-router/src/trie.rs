//! The subscription tree: which subscribers want a topic.
//!
//! A trie by topic level in one arena. A node is 16 bytes and its subscribers: its parent, the number
//! of its level's text, and where its wildcard children are, which few nodes have. Children with a text
//! are found in one hash table by (parent, level), so that a node with a million of them and a node with
//! one cost the same per child, and a chain of nodes costs nothing beyond the nodes.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use mqtt_codec::{TopicFilter, TopicName};
use smallvec::SmallVec;

use crate::arena::{grow, position};
use crate::edges::Edges;
use crate::level::Levels;
use crate::subscribers::Subscribers;
use crate::subscription::Subscription;

/// No node. In `Node::level`: the node is free.
const NONE: u32 = u32::MAX;
/// In `Node::level`: the node stands for `+`.
const PLUS: u32 = u32::MAX - 1;
/// In `Node::level`: the node stands for `#`.
const HASH: u32 = u32::MAX - 2;
const ROOT: u32 = 0;

/// The nodes reached at one level of a topic. Each is reached by one path only, so there are never
/// more than the trie has at that depth.
type Frontier = SmallVec<[u32; 32]>;

#[derive(Debug, Clone)]
struct Node<K> {
    parent: u32,
    /// The number of the level's text, `PLUS` or `HASH`.
    level: u32,
    /// Where its wildcard children are, `NONE` if it has none.
    wild: u32,
    /// How many children with a text the table holds for this node.
    texts: u32,
    subscribers: Subscribers<K>,
}

/// The wildcard children of a node, `NONE` where there is none.
#[derive(Debug, Clone, Copy)]
struct Wild {
    /// The child for `+`.
    plus: u32,
    /// The child for `#`, which has subscribers and no children.
    hash: u32,
}

impl Wild {
    const NONE: Self = Self {
        plus: NONE,
        hash: NONE,
    };
}

/// The subscriptions of any number of subscribers, by topic filter.
///
/// `K` names a subscriber: a session, a shared group, whatever the caller routes to. A subscriber has
/// at most one subscription per filter. The tree knows nothing of `$share`: insert a shared group's
/// key under the filter inside it.
///
/// Matching follows MQTT 5.0, section 4.7: `+` stands for one level, a final `#` for any number of
/// levels including none (`sport/#` matches `sport`), empty levels are levels, and a filter that
/// begins with a wildcard does not match a topic that begins with `$`.
///
/// Neither the time nor the stack of any operation depends on the depth of the tree beyond the levels
/// of the filter or topic it is given.
///
/// ```
/// use mqtt_codec::{SubscriptionOptions, TopicFilter, TopicName};
/// use mqtt_router::{Subscription, SubscriptionTree};
///
/// let mut tree = SubscriptionTree::new();
/// let wanted = Subscription::new(SubscriptionOptions::default());
/// tree.insert(TopicFilter::new("site/+/temp")?, 7_u32, wanted);
/// tree.insert(TopicFilter::new("site/#")?, 9, wanted);
///
/// let mut keys = Vec::new();
/// tree.for_each_match(TopicName::new("site/3/temp")?, |key, _| keys.push(key));
/// keys.sort();
/// assert_eq!(keys, [7, 9]);
/// # Ok::<(), mqtt_codec::TopicError>(())
/// ```
#[derive(Debug, Clone)]
pub struct SubscriptionTree<K> {
    nodes: Vec<Node<K>>,
    free: Vec<u32>,
    wilds: Vec<Wild>,
    free_wilds: Vec<u32>,
    levels: Levels,
    /// Children with a text, by (parent, level).
    children: Edges,
    hasher: RandomState,
    len: usize,
    version: u64,
}

impl<K: Copy + Eq + Hash> Default for SubscriptionTree<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Eq + Hash> SubscriptionTree<K> {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self {
            nodes: alloc::vec![Node::new(NONE, NONE)],
            free: Vec::new(),
            wilds: Vec::new(),
            free_wilds: Vec::new(),
            levels: Levels::default(),
            children: Edges::default(),
            hasher: RandomState::default(),
            len: 0,
            version: 0,
        }
    }

    /// How many subscriptions there are, counting each (filter, key) once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no subscriptions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A number that grows with each change of what a match could return. A route computed at one
    /// version is good for as long as the version is the same. Inserting a subscription that is
    /// there already, options and identifier included, is no change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds the subscription of `key` to `filter`, or replaces the one it has; returns the replaced
    /// one.
    pub fn insert(
        &mut self,
        filter: TopicFilter<'_>,
        key: K,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let mut at = ROOT;
        for level in filter.as_str().split('/') {
            at = self.child_or_insert(at, level);
        }
        let replaced = self.nodes[at as usize]
            .subscribers
            .insert(&self.hasher, key, subscription);
        if replaced.is_none() {
            self.len += 1;
        }
        if replaced != Some(subscription) {
            self.version += 1;
        }
        replaced
    }

    /// Ends the subscription of `key` to `filter` and returns it, or None if there is none. The
    /// filter is compared as text; one that is not valid is in no tree.
    pub fn remove(&mut self, filter: &str, key: K) -> Option<Subscription> {
        let at = self.find(filter)?;
        let removed = self.nodes[at as usize]
            .subscribers
            .remove(&self.hasher, &key)?;
        self.len -= 1;
        self.version += 1;
        self.prune(at);
        Some(removed)
    }

    /// The subscription of `key` to `filter`, if there is one.
    #[must_use]
    pub fn get(&self, filter: &str, key: K) -> Option<Subscription> {
        let at = self.find(filter)?;
        self.nodes[at as usize].subscribers.find(&self.hasher, &key)
    }

    /// Calls `each` with every subscription whose filter matches `topic`, in no particular order. A
    /// key comes once for each of its filters that match; [`Targets`](crate::Targets) merges them.
    ///
    /// Allocates only where more than 32 nodes of one depth match the beginning of the topic. Returns how
    /// many nodes were looked at and subscriptions found: what the match cost, for a caller that shares its
    /// time between several who ask.
    pub fn for_each_match(
        &self,
        topic: TopicName<'_>,
        mut each: impl FnMut(K, Subscription),
    ) -> usize {
        let mut cost = 0;
        let mut each = |key, subscription| {
            cost += 1;
            each(key, subscription);
        };
        let nodes = self.walk(topic, &mut each);
        cost + nodes
    }

    /// Calls `each` with every subscription that matches; returns how many nodes were looked at.
    #[inline]
    fn walk(&self, topic: TopicName<'_>, each: &mut impl FnMut(K, Subscription)) -> usize {
        let mut looked_at = 0;
        let topic = topic.as_str();
        let mut frontier = Frontier::new();
        let mut next = Frontier::new();
        frontier.push(ROOT);
        let mut wildcards = !topic.starts_with('$');
        for level in topic.split('/') {
            looked_at += frontier.len();
            // Looked up for the first node that needs it.
            let mut text = None;
            for &at in &frontier {
                let node = &self.nodes[at as usize];
                if wildcards && node.wild != NONE {
                    let Wild { plus, hash } = self.wilds[node.wild as usize];
                    self.emit(hash, each);
                    if plus != NONE {
                        next.push(plus);
                    }
                }
                if node.texts > 0
                    && let Some(text) = *text.get_or_insert_with(|| self.levels.find(level))
                    && let Some(child) = self.child(at, text)
                {
                    next.push(child);
                }
            }
            if next.is_empty() {
                return looked_at;
            }
            core::mem::swap(&mut frontier, &mut next);
            next.clear();
            wildcards = true;
        }
        for &at in &frontier {
            self.emit(at, each);
            self.emit(self.wild(at).hash, each);
        }
        looked_at + frontier.len()
    }

    /// Bytes on the heap, by capacity: the arena, the tables, the texts of levels and the lists of
    /// subscribers. Walks the tree.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let lists: usize = self
            .nodes
            .iter()
            .map(|node| node.subscribers.heap_bytes())
            .sum();
        self.nodes.capacity() * size_of::<Node<K>>()
            + self.free.capacity() * size_of::<u32>()
            + self.wilds.capacity() * size_of::<Wild>()
            + self.free_wilds.capacity() * size_of::<u32>()
            + self.children.heap_bytes()
            + self.levels.heap_bytes()
            + lists
    }

    #[inline]
    fn emit(&self, at: u32, each: &mut impl FnMut(K, Subscription)) {
        if at == NONE {
            return;
        }
        self.nodes[at as usize].subscribers.for_each(each);
    }

    fn find(&self, filter: &str) -> Option<u32> {
        filter.split('/').try_fold(ROOT, |at, level| {
            let present = |child: u32| (child != NONE).then_some(child);
            match level {
                "+" => present(self.wild(at).plus),
                "#" => present(self.wild(at).hash),
                _ => self.child(at, self.levels.find(level)?),
            }
        })
    }

    /// The wildcard children of a node.
    #[inline]
    fn wild(&self, at: u32) -> Wild {
        match self.nodes[at as usize].wild {
            NONE => Wild::NONE,
            place => self.wilds[place as usize],
        }
    }

    /// Sets the wildcard children of a node; their place is freed with the last.
    fn set_wild(&mut self, at: u32, wild: Wild) {
        let place = self.nodes[at as usize].wild;
        if wild.plus == NONE && wild.hash == NONE {
            if place != NONE {
                self.nodes[at as usize].wild = NONE;
                self.free_wilds.push(place);
            }
            return;
        }
        if place != NONE {
            self.wilds[place as usize] = wild;
            return;
        }
        let place = if let Some(place) = self.free_wilds.pop() {
            self.wilds[place as usize] = wild;
            place
        } else {
            let place = position(self.wilds.len());
            grow(&mut self.wilds);
            self.wilds.push(wild);
            place
        };
        self.nodes[at as usize].wild = place;
    }

    #[inline]
    fn child(&self, parent: u32, level: u32) -> Option<u32> {
        let hash = self.hasher.hash_one(edge(parent, level));
        self.children.find(hash, |at| {
            let node = &self.nodes[at as usize];
            node.parent == parent && node.level == level
        })
    }

    fn child_or_insert(&mut self, parent: u32, level: &str) -> u32 {
        let wildcard = match level {
            "+" => Some((self.wild(parent).plus, PLUS)),
            "#" => Some((self.wild(parent).hash, HASH)),
            _ => None,
        };
        if let Some((child, kind)) = wildcard {
            if child != NONE {
                return child;
            }
            let child = self.add_node(parent, kind);
            let mut wild = self.wild(parent);
            if kind == PLUS {
                wild.plus = child;
            } else {
                wild.hash = child;
            }
            self.set_wild(parent, wild);
            return child;
        }
        if self.nodes[parent as usize].texts > 0
            && let Some(text) = self.levels.find(level)
            && let Some(child) = self.child(parent, text)
        {
            return child;
        }
        let text = self.levels.acquire(level);
        let child = self.add_node(parent, text);
        self.nodes[parent as usize].texts += 1;
        let Self {
            nodes,
            children,
            hasher,
            ..
        } = self;
        children.insert(hasher.hash_one(edge(parent, text)), child, |at| {
            let node = &nodes[at as usize];
            hasher.hash_one(edge(node.parent, node.level))
        });
        child
    }

    fn add_node(&mut self, parent: u32, level: u32) -> u32 {
        let node = Node::new(parent, level);
        if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = node;
            return at;
        }
        let at = position(self.nodes.len());
        grow(&mut self.nodes);
        self.nodes.push(node);
        at
    }

    /// Frees `at` and those above it that have neither subscribers nor children left.
    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes[at as usize].is_bare() {
            let Node { parent, level, .. } = self.nodes[at as usize];
            let wild = self.wild(parent);
            match level {
                PLUS => self.set_wild(parent, Wild { plus: NONE, ..wild }),
                HASH => self.set_wild(parent, Wild { hash: NONE, ..wild }),
                _ => {
                    self.nodes[parent as usize].texts -= 1;
                    let Self {
                        nodes,
                        children,
                        hasher,
                        ..
                    } = self;
                    children.remove(hasher.hash_one(edge(parent, level)), at, |other| {
                        let node = &nodes[other as usize];
                        hasher.hash_one(edge(node.parent, node.level))
                    });
                    self.levels.release(level);
                }
            }
            self.nodes[at as usize].level = NONE;
            self.free.push(at);
            at = parent;
        }
        if self.len == 0 && self.nodes.len() > 4096 {
            // The last subscription of a large tree: give its memory back.
            *self = Self {
                version: self.version,
                ..Self::new()
            };
        }
    }
}

impl<K: Copy + Eq + Hash> Node<K> {
    const fn new(parent: u32, level: u32) -> Self {
        Self {
            parent,
            level,
            wild: NONE,
            texts: 0,
            subscribers: Subscribers::None,
        }
    }

    fn is_bare(&self) -> bool {
        self.texts == 0 && self.wild == NONE && self.subscribers.is_empty()
    }
}

#[inline]
fn edge(parent: u32, level: u32) -> u64 {
    (u64::from(parent) << 32) + u64::from(level)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use mqtt_codec::{SubscriptionOptions, TopicFilter};

    use super::{BuildHasher, HASH, NONE, Node, PLUS, ROOT, Subscription, SubscriptionTree, edge};

    #[test]
    fn a_node_is_small() {
        assert_eq!(size_of::<Node<u64>>(), 32);
    }
    /// No two children share a key, whatever is in common.
    #[test]
    fn edges_have_keys_of_their_own() {
        let numbers = [0, 1, 2, 3, 255, 256, 1 << 16, 1 << 31, HASH, PLUS, NONE];
        let pairs = numbers.map(|parent| numbers.map(|level| edge(parent, level)));
        let keys: BTreeSet<u64> = pairs.into_iter().flatten().collect();
        assert_eq!(keys.len(), numbers.len() * numbers.len());
    }

    /// A child whose hash is that of another one is not taken for it, whether they have the parent or the level in common.
    #[test]
    fn a_false_hit_is_passed_over() {
        let plain = Subscription::new(SubscriptionOptions::default());
        let mut tree = SubscriptionTree::new();
        for filter in ["a", "x/b"] {
            tree.insert(TopicFilter::new(filter).unwrap(), 1, plain);
        }
        let text = tree.levels.find("b").unwrap();
        let hash = tree.hasher.hash_one(edge(ROOT, text));
        for filter in ["a", "x/b"] {
            let other = tree.find(filter).unwrap();
            tree.children
                .insert(hash, other, |_| unreachable!("it has room"));
            assert_eq!(tree.find("b"), None);
        }
        tree.insert(TopicFilter::new("b").unwrap(), 2, plain);
        assert_eq!((tree.get("b", 2), tree.get("b", 1)), (Some(plain), None));
    }
}
