//! The subscription tree and the retained store against lists that are scanned.
//!
//! The input is lines. The first byte of a line says what to do with the text that follows the second:
//! `i` subscribe, `u` unsubscribe, `p` publish (match the tree), `r` retain, `c` clear a retained
//! topic, `q` query the retained store, from the topic published last on. The second byte is the
//! subscriber and the options. Texts that are no filter or no topic are skipped.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use mqtt_codec::{QoS, SubscriptionIdentifier, SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{
    RetainedStore, ShardOf, Subscription, SubscriptionTree, shard_of_filter, shard_of_topic,
};

/// MQTT 5.0, section 4.7: level by level, what is left of the filter against what is left of the topic.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter = Some(filter);
    let mut topic = Some(topic);
    loop {
        let (wanted, filter_rest) = match (filter, topic) {
            (Some("#"), _) | (None, None) => return true,
            (None, _) | (_, None) => return false,
            (Some(filter), _) => split(filter),
        };
        let (level, topic_rest) = split(topic.unwrap_or_default());
        if wanted != "+" && wanted != level {
            return false;
        }
        (filter, topic) = (filter_rest, topic_rest);
    }
}

fn split(text: &str) -> (&str, Option<&str>) {
    match text.find('/') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn subscription(byte: u8) -> Subscription {
    Subscription {
        options: SubscriptionOptions {
            qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(byte % 3)],
            no_local: byte & 0x40 != 0,
            retain_as_published: byte & 0x20 != 0,
            ..SubscriptionOptions::default()
        },
        identifier: SubscriptionIdentifier::new(u32::from(byte >> 6)),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut tree = SubscriptionTree::new();
    let mut subscriptions: BTreeMap<(&str, u8), Subscription> = BTreeMap::new();
    let mut store = RetainedStore::new();
    let mut retained: BTreeMap<&str, u8> = BTreeMap::new();
    let mut after = None;
    for line in data.split(|byte| *byte == b'\n') {
        let [what, byte, text @ ..] = line else {
            continue;
        };
        let Ok(text) = std::str::from_utf8(text) else {
            continue;
        };
        let key = byte % 32;
        let version = tree.version();
        match (what, TopicFilter::new(text), TopicName::new(text)) {
            (b'i', Ok(filter), _) => {
                let wanted = subscription(*byte);
                let replaced = subscriptions.insert((text, key), wanted);
                assert_eq!(tree.insert(filter, key, wanted), replaced);
                assert_eq!(tree.version() != version, replaced != Some(wanted));
            }
            (b'u', ..) => {
                let removed = subscriptions.remove(&(text, key));
                assert_eq!(tree.remove(text, key), removed);
                assert_eq!(tree.version() != version, removed.is_some());
            }
            (b'p', _, Ok(topic)) => {
                let mut found = BTreeMap::new();
                tree.for_each_match(topic, |key, subscription| {
                    *found.entry((key, format!("{subscription:?}"))).or_insert(0) += 1;
                });
                let mut expected = BTreeMap::new();
                for ((filter, key), subscription) in &subscriptions {
                    let matching = matches(filter, text);
                    if let Ok(filter) = TopicFilter::new(filter)
                        && filter.shared().is_none()
                    {
                        assert_eq!(filter.matches(topic), matching);
                    }
                    if matching {
                        *expected
                            .entry((*key, format!("{subscription:?}")))
                            .or_insert(0) += 1;
                        let shard = shard_of_topic(text, 16);
                        let of_filter = shard_of_filter(filter, 16);
                        assert!(
                            of_filter == ShardOf::Wildcard || of_filter == ShardOf::Level(shard)
                        );
                    }
                }
                assert_eq!(found, expected);
                after = Some(text);
            }
            (b'r', _, Ok(topic)) => {
                assert_eq!(store.insert(topic, *byte), retained.insert(text, *byte));
            }
            (b'c', ..) => assert_eq!(store.remove(text), retained.remove(text)),
            (b'q', Ok(filter), _) => {
                let found: Vec<_> = store
                    .matches_after(filter, after)
                    .map(|(t, v)| (t, *v))
                    .collect();
                let expected: Vec<_> = retained
                    .iter()
                    .filter(|(topic, _)| after.is_none_or(|after| **topic > after))
                    .filter(|(topic, _)| matches(text, topic))
                    .map(|(topic, value)| (*topic, *value))
                    .collect();
                assert_eq!(found, expected);
            }
            _ => {}
        }
        assert_eq!(tree.len(), subscriptions.len());
        assert_eq!(store.len(), retained.len());
    }
    for ((filter, key), subscription) in subscriptions {
        assert_eq!(tree.remove(filter, key), Some(subscription));
    }
    assert!(tree.is_empty());
});
