//! The thread that commits, with an engine that fails when it is told to.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mqtt_session::Time;
use tokio::sync::oneshot;

use super::queued;
use crate::config::Durability;
use crate::store::engine::{Engine, EngineError, Reader};
use crate::store::record::{
    Clock, Contents, Entry, Key, Op, Portion, SessionNumber, Span, WallTime,
};
use crate::store::{Full, Open, Room, Space, Store};

/// What the disk is asked, and what it answers.
#[derive(Debug, Default)]
struct Disk {
    /// Commits that succeeded: the topics that each cleared.
    commits: Vec<Vec<String>>,
    /// How many of the next commits fail, and whether they were kept all the same.
    failures: usize,
    keeps_failed: bool,
    /// How many of the next attempts to open fail.
    closed: usize,
    opened: usize,
    /// Commits on an engine that has failed, or was not loaded, and engines that were opened while the one before
    /// was still read: there must be none.
    misused: usize,
    queue: BTreeMap<(SessionNumber, Key), Entry>,
    /// How many of the next reads fail.
    unreadable: usize,
    readers: usize,
}

#[derive(Debug)]
struct FakeReader {
    disk: Arc<Mutex<Disk>>,
}

impl Reader for FakeReader {
    fn read(&self, span: &Span, _: Clock) -> Result<Portion, EngineError> {
        let mut disk = self.disk.lock().unwrap();
        if disk.unreadable > 0 {
            disk.unreadable -= 1;
            return Err("the disk cannot be read".into());
        }
        let range = (span.session, span.from)..(span.session, span.until);
        let entries = disk.queue.range(range);
        Ok(Portion {
            from: span.from,
            next: span.until,
            entries: entries.map(|((_, key), it)| (*key, it.clone())).collect(),
        })
    }
}

impl Drop for FakeReader {
    fn drop(&mut self) {
        self.disk.lock().unwrap().readers -= 1;
    }
}

#[derive(Debug)]
struct Fake {
    disk: Arc<Mutex<Disk>>,
    loaded: bool,
    failed: bool,
}

impl Engine for Fake {
    fn last_commit_at(&self) -> Option<WallTime> {
        Some(WallTime(5_000))
    }

    fn load(&mut self, _: Clock, _: usize) -> Result<Contents, EngineError> {
        self.loaded = true;
        Ok(Contents::default())
    }

    fn reader(&self) -> Box<dyn Reader> {
        let disk = Arc::clone(&self.disk);
        disk.lock().unwrap().readers += 1;
        Box::new(FakeReader { disk })
    }

    fn commit(&mut self, ops: &[Op], _: WallTime, _: Durability) -> Result<usize, EngineError> {
        let mut disk = self.disk.lock().unwrap();
        let disk = &mut *disk;
        disk.misused += usize::from(self.failed || !self.loaded);
        let fails = disk.failures > 0;
        if !fails || disk.keeps_failed {
            let topics = ops.iter().filter_map(|op| match op {
                Op::RetainedCleared(topic) => Some(topic.to_string()),
                Op::Queued(session, key, entry) => {
                    disk.queue.insert((*session, *key), Entry::clone(entry));
                    None
                }
                other => panic!("{other:?}"),
            });
            let topics = topics.collect();
            disk.commits.push(topics);
        }
        if fails {
            disk.failures -= 1;
            self.failed = true;
            return Err("the disk fails".into());
        }
        Ok(ops.len())
    }
}

fn open(disk: &Arc<Mutex<Disk>>) -> Open {
    let disk = Arc::clone(disk);
    Box::new(move || {
        let mut state = disk.lock().unwrap();
        state.opened += 1;
        state.misused += state.readers;
        if state.closed > 0 {
            state.closed -= 1;
            return Err("the disk is not there".into());
        }
        Ok(Box::new(Fake {
            disk: Arc::clone(&disk),
            loaded: false,
            failed: false,
        }))
    })
}

fn clear(topic: &str) -> Vec<Op> {
    vec![Op::RetainedCleared(topic.into())]
}

/// What was submitted becomes durable in its order, though commits fail and the store must be opened again; nothing
/// is announced before, and an engine that has failed is not used again.
#[tokio::test]
async fn a_failure_delays_and_loses_nothing() {
    for keeps_failed in [false, true] {
        let disk = Arc::new(Mutex::new(Disk {
            failures: 3,
            keeps_failed,
            ..Disk::default()
        }));
        let (store, _) = Store::open(
            open(&disk),
            Space::unlimited(),
            Arc::default(),
            Durability::Disk,
            WallTime(9_000),
            0,
        )
        .unwrap();
        disk.lock().unwrap().closed = 2;
        let mut last = None;
        for number in 0..100 {
            last = Some(store.submit(&mut clear(&number.to_string())));
        }
        let last = last.unwrap();
        store.durable(last).await;
        assert!(store.is_durable(last));
        let disk = disk.lock().unwrap();
        assert_eq!((disk.failures, disk.closed, disk.misused), (0, 0, 0));
        assert_eq!(disk.opened, 1 + 3 + 2);
        // A commit that was kept though it failed is made again: that is harmless.
        let mut seen = Vec::new();
        for topic in disk.commits.iter().flatten() {
            if !seen.contains(topic) {
                seen.push(topic.clone());
            }
        }
        let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        assert_eq!(seen, expected);
        assert!(keeps_failed || disk.commits.iter().flatten().count() == 100);
    }
}

