//! The database that is kept in memory: ordered maps that outlive a broker and end with the program.
//!
//! A commit is atomic, and like a disk it tells what was synced from what was only written: a store with power cuts
//! remembers how to take back what was not synced.

use core::ops::{Bound, RangeBounds};
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::SystemTime;

use crate::store::engine::EngineError;
use crate::store::record::WallTime;
use crate::store::records::{Database, Records};
use crate::store::table::{Batch, Record, Slice, Table, Tables};

/// Records that are read under one lock.
const CHUNK: usize = 64;
const NAMES: [&str; 4] = ["state", "queue", "bodies", "retained"];

/// What brokers keep in the memory of one program, as others do in a directory: sessions with their queues, and
/// retained messages. A broker that is opened on it finds what the one before left. One uses it at a time. Clones are
/// handles of the same store.
///
/// It is for tests and for programs that stop and start their broker; it takes memory beside that of the broker, so
/// that a broker that is never opened again does better with none ([`Broker::new`](crate::Broker::new)).
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// Another broker uses it.
#[derive(Debug, thiserror::Error)]
#[error("the store in memory is in use by another broker")]
struct InUseError;

#[derive(Debug, Default)]
struct Shared {
    contents: RwLock<Contents>,
    in_use: AtomicBool,
    /// What the next broker takes for the time of the wall clock.
    clock: Mutex<Option<SystemTime>>,
}

#[derive(Debug, Default)]
struct Contents {
    maps: [BTreeMap<Slice, Slice>; 4],
    /// What undoes each commit since the last that was synced, for a store with power cuts.
    unsynced: Option<Vec<Vec<Change>>>,
}

/// A record as a commit makes it, or as it was before; `None`: it is not there.
#[derive(Debug)]
struct Change {
    map: usize,
    key: Slice,
    value: Option<Slice>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose power can be [cut](Self::cut_power). Until the next commit that is synced it remembers
    /// what commits have replaced: it is of use with [`Durability::Disk`](crate::Durability::Disk), and grows with
    /// each change where nothing is ever synced.
    #[must_use]
    pub fn with_power_cuts() -> Self {
        let store = Self::default();
        store.shared.write().unsynced = Some(Vec::new());
        store
    }

    /// Takes back the commits that were not synced, all but the oldest `kept`, as a loss of power does with a disk;
    /// returns how many it took back. No broker is to use the store, and a store without power cuts loses nothing.
    pub fn cut_power(&self, kept: usize) -> usize {
        let mut contents = self.shared.write();
        let Contents { maps, unsynced } = &mut *contents;
        let Some(unsynced) = unsynced else { return 0 };
        let lost = unsynced.split_off(kept.min(unsynced.len()));
        // What is left is what the disk has.
        unsynced.clear();
        for undo in lost.iter().rev().flat_map(|commit| commit.iter().rev()) {
            let map = &mut maps[undo.map];
            match &undo.value {
                Some(value) => map.insert(undo.key.clone(), value.clone()),
                None => map.remove(&undo.key),
            };
        }
        lost.len()
    }

