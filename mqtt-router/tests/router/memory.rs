//! The size of a tree by its own count: deterministic, unlike what the system reports.

use mqtt_codec::{SubscriptionOptions, TopicFilter};
use mqtt_router::{Subscription, SubscriptionTree};

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
