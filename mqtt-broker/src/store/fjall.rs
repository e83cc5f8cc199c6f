//! The engine that keeps its records in [fjall](::fjall), a log-structured merge tree with a journal.
//!
//! The data directory holds `lock`, locked while a broker uses it, and `store`, the database. A commit is one
//! batch of the journal. Its settings are for a small device: they bound the memory and not the data.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use ::fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tracing::warn;

use crate::config::Durability;
use crate::store::changes::{self, Keyspaces, Known};
use crate::store::codec::{self, Flight, Marks, StateKey};
use crate::store::compaction;
use crate::store::engine::{Engine, EngineError, Reader};
use crate::store::input::Undecodable;
use crate::store::journal;
use crate::store::portion::FjallReader;
use crate::store::queue::{Bodies, Queue};
use crate::store::record::{
    Clock, Contents, Op, Retained, SessionNumber, SessionRecord, StoredSession, WallTime,
    number_after,
};

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
/// So many damaged records are named in the log; the others are counted.
const SKIPS_SHOWN: u64 = 10;

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

/// Why an engine refuses a commit.
#[derive(Debug, thiserror::Error)]
enum MisuseError {
    #[error("the store has not been read")]
    NotLoaded,
    #[error("a commit to the store failed before")]
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opened,
    Loaded,
    Failed,
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
    fn note(&self, database: &Database, synced: bool) {
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

/// A store in a directory.
pub(crate) struct FjallEngine {
    pub(super) keyspaces: Keyspaces,
    pub(super) known: Known,
    stage: Stage,
    /// Records that could not be decoded.
    skipped: u64,
    database: Database,
    synced: Synced,
    /// Held as long as the database is open.
    _lock: File,
}

impl fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FjallEngine")
            .field("marks", &self.known.marks)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl FjallEngine {
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
        engine.synced = synced.clone();
        engine.synced.note(&engine.database, true);
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
        let (database, keyspaces) = open_database(&path).map_err(failed)?;
        let value = keyspaces.state.get(codec::FORMAT_KEY);
        let value = value.map_err(|error| failed(error.into()))?;
        let format = value.and_then(|value| Some(u16::from_be_bytes(*value.first_chunk()?)));
        match format {
            Some(codec::FORMAT) => {}
            Some(codec::OLDEST_FORMAT..codec::FORMAT) => {
                upgrade(&database, &keyspaces).map_err(failed)?;
            }
            Some(other) => {
                let directory = directory.to_owned();
                return Err(OpenError::Format(directory, other, codec::FORMAT));
            }
            None => return Err(OpenError::NoFormat(directory.to_owned())),
        }
        let marks = keyspaces.state.get(codec::MARKS_KEY);
        let marks = match marks.map_err(|error| failed(error.into()))? {
            Some(value) => codec::decode_marks(&value).map_err(|error| failed(error.into()))?,
            None => Marks::default(),
        };
        Ok(Self {
            keyspaces,
            known: Known {
                marks,
                ..Known::default()
            },
            stage: Stage::Opened,
            skipped: 0,
            database,
            synced: Synced::default(),
            _lock: lock,
        })
    }

    fn skip(&mut self, keyspace: &Keyspace, key: &[u8], error: Undecodable) {
        self.skipped += 1;
        if self.skipped <= SKIPS_SHOWN {
            let key = key.escape_ascii();
            warn!(keyspace = %&**keyspace.name(), %key, %error, "skipped a damaged record of the store");
        }
    }

    fn load_bodies(&mut self, clock: Clock, all: bool) -> Result<Bodies, EngineError> {
        let keyspace = self.keyspaces.bodies.clone();
        let mut bodies = Bodies::new(keyspace.clone());
        for guard in keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            let decoded = codec::decode_body_key(&key).and_then(|number| {
                let size = codec::message_size(&value)?;
                let message = if all {
                    let (message, _) = codec::decode_message(&value, |at| clock.time(at))?;
                    Some(Arc::new(message))
                } else {
                    None
                };
                Ok((number, size, message))
            });
            match decoded {
                Ok((number, size, message)) => {
                    let marks = &mut self.known.marks;
                    marks.next_body = marks.next_body.max(number.saturating_add(1));
                    bodies.insert(number, size, message);
                }
                Err(error) => self.skip(&keyspace, &key, error),
            }
        }
        Ok(bodies)
    }

