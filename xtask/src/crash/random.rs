//! Random numbers that one seed repeats: the kill instants and what each client sends and when it
//! comes and goes. What the broker has done of it by then is up to the machine.

use std::time::Duration;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own, so that how often one client draws changes nothing for the others.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 where that is 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit.max(1) as u64)) as usize
    }

    /// True once in `times`.
    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// A time from `least` to `most`, in whole microseconds.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = most.saturating_sub(least).as_micros() as usize;
        least + Duration::from_micros(self.below(span + 1) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_a_fork_stands_alone() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let (mut first, mut second) = (one.fork(), two.fork());
        assert_eq!(one.below(1_000), two.below(1_000));
        first.below(3);
        assert_eq!(one.below(1_000), two.below(1_000));
        second.below(3);
        assert_eq!(first.next(), second.next());
    }

    #[test]
    fn times_stay_within_their_limits() {
        let mut random = Random::new(1);
        let (least, most) = (Duration::from_millis(2), Duration::from_millis(3));
        for _ in 0..100 {
            let drawn = random.between(least, most);
            assert!(least <= drawn && drawn <= most);
        }
        assert_eq!(random.between(most, most), most);
    }
}