/// While the disk fails nothing counts as durable, and what is submitted is not lost: it is there when the store
/// closes, or was never announced.
#[tokio::test]
async fn nothing_is_announced_that_is_not_kept() {
    let disk = Arc::new(Mutex::new(Disk {
        failures: usize::MAX,
        ..Disk::default()
    }));
    let (store, _) = Store::open(
        open(&disk),
        Space::unlimited(),
        Arc::default(),
        Durability::Disk,
        WallTime(0),
        0,
    )
    .unwrap();
    let ticket = store.submit(&mut clear("a"));
    while disk.lock().unwrap().opened < 5 {
        tokio::task::yield_now().await;
    }
    assert!(!store.is_durable(ticket));
    store.close();
    assert!(!store.is_durable(ticket));
    assert_eq!(disk.lock().unwrap().misused, 0);
}

/// A full disk refuses what is new; what removes is committed, and room is seen without a change.
#[tokio::test]
async fn a_full_store_still_commits() {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let directory = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(0));
    let now = Arc::clone(&free);
    let room = Room {
        directory: u64::MAX,
        reserve: 8_192,
    };
    let space = Space::with_free(
        directory.path(),
        room,
        Box::new(move |_| Ok(now.load(Ordering::Relaxed))),
    );
    let (store, _) = Store::open(
        open(&disk),
        space,
        Arc::default(),
        Durability::Disk,
        WallTime(0),
        0,
    )
    .unwrap();
    assert_eq!(store.full(), Some(Full::Disk));
    let ticket = store.submit(&mut clear("a"));
    store.durable(ticket).await;
    assert_eq!(store.full(), Some(Full::Disk));
    free.store(1 << 20, Ordering::Relaxed);
    while store.full().is_some() {
        tokio::task::yield_now().await;
    }
    // A failure on the full disk lets the reserve go.
    assert!(directory.path().join("reserve").exists());
    free.store(0, Ordering::Relaxed);
    disk.lock().unwrap().failures = 1;
    let ticket = store.submit(&mut clear("b"));
    store.durable(ticket).await;
    assert_eq!(store.full(), Some(Full::Disk));
    assert!(!directory.path().join("reserve").exists());
}

/// What was submitted before the store closes is durable when it has closed.
#[tokio::test]
async fn closing_commits_what_gathers() {
    let disk = Arc::default();
    let (store, _) = Store::open(
        open(&disk),
        Space::unlimited(),
        Arc::default(),
        Durability::Disk,
        WallTime(0),
        0,
    )
    .unwrap();
    let tickets: Vec<_> = (0..50)
        .map(|number| store.submit(&mut clear(&number.to_string())))
        .collect();
    store.close();
    assert!(tickets.into_iter().all(|ticket| store.is_durable(ticket)));
    assert_eq!(disk.lock().unwrap().commits.iter().flatten().count(), 50);
}

/// A wall clock that runs behind the last commit counts as no time passed.
#[test]
fn time_does_not_run_backwards() {
    for (system, origin) in [(1_000, 5_000), (9_000, 9_000)] {
        let disk = Arc::default();
        let (store, _) = Store::open(
            open(&disk),
            Space::unlimited(),
            Arc::default(),
            Durability::Disk,
            WallTime(system),
            0,
        )
        .unwrap();
        assert_eq!(store.clock().wall(Time::ZERO), WallTime(origin));
        store.close();
    }
}

/// The keys that are read of the queue of session 1.
async fn read(store: &Store, from: Key, until: Key) -> Vec<Key> {
    let (done, read) = oneshot::channel();
    let span = Span {
        session: 1,
        from,
        until,
        bytes: usize::MAX,
    };
    store.read(span, Box::new(|portion| done.send(portion).unwrap()));
    let portion = read.await.unwrap();
    assert_eq!((portion.from, portion.next), (from, until));
    portion.entries.iter().map(|(key, _)| *key).collect()
}

/// Who reads finds all that was submitted before, though commits and reads fail meanwhile and the store is opened
/// again; an engine is read no more when the next one is opened.
#[tokio::test]
async fn a_read_finds_what_was_submitted_before() {
    let disk = Arc::new(Mutex::new(Disk::default()));
    let (store, _) = Store::open(
        open(&disk),
        Space::unlimited(),
        Arc::default(),
        Durability::Disk,
        WallTime(0),
        0,
    )
    .unwrap();
    for round in 0..50 {
        {
            let mut disk = disk.lock().unwrap();
            disk.failures = round % 3;
            disk.closed = round % 2;
            disk.unreadable = round % 5;
        }
        let first = 1 + 3 * round as Key;
        store.submit(&mut (first..first + 3).map(|key| queued(1, key, None)).collect());
        let (all, last) = tokio::join!(
            read(&store, 1, first + 3),
            read(&store, first + 1, first + 2)
        );
        assert_eq!(all, (1..first + 3).collect::<Vec<_>>());
        assert_eq!(last, [first + 1]);
        // Also what has been durable for long.
        assert_eq!(read(&store, 1, 2).await, [1]);
    }
    store.close();
    let disk = disk.lock().unwrap();
    assert_eq!((disk.misused, disk.readers), (0, 0));
}

/// A store that closes while a part of a queue cannot be read does not wait for it.
#[tokio::test]
async fn closing_does_not_wait_for_a_read() {
    let disk = Arc::new(Mutex::new(Disk {
        unreadable: usize::MAX,
        ..Disk::default()
    }));
    let (store, _) = Store::open(
        open(&disk),
        Space::unlimited(),
        Arc::default(),
        Durability::Disk,
        WallTime(0),
        0,
    )
    .unwrap();
    let span = Span {
        session: 1,
        from: 1,
        until: 2,
        bytes: 1,
    };
    store.read(span, Box::new(|_| panic!("there is nothing to read")));
    store.close();
}
