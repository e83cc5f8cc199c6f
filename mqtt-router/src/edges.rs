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
