//! The store in memory: what a loss of power takes, and a broker that is opened on it again.

use core::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{CLOCK, queued, session};
use crate::config::Durability;
use crate::store::engine::Engine;
use crate::store::memory::MemoryStore;
use crate::store::record::{Key, Op, WallTime};
use crate::{Broker, Config};

fn keys(store: &MemoryStore) -> Vec<Key> {
    let contents = store.open().unwrap().load(CLOCK, usize::MAX).unwrap();
    let sessions = contents.sessions.iter();
    sessions.flat_map(|it| &it.entries).map(|it| it.0).collect()
}

proptest! {
    /// What is synced stays, with all before it; of the rest as many commits as are kept, the oldest.
    #[test]
    fn a_loss_of_power_takes_the_last_commits(
        commits in vec((any::<bool>(), any::<bool>()), 1..20),
        kept in 0..10_usize,
    ) {
        let store = MemoryStore::with_power_cuts();
        let mut engine = store.open().unwrap();
        engine.load(CLOCK, 0).unwrap();
        engine.commit(&[session(1, 1)], WallTime(1), Durability::Disk).unwrap();
        // The queue after each commit.
        let mut states: Vec<Vec<Key>> = vec![Vec::new()];
        let mut synced = 0;
        for (number, (sync, removes)) in commits.iter().enumerate() {
            let mut state = states.last().unwrap().clone();
            let key = number as Key;
            let mut ops = vec![queued(1, key, None)];
            state.push(key);
            if *removes {
                ops.push(Op::Dequeued(1, state.remove(0), None));
            }
            let durability = if *sync { Durability::Disk } else { Durability::Os };
            engine.commit(&ops, WallTime(1), durability).unwrap();
            states.push(state);
            if *sync {
                synced = states.len() - 1;
            }
        }
        drop(engine);
        let unsynced = states.len() - 1 - synced;
        prop_assert_eq!(store.unsynced(), unsynced);
        let kept = kept.min(unsynced);
        prop_assert_eq!(store.cut_power(kept), unsynced - kept);
        prop_assert_eq!(&keys(&store), &states[synced + kept]);
        // What is there now has come to stay.
        prop_assert_eq!(store.cut_power(0), 0);
        prop_assert_eq!(&keys(&store), &states[synced + kept]);
    }
}

/// A store without power cuts remembers nothing to take back.
#[test]
fn a_store_without_power_cuts_loses_nothing() {
    let store = MemoryStore::new();
    let mut engine = store.open().unwrap();
    engine.load(CLOCK, 0).unwrap();
    let ops = [session(1, 1), queued(1, 1, None)];
    engine.commit(&ops, WallTime(1), Durability::Os).unwrap();
    drop(engine);
    assert_eq!((store.unsynced(), store.cut_power(0)), (0, 0));
    assert_eq!(keys(&store), [1]);
}

/// A range is read in chunks, to its end and no further, also where chunks end with it.
#[test]
fn a_range_of_any_length_is_read() {
    for length in [0, 1, 63, 64, 65, 128, 200] {
        let store = MemoryStore::new();
        let mut engine = store.open().unwrap();
        engine.load(CLOCK, 0).unwrap();
        let mut ops = vec![session(1, 1), session(2, 1), queued(2, 0, None)];
        ops.extend((0..length).map(|key| queued(1, key, None)));
        engine.commit(&ops, WallTime(1), Durability::Os).unwrap();
        let read = super::portions::read_all(&*engine.reader(), 1, 0, usize::MAX);
        assert!(read.iter().map(|it| it.0).eq(0..length), "{length}");
        assert_eq!(engine.records()[0] as u64, length + 1);
    }
}

/// A second broker finds what the first one left, and is refused while that one is there.
#[tokio::test(start_paused = true)]
async fn a_broker_is_opened_again() {
    let store = MemoryStore::new();
    let first = Broker::open_in_memory(Config::default(), &store).unwrap();
    let refused = Broker::open_in_memory(Config::default(), &store).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "memory: the store in memory is in use by another broker"
    );
    let kept = first.hub.store.as_ref().unwrap();
    let ticket = kept.submit(&mut vec![session(1, 1), queued(1, 1, None)]);
    kept.durable(ticket).await;
    first
        .run(Vec::new(), tokio::time::sleep(Duration::ZERO))
        .await;
    let second = Broker::open_in_memory(Config::default(), &store).unwrap();
    assert!(second.hub.client("client-1").is_some());
}
