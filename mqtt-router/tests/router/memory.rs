//! The size of a tree by its own count, deterministic unlike what the system reports; and that the count is true.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mqtt_codec::{SubscriptionOptions, TopicFilter};
use mqtt_router::{Subscription, SubscriptionTree};

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count of the bytes that each thread took and did not give back.
struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting
// touches a thread-local cell that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn plain() -> Subscription {
    Subscription::new(SubscriptionOptions::default())
}

/// What a tree says that it takes is what the allocator gave: with one subscriber of a filter and with many, with
/// wildcards, short and long levels, and places that are free again.
#[test]
fn the_count_is_what_the_allocator_gave() {
    let before = HELD.get();
    let mut tree = SubscriptionTree::new();
    let held = || HELD.get().wrapping_sub(before);
    assert_eq!(tree.heap_bytes(), held());
    let long = "a level that is longer than what is kept in place";
    let filter = |number: u64| match number % 5 {
        0 => format!("{}/+/x", number / 50),
        1 => format!("{}/#", number / 50),
        2 => format!("{long} {}", number / 50),
        _ => format!("{}/{}", number % 7, number / 50),
    };
    for number in 0..1_000 {
        tree.insert(TopicFilter::new(&filter(number)).unwrap(), number, plain());
        assert_eq!(tree.heap_bytes(), held(), "{number}");
    }
    for number in (0..1_000).filter(|number| number % 11 != 0) {
        assert_eq!(tree.remove(&filter(number), number), Some(plain()));
        assert_eq!(tree.heap_bytes(), held(), "{number}");
    }
    // The last ones free the places of wildcards.
    for number in (0..1_000).filter(|number| number % 11 == 0) {
        assert_eq!(tree.remove(&filter(number), number), Some(plain()));
        assert_eq!(tree.heap_bytes(), held(), "{number}");
    }
    drop(tree);
    assert_eq!(held(), 0);
}

/// A large tree gives its memory back with its last subscription, and with no other.
#[test]
fn the_last_subscription_of_a_large_tree_takes_its_memory_along() {
    let mut tree = SubscriptionTree::new();
    for number in 0..5_000_u64 {
        let filter = number.to_string();
        tree.insert(TopicFilter::new(&filter).unwrap(), number, plain());
    }
    let large = tree.heap_bytes();
    for number in 1..5_000_u64 {
        assert_eq!(tree.remove(&number.to_string(), number), Some(plain()));
    }
    assert_eq!((tree.len(), tree.get("0", 0)), (1, Some(plain())));
    assert!(tree.heap_bytes() >= large);
    let version = tree.version();
    assert_eq!(tree.remove("0", 0), Some(plain()));
    assert!(tree.heap_bytes() < 4_096);
    assert_eq!(tree.version(), version + 1);
}

/// Places in a tree are used again: one that changes without end, and stays small, takes no more and more.
#[test]
fn places_are_used_again() {
    let mut tree = SubscriptionTree::new();
    let mut peak = 0;
    for number in 0..10_000_u64 {
        let filter = match number % 3 {
            0 => format!("{number}/a"),
            1 => format!("{number}/+"),
            _ => format!("{number}/+/#"),
        };
        tree.insert(TopicFilter::new(&filter).unwrap(), number, plain());
        if let Some(old) = number.checked_sub(10) {
            let filter = match old % 3 {
                0 => format!("{old}/a"),
                1 => format!("{old}/+"),
                _ => format!("{old}/+/#"),
            };
            assert_eq!(tree.remove(&filter, old), Some(plain()));
        }
        if number == 100 {
            peak = tree.heap_bytes();
        }
    }
    assert!(
        tree.heap_bytes() <= 2 * peak,
        "{} {peak}",
        tree.heap_bytes()
    );
}

/// 200 sites with 50 devices and 10 metrics each, one in ten with a wildcard for the device: less than
/// 100 bytes for a subscription, and next to nothing once they are gone.
#[test]
fn a_subscription_costs_less_than_100_bytes() {
    let mut tree = SubscriptionTree::new();
    let plain = Subscription::new(SubscriptionOptions::default());
    let filters: Vec<(String, u64)> = (0..100_000_u64)
        .map(|key| {
            let (site, device, metric) = (key % 200, key / 200 % 50, key / 10_000);
            let filter = if key % 10 == 3 {
                format!("site/{site}/device/+/metric{metric}")
            } else {
                format!("site/{site}/device/{device}/metric{metric}")
            };
            (filter, key)
        })
        .collect();
    for (filter, key) in &filters {
        tree.insert(TopicFilter::new(filter).unwrap(), *key, plain);
    }
    assert_eq!(tree.len(), filters.len());
    let each = tree.heap_bytes() / tree.len();
    assert!(each < 100, "{each} bytes for a subscription");
    for (filter, key) in &filters {
        assert_eq!(tree.remove(filter, *key), Some(plain));
    }
    assert!(tree.heap_bytes() < 4096, "{} bytes", tree.heap_bytes());
}
