//! Who writes an outbox: what waits to be written is taken all at once, synced together, and told, on a thread for
//! blocking work and never on that of a connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mqtt_codec::ReasonCode;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError, oneshot};

use crate::mailbox::Post;
use crate::outbox::OutboxError;
use crate::outbox::clock::WallClock;
use crate::outbox::log::{Log, Stored};
use crate::outbox::record::Record;
use crate::outbox::round::{Command, Store, round};
use crate::outbox::state::{Progress, record_length};
use crate::{Error, Message};

/// Who waits for the end of a message.
pub(crate) type Outcome = oneshot::Sender<Result<ReasonCode, Error>>;

/// Tells when a message is stored, or why it is not.
pub(crate) type Told = oneshot::Receiver<Result<(), Error>>;

/// Room for a message, which goes back if it is not used.
pub(crate) struct Room<'a>(SemaphorePermit<'a>);

/// The client that uses the outbox.
#[derive(Debug)]
struct User {
    id: u64,
    runtime: Handle,
    post: Arc<Post>,
}

/// Writes an outbox.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Mutex<Queue>,
    /// The file is not in use.
    idle: Condvar,
    /// Bytes that the messages may still have.
    room: Semaphore,
    capacity: u32,
    clock: WallClock,
    /// All changes up to this ticket are durable.
    durable: AtomicU64,
    has_failed: AtomicBool,
}

#[derive(Debug)]
struct Queue {
    /// `None` while it is in use, and when the outbox is closed.
    log: Option<Log>,
    is_running: bool,
    is_closed: bool,
    commands: Vec<Command>,
    /// Changes that the disk had no room for, which go first.
    held: Vec<Command>,
    user: Option<User>,
    users: u64,
    next_key: u64,
    last_stored_at: u64,
    last_ticket: u64,
    /// All changes up to this ticket are in the file.
    appended: u64,
    /// How many messages wait to be stored.
    storing: usize,
    /// How many messages are stored.
    stored: usize,
    /// What the messages have beyond the capacity.
    excess: u64,
    failed: Option<OutboxError>,
    outcomes: HashMap<u64, Outcome>,
}

