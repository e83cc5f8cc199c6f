//! The engine, on files and in memory alike; and the files against damage.

mod codec;
mod committer;
mod contract;
mod memory;
mod model;
mod place;
mod portions;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mqtt_codec::{PacketId, QoS};
use proptest::prelude::*;

use crate::auth::Owner;
use crate::config::Durability;
use crate::message::{Message, Parts};
use crate::store::engine::Engine;
use crate::store::fjall::{FjallEngine, OpenError, Synced};
use crate::store::record::{
    BodyNumber, Clock, Contents, Entry, Key, Op, SessionNumber, SessionRecord, WallTime,
};

const CLOCK: Clock = Clock {
    origin: WallTime(1_000_000),
};

fn message(topic: &str, payload: &str) -> Arc<Message> {
    let parts = Parts {
        topic: topic.as_bytes(),
        properties: b"",
        payload: payload.as_bytes(),
    };
    Arc::new(Message::new(parts, QoS::ExactlyOnce, None))
}

fn session(number: SessionNumber, expiry: u32) -> Op {
    let record = SessionRecord {
        client_id: format!("client-{number}").into(),
        owner: Owner::User("anna".into()),
        expiry_interval: expiry,
        expires_at: None,
        will: None,
    };
    Op::Session(number, Box::new(record))
}

fn queued(session: SessionNumber, key: Key, body: Option<BodyNumber>) -> Op {
    let payload = body.map_or_else(|| format!("own {key}"), |body| format!("body {body}"));
    let entry = Entry {
        message: message("t", &payload),
        expires_at: None,
        body,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: None,
        group: None,
    };
    Op::Queued(session, key, Box::new(entry))
}

fn body(number: BodyNumber) -> Op {
    Op::Body(number, message("t", &format!("body {number}")), None)
}

fn packet(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn commit(engine: &mut impl Engine, ops: &[Op]) {
    engine.commit(ops, WallTime(1), Durability::Os).unwrap();
}

fn open(directory: &Path) -> (FjallEngine, Contents) {
    let mut engine = FjallEngine::open(directory).unwrap();
    let contents = engine.load(CLOCK, usize::MAX).unwrap();
    assert_eq!(contents.skipped, 0);
    (engine, contents)
}

#[test]
fn a_second_broker_and_another_format_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let mut engine = open(&directory).0;
    let error = FjallEngine::open(&directory).unwrap_err();
    let shown = format!("{} is in use by another broker", directory.display());
    assert_eq!(error.to_string(), shown);
    engine.set_format(&[0, 9]);
    drop(engine);
    let error = FjallEngine::open(&directory).unwrap_err();
    assert!(matches!(error, OpenError::Format(_, 9, 2)), "{error}");
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let error = FjallEngine::open(&file).unwrap_err();
    assert!(matches!(error, OpenError::Create(..)), "{error}");
}

/// A store from before sessions had owners is taken over, and from then on of the present format.
#[test]
fn an_older_format_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = open(directory.path()).0;
    commit(&mut engine, &[session(1, 1), queued(1, 1, None)]);
    engine.set_format(&[0, 1]);
    drop(engine);
    for _ in 0..2 {
        let (engine, contents) = open(directory.path());
        assert_eq!((contents.sessions.len(), contents.skipped), (1, 0));
        assert_eq!(engine.format(), [0, 2]);
    }
}

fn journal(directory: &Path) -> PathBuf {
    let mut journals: Vec<_> = fs::read_dir(directory.join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "jnl"))
        .collect();
    journals.sort();
    journals.pop().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_damaged_tail_costs_whole_commits_at_the_end(
        back in 1..400_usize,
        length in 1..50_usize,
        fill in proptest::option::of(any::<u8>()),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut engine = open(directory.path()).0;
        commit(&mut engine, &[session(1, 1)]);
        for key in 0..20 {
            let first = key * 2;
            commit(&mut engine, &[queued(1, first, None), queued(1, first + 1, None)]);
        }
        drop(engine);
        // This cuts the zeros behind the last commit.
        drop(open(directory.path()));
        let path = journal(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        if let Some(fill) = fill {
            let end = bytes.len().min(end - back + length);
            bytes[end - length..end].fill(fill);
        } else {
            bytes.truncate(end - back);
        }
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let (mut engine, contents) = open(directory.path());
            let entries = &contents.sessions[0].entries;
            let keys: Vec<_> = entries.iter().map(|it| it.0).collect();
            prop_assert!(keys.iter().copied().eq(0..keys.len() as u64), "{:?}", keys);
            prop_assert!(keys.len().is_multiple_of(2) && keys.len() >= 20, "{:?}", keys);
            let next = keys.len() as u64;
            commit(&mut engine, &[queued(1, next, None), queued(1, next + 1, None)]);
        }
    }
}

