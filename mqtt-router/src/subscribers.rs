//! The subscribers of one filter: most filters have one, which is stored in place.

use alloc::boxed::Box;
use core::hash::Hash;

use foldhash::fast::RandomState;

use crate::members::Members;
use crate::subscription::Subscription;

#[derive(Debug, Clone)]
pub(crate) enum Subscribers<K> {
    None,
    One(K, Subscription),
    Many(Box<Members<K>>),
}

impl<K: Copy + Eq + Hash> Subscribers<K> {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    #[inline]
    pub(crate) fn for_each(&self, each: &mut impl FnMut(K, Subscription)) {
        match self {
            Self::None => {}
            Self::One(key, subscription) => each(*key, *subscription),
            Self::Many(members) => {
                for &(key, subscription) in members.as_slice() {
                    each(key, subscription);
                }
            }
        }
    }

    pub(crate) fn find(&self, hasher: &RandomState, key: &K) -> Option<Subscription> {
        match self {
            Self::None => None,
            Self::One(one, subscription) => (one == key).then_some(*subscription),
            Self::Many(members) => {
                let at = members.find(hasher, key)?;
                members.as_slice().get(at).map(|(_, found)| *found)
            }
        }
    }

    /// Adds or replaces; returns what was replaced.
    pub(crate) fn insert(
        &mut self,
        hasher: &RandomState,
        key: K,
        subscription: Subscription,
    ) -> Option<Subscription> {
        match self {
            Self::None => {
                *self = Self::One(key, subscription);
                None
            }
            Self::One(one, present) if *one == key => {
                Some(core::mem::replace(present, subscription))
            }
            Self::One(one, present) => {
                let mut members = Box::<Members<K>>::default();
                members.insert(hasher, *one, *present);
                members.insert(hasher, key, subscription);
                *self = Self::Many(members);
                None
            }
            Self::Many(members) => members.insert(hasher, key, subscription),
        }
    }

    pub(crate) fn remove(&mut self, hasher: &RandomState, key: &K) -> Option<Subscription> {
        match self {
            Self::None => None,
            Self::One(one, present) => {
                let removed = (one == key).then_some(*present)?;
                *self = Self::None;
                Some(removed)
            }
            Self::Many(members) => {
                let removed = members.remove(hasher, key)?;
                if let [(one, present)] = *members.as_slice() {
                    *self = Self::One(one, present);
                }
                Some(removed)
            }
        }
    }

    /// Bytes on the heap, by capacity.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Many(members) => size_of::<Members<K>>() + members.heap_bytes(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Subscribers;

    #[test]
    fn one_subscriber_takes_no_more_than_its_subscription() {
        assert_eq!(size_of::<Subscribers<u32>>(), 16);
        assert_eq!(size_of::<Subscribers<u64>>(), 16);
    }
}
