//! A group of a shared subscription: who is in it, and whose turn it is (MQTT 5.0, section 4.8.2).

use core::hash::Hash;
use core::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use crate::members::Members;
use crate::subscription::Subscription;

/// How well a member of a group can take one message now, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Readiness {
    /// Connected, with room to send.
    Ready,
    /// Connected; the message would wait in its queue.
    Busy,
    /// Not connected; the message would wait for it to come back.
    Offline,
    /// The message would be lost on it. Never chosen.
    Unavailable,
}

/// The members of one shared subscription, and a cursor that rotates among them.
#[derive(Debug)]
pub struct SharedGroup<K> {
    members: Members<K>,
    /// Where the search for the next member begins. Atomic so that choosing needs no exclusive
    /// access; concurrent choices may then fall on one member.
    cursor: AtomicUsize,
    hasher: RandomState,
}

impl<K> Default for SharedGroup<K> {
    fn default() -> Self {
        Self {
            members: Members::default(),
            cursor: AtomicUsize::new(0),
            hasher: RandomState::default(),
        }
    }
}

impl<K: Copy + Eq + Hash> SharedGroup<K> {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The subscription of a member.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Subscription> {
        let at = self.members.find(&self.hasher, key)?;
        self.members.as_slice().get(at).map(|(_, found)| *found)
    }

    /// The members, in no particular order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (K, Subscription)> + '_ {
        self.members.as_slice().iter().copied()
    }

    /// Adds a member, or replaces its subscription; returns the replaced one.
    pub fn insert(&mut self, key: K, subscription: Subscription) -> Option<Subscription> {
        self.members.insert(&self.hasher, key, subscription)
    }

    /// Takes a member out. The last member takes its place in the rotation.
    pub fn remove(&mut self, key: &K) -> Option<Subscription> {
        self.members.remove(&self.hasher, key)
    }

    /// The member that gets the next message: the next one in turn that `readiness` calls
    /// [`Ready`](Readiness::Ready); else the next in turn that is [`Busy`](Readiness::Busy); else the
    /// next that is [`Offline`](Readiness::Offline). None if there is no such member.
    ///
    /// Members of the class chosen from get the messages evenly, one after the other. `readiness` is
    /// asked of one member where that one is ready, and of each once at most.
    pub fn choose(
        &self,
        mut readiness: impl FnMut(&K, &Subscription) -> Readiness,
    ) -> Option<(K, Subscription)> {
        let members = self.members.as_slice();
        let cursor = self.cursor.load(Ordering::Relaxed);
        let start = if cursor < members.len() { cursor } else { 0 };
        let mut best = Readiness::Unavailable;
        let mut chosen = None;
        for at in (start..members.len()).chain(0..start) {
            let (key, subscription) = &members[at];
            let class = readiness(key, subscription);
            if class < best {
                best = class;
                chosen = Some(at);
                if class == Readiness::Ready {
                    break;
                }
            }
        }
        let at = chosen?;
        self.cursor.store(at + 1, Ordering::Relaxed);
        Some(members[at])
    }
}
