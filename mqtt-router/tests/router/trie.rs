//! The subscription tree: examples of section 4.7, and random changes against the oracle.

use mqtt_codec::{QoS, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{Subscription, SubscriptionTree};
use proptest::prelude::*;

use crate::oracle::{self, Subscriptions};

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

fn found(tree: &SubscriptionTree<u32>, topic: &str) -> Vec<(u32, Subscription)> {
    let mut found = Vec::new();
    tree.for_each_match(TopicName::new(topic).unwrap(), |key, subscription| {
        found.push((key, subscription));
    });
    found.sort_by_key(oracle::sort_key);
    found
}

fn check(filter: &str, topic: &str, expected: bool) {
    let mut tree = SubscriptionTree::new();
    tree.insert(TopicFilter::new(filter).unwrap(), 1, plain());
    assert_eq!(
        !found(&tree, topic).is_empty(),
        expected,
        "{filter} {topic}"
    );
    assert_eq!(oracle::matches(filter, topic), expected, "{filter} {topic}");
}

/// [MQTT-4.7.1-1] and the examples of section 4.7.1.2.
#[test]
fn number_sign_stands_for_any_number_of_levels() {
    check("sport/tennis/player1/#", "sport/tennis/player1", true);
    check(
        "sport/tennis/player1/#",
        "sport/tennis/player1/ranking",
        true,
    );
    check(
        "sport/tennis/player1/#",
        "sport/tennis/player1/score/wimbledon",
        true,
    );
    check("sport/tennis/player1/#", "sport/tennis/player10", false);
    check("sport/#", "sport", true);
    check("#", "sport", true);
    check("#", "/", true);
}

/// [MQTT-4.7.1-2] and the examples of section 4.7.1.3.
#[test]
fn plus_stands_for_one_level() {
    check("sport/tennis/+", "sport/tennis/player1", true);
    check("sport/tennis/+", "sport/tennis/player1/ranking", false);
    check("sport/+", "sport", false);
    check("sport/+", "sport/", true);
    check("+/+", "/finance", true);
    check("/+", "/finance", true);
    check("+", "/finance", false);
    check("+/tennis/#", "sport/tennis", true);
}

/// [MQTT-4.7.2-1] and the examples of section 4.7.2.
#[test]
fn topics_that_begin_with_dollar_want_it_spelled_out() {
    check("#", "$SYS/uptime", false);
    check("+/monitor/Clients", "$SYS/monitor/Clients", false);
    check("+", "$SYS", false);
    check("$SYS/#", "$SYS/uptime", true);
    check("$SYS/monitor/+", "$SYS/monitor/Clients", true);
    check("+/$SYS", "a/$SYS", true);
    check("a/#", "a/$SYS", true);
}

/// [MQTT-4.7.3-4]: no normalisation; empty levels, case and spaces count.
#[test]
fn levels_are_compared_as_they_are() {
    check("/finance", "finance", false);
    check("a//b", "a/b", false);
    check("a//b", "a//b", true);
    check("a/+/b", "a//b", true);
    check("a/", "a", false);
    check("ACCOUNTS", "Accounts", false);
    check("Accounts payable", "Accounts payable", true);
}

#[test]
fn insert_replaces_and_says_what_it_replaced() {
    let mut tree = SubscriptionTree::new();
    let filter = TopicFilter::new("a/b").unwrap();
    let better = Subscription::new(SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        ..SubscriptionOptions::default()
    });
    assert_eq!(tree.version(), 0);
    assert_eq!(tree.insert(filter, 1, plain()), None);
    assert_eq!(tree.version(), 1);
    assert_eq!(tree.insert(filter, 1, plain()), Some(plain()));
    assert_eq!(tree.version(), 1, "nothing changed");
    assert_eq!(tree.insert(filter, 1, better), Some(plain()));
    assert_eq!((tree.version(), tree.len()), (2, 1));
    assert_eq!(tree.get("a/b", 1), Some(better));
    assert_eq!(tree.get("a/b", 2), None);
    assert_eq!(tree.remove("a", 1), None);
    assert_eq!(tree.remove("a/b/#", 1), None);
    assert_eq!(tree.remove("a/+", 1), None);
    assert_eq!(tree.remove("a/b", 2), None);
    assert_eq!(tree.version(), 2);
    assert_eq!(tree.remove("a/b", 1), Some(better));
    assert_eq!((tree.version(), tree.len()), (3, 0));
}

#[test]
fn a_filter_with_very_many_subscribers() {
    let mut tree = SubscriptionTree::new();
    let filter = TopicFilter::new("news").unwrap();
    for key in 0..20_000 {
        assert_eq!(tree.insert(filter, key, plain()), None);
    }
    assert_eq!(found(&tree, "news").len(), 20_000);
    for key in (0..20_000).filter(|key| key % 3 != 0) {
        assert_eq!(tree.remove("news", key), Some(plain()));
    }
    let left: Vec<u32> = found(&tree, "news").iter().map(|(key, _)| *key).collect();
    assert_eq!(left, (0..20_000).step_by(3).collect::<Vec<_>>());
    for key in left {
        assert_eq!(tree.remove("news", key), Some(plain()));
    }
    assert!(tree.is_empty());
    assert_eq!(found(&tree, "news"), []);
}

