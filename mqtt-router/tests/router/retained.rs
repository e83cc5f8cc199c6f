//! The retained store against a scan of all topics, in one go and in pages.

use std::collections::{BTreeMap, BTreeSet};

use mqtt_codec::{TopicFilter, TopicName};
use mqtt_router::RetainedStore;
use proptest::prelude::*;

use crate::oracle;

fn store<'a>(topics: impl IntoIterator<Item = &'a String>) -> RetainedStore<usize> {
    let mut store = RetainedStore::new();
    for (value, topic) in topics.into_iter().enumerate() {
        store.insert(TopicName::new(topic).unwrap(), value);
    }
    store
}

fn check(topics: &[&str], filter: &str, expected: &[&str]) {
    let store = store(&topics.iter().map(ToString::to_string).collect::<Vec<_>>());
    let filter = TopicFilter::new(filter).unwrap();
    let found: Vec<&str> = store
        .matches_after(filter, None)
        .map(|(topic, _)| topic)
        .collect();
    assert_eq!(found, expected, "{filter:?}");
}

#[test]
fn wildcards_of_the_standard() {
    let topics = [
        "sport",
        "sport/",
        "sport/tennis",
        "sport/tennis/x",
        "/",
        "$SYS/a",
        "sporty",
    ];
    check(
        &topics,
        "sport/#",
        &["sport", "sport/", "sport/tennis", "sport/tennis/x"],
    );
    check(&topics, "sport/+", &["sport/", "sport/tennis"]);
    check(&topics, "+", &["sport", "sporty"]);
    check(&topics, "+/+", &["/", "sport/", "sport/tennis"]);
    check(
        &topics,
        "#",
        &[
            "/",
            "sport",
            "sport/",
            "sport/tennis",
            "sport/tennis/x",
            "sporty",
        ],
    );
    check(&topics, "$SYS/+", &["$SYS/a"]);
    check(&topics, "+/a", &[]);
    check(&topics, "sport", &["sport"]);
}

/// Bytes below `/` make a level's own topics and those below it lie apart.
#[test]
fn levels_that_sort_around_the_separator() {
    let topics = [
        "a", "a!", "a!/x", "a!b", "a/x", "a/x!", "a/x!/x", "a/x/x", "a0", "a0/x",
    ];
    check(&topics, "a/#", &["a", "a/x", "a/x!", "a/x!/x", "a/x/x"]);
    check(&topics, "+/x", &["a!/x", "a/x", "a0/x"]);
    check(&topics, "+/x/x", &["a/x/x"]);
    check(&topics, "a/+/x", &["a/x!/x", "a/x/x"]);
    check(&topics, "+", &["a", "a!", "a!b", "a0"]);
}

#[test]
fn insert_get_remove_retain() {
    let mut store = RetainedStore::new();
    let topic = TopicName::new("a/b").unwrap();
    assert_eq!(store.insert(topic, 1), None);
    assert_eq!(store.insert(topic, 2), Some(1));
    assert_eq!(store.get("a/b"), Some(&2));
    assert_eq!(store.get("a"), None);
    *store.get_mut("a/b").unwrap() = 3;
    store.insert(TopicName::new("a/c").unwrap(), 4);
    store.retain(|topic, value| {
        *value += 1;
        topic != "a/c"
    });
    assert_eq!(store.iter().collect::<Vec<_>>(), [("a/b", &4)]);
    assert_eq!(store.remove("a/b"), Some(4));
    assert_eq!(store.remove("a/b"), None);
    assert!(store.is_empty());
}

#[test]
fn a_budget_bounds_the_work_of_one_call() {
    let topics: Vec<String> = (0..1_000).map(|number| format!("{number}")).collect();
    let store = store(&topics);
    let filter = TopicFilter::new("+/x").unwrap();
    let mut after: Option<String> = None;
    let mut calls = 0;
    loop {
        let mut found = store
            .matches_after(filter, after.as_deref())
            .with_budget(100);
        assert_eq!(found.next(), None);
        calls += 1;
        match found.suspended_at() {
            Some(topic) => after = Some(topic.into()),
            None => break,
        }
    }
    assert_eq!(calls, 11);
}

proptest! {
    #[test]
    fn matches_agree_with_a_scan(
        topics in prop::collection::btree_set(oracle::topic(), 0..200),
        filters in prop::collection::vec(oracle::filter(), 10),
        after in prop::option::of(oracle::topic()),
    ) {
        let store = store(&topics);
        for filter in &filters {
            let found: Vec<&str> = store
                .matches_after(TopicFilter::new(filter).unwrap(), after.as_deref())
                .map(|(topic, _)| topic)
                .collect();
            let expected: Vec<&str> = topics
                .iter()
                .map(String::as_str)
                .filter(|topic| after.as_deref().is_none_or(|after| *topic > after))
                .filter(|topic| oracle::matches(filter, topic))
                .collect();
            prop_assert_eq!(found, expected, "{}", filter);
        }
    }

    /// Pages of any size and budget, with changes between them: what is there throughout comes once,
    /// what never matched or was never there does not come.
    #[test]
    fn suspended_iteration_survives_changes(
        topics in prop::collection::btree_set(oracle::topic(), 0..100),
        filter in oracle::filter(),
        pages in prop::collection::vec(
            (0_usize..6, 1_usize..20, prop::collection::vec((oracle::topic(), any::<bool>()), 0..6)),
            1..30,
        ),
    ) {
        let mut store = store(&topics);
        let filter_text = filter;
        let filter = TopicFilter::new(&filter_text).unwrap();
        let mut throughout = topics.clone();
        let mut ever = topics;
        let mut seen = BTreeMap::new();
        let mut after: Option<String> = None;
        let mut finished = false;
        for (size, budget, changes) in pages.into_iter().cycle().take(2_000) {
            let mut page = store.matches_after(filter, after.as_deref()).with_budget(budget);
            for (topic, _) in page.by_ref().take(size + 1) {
                *seen.entry(topic.to_owned()).or_insert(0) += 1;
            }
            let Some(topic) = page.suspended_at() else {
                finished = true;
                break;
            };
            let topic = topic.to_owned();
            prop_assert!(after.is_none_or(|after| after < topic), "progress");
            after = Some(topic);
            for (topic, insert) in changes {
                if insert {
                    store.insert(TopicName::new(&topic).unwrap(), 0);
                    ever.insert(topic);
                } else if store.remove(&topic).is_some() {
                    throughout.remove(&topic);
                }
            }
        }
        prop_assert!(finished);
        prop_assert!(seen.values().all(|times| *times == 1));
        let seen: BTreeSet<String> = seen.into_keys().collect();
        for topic in &throughout {
            prop_assert_eq!(seen.contains(topic), oracle::matches(&filter_text, topic), "{}", topic);
        }
        for topic in &seen {
            prop_assert!(ever.contains(topic) && oracle::matches(&filter_text, topic), "{}", topic);
        }
    }
}
