//! What outlives the process: changes of all connections, gathered and made durable together.
//!
//! Whoever changes something submits it and gets a [`Ticket`]; what may not leave before the change is durable
//! waits for the ticket. One thread commits: while it writes one batch, the next one gathers.

mod batches;
mod changes;
mod codec;
mod compaction;
mod engine;
mod fjall;
mod input;
mod journal;
mod memory;
mod portion;
mod queue;
mod reading;
mod record;
mod records;
mod space;
#[cfg(test)]
mod stepper;
mod table;
#[cfg(test)]
mod tests;

use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::time::Instant;

use crate::config::Durability;
use crate::counters::Counters;
pub(crate) use crate::store::batches::Ticket;
use crate::store::batches::{Batches, Taken, Waited};
pub(crate) use crate::store::codec::FORMAT as STORE_FORMAT;
#[cfg(test)]
pub(crate) use crate::store::compaction::{Stage as CompactionStage, compact_interrupted};
pub(crate) use crate::store::compaction::{compact, has_store};
#[cfg(test)]
pub(crate) use crate::store::engine::Reader;
pub(crate) use crate::store::engine::{Engine, EngineError};
pub(crate) use crate::store::fjall::{FjallEngine, OpenError, Synced, lock_directory};
pub(crate) use crate::store::journal::sync_directory;
pub use crate::store::memory::MemoryStore;
use crate::store::reading::{Done, Reading};
use crate::store::record::UNSYNCED;
pub(crate) use crate::store::record::{
    BodyNumber, Clock, Contents, Entry, Key, Op, Portion, Rest, SessionNumber, SessionRecord, Span,
    StoredSession, WallTime, WillRecord,
};
use crate::store::space::Full;
pub(crate) use crate::store::space::{Room, Space, size as size_on_disk};
#[cfg(test)]
pub(crate) use crate::store::stepper::{Step, Stepper};

/// Bytes of changes that may wait to be committed before those who cause them are no longer read.
const PENDING_BYTES: usize = 16 << 20;
/// How long a store that failed rests before it is opened again.
const RETRY: Duration = if cfg!(test) {
    Duration::from_millis(1)
} else {
    Duration::from_secs(2)
};

/// How long a full store waits for changes before it looks again, at least.
const IDLE: Duration = Duration::from_millis(1);
/// How often space is given back while new messages are refused.
const TIDY: Duration = Duration::from_secs(30);

/// Opens the engine, at the start and again after it has failed.
pub(crate) type Open = Box<dyn FnMut() -> Result<Box<dyn Engine>, EngineError> + Send>;

struct Shared {
    batches: Batches<Op>,
    /// Why new messages are refused, as [`Shared::refuse`] puts it.
    refused: AtomicU8,
    /// Other bounds of the space, which the thread that commits has not seen yet.
    next_room: Mutex<Option<Room>>,
    reading: Reading,
}

impl Shared {
    fn next_room(&self) -> MutexGuard<'_, Option<Room>> {
        self.next_room
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, full: Option<Full>) {
        let number = match full {
            None => 0,
            Some(Full::Directory) => 1,
            Some(Full::Disk) => 2,
        };
        self.refused.store(number, Ordering::Relaxed);
    }
}

/// The store of one broker.
pub(crate) struct Store {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    clock: Clock,
    next_session: AtomicU64,
    next_body: AtomicU64,
    /// The changes of retained messages want to be synced.
    syncs_retained: bool,
}

impl Store {
    /// Opens a store and reads back what is in it, up to `window` bytes of each queue. `durability` is that of
    /// retained messages; sessions have their own. `now` is the wall clock; one
    /// that runs behind the last commit counts as if no time had passed.
    pub(crate) fn open(
        open: Open,
        space: Space,
        counters: Arc<Counters>,
        durability: Durability,
        now: WallTime,
        window: usize,
    ) -> Result<(Self, Contents), EngineError> {
        let (store, contents, committer) =
            Self::prepare(open, space, counters, durability, now, window)?;
        let commits = thread::Builder::new()
            .name("store".into())
            .spawn(move || committer.run())?;
        let (shared, clock) = (Arc::clone(&store.shared), store.clock);
        let reads = thread::Builder::new()
            .name("store reads".into())
            .spawn(move || shared.reading.run(|| shared.batches.durable(), clock))?;
        store.threads().extend([commits, reads]);
        Ok((store, contents))
    }