/// The sequence number of a batch is not covered by its hash: a high bit in it is noticed all the same.
#[test]
fn a_damaged_sequence_number_costs_its_commit() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = open(directory.path()).0;
    commit(&mut engine, &[session(1, 1), queued(1, 1, None)]);
    commit(&mut engine, &[queued(1, 2, None)]);
    drop(engine);
    drop(open(directory.path()));
    let path = journal(directory.path());
    let whole = fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    // The last batch begins behind the trailer of the one before it.
    let trailer = &whole[end - 4..end];
    let start = whole[..end - 4]
        .windows(4)
        .rposition(|bytes| bytes == trailer)
        .unwrap()
        + 4;
    for place in start + 5..start + 13 {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x80;
        fs::write(&path, bytes).unwrap();
        let (_engine, contents) = open(directory.path());
        let keys = contents.sessions[0].entries.iter().map(|it| it.0);
        let keys: Vec<_> = keys.collect();
        assert!(keys.starts_with(&[1]), "byte {place}: {keys:?}");
    }
}

/// After a failed sync the system shows what it was given, and the disk may not have it: nothing of that is built on.
#[test]
fn what_was_not_synced_is_removed_before_the_store_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let synced = Synced::default();
    let keys = |engine: &mut FjallEngine| -> Vec<Key> {
        let contents = engine.load(CLOCK, usize::MAX).unwrap();
        let sessions = contents.sessions.iter();
        sessions.flat_map(|it| &it.entries).map(|it| it.0).collect()
    };
    let mut engine = FjallEngine::open_again(directory.path(), &synced).unwrap();
    assert!(keys(&mut engine).is_empty());
    commit(&mut engine, &[session(1, 1), queued(1, 1, None)]);
    commit(&mut engine, &[queued(1, 2, None)]);
    drop(engine);
    // What another process wrote is not known to have failed.
    let mut other = FjallEngine::open(directory.path()).unwrap();
    assert_eq!(keys(&mut other), [1, 2]);
    commit(&mut other, &[queued(1, 3, None)]);
    commit(&mut other, &[queued(1, 4, None)]);
    drop(other);
    for _ in 0..2 {
        let mut engine = FjallEngine::open_again(directory.path(), &synced).unwrap();
        assert_eq!(keys(&mut engine), [1, 2]);
    }
}

/// Commits that were only written had their answers: after a failed sync they are written once more, to be synced, and
/// what came after the last that succeeded goes. Those of a broker that asks for no sync are no reason to lose them.
#[test]
fn what_was_written_without_a_sync_stays_when_the_store_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let synced = Synced::default();
    let mut engine = FjallEngine::open_again(directory.path(), &synced).unwrap();
    engine.load(CLOCK, usize::MAX).unwrap();
    let first = [session(1, 1), queued(1, 1, None)];
    let at = WallTime(1);
    engine.commit(&first, at, Durability::Disk).unwrap();
    for key in 2..=4 {
        let ops = [queued(1, key, None)];
        engine.commit(&ops, at, Durability::Os).unwrap();
    }
    drop(engine);
    // A commit whose sync failed: it is in the journal, and not known to be there.
    let mut other = open(directory.path()).0;
    commit(&mut other, &[queued(1, 5, None)]);
    drop(other);
    let path = journal(directory.path());
    let old = std::time::SystemTime::UNIX_EPOCH;
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(old)
        .unwrap();
    let mut engine = FjallEngine::open_again(directory.path(), &synced).unwrap();
    let contents = engine.load(CLOCK, usize::MAX).unwrap();
    let entries = contents.sessions[0].entries.iter();
    assert_eq!(entries.map(|it| it.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(fs::metadata(&path).unwrap().modified().unwrap() > old);
    // What was written again is synced now: nothing of it is in question when the next sync fails.
    let ops = [queued(1, 6, None)];
    engine.commit(&ops, at, Durability::Os).unwrap();
    drop(engine);
    let contents = open(directory.path()).1;
    assert_eq!(contents.sessions[0].entries.len(), 5);
}
