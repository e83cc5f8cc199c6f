//! Values and the numbers that stand for them, and the hash of both.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hash, Hasher},
};

pub(super) type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// A hash of 128 bits that is quick without optimisation too; nobody chooses its input.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mix(u128);

impl Mix {
    fn word(&mut self, word: u64) {
        /// The multiplier of 128 bits of the generator PCG.
        const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;
        let product = (self.0 ^ u128::from(word))
            .wrapping_add(1)
            .wrapping_mul(MULTIPLIER);
        self.0 = product ^ (product >> 67);
    }

    pub(super) const fn all(self) -> u128 {
        self.0
    }
}

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        (self.0 >> 64) as u64 ^ self.0 as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(word.try_into().expect("8 bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    fn write_u8(&mut self, n: u8) {
        self.word(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.word(u64::from(n));
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.word(n as u64);
    }
}

/// Each value once.
#[derive(Debug)]
pub(super) struct Table<T> {
    numbers: Map<T, u32>,
    values: Vec<T>,
}

impl<T: Clone + Eq + Hash> Table<T> {
    pub(super) fn new() -> Self {
        Self {
            numbers: Map::default(),
            values: Vec::new(),
        }
    }

    pub(super) fn number(&mut self, value: T) -> u32 {
        let next = u32::try_from(self.values.len()).expect("32 bits");
        *self.numbers.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            next
        })
    }

    pub(super) fn value(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}