    /// A store without the threads that work for it.
    fn prepare(
        mut open: Open,
        mut space: Space,
        counters: Arc<Counters>,
        durability: Durability,
        now: WallTime,
        window: usize,
    ) -> Result<(Self, Contents, Committer), EngineError> {
        let mut engine = open()?;
        let origin = engine.last_commit_at().map_or(now, |last| last.max(now));
        let clock = Clock { origin };
        let contents = engine.load(clock, window)?;
        let shared = Arc::new(Shared {
            batches: Batches::new(),
            refused: AtomicU8::new(0),
            next_room: Mutex::default(),
            reading: Reading::default(),
        });
        shared.reading.set_reader(Some(engine.reader()));
        shared.refuse(space.look(0));
        let committer = Committer {
            shared: Arc::clone(&shared),
            open,
            engine: Some(engine),
            space,
            tidied: None,
            counters,
            clock,
            started: Instant::now(),
        };
        let store = Self {
            shared,
            threads: Mutex::default(),
            clock,
            next_session: AtomicU64::new(contents.next_session),
            next_body: AtomicU64::new(contents.next_body),
            syncs_retained: durability == Durability::Disk,
        };
        Ok((store, contents, committer))
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// A number for a new session, if one of this durability is stored.
    pub(crate) fn new_session(&self, durability: Durability) -> Option<SessionNumber> {
        let mark = match durability {
            Durability::Disk => 0,
            Durability::Os => UNSYNCED,
            Durability::Memory => return None,
        };
        Some(self.next_session.fetch_add(1, Ordering::Relaxed) | mark)
    }

    pub(crate) fn new_body(&self) -> BodyNumber {
        self.next_body.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds changes, in order and as one unit, to the batch that gathers; empties `ops`.
    pub(crate) fn submit(&self, ops: &mut Vec<Op>) -> Ticket {
        let bytes = ops.iter().map(Op::size).sum();
        let sync = ops.iter().any(|op| op.wants_sync(self.syncs_retained));
        self.shared.batches.submit(ops, bytes, sync)
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.shared.batches.is_durable(ticket)
    }

    /// Has `waker` woken when the ticket is durable; false if it is already.
    pub(crate) fn wake_when_durable(&self, ticket: Ticket, waker: &Waker) -> bool {
        self.shared.batches.wake_when_durable(ticket, waker)
    }

    /// Resolves when the ticket is durable.
    pub(crate) async fn durable(&self, ticket: Ticket) {
        poll_fn(|cx| {
            if self.is_durable(ticket) || !self.wake_when_durable(ticket, cx.waker()) {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }

    /// The batch that gathers, if so much waits that no more should be caused.
    pub(crate) fn congestion(&self) -> Option<Ticket> {
        let batches = &self.shared.batches;
        // The batch before the next one is being written; when that is done there is room.
        (batches.pending() > PENDING_BYTES).then(|| batches.next_durable())
    }

    /// Reads a part of a queue that was submitted before, without waiting for it: `done` is called by another thread,
    /// and if the store is closed before, not at all. A part that cannot be read is tried again until it can.
    pub(crate) fn read(&self, span: Span, done: Done) {
        let after = self.shared.batches.last_submitted();
        self.shared.reading.add(span, after, done);
    }

    /// Whether all that was submitted is durable, and whoever waited for it was told.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.shared.batches.pending() == 0
    }

    /// Why no new message is to be submitted; what takes messages away may be.
    pub(crate) fn full(&self) -> Option<Full> {
        match self.shared.refused.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Full::Directory),
            _ => Some(Full::Disk),
        }
    }

    /// Other bounds of the space hold from now on.
    pub(crate) fn set_room(&self, room: Room) {
        *self.shared.next_room() = Some(room);
        self.shared.batches.nudge();
    }

    /// Commits what was submitted and ends the threads. Blocks.
    pub(crate) fn close(&self) {
        self.shared.batches.close();
        self.shared.reading.close();
        let threads = core::mem::take(&mut *self.threads());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        // Nothing of the engine is left open.
        self.shared.reading.set_reader(None);
    }
}

impl Drop for Store {
    /// A store that nobody closed is closed.
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

/// The thread that commits.
struct Committer {
    shared: Arc<Shared>,
    open: Open,
    /// `None` after it has failed.
    engine: Option<Box<dyn Engine>>,
    space: Space,
    /// When space was last given back since there was enough.
    tidied: Option<Instant>,
    counters: Arc<Counters>,
    clock: Clock,
    started: Instant,
}

impl Committer {
    fn run(mut self) {
        let mut ops = Vec::new();
        while let Some(taken) = self.take(&mut ops) {
            while !self.try_commit(&ops, &taken) {
                if self.rest() {
                    return;
                }
            }
            ops.clear();
        }
    }

    /// Commits what was taken and tells everybody; false if the store has failed, and is to be opened again after a
    /// rest.
    fn try_commit(&mut self, ops: &[Op], taken: &Taken) -> bool {
        let durability = match taken.sync {
            true => Durability::Disk,
            false => Durability::Os,
        };
        if let Err(error) = self.commit(ops, durability) {
            tracing::error!(%error, "the store failed; nothing is acknowledged that depends on it");
            // Never written again in the state that it is in now.
            self.shared.reading.set_reader(None);
            self.engine = None;
            self.shared.refuse(self.space.failed());
            return false;
        }
        let shared = &self.shared;
        shared.batches.announce(taken, || shared.reading.look());
        self.look(taken.bytes);
        true
    }

    /// Waits for changes and takes all there are; `None` when there will be none.
    fn take(&mut self, ops: &mut Vec<Op>) -> Option<Taken> {
        loop {
            match self.wait(ops) {
                Waited::Changes(taken) => return Some(taken),
                Waited::Closing => return None,
                Waited::Nothing => self.make_room(),
            }
        }
    }

    fn wait(&self, ops: &mut Vec<Op>) -> Waited {
        self.shared.batches.wait(ops, || {
            if self.shared.next_room().is_some() {
                return Some(Duration::ZERO);
            }
            // Room may come without a change of ours.
            let is_full = self.shared.refused.load(Ordering::Relaxed) != 0;
            is_full.then(|| space::LOOK.max(IDLE))
        })
    }

    /// Sees whether there is room, by the bounds that hold now, after so many bytes of changes.
    fn look(&mut self, written: usize) -> Option<Full> {
        let next = self.shared.next_room().take();
        if let Some(room) = next {
            self.space.set(room);
        }
        let full = self.space.look(written);
        self.shared.refuse(full);
        full
    }

    /// While new messages are refused and there is nothing to commit: sees whether there is room again, and has the
    /// engine give back what it can.
    fn make_room(&mut self) {
        let full = self.look(0);
        let again = self.tidied.is_none_or(|at| at.elapsed() >= TIDY);
        if full.is_some()
            && again
            && let Some(engine) = &mut self.engine
        {
            self.tidied = Some(Instant::now());
            if let Err(error) = engine.tidy() {
                tracing::error!(%error, "the store failed while it gave space back");
                self.shared.reading.set_reader(None);
                self.engine = None;
            }
        }
        // Whoever reads a queue waits for the store to be open again.
        if self.engine.is_none()
            && let Err(error) = self.commit(&[], Durability::Disk)
        {
            tracing::error!(%error, "the store failed");
            self.shared.reading.set_reader(None);
            self.engine = None;
        }
    }

    fn commit(&mut self, ops: &[Op], durability: Durability) -> Result<(), EngineError> {
        let engine = match &mut self.engine {
            Some(engine) => engine,
            None => {
                let mut engine = (self.open)()?;
                engine.load(self.clock, 0)?;
                self.shared.reading.set_reader(Some(engine.reader()));
                tracing::warn!("the store is open again");
                self.engine.insert(engine)
            }
        };
        let at = WallTime(self.clock.origin.0 + self.started.elapsed().as_millis() as u64);
        let records = engine.commit(ops, at, durability)?;
        self.counters.count_commit(ops.len(), records);
        Ok(())
    }

    /// Waits a while after a failure; true if there is nobody left to try again for.
    fn rest(&self) -> bool {
        self.shared.batches.rest(RETRY)
    }
}
