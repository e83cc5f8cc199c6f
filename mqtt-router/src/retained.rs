//! The retained messages, by topic, in an order that an iteration can be resumed in.
//!
//! The topics stand in one ordered map. A match does not walk it: from each topic that does not match
//! follows the least text that could, and the search goes on there. For `site/3/+/temp` it looks at a
//! few topics per device of site 3 and at none of the other sites.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, btree_map};
use alloc::string::String;
use core::ops::Bound;

use mqtt_codec::{TopicFilter, TopicName};

use crate::pattern::{Pattern, Verdict};

/// After this many topics that do not match, seek instead of looking at the next.
const STEPS: u32 = 4;

/// One value a topic, in the byte order of the topics.
#[derive(Debug, Clone)]
pub struct RetainedStore<M> {
    topics: BTreeMap<Box<str>, M>,
}

impl<M> Default for RetainedStore<M> {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
        }
    }
}

impl<M> RetainedStore<M> {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many topics have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The value of a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&M> {
        self.topics.get(topic)
    }

    /// The value of a topic, to change.
    #[must_use]
    pub fn get_mut(&mut self, topic: &str) -> Option<&mut M> {
        self.topics.get_mut(topic)
    }

    /// Sets the value of a topic; returns the one it had.
    pub fn insert(&mut self, topic: TopicName<'_>, value: M) -> Option<M> {
        if let Some(present) = self.topics.get_mut(topic.as_str()) {
            return Some(core::mem::replace(present, value));
        }
        self.topics.insert(topic.as_str().into(), value)
    }

    /// Takes the value of a topic out.
    pub fn remove(&mut self, topic: &str) -> Option<M> {
        self.topics.remove(topic)
    }

    /// Keeps the topics for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut M) -> bool) {
        self.topics.retain(|topic, value| keep(topic, value));
    }

    /// All topics and values, in byte order of the topics.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &M)> {
        self.topics.iter().map(|(topic, value)| (&**topic, value))
    }

    /// The topics that match `filter`, and their values, in byte order of the topics, beginning after
    /// the topic `after`.
    ///
    /// To suspend, keep the last topic (or [`RetainedMatches::suspended_at`]); to resume, give it as
    /// `after`. The store may change between: what is there throughout comes exactly once. `after`
    /// itself need no longer be there.
    pub fn matches_after<'s, 'f>(
        &'s self,
        filter: TopicFilter<'f>,
        after: Option<&str>,
    ) -> RetainedMatches<'s, 'f, M> {
        let pattern = Pattern::new(filter);
        let start = pattern.start();
        let range = match after {
            Some(after) if after >= start => self
                .topics
                .range::<str, _>((Bound::Excluded(after), Bound::Unbounded)),
            _ => self
                .topics
                .range::<str, _>((Bound::Included(start), Bound::Unbounded)),
        };
        RetainedMatches {
            store: self,
            pattern,
            range,
            target: String::new(),
            last: None,
            looked_at: 0,
            budget: usize::MAX,
            done: false,
        }
    }
}

/// The topics of a [`RetainedStore`] that match a filter, from [`RetainedStore::matches_after`].
#[derive(Debug)]
pub struct RetainedMatches<'s, 'f, M> {
    store: &'s RetainedStore<M>,
    pattern: Pattern<'f>,
    range: btree_map::Range<'s, Box<str>, M>,
    /// The text last sought.
    target: String,
    /// The topic last looked at.
    last: Option<&'s str>,
    looked_at: usize,
    /// How many topics may still be looked at.
    budget: usize,
    done: bool,
}

impl<'s, M> RetainedMatches<'s, '_, M> {
    /// Ends the iteration after `topics` topics were looked at, matching or not: a bound on the work
    /// of one call, for a store behind a lock. [`suspended_at`](Self::suspended_at) tells how to go on.
    #[must_use]
    pub fn with_budget(mut self, topics: usize) -> Self {
        self.budget = topics.max(1);
        self
    }

    /// How many topics were looked at so far, matching or not.
    #[must_use]
    pub fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Once topics were taken or the budget was used up: the `after` with which a later call goes on,
    /// or None if no more topics match.
    #[must_use]
    pub fn suspended_at(&self) -> Option<&'s str> {
        if self.done { None } else { self.last }
    }
}

impl<'s, M> Iterator for RetainedMatches<'s, '_, M> {
    type Item = (&'s str, &'s M);

    fn next(&mut self) -> Option<Self::Item> {
        let mut steps = 0;
        while !self.done && self.budget > 0 {
            let Some((topic, value)) = self.range.next() else {
                self.done = true;
                break;
            };
            self.budget -= 1;
            self.looked_at += 1;
            self.last = Some(topic);
            match self.pattern.compare(topic, &mut self.target) {
                Verdict::Match => return Some((topic, value)),
                Verdict::Next => {}
                Verdict::Seek => {
                    steps += 1;
                    if steps > STEPS {
                        steps = 0;
                        self.range = self.store.topics.range::<str, _>((
                            Bound::Included(self.target.as_str()),
                            Bound::Unbounded,
                        ));
                    }
                }
                Verdict::End => self.done = true,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use mqtt_codec::{TopicFilter, TopicName};

    use super::RetainedStore;

    #[test]
    fn a_selective_filter_looks_at_few_topics() {
        let mut store = RetainedStore::new();
        for site in 0..20 {
            for device in 0..20 {
                for metric in [
                    "current", "humidity", "power", "temp", "voltage", "x", "y", "z",
                ] {
                    let topic = format!("site/{site}/{device}/{metric}");
                    if let Ok(topic) = TopicName::new(&topic) {
                        store.insert(topic, ());
                    }
                }
            }
        }
        for (filter, matches, most) in [
            ("site/3/+/temp", 20, 20 * 7),
            ("+/+/+/temp", 400, 400 * 7),
            ("site/3/#", 160, 161),
            ("site/+/3/temp", 20, 20 * 15),
            ("site/3/4/temp", 1, 2),
            ("site/3/4/none", 0, 1),
            ("other/+/temp", 0, 1),
            ("#", 3200, 3200),
        ] {
            let filter = TopicFilter::new(filter).expect("a valid filter");
            let mut found = store.matches_after(filter, None);
            assert_eq!(found.by_ref().count(), matches, "{filter:?}");
            let looked_at = found.looked_at();
            assert!(looked_at <= most, "{filter:?} looked at {looked_at}");
        }
    }
}
