//! Matching, changing and collecting at size. `cargo bench -p ternmq-router`; the sizes are the
//! constants below.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{RetainedStore, Subscription, SubscriptionTree, Targets};

/// Subscriptions of the form `site/S/device/D/metric`, one in ten with a wildcard.
const SUBSCRIPTIONS: u64 = 1_000_000;
const SITES: u64 = 1_000;
const DEVICES: u64 = 100;
const METRICS: [&str; 10] = [
    "current", "energy", "flow", "humidity", "level", "power", "pressure", "state", "temp",
    "voltage",
];
/// Topics matched in one measurement.
const TOPICS: u64 = 10_000;
const SUBSCRIBERS: u64 = 10_000;
const RETAINED: u64 = 1_000_000;

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

/// Numbers without order, the same in each run.
fn shuffled(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|number| {
        let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

fn metric(number: u64) -> &'static str {
    METRICS[(number % METRICS.len() as u64) as usize]
}

fn topic(number: u64) -> String {
    let (site, device) = (number % SITES, number / SITES % DEVICES);
    format!(
        "site/{site}/device/{device}/{}",
        metric(number / SITES / DEVICES)
    )
}

fn filter(number: u64) -> String {
    let (site, device) = (number % SITES, number / SITES % DEVICES);
    let metric = metric(number / SITES / DEVICES);
    match number >> 32 & 31 {
        0 => format!("site/{site}/device/+/{metric}"),
        1 => format!("site/{site}/device/{device}/#"),
        2 => format!("site/{site}/+/{device}/{metric}"),
        _ => format!("site/{site}/device/{device}/{metric}"),
    }
}

fn tree() -> SubscriptionTree<u64> {
    let mut tree = SubscriptionTree::new();
    for (key, number) in shuffled(SUBSCRIPTIONS).enumerate() {
        let filter = filter(number);
        if let Ok(filter) = TopicFilter::new(&filter) {
            tree.insert(filter, key as u64, plain());
        }
    }
    tree
}

fn matching(c: &mut Criterion) {
    let mut tree = tree();
    println!(
        "{} subscriptions, {} bytes each on the heap",
        tree.len(),
        tree.heap_bytes() / tree.len()
    );
    let topics: Vec<String> = shuffled(TOPICS)
        .map(|number| topic(number ^ 0x5555))
        .collect();
    let topics: Vec<_> = topics
        .iter()
        .flat_map(|topic| TopicName::new(topic))
        .collect();
    let mut found = 0;
    for topic in &topics {
        tree.for_each_match(*topic, |_, _| found += 1);
    }
    println!("{:.2} matches a topic", found as f64 / topics.len() as f64);

    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(topics.len() as u64));
    group.bench_function("match", |b| {
        b.iter(|| {
            let mut sum = 0;
            for topic in &topics {
                tree.for_each_match(*topic, |key, _| sum ^= key);
            }
            sum
        });
    });
    let mut targets = Targets::new();
    group.bench_function("collect", |b| {
        b.iter(|| {
            for topic in &topics {
                targets.clear();
                targets.collect(&tree, *topic);
                black_box(targets.finish());
            }
        });
    });
    group.bench_function("insert and remove", |b| {
        b.iter(|| {
            for topic in &topics {
                if let Ok(filter) = TopicFilter::new(topic.as_str()) {
                    tree.insert(filter, u64::MAX, plain());
                }
            }
            for topic in &topics {
                tree.remove(topic.as_str(), u64::MAX);
            }
        });
    });
    group.finish();
}

fn one_filter(c: &mut Criterion) {
    let mut tree = SubscriptionTree::new();
    let (Ok(filter), Ok(topic)) = (TopicFilter::new("news"), TopicName::new("news")) else {
        return;
    };
    for key in 0..SUBSCRIBERS {
        tree.insert(filter, key, plain());
    }
    let mut group = c.benchmark_group("one filter");
    group.throughput(Throughput::Elements(SUBSCRIBERS));
    let mut targets = Targets::new();
    group.bench_function("collect", |b| {
        b.iter(|| {
            targets.clear();
            targets.collect(&tree, topic);
            targets.len()
        });
    });
    group.bench_function("remove all", |b| {
        b.iter_batched_ref(
            || tree.clone(),
            |tree| {
                for key in 0..SUBSCRIBERS {
                    tree.remove("news", key);
                }
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn retained(c: &mut Criterion) {
    let mut store = RetainedStore::new();
    for number in 0..RETAINED {
        let topic = topic(number);
        if let Ok(topic) = TopicName::new(&topic) {
            store.insert(topic, number);
        }
    }
    let topics: Vec<String> = shuffled(TOPICS).map(topic).collect();
    let mut group = c.benchmark_group("retained");
    group.bench_function("exact", |b| {
        b.iter(|| {
            topics
                .iter()
                .filter(|topic| store.get(topic).is_some())
                .count()
        });
    });
    for filter in ["site/3/device/+/temp", "site/3/#", "+/+/device/7/temp"] {
        let Ok(wanted) = TopicFilter::new(filter) else {
            continue;
        };
        group.throughput(Throughput::Elements(
            store.matches_after(wanted, None).count() as u64,
        ));
        group.bench_function(filter, |b| {
            b.iter(|| store.matches_after(wanted, None).count())
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = matching, one_filter, retained
}
criterion_main!(benches);