    fn load_state(&mut self) -> Result<Vec<StoredSession>, EngineError> {
        let mut loading = Sessions::default();
        let keyspace = self.keyspaces.state.clone();
        for guard in keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            if let Err(error) = loading.add(&key, &value, &mut self.known) {
                self.skip(&keyspace, &key, error);
            }
        }
        loading.finish();
        Ok(loading.sessions)
    }

    fn load_queue(
        &mut self,
        clock: Clock,
        window: usize,
        sessions: &mut [StoredSession],
        bodies: &mut Bodies,
    ) -> Result<(), EngineError> {
        let keyspace = self.keyspaces.queue.clone();
        let mut sessions = sessions.iter_mut().peekable();
        let mut loading = Queue::default();
        for guard in keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            let (number, entry_key) = match codec::decode_entry_key(&key) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.skip(&keyspace, &key, error);
                    continue;
                }
            };
            // Counted before the rest is looked at, as it is when the entry is removed.
            if let Ok(Some(body)) = codec::entry_body(&value) {
                *self.known.references.entry(body).or_default() += 1;
            }
            while sessions
                .next_if(|session| session.number < number)
                .is_some()
            {}
            let Some(session) = sessions.peek_mut().filter(|it| it.number == number) else {
                note_ended(&mut self.known, number);
                continue;
            };
            if let Err(error) = loading.add(session, entry_key, &value, window, bodies, clock)? {
                self.skip(&keyspace, &key, error);
            }
            let loaded = entry_key.saturating_add(1);
            self.known.live.insert(number, loaded);
        }
        Ok(())
    }

    fn load_retained(&mut self, clock: Clock) -> Result<Vec<Retained>, EngineError> {
        let mut retained = Vec::new();
        let keyspace = self.keyspaces.retained.clone();
        for guard in keyspace.iter() {
            let (key, value) = guard.into_inner()?;
            match codec::decode_retained(&value, |at| clock.time(at)) {
                Ok((_, Some(at), _)) if at <= clock.origin => self.known.expired.push(key),
                Ok((message, _, publisher)) if message.topic().as_bytes() == &*key => {
                    retained.push((Arc::new(message), publisher));
                }
                Ok(_) => self.skip(&keyspace, &key, Undecodable("of another topic")),
                Err(error) => self.skip(&keyspace, &key, error),
            }
        }
        Ok(retained)
    }
}

impl Engine for FjallEngine {
    fn last_commit_at(&self) -> Option<WallTime> {
        let at = self.known.marks.at;
        (at != WallTime::default()).then_some(at)
    }

    fn load(&mut self, clock: Clock, window: usize) -> Result<Contents, EngineError> {
        self.known = Known {
            marks: self.known.marks,
            ..Known::default()
        };
        self.skipped = 0;
        let mut bodies = self.load_bodies(clock, window == usize::MAX)?;
        let mut sessions = self.load_state()?;
        self.load_queue(clock, window, &mut sessions, &mut bodies)?;
        drop(bodies);
        let retained = self.load_retained(clock)?;
        if self.skipped > 0 {
            warn!(
                records = self.skipped,
                "skipped damaged records of the store"
            );
        }
        self.stage = Stage::Loaded;
        Ok(Contents {
            sessions,
            retained,
            next_session: self.known.marks.next_session,
            next_body: self.known.marks.next_body,
            skipped: self.skipped,
        })
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(FjallReader {
            queue: self.keyspaces.queue.clone(),
            bodies: self.keyspaces.bodies.clone(),
        })
    }

    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError> {
        match self.stage {
            Stage::Opened => return Err(MisuseError::NotLoaded.into()),
            Stage::Failed => return Err(MisuseError::Failed.into()),
            Stage::Loaded => {}
        }
        let mode = match durability {
            Durability::Disk => PersistMode::SyncData,
            Durability::Os | Durability::Memory => PersistMode::Buffer,
        };
        // Whatever fails below, the counts may then be ahead of what is stored.
        self.stage = Stage::Failed;
        let mut batch = self.database.batch().durability(Some(mode));
        changes::write(ops, at, &mut self.known, &self.keyspaces, &mut batch)?;
        let records = batch.len();
        batch.commit()?;
        self.synced
            .note(&self.database, durability == Durability::Disk);
        self.stage = Stage::Loaded;
        Ok(records)
    }

