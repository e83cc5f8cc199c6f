//! Routes that are remembered: whoever subscribes, and then publishes or has somebody publish, finds the subscription.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

use crate::executor::{in_every_order, is_found, spawn};
use crate::versioned::Versioned;

/// Subscriptions, and how often they were changed.
#[derive(Default)]
struct Tree {
    subscribers: u32,
    changes: u64,
}

fn subscribe(tree: &Versioned<Tree>) {
    let add = |tree: &mut Tree| {
        tree.subscribers += 1;
        tree.changes += 1;
    };
    tree.change(add, |tree| tree.changes);
}

/// A route that was read, and the version that it stands for.
#[derive(Default)]
struct Remembered {
    version: u64,
    subscribers: u32,
}

/// How a route is read when the one that is remembered does not hold.
type Read = fn(&Versioned<Tree>) -> Remembered;

/// As `RouteCache` does it.
fn read(tree: &Versioned<Tree>) -> Remembered {
    let version = tree.version();
    let subscribers = tree.read().subscribers;
    Remembered {
        version,
        subscribers,
    }
}

fn publish(tree: &Versioned<Tree>, remembered: &mut Remembered, read: Read) -> u32 {
    if remembered.version != tree.version() {
        *remembered = read(tree);
    }
    remembered.subscribers
}

fn run(read: Read) {
    let tree = Arc::new(Versioned::<Tree>::default());
    let answered = Arc::new(AtomicBool::new(false));
    let subscriber = {
        let (tree, answered) = (Arc::clone(&tree), Arc::clone(&answered));
        spawn(move || {
            subscribe(&tree);
            // SUBACK.
            answered.store(true, Ordering::Release);
            subscribe(&tree);
        })
    };
    let mut remembered = Remembered::default();
    let mut least = 0;
    for _ in 0..2 {
        let known = u32::from(answered.load(Ordering::Acquire));
        let found = publish(&tree, &mut remembered, read);
        assert!(found >= known.max(least), "a subscription is passed over");
        least = found;
    }
    subscriber.join().unwrap();
    let found = publish(&tree, &mut remembered, read);
    assert_eq!(found, 2, "a subscription is passed over");
}

#[test]
fn no_subscription_is_passed_over() {
    in_every_order(|| run(read));
}

/// An old route stands for the new version.
#[test]
fn to_read_the_version_last_is_found() {
    is_found(
        "version_orders::to_read_the_version_last_is_found",
        "a subscription is passed over",
        || {
            run(|tree| {
                let subscribers = tree.read().subscribers;
                Remembered {
                    version: tree.version(),
                    subscribers,
                }
            });
        },
    );
}
