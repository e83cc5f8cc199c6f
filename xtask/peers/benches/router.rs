//! Matching, subscribing and unsubscribing at 1,000 to 1,000,000 subscriptions, by this tree, by that of
//! rmqtt and by a look at every filter; and the memory of the trees, counted by the allocator.
//!
//! 1,000 sites have up to 1,000 devices with a subscription each, one in ten of them with a wildcard;
//! a topic of the largest size has three matches.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{SubscriptionOptions, TopicFilter, TopicName};
use mqtt_router::{Subscription, SubscriptionTree};

/// Numbers of subscriptions.
const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const SITES: usize = 1_000;
/// Topics matched in one measurement.
const TOPICS: usize = 1_000;
/// A look at every filter takes too long beyond this.
const SCANNED: usize = 100_000;

/// The system's allocator, and the bytes that are taken from it.
struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a tree has taken from the allocator, a subscription, without the text of the filters.
fn memory(name: &str, size: usize, before: usize) {
    let taken = TAKEN.load(Ordering::Relaxed) - before;
    println!(
        "memory/{name}/{size}: {} bytes a subscription",
        taken / size
    );
}

/// The filter of subscription `number` of `size`.
fn filter(number: usize, size: usize) -> String {
    let sites = SITES.min(size / 10);
    let (site, device) = (number % sites, number / sites);
    match (device % 10, device / 10) {
        (0, 0) => format!("site/{site}/device/+/temp"),
        (0, 1) => format!("site/{site}/#"),
        (0, odd) if odd % 2 == 1 => format!("site/{site}/device/{device}/#"),
        (0, _) => format!("site/{site}/+/{device}/temp"),
        _ => format!("site/{site}/device/{device}/temp"),
    }
}

fn topics(size: usize) -> Vec<String> {
    let sites = SITES.min(size / 10);
    (0..TOPICS)
        .map(|number| {
            // Far from each other, and the same in every run.
            let number = number.wrapping_mul(0x9e37_79b9) % size;
            format!("site/{}/device/{}/temp", number % sites, number / sites)
        })
        .collect()
}

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

fn router(c: &mut Criterion) {
    for size in SIZES {
        let filters: Vec<String> = (0..size).map(|number| filter(number, size)).collect();
        let topics = topics(size);
        ours(c, size, &filters, &topics);
        rmqtt(c, size, &filters, &topics);
        if size <= SCANNED {
            scan(c, size, &filters, &topics);
        }
    }
}

fn ours(c: &mut Criterion, size: usize, filters: &[String], topics: &[String]) {
    let before = TAKEN.load(Ordering::Relaxed);
    let mut tree = SubscriptionTree::new();
    for (key, filter) in filters.iter().enumerate() {
        tree.insert(
            TopicFilter::new(filter).expect("a filter"),
            key as u32,
            plain(),
        );
    }
    memory("ours", size, before);
    let mut found = 0;
    for topic in topics {
        let topic = TopicName::new(topic).expect("a topic");
        tree.for_each_match(topic, |_, _| found += 1);
    }
    println!(
        "matches/{size}: {:.2} a topic",
        found as f64 / TOPICS as f64
    );
    let mut group = c.benchmark_group(format!("match {size}"));
    group.throughput(Throughput::Elements(TOPICS as u64));
    group.bench_function("ours", |b| {
        b.iter(|| {
            let mut sum = 0;
            for topic in topics {
                let topic = TopicName::assume_valid(topic);
                tree.for_each_match(topic, |key, _| sum ^= key);
            }
            sum
        });
    });
    group.finish();
    let mut group = c.benchmark_group(format!("subscribe and unsubscribe {size}"));
    group.throughput(Throughput::Elements(TOPICS as u64));
    group.bench_function("ours", |b| {
        b.iter(|| {
            for topic in topics {
                tree.insert(TopicFilter::assume_valid(topic), u32::MAX, plain());
            }
            for topic in topics {
                black_box(tree.remove(topic, u32::MAX));
            }
        });
    });
    group.finish();
}

/// The tree of rmqtt, whose topics are taken apart into levels first, for each message too.
fn rmqtt(c: &mut Criterion, size: usize, filters: &[String], topics: &[String]) {
    let parsed = |text: &str| text.parse::<rmqtt::topic::Topic>().expect("a topic");
    let before = TAKEN.load(Ordering::Relaxed);
    let mut tree = rmqtt::trie::TopicTree::default();
    for (key, filter) in filters.iter().enumerate() {
        tree.insert(&parsed(filter), key as u32);
    }
    memory("rmqtt", size, before);
    let mut group = c.benchmark_group(format!("match {size}"));
    group.throughput(Throughput::Elements(TOPICS as u64));
    group.bench_function("rmqtt", |b| {
        b.iter(|| {
            let mut sum = 0;
            for topic in topics {
                let topic = parsed(topic);
                for (_, keys) in tree.matches(&topic).iter() {
                    sum = keys.into_iter().fold(sum, |sum, key| sum ^ key);
                }
            }
            sum
        });
    });
    group.finish();
    let mut group = c.benchmark_group(format!("subscribe and unsubscribe {size}"));
    group.throughput(Throughput::Elements(TOPICS as u64));
    group.bench_function("rmqtt", |b| {
        b.iter(|| {
            for topic in topics {
                tree.insert(&parsed(topic), u32::MAX);
            }
            for topic in topics {
                black_box(tree.remove(&parsed(topic), &u32::MAX));
            }
        });
    });
    group.finish();
}

fn scan(c: &mut Criterion, size: usize, filters: &[String], topics: &[String]) {
    // A few of the topics are enough of that.
    let topics = &topics[..10];
    let mut group = c.benchmark_group(format!("match {size}"));
    group.throughput(Throughput::Elements(topics.len() as u64));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let mut sum = 0;
            for topic in topics {
                let topic = TopicName::assume_valid(topic);
                for (key, filter) in filters.iter().enumerate() {
                    if TopicFilter::assume_valid(filter).matches(topic) {
                        sum ^= key;
                    }
                }
            }
            sum
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = router
}
criterion_main!(benches);
