//! A set of keys with one subscription each: a plain vector while it is small, with an index by key
//! once it is large. Removing moves the last member into the gap, so both changes take constant time.

use alloc::vec::Vec;
use core::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::arena::{grow, position};
use crate::subscription::Subscription;

/// Up to this many members a scan is as fast as the index.
const SCANNED: usize = 16;

#[derive(Debug, Clone)]
pub(crate) struct Members<K> {
    list: Vec<(K, Subscription)>,
    /// Positions in `list` by key; empty while the list is short.
    index: HashTable<u32>,
}

impl<K> Default for Members<K> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            index: HashTable::new(),
        }
    }
}

impl<K: Copy + Eq + Hash> Members<K> {
    pub(crate) fn as_slice(&self) -> &[(K, Subscription)] {
        &self.list
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn find(&self, hasher: &RandomState, key: &K) -> Option<usize> {
        if self.index.is_empty() {
            return self.list.iter().position(|(member, _)| member == key);
        }
        self.index
            .find(hasher.hash_one(key), |&at| self.list[at as usize].0 == *key)
            .map(|&at| at as usize)
    }

    /// Adds or replaces; returns what was replaced.
    pub(crate) fn insert(
        &mut self,
        hasher: &RandomState,
        key: K,
        subscription: Subscription,
    ) -> Option<Subscription> {
        if let Some(at) = self.find(hasher, &key) {
            return Some(core::mem::replace(&mut self.list[at].1, subscription));
        }
        let at = position(self.list.len());
        grow(&mut self.list);
        self.list.push((key, subscription));
        let Self { list, index } = self;
        let hash_at = |&at: &u32| hasher.hash_one(list[at as usize].0);
        if !index.is_empty() {
            index.insert_unique(hasher.hash_one(key), at, hash_at);
        } else if list.len() > SCANNED {
            index.reserve(list.len(), hash_at);
            for at in 0..=at {
                index.insert_unique(hash_at(&at), at, hash_at);
            }
        }
        None
    }

    pub(crate) fn remove(&mut self, hasher: &RandomState, key: &K) -> Option<Subscription> {
        let at = self.find(hasher, key)?;
        if !self.index.is_empty() {
            let last = self.list.len() - 1;
            let hash = hasher.hash_one(key);
            if let Ok(found) = self.index.find_entry(hash, |&other| other as usize == at) {
                found.remove();
            }
            if last <= SCANNED / 2 {
                self.index = HashTable::new();
            } else if at != last {
                let moved = hasher.hash_one(self.list[last].0);
                if let Some(entry) = self.index.find_mut(moved, |&other| other as usize == last) {
                    *entry = position(at);
                }
            }
        }
        let (_, subscription) = self.list.swap_remove(at);
        if self.list.capacity() > 64 && self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        Some(subscription)
    }

    /// Bytes on the heap, by capacity.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.list.capacity() * size_of::<(K, Subscription)>() + self.index.allocation_size()
    }
}