/// Filters of 17 levels, each a `+` or an `a`, all match one topic: as many nodes at a depth as
/// filters pass through it, and no more.
#[test]
fn a_wide_frontier() {
    let mut tree = SubscriptionTree::new();
    for bits in 0_u32..1 << 10 {
        let levels: Vec<&str> = (0..17)
            .map(|at| if bits >> (at % 10) & 1 == 1 { "+" } else { "a" })
            .collect();
        tree.insert(TopicFilter::new(&levels.join("/")).unwrap(), bits, plain());
    }
    let topic = ["a"; 17].join("/");
    assert_eq!(found(&tree, &topic).len(), 1 << 10);
    assert_eq!(found(&tree, &topic[2..]).len(), 0);
}

/// The cost of a match is the nodes that were looked at, the root among them, and the subscriptions that were found.
#[test]
fn a_match_tells_what_it_cost() {
    let mut tree = SubscriptionTree::new();
    let cost = |tree: &SubscriptionTree<u32>, topic: &str| {
        tree.for_each_match(TopicName::new(topic).unwrap(), |_, _| {})
    };
    assert_eq!(cost(&tree, "a/b/c"), 1);
    tree.insert(TopicFilter::new("a/b").unwrap(), 1, plain());
    // The root and `a`, then `b`, where the topic ends.
    assert_eq!(cost(&tree, "a/b"), 3 + 1);
    assert_eq!(cost(&tree, "a/c"), 2);
    assert_eq!(cost(&tree, "a/b/c"), 3);
    assert_eq!(cost(&tree, "c/a/b"), 1);
    tree.insert(TopicFilter::new("+/b").unwrap(), 1, plain());
    tree.insert(TopicFilter::new("a/#").unwrap(), 1, plain());
    tree.insert(TopicFilter::new("a/b").unwrap(), 2, plain());
    // The root, `a` and `+`, two times `b`.
    assert_eq!(cost(&tree, "a/b"), 5 + 4);
    assert_eq!(found(&tree, "a/b").len(), 4);
}

#[derive(Debug, Clone)]
enum Change {
    Insert(String, u32, Subscription),
    Remove(String, u32),
    /// Removes the nth of those present, so that removing is not mostly in vain.
    RemovePresent(prop::sample::Index),
    RemoveAll,
}

fn change() -> impl Strategy<Value = Change> {
    let insert = || (oracle::filter(), 0_u32..20, oracle::subscription());
    prop_oneof![
        40 => insert().prop_map(|(filter, key, subscription)| Change::Insert(filter, key, subscription)),
        // Many subscribers of one filter.
        20 => (0_u32..60, oracle::subscription())
            .prop_map(|(key, subscription)| Change::Insert("a/b".into(), key, subscription)),
        10 => (oracle::filter(), 0_u32..20).prop_map(|(filter, key)| Change::Remove(filter, key)),
        40 => any::<prop::sample::Index>().prop_map(Change::RemovePresent),
        1 => Just(Change::RemoveAll),
    ]
}

proptest! {
    #[test]
    fn changes_and_matches_agree_with_the_oracle(
        changes in prop::collection::vec(change(), 1..200),
        topics in prop::collection::vec(oracle::topic(), 8),
    ) {
        let mut tree = SubscriptionTree::new();
        let mut oracle = Subscriptions::default();
        let empty = tree.heap_bytes();
        for (step, change) in changes.into_iter().enumerate() {
            let version = tree.version();
            let present = |oracle: &Subscriptions, nth: prop::sample::Index| {
                oracle.0.keys().nth(nth.index(oracle.0.len())).cloned()
            };
            let (got, expected) = match change {
                Change::Insert(filter, key, subscription) => (
                    tree.insert(TopicFilter::new(&filter).unwrap(), key, subscription)
                        .map(|replaced| (replaced, replaced != subscription))
                        .unwrap_or((subscription, true)),
                    match oracle.0.insert((filter, key), subscription) {
                        Some(replaced) => (replaced, replaced != subscription),
                        None => (subscription, true),
                    },
                ),
                Change::RemovePresent(nth) if !oracle.0.is_empty() => {
                    let (filter, key) = present(&oracle, nth).unwrap();
                    let removed = oracle.0.remove(&(filter.clone(), key)).unwrap();
                    (
                        (tree.remove(&filter, key).unwrap(), true),
                        (removed, true),
                    )
                }
                Change::Remove(filter, key) => {
                    let removed = oracle.0.remove(&(filter.clone(), key));
                    prop_assert_eq!(tree.remove(&filter, key), removed);
                    prop_assert_eq!(tree.version() != version, removed.is_some());
                    continue;
                }
                Change::RemoveAll => {
                    for (filter, key) in std::mem::take(&mut oracle.0).into_keys() {
                        prop_assert!(tree.remove(&filter, key).is_some());
                    }
                    prop_assert!(tree.is_empty());
                    continue;
                }
                Change::RemovePresent(_) => continue,
            };
            prop_assert_eq!(got, expected);
            prop_assert_eq!(tree.version() > version, expected.1);
            prop_assert_eq!(tree.len(), oracle.0.len());
            prop_assert_eq!(tree.is_empty(), oracle.0.is_empty());
            let topic = &topics[step % topics.len()];
            prop_assert_eq!(found(&tree, topic), oracle.matching(topic));
        }
        for topic in &topics {
            prop_assert_eq!(found(&tree, topic), oracle.matching(topic));
        }
        for ((filter, key), subscription) in &oracle.0 {
            prop_assert_eq!(tree.get(filter, *key), Some(*subscription));
        }
        for (filter, key) in oracle.0.into_keys() {
            prop_assert!(tree.remove(&filter, key).is_some());
        }
        prop_assert!(tree.is_empty());
        prop_assert!(tree.heap_bytes() >= empty);
        for topic in &topics {
            prop_assert_eq!(found(&tree, topic), []);
        }
    }
}
