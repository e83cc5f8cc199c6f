//! Makes the files of a store as small as they can be, while no broker uses it.

use core::time::Duration;
use std::path::Path;
use std::thread;
use std::time::Instant;

use ::fjall::Keyspace;

use crate::config::Durability;
use crate::store::engine::{Engine, EngineError};
use crate::store::fjall::FjallEngine;
use crate::store::journal;
use crate::store::record::{Clock, WallTime};

/// So long writing what a keyspace has in memory may take, which is some megabytes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// The system takes the data and does not end.
#[derive(Debug, thiserror::Error)]
#[error("its tables are not written within 60 s")]
struct StalledError;

/// Removes what has ended or expired, and rewrites the store in a directory without what was replaced or removed.
/// At each instant it is whole.
pub(crate) fn compact(directory: &Path, now: WallTime) -> Result<(), EngineError> {
    let mut engine = FjallEngine::open(directory)?;
    let origin = engine.last_commit_at().map_or(now, |last| last.max(now));
    engine.load(Clock { origin })?;
    loop {
        engine.commit(&[], engine.known.marks.at, Durability::Disk)?;
        if engine.known.ended.is_empty() {
            break;
        }
    }
    // Tables first: a journal goes when they have all that is in it, and compacting them makes them forget that.
    for keyspace in keyspaces(&engine) {
        flush(keyspace)?;
    }
    // The lock is held all the time: a broker that opened the store now would meet the new journal.
    let lock = engine.close();
    journal::begin(&directory.join("store"))?;
    let engine = FjallEngine::open_locked(directory, lock)?;
    for keyspace in keyspaces(&engine) {
        keyspace.major_compact()?;
    }
    // Tables that were replaced are removed when the store is opened, at the latest.
    let lock = engine.close();
    FjallEngine::open_locked(directory, lock)?;
    Ok(())
}

fn keyspaces(engine: &FjallEngine) -> [&Keyspace; 4] {
    let keyspaces = &engine.keyspaces;
    [
        &keyspaces.state,
        &keyspaces.queue,
        &keyspaces.bodies,
        &keyspaces.retained,
    ]
}

fn flush(keyspace: &Keyspace) -> Result<(), EngineError> {
    keyspace.rotate_memtable()?;
    let end = Instant::now() + FLUSH_TIMEOUT;
    while keyspace.sealed_memtable_count() > 0 {
        if Instant::now() > end {
            return Err(StalledError.into());
        }
        thread::sleep(FLUSH_PAUSE);
    }
    Ok(())
}
