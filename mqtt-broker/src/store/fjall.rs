//! The engine that keeps its records in [fjall](::fjall), a log-structured merge tree with a journal.
//!
//! The data directory holds `lock`, locked while a broker uses it, and `store`, the database. A commit is one
//! batch of the journal. Its settings are for a small device: they bound the memory and not the data.

use core::ops::RangeBounds;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use ::fjall::{Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use tracing::warn;

use crate::store::codec;
use crate::store::compaction;
use crate::store::engine::EngineError;
use crate::store::journal;
use crate::store::records::{Database, Records};
use crate::store::table::{Batch, Record, Slice, Table, Tables};

const MIB: u64 = 1024 * 1024;
/// Blocks of tables that were read: at start-up, and for queues that are not held in memory.
const CACHE: u64 = 8 * MIB;
/// Of the journals; the least that fjall allows.
const JOURNALS: u64 = 64 * MIB;
/// Of the changes of a keyspace that are not in tables yet, of which up to five such parts exist.
const MEMTABLE: u64 = 8 * MIB;
const OPEN_FILES: usize = 128;
/// So long writing what the keyspaces have in memory may take, which is some megabytes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{0} cannot be created: {1}")]
    Create(PathBuf, #[source] io::Error),
    #[error("{0} cannot be locked: {1}")]
    Lock(PathBuf, #[source] io::Error),
    #[error("{0} is in use by another broker")]
    InUse(PathBuf),
    #[error(
        "the store in {0} has format {1}, of another version of the broker; this one reads format {2}"
    )]
    Format(PathBuf, u16, u16),
    #[error("the store in {0} does not say which format it has")]
    NoFormat(PathBuf),
    #[error("the store in {0} cannot be opened: {1}")]
    Open(PathBuf, #[source] EngineError),
}

/// Up to where the journal is known to be durable, for the process that writes it. It outlives an engine that
/// fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Synced {
    /// The sequence number that follows the last durable batch; 0: not known.
    next: Arc<AtomicU64>,
    /// The one that follows the last batch that was written.
    written: Arc<AtomicU64>,
}

impl Synced {
    fn note(&self, database: &::fjall::Database, synced: bool) {
        let next = database.seqno();
        self.written.store(next, Ordering::Relaxed);
        if synced {
            self.next.store(next, Ordering::Relaxed);
        }
    }

    fn next(&self) -> Option<u64> {
        Some(self.next.load(Ordering::Relaxed)).filter(|next| *next > 0)
    }
}

/// A database in a directory.
pub(crate) struct Fjall {
    database: ::fjall::Database,
    synced: Synced,
    /// Held as long as the database is open.
    _lock: File,
}

/// A store in a directory.
pub(crate) type FjallEngine = Records<Fjall>;

impl Records<Fjall> {
    /// Opens the store in `directory`, which is created if it is missing.
    pub(crate) fn open(directory: &Path) -> Result<Self, OpenError> {
        Self::open_locked(directory, lock_directory(directory)?)
    }

    /// The same for a process that had it open before: what was written when its last commit failed is removed.
    pub(crate) fn open_again(directory: &Path, synced: &Synced) -> Result<Self, OpenError> {
        let lock = lock_directory(directory)?;
        if let Some(next) = synced.next() {
            let written = synced.written.load(Ordering::Relaxed);
            journal::cut_unsynced(&directory.join("store"), next, written)
                .map_err(|error| OpenError::Open(directory.to_owned(), error.into()))?;
        }
        let mut engine = Self::open_locked(directory, lock)?;
        let fjall = &mut engine.database;
        fjall.synced = synced.clone();
        fjall.synced.note(&fjall.database, true);
        Ok(engine)
    }

    /// The same with the lock of the directory.
    pub(super) fn open_locked(directory: &Path, lock: File) -> Result<Self, OpenError> {
        let failed = |error| OpenError::Open(directory.to_owned(), error);
        let path = directory.join("store");
        compaction::settle(directory).map_err(|error| failed(error.into()))?;
        if !path.try_exists().map_err(|error| failed(error.into()))? {
            create(directory, &path).map_err(failed)?;
        }
        let cut = journal::cut_damaged_tail(&path).map_err(|error| failed(error.into()))?;
        if let Some(cut) = cut {
            warn!(
                journal = %cut.journal.display(),
                kept = cut.kept,
                lost = cut.lost,
                "cut the damaged tail of the store's journal (kept and lost in bytes)"
            );
        }
        journal::sync(&path).map_err(|error| failed(error.into()))?;
        let (database, tables) = open_database(&path).map_err(failed)?;
        let value = tables.state.get(codec::FORMAT_KEY);
        let value = value.map_err(|error| failed(error.into()))?;
        let format = value.and_then(|value| Some(u16::from_be_bytes(*value.first_chunk()?)));
        match format {
            Some(codec::FORMAT) => {}
            Some(codec::OLDEST_FORMAT..codec::FORMAT) => {
                upgrade(&database, &tables).map_err(failed)?;
            }
            Some(other) => {
                let directory = directory.to_owned();
                return Err(OpenError::Format(directory, other, codec::FORMAT));
            }
            None => return Err(OpenError::NoFormat(directory.to_owned())),
        }
        let database = Fjall {
            database,
            synced: Synced::default(),
            _lock: lock,
        };
        Self::new(database, tables).map_err(failed)
    }
}