impl Writer {
    pub(crate) fn new(log: Log, capacity: u32, clock: WallClock) -> Arc<Self> {
        let size = log.state.size;
        let room = u64::from(capacity).saturating_sub(size);
        let queue = Queue {
            is_running: false,
            is_closed: false,
            commands: Vec::new(),
            held: Vec::new(),
            user: None,
            users: 0,
            // 0 stands for none.
            next_key: log.state.next_key.max(1),
            last_stored_at: log.state.last_stored_at,
            last_ticket: 0,
            appended: 0,
            storing: 0,
            stored: log.state.messages.len(),
            excess: size.saturating_sub(u64::from(capacity)),
            failed: None,
            outcomes: HashMap::new(),
            log: Some(log),
        };
        Arc::new(Self {
            queue: Mutex::new(queue),
            idle: Condvar::new(),
            room: Semaphore::new(usize::try_from(room).unwrap_or(Semaphore::MAX_PERMITS)),
            capacity,
            clock,
            durable: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the wall clock, in milliseconds since 1970.
    pub(crate) fn wall_clock(&self) -> u64 {
        self.clock.milliseconds()
    }

    /// How many messages are stored.
    pub(crate) fn len(&self) -> usize {
        self.lock().stored
    }

    /// A client begins to use it: its number, and the key below which messages are of earlier ones.
    pub(crate) fn claim(
        &self,
        runtime: Handle,
        post: Arc<Post>,
    ) -> Result<(u64, u64), OutboxError> {
        let mut queue = self.lock();
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        if queue.user.is_some() {
            return Err(OutboxError::InUse);
        }
        queue.users += 1;
        let id = queue.users;
        queue.user = Some(User { id, runtime, post });
        Ok((id, queue.next_key))
    }

    /// The client does not use it any more.
    pub(crate) fn leave(&self, id: u64) {
        let mut queue = self.lock();
        if queue.user.as_ref().is_some_and(|user| user.id == id) {
            queue.user = None;
        }
    }

    /// The messages of earlier runs, and whether each may have been sent.
    pub(crate) fn unfinished(&self) -> Result<Vec<(Stored, bool)>, OutboxError> {
        let mut queue = self.lock();
        if queue.user.is_some() {
            return Err(OutboxError::InUse);
        }
        queue.outcomes.clear();
        drop(queue);
        self.with_log(|log| {
            let messages = log.messages(u64::MAX)?;
            let progress = |key| log.state.messages.get(&key).map(|entry| entry.progress);
            let messages = messages.into_iter();
            Ok(messages
                .map(|stored| {
                    let was_sent = progress(stored.key) != Some(Progress::Queued);
                    (stored, was_sent)
                })
                .collect())
        })
    }

    /// Somebody waits for the end of a message of an earlier run.
    pub(crate) fn expect(&self, key: u64, outcome: Outcome) {
        self.lock().outcomes.insert(key, outcome);
    }

    /// Who waits for the end of a message of an earlier run.
    pub(crate) fn take_outcome(&self, key: u64) -> Option<Outcome> {
        self.lock().outcomes.remove(&key)
    }

    /// Uses the file, when nobody else does. Waits for the disk.
    pub(crate) fn with_log<R>(
        &self,
        body: impl FnOnce(&mut Log) -> Result<R, OutboxError>,
    ) -> Result<R, OutboxError> {
        let mut queue = self.lock();
        while queue.is_running {
            let waited = self.idle.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        match &mut queue.log {
            Some(log) => body(log),
            None => Err(OutboxError::Locked),
        }
    }

    /// Waits for room for a message with so large a record.
    pub(crate) async fn reserve(&self, length: usize) -> Result<Room<'_>, Error> {
        let length = self.fitting(length)?;
        let permit = self.room.acquire_many(length).await;
        permit.map(Room).map_err(|_| self.failure())
    }

    /// Takes room for a message if there is; `None`: there is not now.
    pub(crate) fn try_reserve(&self, length: usize) -> Result<Option<Room<'_>>, Error> {
        let length = self.fitting(length)?;
        match self.room.try_acquire_many(length) {
            Ok(permit) => Ok(Some(Room(permit))),
            Err(TryAcquireError::NoPermits) => Ok(None),
            Err(TryAcquireError::Closed) => Err(self.failure()),
        }
    }

    fn fitting(&self, length: usize) -> Result<u32, Error> {
        u32::try_from(length)
            .ok()
            .filter(|length| *length <= self.capacity)
            .ok_or(Error::Outbox(OutboxError::TooLarge))
    }

    fn failure(&self) -> Error {
        match &self.lock().failed {
            Some(error) => Error::Outbox(error.clone()),
            None => Error::Closed,
        }
    }

    /// The error after which nothing is written any more.
    pub(crate) fn failed(&self) -> Option<OutboxError> {
        match self.has_failed.load(Ordering::Acquire) {
            true => self.lock().failed.clone(),
            false => None,
        }
    }

    /// Queues a message of the client, for which there is room; what it returns tells when it is stored.
    pub(crate) fn store(
        self: &Arc<Self>,
        user: u64,
        mut store: Store,
        room: Room<'_>,
    ) -> Result<Told, (Box<Message>, Error)> {
        let mut queue = self.lock();
        let is_user = queue.user.as_ref().is_some_and(|known| known.id == user);
        if !is_user || queue.failed.is_some() || queue.is_closed {
            let error = match &queue.failed {
                Some(error) => Error::Outbox(error.clone()),
                None => Error::Closed,
            };
            return Err((store.message.message, error));
        }
        // It comes back when the message is complete.
        room.0.forget();
        let (told, stored) = oneshot::channel();
        store.message.key = queue.next_key;
        queue.next_key += 1;
        // A clock that was set back counts as one that stood still.
        let now = self.clock.milliseconds().max(queue.last_stored_at);
        queue.last_stored_at = now;
        queue.storing += 1;
        queue.commands.push(Command::Store {
            store,
            stored_at: now,
            told,
        });
        self.run(queue);
        Ok(stored)
    }

    /// Queues changes of the session; [`durable`](Self::durable) reaches the ticket when they are synced,
    /// which is not before something needs to be.
    pub(crate) fn change(
        self: &Arc<Self>,
        records: Vec<Record<'static>>,
        client_id: Option<String>,
        needs_sync: bool,
    ) -> u64 {
        let mut queue = self.lock();
        queue.last_ticket += 1;
        let ticket = queue.last_ticket;
        queue.commands.push(Command::Changes {
            records,
            client_id,
            ticket,
            needs_sync,
        });
        self.run(queue);
        ticket
    }

    /// Tries again to write what the disk had no room for.
    pub(crate) fn retry(self: &Arc<Self>) {
        self.run(self.lock());
    }

    /// All changes up to this ticket are durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Whether changes wait for room on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// Whether messages wait to be stored.
    pub(crate) fn is_storing(&self) -> bool {
        self.lock().storing > 0
    }

    /// Whether nobody uses the file.
    pub(crate) fn is_idle(&self) -> bool {
        !self.lock().is_running
    }

    /// The last handle is gone: lets go of the directory.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        queue.log = None;
        queue.outcomes.clear();
        self.room.close();
    }

    /// Begins to write, unless that is under way.
    fn run(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if queue.is_running || queue.log.is_none() {
            return;
        }
        let Some(user) = &queue.user else { return };
        let runtime = user.runtime.clone();
        queue.is_running = true;
        drop(queue);
        let mut job = Job {
            writer: Arc::clone(self),
            has_worked: false,
        };
        runtime.spawn_blocking(move || job.work());
    }

    /// Writes until nothing waits.
    fn work(&self) {
        let mut queue = self.lock();
        let Some(mut log) = queue.log.take() else {
            queue.rest(&self.idle);
            return;
        };
        let mut appended = queue.appended;
        loop {
            let mut commands = std::mem::take(&mut queue.held);
            commands.append(&mut queue.commands);
            drop(queue);
            let outcome = round(&mut log, commands, &mut appended);
            queue = self.lock();
            let outcome = match outcome {
                Ok(round) => {
                    queue.held = round.held;
                    queue.appended = appended;
                    queue.stored = log.state.messages.len();
                    self.tell(&mut queue, round.done, round.refused, round.freed);
                    if let Some(ticket) = round.synced {
                        self.durable.fetch_max(ticket, Ordering::Release);
                    }
                    queue.ring();
                    drop(queue);
                    // Nobody who was told has to wait for it.
                    let compacted = log.compact();
                    queue = self.lock();
                    compacted.map_err(OutboxError::from)
                }
                Err((error, commands)) => {
                    let error = OutboxError::from(error);
                    // Whether they are in the file will be seen when it is opened.
                    let told = Error::Outbox(error.clone()).uncertain();
                    let refused = commands.into_iter();
                    let refused = refused.map(|command| (command, told.clone()));
                    self.tell(&mut queue, Vec::new(), refused.collect(), 0);
                    Err(error)
                }
            };
            if let Err(error) = outcome {
                tracing::error!("the outbox cannot be written: {error}");
                queue.failed = Some(error.clone());
                self.has_failed.store(true, Ordering::Release);
                self.room.close();
                let refused = std::mem::take(&mut queue.commands).into_iter();
                let told = Error::Outbox(error);
                let refused = refused.map(|command| (command, told.clone()));
                self.tell(&mut queue, Vec::new(), refused.collect(), 0);
                break;
            }
            if queue.commands.is_empty() {
                break;
            }
        }
        if !queue.is_closed {
            queue.log = Some(log);
        }
        queue.rest(&self.idle);
    }

    /// Tells who waits, and hands stored messages to the client's task, in order.
    fn tell(
        &self,
        queue: &mut Queue,
        done: Vec<Command>,
        refused: Vec<(Command, Error)>,
        freed: u64,
    ) {
        queue.free(freed, &self.room);
        for command in done {
            if let Command::Store { store, told, .. } = command {
                queue.storing -= 1;
                store.place.send(store.message);
                // Nobody may be waiting.
                let _ = told.send(Ok(()));
            }
        }
        for (command, error) in refused {
            if let Command::Store { store, told, .. } = command {
                queue.storing -= 1;
                let length = record_length(store.packet.len());
                queue.free(length as u64, &self.room);
                store.message.resolve(Err(error.clone()));
                let _ = told.send(Err(error));
            }
        }
    }
}

/// The work of one thread; if the runtime ends before it begins, it is over as well.
struct Job {
    writer: Arc<Writer>,
    has_worked: bool,
}

impl Job {
    fn work(&mut self) {
        self.writer.work();
        self.has_worked = true;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.has_worked {
            let mut queue = self.writer.lock();
            queue.rest(&self.writer.idle);
        }
    }
}

impl Queue {
    /// Nobody writes now.
    fn rest(&mut self, idle: &Condvar) {
        self.is_running = false;
        self.ring();
        idle.notify_all();
    }

    /// Messages with so many bytes are gone.
    fn free(&mut self, bytes: u64, room: &Semaphore) {
        let repaid = bytes.min(self.excess);
        self.excess -= repaid;
        room.add_permits(usize::try_from(bytes - repaid).unwrap_or(0));
    }

    /// The client's task is to look.
    fn ring(&self) {
        if let Some(user) = &self.user {
            user.post.bell.notify_one();
        }
    }
}
