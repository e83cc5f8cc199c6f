//! Every message accounted for: which have come, which came twice, and which came late.

use std::collections::{BTreeMap, HashMap};

/// Ranges of missing messages that one track remembers. Beyond, the oldest are given up: what
/// comes of them after all counts as out of order, and as lost.
const RANGES: usize = 4096;

/// What is noted of messages that must come in order, each on a track of its own.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The number that is due next, for each track.
    next: Vec<u64>,
    /// The ranges that are missing below it, where there are any.
    missing: HashMap<usize, BTreeMap<u64, u64>>,
    /// Ends of what was given up.
    forgotten: HashMap<usize, u64>,
    /// Messages that came for the first time.
    pub(super) received: u64,
    pub(super) duplicated: u64,
    /// Messages that came after a later one of their track.
    pub(super) out_of_order: u64,
}

impl Ledger {
    pub(super) fn new(tracks: usize) -> Self {
        Self {
            next: vec![0; tracks],
            ..Self::default()
        }
    }

    /// One more than the highest number that has come on a track.
    #[inline]
    pub(super) fn next(&self, track: usize) -> u64 {
        self.next[track]
    }

    /// Makes a number the next one of a track, whatever has come.
    #[inline]
    pub(super) fn skip_to(&mut self, track: usize, number: u64) {
        let next = &mut self.next[track];
        *next = number.max(*next);
    }

    /// The slowest track of all.
    pub(super) fn slowest(&self) -> u64 {
        self.next.iter().copied().min().unwrap_or(0)
    }

    /// Notes a message. Returns whether it came for the first time.
    #[inline]
    pub(super) fn note(&mut self, track: usize, number: u64) -> bool {
        let next = &mut self.next[track];
        if number == *next {
            *next += 1;
            self.received += 1;
            return true;
        }
        self.note_other(track, number)
    }

    #[cold]
    fn note_other(&mut self, track: usize, number: u64) -> bool {
        let next = &mut self.next[track];
        let missing = self.missing.entry(track).or_default();
        if number > *next {
            missing.insert(*next, number);
            *next = number + 1;
            if missing.len() > RANGES
                && let Some((_, end)) = missing.pop_first()
            {
                self.forgotten.insert(track, end);
            }
            self.received += 1;
            return true;
        }
        if let Some((&start, &end)) = missing.range(..=number).next_back()
            && number < end
        {
            missing.remove(&start);
            if start < number {
                missing.insert(start, number);
            }
            if number + 1 < end {
                missing.insert(number + 1, end);
            }
            self.received += 1;
            self.out_of_order += 1;
            return true;
        }
        if self.forgotten.get(&track).is_some_and(|end| number < *end) {
            self.out_of_order += 1;
        } else {
            self.duplicated += 1;
        }
        false
    }
}

/// What is noted of messages that come once each, in any order, such as those of a shared group.
#[derive(Debug)]
pub(super) struct Scoreboard {
    /// Everything below has come or is given up.
    base: u64,
    /// What has come from `base` on: a ring of bits.
    bits: Vec<u64>,
    pub(super) received: u64,
    pub(super) duplicated: u64,
}

impl Scoreboard {
    /// For at most `span` messages under way at once.
    pub(super) fn new(span: usize) -> Self {
        Self {
            base: 0,
            bits: vec![0; (span * 2).div_ceil(64).next_power_of_two()],
            received: 0,
            duplicated: 0,
        }
    }

    fn span(&self) -> u64 {
        self.bits.len() as u64 * 64
    }

    fn bit(&mut self, number: u64) -> (&mut u64, u64) {
        let word = (number / 64 % self.bits.len() as u64) as usize;
        (&mut self.bits[word], 1 << (number % 64))
    }

    /// Notes a message. Returns whether it came for the first time.
    #[inline]
    pub(super) fn note(&mut self, number: u64) -> bool {
        // Further ahead than the ring is long: the oldest that are missing are given up.
        while number >= self.base + self.span() {
            self.advance();
        }
        let seen = number < self.base || {
            let (word, bit) = self.bit(number);
            *word & bit != 0
        };
        if seen {
            self.duplicated += 1;
            return false;
        }
        let (word, bit) = self.bit(number);
        *word |= bit;
        self.received += 1;
        loop {
            let base = self.base;
            let (word, bit) = self.bit(base);
            if *word & bit == 0 {
                return true;
            }
            self.advance();
        }
    }

    fn advance(&mut self) {
        let base = self.base;
        let (word, bit) = self.bit(base);
        *word &= !bit;
        self.base += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(numbers: &[u64]) -> (u64, u64, u64) {
        let mut ledger = Ledger::new(1);
        for &number in numbers {
            ledger.note(0, number);
        }
        (ledger.received, ledger.duplicated, ledger.out_of_order)
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        assert_eq!(noted(&[0, 1, 2, 3]), (4, 0, 0));
        assert_eq!(noted(&[0, 1, 1, 2]), (3, 1, 0));
        assert_eq!(noted(&[0, 2, 3]), (3, 0, 0));
        assert_eq!(noted(&[0, 2, 1, 3]), (4, 0, 1));
        assert_eq!(noted(&[0, 2, 1, 1, 2]), (3, 2, 1));
        assert_eq!(noted(&[9, 4, 4, 3, 5, 0, 8, 10]), (7, 1, 5));
    }

    #[test]
    fn tracks_do_not_mix() {
        let mut ledger = Ledger::new(2);
        assert!(ledger.note(0, 0));
        assert!(ledger.note(1, 0));
        assert!(ledger.note(1, 1));
        assert_eq!((ledger.next(0), ledger.slowest()), (1, 1));
        assert_eq!(ledger.next(1), 2);
    }

    /// A broker that loses every second message does not fill the memory.
    #[test]
    fn what_is_missing_has_a_bound() {
        let mut ledger = Ledger::new(1);
        for number in 0..100_000 {
            ledger.note(0, number * 2);
        }
        assert!(ledger.missing[&0].len() <= RANGES);
        assert!(!ledger.note(0, 1));
        assert_eq!((ledger.duplicated, ledger.out_of_order), (0, 1));
        assert!(ledger.note(0, 199_997));
        assert_eq!(ledger.received, 100_001);
    }

    #[test]
    fn a_scoreboard_takes_any_order_once() {
        let mut board = Scoreboard::new(64);
        for number in [3, 1, 2, 0, 5, 4, 130, 131] {
            assert!(board.note(number), "{number}");
        }
        for number in [3, 0, 130, 5] {
            assert!(!board.note(number), "{number}");
        }
        assert_eq!((board.received, board.duplicated), (8, 4));
    }

    /// A gap that is never filled does not stop the account of what follows.
    #[test]
    fn a_scoreboard_goes_past_a_gap() {
        let mut board = Scoreboard::new(64);
        for number in 1..10_000 {
            assert!(board.note(number));
        }
        assert_eq!((board.received, board.duplicated), (9_999, 0));
    }
}