impl Table for Keyspace {
    type Batch = OwnedWriteBatch;

    fn name(&self) -> &str {
        Self::name(self)
    }

    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, EngineError> {
        Ok(Self::get(self, key)?)
    }

    fn range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl Iterator<Item = Result<Record, EngineError>> {
        Self::range(self, range).map(|guard| Ok(guard.into_inner()?))
    }

    fn keys(&self, prefix: impl AsRef<[u8]>) -> impl Iterator<Item = Result<Slice, EngineError>> {
        self.prefix(prefix).map(|guard| Ok(guard.key()?))
    }

    fn iter(&self) -> impl Iterator<Item = Result<Record, EngineError>> {
        Self::iter(self).map(|guard| Ok(guard.into_inner()?))
    }
}

impl Batch<Keyspace> for OwnedWriteBatch {
    fn insert(&mut self, table: &Keyspace, key: impl Into<Slice>, value: impl Into<Slice>) {
        Self::insert(self, table, key, value);
    }

    fn remove(&mut self, table: &Keyspace, key: impl Into<Slice>) {
        Self::remove(self, table, key);
    }

    fn len(&self) -> usize {
        Self::len(self)
    }
}

impl Database for Fjall {
    type Table = Keyspace;

    fn batch(&self) -> OwnedWriteBatch {
        self.database.batch()
    }

    fn commit(&mut self, batch: OwnedWriteBatch, sync: bool) -> Result<(), EngineError> {
        let mode = if sync {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        batch.durability(Some(mode)).commit()?;
        self.synced.note(&self.database, sync);
        Ok(())
    }

    fn tidy(&mut self, tables: &Tables<Keyspace>) -> Result<(), EngineError> {
        let end = Instant::now() + FLUSH_TIMEOUT;
        for keyspace in tables.all() {
            keyspace.rotate_memtable()?;
            // The worker writes it to a table, unless its disk fails: then the next commit fails as well.
            while keyspace.sealed_memtable_count() > 0 && Instant::now() < end {
                thread::sleep(FLUSH_PAUSE);
            }
            keyspace.major_compact()?;
        }
        Ok(())
    }
}

/// Keeps other brokers out of a directory, which is created if it is missing, as long as the file is open.
pub(crate) fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    fs::create_dir_all(directory)
        .map_err(|error| OpenError::Create(directory.to_owned(), error))?;
    let path = directory.join("lock");
    let failed = |error| OpenError::Lock(directory.to_owned(), error);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Marks a store of an older format as one of this format: an older broker would not understand it from now on.
fn upgrade(database: &::fjall::Database, tables: &Tables<Keyspace>) -> Result<(), EngineError> {
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    let format = codec::FORMAT.to_be_bytes();
    batch.insert(&tables.state, codec::FORMAT_KEY, format);
    batch.commit()?;
    Ok(())
}

/// Creates the database beside its place and moves it there, so that none is ever half made.
fn create(directory: &Path, path: &Path) -> Result<(), EngineError> {
    let beside = directory.join("store.new");
    match fs::remove_dir_all(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (database, tables) = open_database(&beside)?;
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    let format = codec::FORMAT.to_be_bytes();
    batch.insert(&tables.state, codec::FORMAT_KEY, format);
    batch.commit()?;
    drop((tables, database));
    // The database has not done it for the directories of its keyspaces.
    sync_directories(&beside)?;
    fs::rename(&beside, path)?;
    journal::sync_directory(directory)?;
    Ok(())
}

/// Makes the names in a directory and in all below it durable.
pub(super) fn sync_directories(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_directories(&entry.path())?;
        }
    }
    journal::sync_directory(directory)
}

pub(super) fn open_database(
    path: &Path,
) -> Result<(::fjall::Database, Tables<Keyspace>), EngineError> {
    let database = ::fjall::Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(JOURNALS)
        .max_cached_files(Some(OPEN_FILES))
        .manual_journal_persist(true)
        .worker_threads(WORKERS)
        .open()?;
    let keyspace = |name| database.keyspace(name, options);
    let tables = Tables {
        state: keyspace("state")?,
        queue: keyspace("queue")?,
        bodies: keyspace("bodies")?,
        retained: keyspace("retained")?,
    };
    Ok((database, tables))
}

/// Flushes and compacts. With two, one spins while the other compacts.
const WORKERS: usize = 1;

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(MEMTABLE)
}

#[cfg(test)]
impl Records<Fjall> {
    pub(super) fn set_format(&mut self, value: &[u8]) {
        let state = &self.tables.state;
        state.insert(codec::FORMAT_KEY, value).unwrap();
    }

    pub(super) fn format(&self) -> Vec<u8> {
        let state = &self.tables.state;
        state.get(codec::FORMAT_KEY).unwrap().unwrap().to_vec()
    }
}