    fn tidy(&mut self) -> Result<(), EngineError> {
        let end = Instant::now() + FLUSH_TIMEOUT;
        let keyspaces = &self.keyspaces;
        for keyspace in [
            &keyspaces.state,
            &keyspaces.queue,
            &keyspaces.bodies,
            &keyspaces.retained,
        ] {
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

/// The sessions that are read back, record by record in the order of their keys.
#[derive(Default)]
struct Sessions {
    sessions: Vec<StoredSession>,
    /// What is in flight of the last session.
    flights: Vec<(mqtt_codec::PacketId, Flight)>,
}

impl Sessions {
    fn add(&mut self, key: &[u8], value: &[u8], known: &mut Known) -> Result<(), Undecodable> {
        let number = match codec::decode_state_key(key)? {
            StateKey::Format | StateKey::Marks => return Ok(()),
            StateKey::Session(number) => {
                let marks = &mut known.marks;
                marks.next_session = marks.next_session.max(number_after(number));
                let record =
                    codec::decode_session(value).inspect_err(|_| note_ended(known, number))?;
                self.begin(number, record);
                known.live.insert(number, 0);
                return Ok(());
            }
            StateKey::Subscription(number, _)
            | StateKey::Owed(number, _)
            | StateKey::Flight(number, _)
            | StateKey::Received(number, _) => number,
        };
        let Some(session) = self.sessions.last_mut().filter(|it| it.number == number) else {
            note_ended(known, number);
            return Ok(());
        };
        match codec::decode_state_key(key)? {
            StateKey::Subscription(_, in_key) => {
                let subscription = codec::decode_subscription(in_key, value)?;
                session.subscriptions.push(subscription);
            }
            StateKey::Owed(_, in_key) => {
                session.owed.push(codec::decode_filter(in_key, value)?);
            }
            StateKey::Flight(_, id) => {
                let flight = codec::decode_flight(value)?;
                let (Flight::Sent { order, .. } | Flight::Released { order }) = flight;
                known.order = known.order.max(order.saturating_add(1));
                known.flights.insert((number, id.get()));
                self.flights.push((id, flight));
            }
            StateKey::Received(_, id) => {
                known.received.insert((number, id.get()));
                session.received.push(id);
            }
            StateKey::Format | StateKey::Marks | StateKey::Session(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, number: SessionNumber, record: SessionRecord) {
        self.finish();
        self.sessions.push(StoredSession {
            number,
            record,
            subscriptions: Vec::new(),
            owed: Vec::new(),
            entries: Vec::new(),
            rest: None,
            sent: Vec::new(),
            released: Vec::new(),
            received: Vec::new(),
        });
    }

    /// Puts what is in flight of the last session in its order.
    fn finish(&mut self) {
        let Some(session) = self.sessions.last_mut() else {
            return;
        };
        self.flights.sort_by_key(|(_, flight)| match flight {
            Flight::Sent { order, .. } | Flight::Released { order } => *order,
        });
        for (id, flight) in self.flights.drain(..) {
            match flight {
                Flight::Sent { key, .. } => session.sent.push((id, key)),
                Flight::Released { .. } => session.released.push(id),
            }
        }
    }
}

/// A session has ended and left a record, or its own is damaged: the next commits remove all it has.
fn note_ended(known: &mut Known, session: SessionNumber) {
    let marks = &mut known.marks;
    marks.next_session = marks.next_session.max(number_after(session));
    known.ended.insert(session, 0);
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
fn upgrade(database: &Database, keyspaces: &Keyspaces) -> Result<(), EngineError> {
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    let format = codec::FORMAT.to_be_bytes();
    batch.insert(&keyspaces.state, codec::FORMAT_KEY, format);
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
    let (database, keyspaces) = open_database(&beside)?;
    let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
    let format = codec::FORMAT.to_be_bytes();
    batch.insert(&keyspaces.state, codec::FORMAT_KEY, format);
    batch.commit()?;
    drop((keyspaces, database));
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

pub(super) fn open_database(path: &Path) -> Result<(Database, Keyspaces), EngineError> {
    let database = Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(JOURNALS)
        .max_cached_files(Some(OPEN_FILES))
        .manual_journal_persist(true)
        .worker_threads(WORKERS)
        .open()?;
    let keyspace = |name| database.keyspace(name, options);
    let keyspaces = Keyspaces {
        state: keyspace("state")?,
        queue: keyspace("queue")?,
        bodies: keyspace("bodies")?,
        retained: keyspace("retained")?,
    };
    Ok((database, keyspaces))
}

/// Flushes and compacts. With two, one spins while the other compacts.
const WORKERS: usize = 1;

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(MEMTABLE)
}

#[cfg(test)]
impl FjallEngine {
    /// Records in the queues, and bodies.
    pub(super) fn records(&self) -> [usize; 2] {
        [&self.keyspaces.queue, &self.keyspaces.bodies].map(|it| it.len().unwrap())
    }

    /// Commits, and says how many records it wrote.
    pub(super) fn writes(&mut self, ops: &[Op]) -> usize {
        let mut batch = self.database.batch();
        let at = WallTime::default();
        changes::write(ops, at, &mut self.known, &self.keyspaces, &mut batch).unwrap();
        let writes = batch.len();
        batch.commit().unwrap();
        writes
    }

    pub(super) fn set_format(&mut self, value: &[u8]) {
        let state = &self.keyspaces.state;
        state.insert(codec::FORMAT_KEY, value).unwrap();
    }

    pub(super) fn format(&self) -> Vec<u8> {
        let state = &self.keyspaces.state;
        state.get(codec::FORMAT_KEY).unwrap().unwrap().to_vec()
    }

    pub(super) fn damage(&mut self, session: SessionNumber, key: crate::store::record::Key) {
        let queue = &self.keyspaces.queue;
        queue
            .insert(codec::entry_key(session, key), b"\xff")
            .unwrap();
    }
}
