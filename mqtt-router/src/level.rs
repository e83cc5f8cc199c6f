//! The texts of topic levels, each stored once and named by a number. A filter such as
//! `site/7/device/12/temp` then costs a few numbers, and a topic's level is hashed once per match
//! and not once per node.

use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::arena::{grow, position};

/// Text of up to 16 bytes is stored in place.
type Text = SmallVec<[u8; 16]>;

#[derive(Debug, Clone)]
struct Entry {
    text: Text,
    /// How many nodes carry this level; zero for a free entry.
    uses: u32,
}

/// An interner with reference counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Levels {
    entries: Vec<Entry>,
    free: Vec<u32>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Levels {
    /// The number of `text`, if any node carries it.
    #[inline]
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let text = text.as_bytes();
        self.table
            .find(self.hasher.hash_one(text), |&id| {
                self.entries[id as usize].text.as_slice() == text
            })
            .copied()
    }

    /// The number of `text`, stored if it is new, with one more use counted.
    pub(crate) fn acquire(&mut self, text: &str) -> u32 {
        if let Some(id) = self.find(text) {
            self.entries[id as usize].uses += 1;
            return id;
        }
        let entry = Entry {
            text: Text::from_slice(text.as_bytes()),
            uses: 1,
        };
        let id = if let Some(id) = self.free.pop() {
            self.entries[id as usize] = entry;
            id
        } else {
            let id = position(self.entries.len());
            grow(&mut self.entries);
            self.entries.push(entry);
            id
        };
        let Self {
            entries,
            table,
            hasher,
            ..
        } = self;
        table.insert_unique(hasher.hash_one(text.as_bytes()), id, |&id| {
            hasher.hash_one(entries[id as usize].text.as_slice())
        });
        id
    }

    /// Takes back one use; the text is freed with the last.
    pub(crate) fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let text = core::mem::take(&mut entry.text);
        let hash = self.hasher.hash_one(text.as_slice());
        if let Ok(found) = self.table.find_entry(hash, |&other| other == id) {
            found.remove();
        }
        self.free.push(id);
    }

    /// Bytes on the heap, by capacity.
    pub(crate) fn heap_bytes(&self) -> usize {
        let spilled: usize = self
            .entries
            .iter()
            .filter(|entry| entry.text.spilled())
            .map(|entry| entry.text.capacity())
            .sum();
        self.entries.capacity() * size_of::<Entry>()
            + self.free.capacity() * size_of::<u32>()
            + self.table.allocation_size()
            + spilled
    }
}

#[cfg(test)]
mod tests {
    use super::Levels;

    #[test]
    fn texts_are_shared_and_freed_with_the_last_use() {
        let mut levels = Levels::default();
        let long = "a level that is longer than sixteen bytes";
        let a = levels.acquire("a");
        let b = levels.acquire(long);
        assert_eq!(levels.acquire("a"), a);
        assert_ne!(a, b);
        levels.release(a);
        assert_eq!(levels.find("a"), Some(a));
        levels.release(a);
        assert_eq!(levels.find("a"), None);
        assert_eq!(levels.acquire(""), a, "the free number is taken again");
        assert_eq!(levels.find(long), Some(b));
    }
}
