//! Makes a store as small as it can be, while no broker uses it: its live records are copied to a new one, which
//! takes its place.
//!
//! The engine compacts as well, but removes what it has replaced in its own time. Three names in the data
//! directory take part, and at each instant [`settle`] finds a whole store by them: `store`; `store.new`, the copy
//! until it is whole; `store.old`, what the copy replaces.

use core::hash::Hasher;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use ::fjall::{Keyspace, PersistMode};
use tracing::{info, warn};
use xxhash_rust::xxh3::Xxh3;

use crate::config::Durability;
use crate::store::engine::{Engine, EngineError};
use crate::store::fjall::{FjallEngine, lock_directory, open_database, sync_directories};
use crate::store::journal::sync_directory;
use crate::store::record::{Clock, WallTime};
use crate::store::table::Tables;

const STORE: &str = "store";
const COPY: &str = "store.new";
const REPLACED: &str = "store.old";

/// The copy does not hold what was copied.
#[derive(Debug, thiserror::Error)]
#[error("the copy of {0} differs from what was copied")]
struct DiffersError(&'static str);

/// What has been done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The first records are copied.
    Begun,
    /// The copy is whole and durable.
    Copied,
    /// The store has given its name up.
    Aside,
    /// The copy has the name.
    Replaced,
}

/// Removes what has ended or expired, and rewrites the store in a directory without what was replaced or removed.
pub(crate) fn compact(directory: &Path, now: WallTime) -> Result<(), EngineError> {
    let lock = lock_directory(directory)?;
    let done = run(directory, &lock, now, |_| Ok(()));
    if done.is_err() {
        settle(directory)?;
    }
    done
}

/// The same without tidying up after an error, which may come from `reached`.
fn run(
    directory: &Path,
    lock: &File,
    now: WallTime,
    mut reached: impl FnMut(Stage) -> Result<(), EngineError>,
) -> Result<(), EngineError> {
    let mut engine = FjallEngine::open_locked(directory, lock.try_clone()?)?;
    let origin = engine.last_commit_at().map_or(now, |last| last.max(now));
    // No queue is needed, but what has ended or expired is noted.
    engine.load(Clock { origin }, 0)?;
    loop {
        engine.commit(&[], engine.known.marks.at, Durability::Disk)?;
        if engine.known.ended.is_empty() {
            break;
        }
    }
    let copy = directory.join(COPY);
    let (database, tables) = open_database(&copy)?;
    let mut hashes = Vec::new();
    for (name, from, to) in pairs(&engine.tables, &tables) {
        hashes.push((name, copy_records(from, to)?));
        if hashes.len() == 1 {
            reached(Stage::Begun)?;
        }
    }
    database.persist(PersistMode::SyncAll)?;
    drop((tables, database));
    verify(&copy, &hashes)?;
    sync_directories(&copy)?;
    sync_directory(directory)?;
    reached(Stage::Copied)?;

    drop(engine);
    let (store, replaced) = (directory.join(STORE), directory.join(REPLACED));
    fs::rename(&store, &replaced)?;
    // The one name must not come before the other has gone.
    sync_directory(directory)?;
    reached(Stage::Aside)?;
    fs::rename(&copy, &store)?;
    sync_directory(directory)?;
    reached(Stage::Replaced)?;
    remove(&replaced)?;
    sync_directory(directory)?;
    Ok(())
}

/// Brings what an interrupted compaction left in order, with the lock of the directory: a store that had given its
/// name up gets it back, and what is no store is removed.
pub(super) fn settle(directory: &Path) -> io::Result<()> {
    let (store, replaced) = (directory.join(STORE), directory.join(REPLACED));
    if !store.try_exists()? {
        if !replaced.try_exists()? {
            return Ok(());
        }
        fs::rename(&replaced, &store)?;
        sync_directory(directory)?;
        info!(directory = %directory.display(), "a compaction was interrupted: the store is as before it");
    }
    for left in [replaced, directory.join(COPY)] {
        // It takes space and does no harm otherwise.
        if let Err(error) = remove(&left) {
            warn!(path = %left.display(), %error, "cannot remove what a compaction left");
        }
    }
    Ok(())
}

/// Whether there is a store, whatever its name is just now.
pub(crate) fn has_store(directory: &Path) -> bool {
    [STORE, REPLACED]
        .iter()
        .any(|name| directory.join(name).is_dir())
}

fn pairs<'k>(
    from: &'k Tables<Keyspace>,
    to: &'k Tables<Keyspace>,
) -> [(&'static str, &'k Keyspace, &'k Keyspace); 4] {
    [
        ("state", &from.state, &to.state),
        ("queue", &from.queue, &to.queue),
        ("bodies", &from.bodies, &to.bodies),
        ("retained", &from.retained, &to.retained),
    ]
}

/// Copies the records in the order of their keys, past the journal; returns their hash.
fn copy_records(from: &Keyspace, to: &Keyspace) -> Result<u64, EngineError> {
    let mut hash = Xxh3::new();
    let mut writer = to.start_ingestion()?;
    for guard in from.iter() {
        let (key, value) = guard.into_inner()?;
        add(&mut hash, &key, &value);
        writer.write(key, value)?;
    }
    writer.finish()?;
    Ok(hash.finish())
}

/// Reads the copy from its files.
fn verify(copy: &Path, hashes: &[(&'static str, u64)]) -> Result<(), EngineError> {
    let (_database, tables) = open_database(copy)?;
    for ((name, keyspace, _), (_, expected)) in pairs(&tables, &tables).iter().zip(hashes) {
        let mut hash = Xxh3::new();
        for guard in keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            add(&mut hash, &key, &value);
        }
        if hash.finish() != *expected {
            return Err(DiffersError(name).into());
        }
    }
    Ok(())
}

fn add(hash: &mut Xxh3, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Compacts and stops at a stage, as if the process had been killed.
#[cfg(test)]
pub(crate) fn compact_interrupted(directory: &Path, stage: Stage) -> Result<(), EngineError> {
    let lock = lock_directory(directory)?;
    run(directory, &lock, WallTime(0), |reached| {
        if reached == stage {
            return Err("interrupted".into());
        }
        Ok(())
    })
}