    /// Commits that were not synced, of a store with power cuts.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        let contents = self.shared.read();
        contents.unsynced.as_ref().map_or(0, Vec::len)
    }

    /// What a broker that is opened on it takes for the time of the wall clock then, in place of the system's: for
    /// programs whose time is virtual, and for tests of clocks that were set. While it runs a broker asks no wall
    /// clock for the deadlines of what it stores.
    pub fn set_wall_clock(&self, now: SystemTime) {
        let clock = self.shared.clock.lock();
        *clock.unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// The time of the wall clock, as it was set or as the system has it.
    pub(crate) fn wall_clock(&self) -> WallTime {
        let clock = self.shared.clock.lock();
        match *clock.unwrap_or_else(PoisonError::into_inner) {
            Some(now) => WallTime::of(now),
            None => WallTime::now(),
        }
    }

    /// An engine on it.
    pub(crate) fn open(&self) -> Result<MemoryEngine, EngineError> {
        if self.shared.in_use.swap(true, Ordering::Acquire) {
            return Err(InUseError.into());
        }
        let shared = &self.shared;
        let [state, queue, bodies, retained] = [0, 1, 2, 3].map(|map| MemoryTable {
            shared: Arc::clone(shared),
            map,
        });
        let tables = Tables {
            state,
            queue,
            bodies,
            retained,
        };
        Records::new(Memory(Arc::clone(shared)), tables)
    }
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Contents> {
        self.contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store in memory.
pub(crate) type MemoryEngine = Records<Memory>;

/// Uses a [`MemoryStore`] as long as it lives.
#[derive(Debug)]
pub(crate) struct Memory(Arc<Shared>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

/// One of the maps.
#[derive(Clone, Debug)]
pub(crate) struct MemoryTable {
    shared: Arc<Shared>,
    map: usize,
}

/// Changes in their order.
#[derive(Debug, Default)]
pub(crate) struct MemoryBatch(Vec<Change>);

impl Batch<MemoryTable> for MemoryBatch {
    fn insert(&mut self, table: &MemoryTable, key: impl Into<Slice>, value: impl Into<Slice>) {
        self.0.push(Change {
            map: table.map,
            key: key.into(),
            value: Some(value.into()),
        });
    }

    fn remove(&mut self, table: &MemoryTable, key: impl Into<Slice>) {
        self.0.push(Change {
            map: table.map,
            key: key.into(),
            value: None,
        });
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Database for Memory {
    type Table = MemoryTable;

    fn batch(&self) -> MemoryBatch {
        MemoryBatch::default()
    }

    fn commit(&mut self, batch: MemoryBatch, sync: bool) -> Result<(), EngineError> {
        let mut contents = self.0.write();
        let Contents { maps, unsynced } = &mut *contents;
        let mut undo = Vec::new();
        for Change { map, key, value } in batch.0 {
            let kept = unsynced.is_some().then(|| key.clone());
            let before = match value {
                Some(value) => maps[map].insert(key, value),
                None => maps[map].remove(&key),
            };
            if let Some(key) = kept {
                undo.push(Change {
                    map,
                    key,
                    value: before,
                });
            }
        }
        match unsynced {
            Some(unsynced) if sync => unsynced.clear(),
            Some(unsynced) => unsynced.push(undo),
            None => {}
        }
        Ok(())
    }

    fn tidy(&mut self, _: &Tables<MemoryTable>) -> Result<(), EngineError> {
        Ok(())
    }
}

impl Table for MemoryTable {
    type Batch = MemoryBatch;

    fn name(&self) -> &str {
        NAMES[self.map]
    }

    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, EngineError> {
        Ok(self.shared.read().maps[self.map].get(key.as_ref()).cloned())
    }

    fn range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl Iterator<Item = Result<Record, EngineError>> {
        let bound = |bound: Bound<&K>| bound.map(|key| Slice::from(key.as_ref()));
        Walk {
            table: self,
            from: bound(range.start_bound()),
            until: bound(range.end_bound()),
            chunk: Vec::new().into_iter(),
            over: false,
        }
        .map(Ok)
    }

    fn keys(&self, prefix: impl AsRef<[u8]>) -> impl Iterator<Item = Result<Slice, EngineError>> {
        let prefix = Slice::from(prefix.as_ref());
        let from = prefix.clone();
        self.range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |record| {
                let key = record.as_ref().map(|(key, _)| key);
                key.is_ok_and(|key| key.starts_with(&prefix))
            })
            .map(|record| record.map(|(key, _)| key))
    }
}

/// Goes through a range in chunks, so that a commit does not wait for it.
struct Walk<'t> {
    table: &'t MemoryTable,
    from: Bound<Slice>,
    until: Bound<Slice>,
    chunk: std::vec::IntoIter<Record>,
    /// There is nothing behind the chunk.
    over: bool,
}

impl Iterator for Walk<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if let Some(record) = self.chunk.next() {
            return Some(record);
        }
        if self.over {
            return None;
        }
        let bounds = (as_slice(&self.from), as_slice(&self.until));
        let contents = self.table.shared.read();
        let found = contents.maps[self.table.map].range::<[u8], _>(bounds);
        let found = found
            .take(CHUNK)
            .map(|(key, value)| (key.clone(), value.clone()));
        let chunk: Vec<Record> = found.collect();
        drop(contents);
        self.over = chunk.len() < CHUNK;
        if let Some((last, _)) = chunk.last() {
            self.from = Bound::Excluded(last.clone());
            // A range that excludes the same key at both ends is none to a map.
            self.over |= matches!(&self.until, Bound::Excluded(until) if until == last);
        }
        self.chunk = chunk.into_iter();
        self.chunk.next()
    }
}

fn as_slice(bound: &Bound<Slice>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &**key)
}
