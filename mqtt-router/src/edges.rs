//! The table that finds a child by its parent and its level.
//!
//! A slot is one 32-bit word: the child's position in the arena, and above it as many bits of the hash
//! as are left. So a look-up costs one line of this table and, but for rare false hits, the line of
//! the child itself, which the caller reads next anyhow. What a slot stands for is asked of the caller,
//! as the edges stand in the nodes.

use alloc::vec::Vec;

/// No child: position 0 is the root, which is nobody's child.
const EMPTY: u32 = 0;
const SMALLEST: usize = 16;

/// A hash table of positions, with linear probing and at most three quarters full.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edges {
    /// As many as a power of two, or none.
    slots: Vec<u32>,
    len: usize,
    /// How many low bits of a slot are the position.
    position_bits: u32,
}

impl Edges {
    /// The child with this hash for which `is_it` is true.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let mask = self.slots.len().checked_sub(1)?;
        let tag = self.tag(hash);
        let positions = self.positions();
        let mut at = home(hash) & mask;
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return None;
            }
            if slot & !positions == tag && is_it(slot & positions) {
                return Some(slot & positions);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a child that is not there. `hash_of` tells the hash of any child in the table.
    pub(crate) fn insert(&mut self, hash: u64, child: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 4 > self.slots.len() * 3 || child & !self.positions() != 0 {
            self.rebuild(child, hash_of);
        }
        self.put(hash, child);
        self.len += 1;
    }

    /// Takes a child out.
    pub(crate) fn remove(&mut self, hash: u64, child: u32, hash_of: impl Fn(u32) -> u64) {
        let Some(mask) = self.slots.len().checked_sub(1) else {
            return;
        };
        let positions = self.positions();
        let mut gap = home(hash) & mask;
        while self.slots[gap] & positions != child {
            if self.slots[gap] == EMPTY {
                return;
            }
            gap = (gap + 1) & mask;
        }
        // Those behind move up, so that no search meets a gap before what it looks for.
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            let wanted = home(hash_of(slot & positions)) & mask;
            if at.wrapping_sub(wanted) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap] = EMPTY;
        self.len -= 1;
    }

    /// Bytes on the heap, by capacity.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }

    /// Makes room for one more, and for positions up to twice `child`.
    fn rebuild(&mut self, child: u32, hash_of: impl Fn(u32) -> u64) {
        let mut size = self.slots.len().max(SMALLEST);
        while (self.len + 1) * 4 > size * 3 {
            size *= 2;
        }
        let before = self.positions();
        let old = core::mem::replace(&mut self.slots, alloc::vec![EMPTY; size]);
        self.position_bits = self
            .position_bits
            .max((u32::BITS - child.leading_zeros() + 1).min(32));
        for slot in old.into_iter().filter(|slot| *slot != EMPTY) {
            let child = slot & before;
            self.put(hash_of(child), child);
        }
    }

    fn put(&mut self, hash: u64, child: u32) {
        let slot = self.tag(hash) | child;
        let mask = self.slots.len() - 1;
        let mut at = home(hash) & mask;
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// The bits of a slot that are the position.
    #[inline]
    fn positions(&self) -> u32 {
        u32::MAX.checked_shr(32 - self.position_bits).unwrap_or(0)
    }

    /// The other bits of a slot, for a child with this hash.
    #[inline]
    fn tag(&self, hash: u64) -> u32 {
        (hash as u32) & !self.positions()
    }
}

/// Where the search for a hash begins: from other bits than the tag, which are the highest of the lower
/// half.
#[inline]
fn home(hash: u64) -> usize {
    (hash >> 32) as usize
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::{Edges, SMALLEST};

    /// Few homes, at the end of the table among others, and few tags: long chains that wrap around.
    fn poor_hash(child: u32) -> u64 {
        let home = [0, 1, 13, 14, 15][child as usize % 5];
        home << 32 | u64::from(child % 3) << 28
    }

    fn check(edges: &Edges, present: &BTreeSet<u32>, children: u32) {
        for child in 1..children {
            let found = edges.find(poor_hash(child), |other| other == child);
            assert_eq!(found.is_some(), present.contains(&child), "{child}");
        }
        assert_eq!(edges.len, present.len());
        assert!(edges.len * 4 <= edges.slots.len() * 3);
    }

    proptest! {
        #[test]
        fn finds_what_is_there(changes in prop::collection::vec(1_u32..40, 1..300)) {
            let mut edges = Edges::default();
            let mut present = BTreeSet::new();
            for child in changes {
                if present.remove(&child) {
                    edges.remove(poor_hash(child), child, poor_hash);
                } else {
                    edges.insert(poor_hash(child), child, poor_hash);
                    present.insert(child);
                }
                check(&edges, &present, 40);
            }
        }
    }

    #[test]
    fn positions_of_any_width() {
        let children: Vec<u32> = (0..32).map(|bit| 1 << bit).chain([u32::MAX]).collect();
        let mut edges = Edges::default();
        for &child in &children {
            edges.insert(poor_hash(child), child, poor_hash);
        }
        for &child in &children {
            let found = edges.find(poor_hash(child), |other| other == child);
            assert_eq!(found, Some(child));
            edges.remove(poor_hash(child), child, poor_hash);
        }
        assert_eq!(edges.len, 0);
        assert!(edges.slots.iter().all(|slot| *slot == 0));
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut edges = Edges::default();
        edges.remove(0, 1, poor_hash);
        edges.insert(poor_hash(1), 1, poor_hash);
        edges.remove(poor_hash(6), 6, poor_hash);
        assert_eq!(edges.len, 1);
        assert_eq!(edges.slots.len(), SMALLEST);
    }
}
