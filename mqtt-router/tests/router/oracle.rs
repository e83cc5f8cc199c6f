//! What the tests compare with: matching written as in the standard's text, a list of subscriptions
//! that is scanned, and the texts that topics and filters are made of.

use std::collections::BTreeMap;

use mqtt_codec::{QoS, RetainHandling, SubscriptionIdentifier, SubscriptionOptions};
use mqtt_router::Subscription;
use proptest::prelude::*;
use proptest::sample::select;

/// MQTT 5.0, section 4.7, level by level.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let (fixed, many) = match filter.split_last() {
        Some((&"#", fixed)) => (fixed, true),
        _ => (filter.as_slice(), false),
    };
    let long_enough = if many {
        topic.len() >= fixed.len()
    } else {
        topic.len() == fixed.len()
    };
    long_enough
        && fixed
            .iter()
            .zip(&topic)
            .all(|(wanted, level)| *wanted == "+" || wanted == level)
}

/// The subscriptions as a list, keyed as the standard has it: one per filter and subscriber.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions(pub(crate) BTreeMap<(String, u32), Subscription>);

impl Subscriptions {
    pub(crate) fn matching(&self, topic: &str) -> Vec<(u32, Subscription)> {
        let mut found: Vec<_> = self
            .0
            .iter()
            .filter(|((filter, _), _)| matches(filter, topic))
            .map(|((_, key), subscription)| (*key, *subscription))
            .collect();
        found.sort_by_key(sort_key);
        found
    }
}

/// An order for results that come in none.
pub(crate) fn sort_key((key, subscription): &(u32, Subscription)) -> (u32, String) {
    (*key, format!("{subscription:?}"))
}

fn text() -> impl Strategy<Value = &'static str> {
    select(vec![
        "a",
        "b",
        "",
        "ab",
        "a!",
        "a0",
        "$",
        "$a",
        "\u{e9}",
        "a level longer than sixteen bytes",
    ])
}

pub(crate) fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(text(), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

pub(crate) fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => text(), 1 => Just("+")];
    let many = prop_oneof![3 => Just(None), 1 => Just(Some("#"))];
    (prop::collection::vec(level, 0..6), many)
        .prop_map(|(mut levels, many)| {
            levels.extend(many);
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

pub(crate) fn subscription() -> impl Strategy<Value = Subscription> {
    let qos = select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
    (qos, any::<bool>(), any::<bool>(), 0_u32..6).prop_map(
        |(qos, no_local, retain_as_published, identifier)| Subscription {
            options: SubscriptionOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling: RetainHandling::default(),
            },
            identifier: SubscriptionIdentifier::new(identifier),
        },
    )
}
