//! A store is made smaller; wherever that is interrupted, nothing of it is lost.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::*;
use super::{COMMITTED, entry, exported, filled, message, names, session, told};
use crate::config::Durability;
use crate::store::{CompactionStage, Op, compact_interrupted};

const STAGES: [CompactionStage; 4] = [
    CompactionStage::Begun,
    CompactionStage::Copied,
    CompactionStage::Aside,
    CompactionStage::Replaced,
];

fn commit(directory: &Path, ops: &[Op]) {
    let mut engine = FjallEngine::open(directory).unwrap();
    engine.load(CLOCK, usize::MAX).unwrap();
    engine.commit(ops, COMMITTED, Durability::Os).unwrap();
}

fn queue(number: u64, length: usize) -> Op {
    let payload = vec![number as u8; length];
    let message = message("t", &payload, None);
    Op::Queued(1, number, Box::new(entry(&message, None)))
}

#[test]
fn what_is_there_stays() {
    let directory = filled();
    let before = told(directory.path());
    compact(directory.path()).unwrap();
    assert_eq!(told(directory.path()), before);
    assert_eq!(names(directory.path()), ["lock", "store"]);
}

/// What a compacted store is told is there when it is opened again, and is not behind what was copied.
#[test]
fn a_compacted_store_goes_on() {
    let directory = TempDir::new().unwrap();
    let place = directory.path();
    commit(
        place,
        &[session(1, "a", 1, false), queue(1, 9), queue(2, 9)],
    );
    for number in 3..6 {
        compact(place).unwrap();
        let changed = session(1, "a", number as u32, false);
        let gone = Op::Dequeued(1, number - 1, None);
        commit(place, &[changed, gone, queue(number, 9)]);
        let (_, contents) = load(place).unwrap();
        let session = &contents.sessions[0];
        assert_eq!(u64::from(session.record.expiry_interval), number);
        let keys: Vec<_> = session.entries.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [1, number]);
    }
}

#[test]
fn the_directory_shrinks() {
    let directory = TempDir::new().unwrap();
    let place = directory.path();
    commit(
        place,
        &[session(1, "a", 1, false), session(2, "b", 1, false)],
    );
    for round in 0..5 {
        let fill: Vec<_> = (0..10).map(|at| queue(round * 10 + at, 100_000)).collect();
        commit(place, &fill);
        let gone = (0..10).map(|at| Op::Dequeued(1, round * 10 + at, None));
        commit(place, &gone.collect::<Vec<_>>());
    }
    let kept: Vec<_> = (1_000..1_010).map(|at| queue(at, 10_000)).collect();
    commit(place, &kept);
    let lines = exported(place);
    let sizes = compact(place).unwrap();
    assert!(sizes.before > 4_000_000, "{sizes:?}");
    assert!(sizes.after < 400_000, "{sizes:?}");
    assert!(exported(place) == lines);
    // The session has ended: its messages go, without a broker that removes them.
    commit(place, &[Op::SessionEnded(1)]);
    let sizes = compact(place).unwrap();
    assert!(sizes.after < 100_000, "{sizes:?}");
    let again = compact(place).unwrap();
    assert!(again.after <= sizes.after, "{again:?}");
}

/// As by a kill: nothing is tidied up, and whoever comes next does it.
#[test]
fn an_interruption_leaves_a_whole_store() {
    for stage in STAGES {
        let directory = filled();
        let place = directory.path();
        let before = told(place);
        compact_interrupted(place, stage).unwrap_err();
        let left = names(place);
        let expected: &[&str] = match stage {
            CompactionStage::Begun | CompactionStage::Copied => &["lock", "store", "store.new"],
            CompactionStage::Aside => &["lock", "store.new", "store.old"],
            CompactionStage::Replaced => &["lock", "store", "store.old"],
        };
        assert_eq!(left, expected, "{stage:?}");
        assert_eq!(told(place), before, "{stage:?}");
        assert_eq!(names(place), ["lock", "store"], "{stage:?}");

        compact_interrupted(place, stage).unwrap_err();
        compact(place).unwrap();
        assert_eq!(names(place), ["lock", "store"], "{stage:?}");
        assert_eq!(told(place), before, "{stage:?}");
    }
}

/// A power cut while the replaced store is removed.
#[test]
fn what_is_left_of_a_replaced_store_is_removed() {
    let directory = filled();
    let place = directory.path();
    let before = told(place);
    compact_interrupted(place, CompactionStage::Replaced).unwrap_err();
    let journal = fs::read_dir(place.join("store.old")).unwrap();
    let journal = journal
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|it| it == "jnl"));
    fs::remove_file(journal.unwrap()).unwrap();
    assert_eq!(told(place), before);
    assert_eq!(names(place), ["lock", "store"]);
}

#[test]
fn an_error_is_told_and_tidied_up() {
    let directory = filled();
    let place = directory.path();
    let before = told(place);
    // Nothing can be moved to a name that a file has.
    fs::write(place.join("store.old"), b"").unwrap();
    compact(place).unwrap_err();
    fs::remove_file(place.join("store.old")).unwrap();
    assert_eq!(names(place), ["lock", "store"]);
    assert_eq!(told(place), before);

    let engine = FjallEngine::open(place).unwrap();
    let error = compact(place).unwrap_err().to_string();
    assert!(error.ends_with(" is in use by another broker"), "{error}");
    drop(engine);
}
