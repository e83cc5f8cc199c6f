//! Topics and filters of 30,000 levels, on a stack too small for anything that recurses.

use mqtt_codec::{SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{RetainedStore, Subscription, SubscriptionTree};

const LEVELS: usize = 30_000;

fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(test)
        .unwrap()
        .join()
        .unwrap();
}

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

fn deep(level: &str, last: &str) -> String {
    let mut text = format!("{level}/").repeat(LEVELS - 1);
    text.push_str(last);
    text
}

#[test]
fn filters_and_topics_of_30000_levels() {
    on_a_small_stack(|| {
        let mut tree = SubscriptionTree::new();
        let filters = [
            deep("a", "a"),
            deep("+", "a"),
            deep("+", "#"),
            deep("a", "b"),
            deep("", "#"),
            "#".to_owned(),
        ];
        for (key, filter) in filters.iter().enumerate() {
            assert_eq!(
                tree.insert(TopicFilter::new(filter).unwrap(), key, plain()),
                None
            );
        }
        let matches = |tree: &SubscriptionTree<usize>, topic: &str| {
            let mut keys = Vec::new();
            tree.for_each_match(TopicName::new(topic).unwrap(), |key, _| keys.push(key));
            keys.sort();
            keys
        };
        assert_eq!(matches(&tree, &deep("a", "a")), [0, 1, 2, 5]);
        assert_eq!(matches(&tree, &deep("a", "b")), [2, 3, 5]);
        assert_eq!(matches(&tree, &deep("", "x")), [2, 4, 5]);
        assert_eq!(matches(&tree, &deep("x", "")), [2, 5]);
        let copy = tree.clone();
        for (key, filter) in filters.iter().enumerate() {
            assert_eq!(tree.remove(filter, key), Some(plain()));
        }
        assert!(tree.is_empty());
        assert!(tree.heap_bytes() < 4096, "{}", tree.heap_bytes());
        drop(copy);
    });
}

#[test]
fn retained_topics_of_30000_levels() {
    on_a_small_stack(|| {
        let mut store = RetainedStore::new();
        let topics = [
            deep("", "x"),
            deep("a", "a"),
            deep("a", "b"),
            deep("b", "a"),
        ];
        for topic in &topics {
            store.insert(TopicName::new(topic).unwrap(), ());
        }
        let count = |filter: &str| {
            store
                .matches_after(TopicFilter::new(filter).unwrap(), None)
                .count()
        };
        assert_eq!(count(&deep("+", "a")), 2);
        assert_eq!(count(&deep("+", "#")), 4);
        assert_eq!(count(&deep("a", "+")), 2);
        assert_eq!(count("a/#"), 2);
        assert_eq!(count(&topics[3]), 1);
        for topic in &topics {
            assert_eq!(store.remove(topic), Some(()));
        }
    });
}
