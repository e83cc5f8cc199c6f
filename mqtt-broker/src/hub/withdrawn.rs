//! Subscriptions that were taken from a session: what had come by them alone is not delivered any more.

use std::collections::HashSet;
use std::sync::Weak;

use foldhash::fast::RandomState;
use mqtt_codec::{QoS, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{Subscription, SubscriptionTree};

use crate::delivery::Delivery;
use crate::hub::subscriptions::Subscriptions;
use crate::store::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Filter {
    Taken,
    Kept,
}

/// What was taken from a session at one time, beside what was left to it.
#[derive(Debug)]
pub(crate) struct Withdrawn {
    tree: SubscriptionTree<Filter>,
    /// The shared ones of those that were taken.
    groups: HashSet<Box<str>, RandomState>,
    /// Messages of a stored session with smaller keys came before.
    before: Key,
    /// What was taken, as long as the store is not told.
    pub(crate) filters: Vec<Box<str>>,
}

impl Withdrawn {
    /// `subscriptions`: with those that are taken, or without.
    pub(super) fn new(taken: &[&str], subscriptions: &Subscriptions, before: Key) -> Self {
        let mut withdrawn = Self {
            tree: SubscriptionTree::new(),
            groups: HashSet::default(),
            before,
            filters: taken.iter().map(|text| (*text).into()).collect(),
        };
        let all: HashSet<&str, RandomState> = taken.iter().copied().collect();
        let kept = subscriptions.iter().filter(|text| !all.contains(text));
        let kept = kept.map(|text| (text, Filter::Kept));
        let subscription = Subscription::new(SubscriptionOptions::new(QoS::AtMostOnce));
        for (text, which) in taken.iter().map(|text| (*text, Filter::Taken)).chain(kept) {
            let Ok(filter) = TopicFilter::new(text) else {
                continue;
            };
            if filter.shared().is_none() {
                withdrawn.tree.insert(filter, which, subscription);
            } else if which == Filter::Taken {
                withdrawn.groups.insert(text.into());
            }
        }
        withdrawn
    }

    /// Whether a message of this topic, which this group chose the session for, came by what was taken alone.
    fn covers(&self, topic: &str, group: Option<&str>) -> bool {
        if let Some(group) = group {
            return self.groups.contains(group);
        }
        let (mut taken, mut kept) = (false, false);
        self.tree
            .for_each_match(TopicName::assume_valid(topic), |which, _| match which {
                Filter::Taken => taken = true,
                Filter::Kept => kept = true,
            });
        taken && !kept
    }

    /// The same of a message that waits.
    pub(super) fn covers_delivery(&self, delivery: &Delivery) -> bool {
        let group = delivery.group.as_ref().and_then(Weak::upgrade);
        // A group that is no more took nobody's subscription away.
        if group.is_none() && delivery.group.is_some() {
            return false;
        }
        let group = group.as_ref().map(|group| &**group.filter());
        self.covers(delivery.whole_topic(), group)
    }

    /// The same of a message that was read from the disk.
    pub(crate) fn covers_stored(&self, key: Key, topic: &str, group: Option<&str>) -> bool {
        key < self.before && self.covers(topic, group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_by_another_subscription_as_well_is_not_covered() {
        let mut subscriptions = Subscriptions::default();
        for text in ["a/#", "b/#", "b/kept", "$share/g/c", "$share/h/c"] {
            assert!(subscriptions.insert(text, usize::MAX, usize::MAX));
        }
        let withdrawn = Withdrawn::new(&["b/#", "$share/g/c"], &subscriptions, 7);
        assert!(withdrawn.covers("b/x", None));
        for topic in ["b/kept", "a/x", "c", "d"] {
            assert!(!withdrawn.covers(topic, None), "{topic}");
        }
        assert!(withdrawn.covers("c", Some("$share/g/c")));
        assert!(!withdrawn.covers("c", Some("$share/h/c")));
        assert!(withdrawn.covers_stored(6, "b/x", None));
        assert!(!withdrawn.covers_stored(7, "b/x", None));
    }
}
