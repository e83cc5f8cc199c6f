//! Merging of overlapping subscriptions, against a fold over each key's subscriptions.

use mqtt_codec::{QoS, SubscriptionIdentifier, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{Merged, Own, Subscription, SubscriptionTree, Target, Targets};
use proptest::prelude::*;

use crate::oracle;

fn merged<'a>(subscriptions: impl Iterator<Item = &'a Subscription> + Clone) -> Option<Merged> {
    let mut identifiers = Vec::new();
    for identifier in subscriptions.clone().filter_map(|one| one.identifier) {
        if !identifiers.contains(&identifier) {
            identifiers.push(identifier);
        }
    }
    identifiers.sort();
    Some(Merged {
        qos: subscriptions.clone().map(|one| one.options.qos).max()?,
        retain_as_published: subscriptions
            .clone()
            .any(|one| one.options.retain_as_published),
        identifiers: identifiers.into_iter().collect(),
    })
}

fn expected(added: &[(u32, Subscription)]) -> Vec<Target<u32>> {
    let mut keys: Vec<u32> = Vec::new();
    for (key, _) in added {
        if !keys.contains(key) {
            keys.push(*key);
        }
    }
    keys.into_iter()
        .map(|key| {
            let all = added.iter().filter(|(k, _)| *k == key).map(|(_, s)| s);
            let delivery = merged(all.clone()).unwrap();
            let own = match merged(all.filter(|one| !one.options.no_local)) {
                None => Own::Nothing,
                Some(own) if own == delivery => Own::Same,
                Some(own) => Own::Other(own),
            };
            Target { key, delivery, own }
        })
        .collect()
}

fn with(qos: QoS, no_local: bool, identifier: u32) -> Subscription {
    Subscription {
        options: SubscriptionOptions {
            qos,
            no_local,
            ..SubscriptionOptions::default()
        },
        identifier: SubscriptionIdentifier::new(identifier),
    }
}

/// [MQTT-3.3.4-2] to [MQTT-3.3.4-4]: the highest QoS and all identifiers.
#[test]
fn overlapping_subscriptions_make_one_delivery() {
    let mut tree = SubscriptionTree::new();
    for (filter, subscription) in [
        ("a/+", with(QoS::AtLeastOnce, false, 1)),
        ("a/#", with(QoS::ExactlyOnce, false, 2)),
        ("a/b", with(QoS::AtMostOnce, false, 1)),
        ("c", with(QoS::AtMostOnce, false, 9)),
    ] {
        tree.insert(TopicFilter::new(filter).unwrap(), 7_u32, subscription);
    }
    let mut targets = Targets::new();
    targets.collect(&tree, TopicName::new("a/b").unwrap());
    let [target] = targets.finish() else {
        panic!("one target");
    };
    assert_eq!(target.delivery.qos, QoS::ExactlyOnce);
    let mut identifiers: Vec<_> = target.delivery.identifiers.to_vec();
    identifiers.sort();
    let expected = [1, 2].map(|id| SubscriptionIdentifier::new(id).unwrap());
    assert_eq!(identifiers, expected);
    assert_eq!(target.own, Own::Same);
}

/// [MQTT-3.8.3-3]: No Local takes its own subscription out, and no other.
#[test]
fn no_local_belongs_to_one_subscription() {
    let mut targets = Targets::new();
    targets.add(1, with(QoS::ExactlyOnce, true, 1));
    let target = &targets.finish()[0];
    assert_eq!(target.delivery_to(true), None);
    assert_eq!(target.delivery_to(false).unwrap().qos, QoS::ExactlyOnce);
    targets.add(1, with(QoS::AtLeastOnce, false, 2));
    let target = &targets.finish()[0];
    assert_eq!(target.delivery.qos, QoS::ExactlyOnce);
    let own = target.delivery_to(true).unwrap();
    assert_eq!(own.qos, QoS::AtLeastOnce);
    assert_eq!(
        own.identifiers.to_vec(),
        [SubscriptionIdentifier::new(2).unwrap()]
    );
    targets.add(1, with(QoS::AtMostOnce, true, 3));
    let target = &targets.finish()[0];
    assert_eq!(target.delivery.identifiers.len(), 3);
    assert_eq!(target.delivery_to(true).unwrap().identifiers.len(), 1);
}

#[test]
fn ten_thousand_targets() {
    let mut targets = Targets::new();
    for _ in 0..2 {
        targets.clear();
        for key in (0..10_000).chain(0..10_000) {
            targets.add(key, with(QoS::AtLeastOnce, false, key % 2));
        }
        assert_eq!(targets.len(), 10_000);
        assert!(
            targets
                .finish()
                .iter()
                .map(|target| target.key)
                .eq(0..10_000)
        );
    }
    assert_eq!(targets.drain().len(), 10_000);
    assert!(targets.is_empty());
    targets.add(5, with(QoS::AtLeastOnce, false, 1));
    assert_eq!(targets.len(), 1);
}

/// The subscriptions of one key are not compared with each other: a topic that 200,000 filters of one
/// client match, each with its identifier, takes no more than 200,000 that one does.
#[test]
fn very_many_identifiers_of_one_key() {
    let mut targets = Targets::new();
    for number in (1..=100_000).rev().chain(1..=100_000) {
        targets.add(7, with(QoS::AtLeastOnce, number % 2 == 0, number));
    }
    let [target] = targets.finish() else {
        panic!("one target");
    };
    let numbers = |identifiers: &[SubscriptionIdentifier]| -> Vec<u32> {
        identifiers
            .iter()
            .map(|identifier| identifier.get())
            .collect()
    };
    let all: Vec<u32> = (1..=100_000).collect();
    assert_eq!(numbers(&target.delivery.identifiers), all);
    let odd: Vec<u32> = (1..=100_000).step_by(2).collect();
    assert_eq!(numbers(&target.delivery_to(true).unwrap().identifiers), odd);
}

proptest! {
    #[test]
    fn merging_agrees_with_the_oracle(
        batches in prop::collection::vec(
            prop::collection::vec((0_u32..30, oracle::subscription()), 0..80),
            1..4,
        ),
    ) {
        let mut targets = Targets::new();
        for added in &batches {
            targets.clear();
            for (key, subscription) in added {
                targets.add(*key, *subscription);
            }
            prop_assert_eq!(targets.finish(), expected(added));
        }
    }
}
