//! The filters of a session as its client wrote them, and what they cost.

use std::collections::HashSet;

use foldhash::fast::RandomState;

/// So many are compared one by one; with more a table pays, though it takes six times the memory of the first.
const FEW: usize = 8;

/// The filters of a session.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    filters: Filters,
    bytes: usize,
}

#[derive(Debug)]
#[allow(
    clippy::box_collection,
    reason = "a table is twice as large as the list that most sessions have"
)]
enum Filters {
    Few(Vec<Box<str>>),
    Many(Box<HashSet<Box<str>, RandomState>>),
}

impl Default for Filters {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Filters {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.len(),
        }
    }

    fn contains(&self, filter: &str) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|one| **one == *filter),
            Self::Many(many) => many.contains(filter),
        }
    }

    /// Adds one that is not among them.
    fn insert(&mut self, filter: &str) {
        if let Self::Few(few) = self
            && few.len() == FEW
        {
            *self = Self::Many(Box::new(few.drain(..).collect()));
        }
        match self {
            Self::Few(few) => {
                if few.len() == few.capacity() {
                    // One for the first, and not four.
                    few.reserve_exact(few.len().max(1));
                }
                few.push(filter.into());
            }
            Self::Many(many) => {
                many.insert(filter.into());
            }
        }
    }

    /// Whether it was there.
    fn remove(&mut self, filter: &str) -> bool {
        match self {
            Self::Few(few) => {
                let place = few.iter().position(|one| **one == *filter);
                place.map(|place| few.swap_remove(place)).is_some()
            }
            Self::Many(many) => many.remove(filter),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let (few, many) = match self {
            Self::Few(few) => (Some(few.iter()), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        let all = few.into_iter().flatten().chain(many.into_iter().flatten());
        all.map(|filter| &**filter)
    }
}

impl Subscriptions {
    /// Bytes that a filter takes, in here and in the tree, at most: each level may be a node of its own, with
    /// a text of its own, and tables and arenas are up to half empty.
    fn cost(filter: &str) -> usize {
        const FILTER: usize = 128;
        const LEVEL: usize = 128;
        let levels = 1 + filter.bytes().filter(|byte| *byte == b'/').count();
        FILTER + 2 * filter.len() + LEVEL * levels
    }

    /// Adds a filter; false if it is new and would make more than `bound` bytes, or more than `most`.
    #[must_use]
    pub(crate) fn insert(&mut self, filter: &str, bound: usize, most: usize) -> bool {
        if self.filters.contains(filter) {
            return true;
        }
        let bytes = self.bytes + Self::cost(filter);
        if bytes > bound || self.filters.len() >= most {
            return false;
        }
        self.bytes = bytes;
        self.filters.insert(filter);
        true
    }

    pub(crate) fn remove(&mut self, filter: &str) {
        if self.filters.remove(filter) {
            self.bytes -= Self::cost(filter);
        }
    }

    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.filters.contains(filter)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.filters.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes: what is there is what was put there, counted and within the bounds.
        #[test]
        fn they_are_a_set(
            steps in prop::collection::vec((any::<bool>(), 0..24_u8), 0..200),
            most in 1..24_usize,
        ) {
            let bound = 20 * Subscriptions::cost("a/00");
            let (mut ours, mut model) = (Subscriptions::default(), BTreeMap::new());
            for (adds, number) in steps {
                let filter = format!("a/{number:02}");
                if adds {
                    let fits = model.contains_key(&filter) || model.len() < most.min(20);
                    prop_assert_eq!(ours.insert(&filter, bound, most), fits);
                    if fits {
                        let cost = Subscriptions::cost(&filter);
                        model.insert(filter, cost);
                    }
                } else {
                    ours.remove(&filter);
                    model.remove(&filter);
                }
                let mut there: Vec<&str> = ours.iter().collect();
                there.sort_unstable();
                prop_assert!(there.iter().eq(model.keys()));
                prop_assert_eq!(ours.bytes, model.values().sum::<usize>());
            }
        }
    }
}
