//! The messages that wait for one reader, in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use mqtt_codec::QoS;
use mqtt_session::Token;
use tokio::sync::Notify;

use crate::Received;

/// What all mailboxes of a client share with its event loop.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Messages that were acknowledged since the event loop looked. Bounded by what the server may
    /// send without an acknowledgement.
    acknowledged: Mutex<Vec<Token>>,
    pub(crate) bell: Notify,
    /// How often the session was resumed: what was not acknowledged before comes again. This and the next are set
    /// with the list locked, so that each message is either acknowledged by then or comes again.
    resumptions: AtomicU32,
    /// How many connections there were before this one, if there is one.
    connections: AtomicU32,
}

/// Locks a mutex whose holder cannot have left its contents half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Post {
    /// A message of this connection, or of the last one while there is no other, is the application's: the event loop
    /// tells the server, if nobody else is to have it first. Returns whether it can: a message of an earlier one comes
    /// again, or is forgotten, and then `is_due` is not asked.
    pub(crate) fn acknowledge(
        &self,
        token: Token,
        connection: u32,
        is_due: impl FnOnce() -> bool,
    ) -> bool {
        let mut acknowledged = lock(&self.acknowledged);
        if connection != self.connection() {
            return false;
        }
        if !is_due() {
            return true;
        }
        let was_empty = acknowledged.is_empty();
        acknowledged.push(token);
        drop(acknowledged);
        if was_empty {
            self.bell.notify_one();
        }
        true
    }

    /// Swaps the messages that were acknowledged into an empty list.
    pub(crate) fn take_acknowledged(&self, into: &mut Vec<Token>) {
        std::mem::swap(&mut *lock(&self.acknowledged), into);
    }

    /// There is a new connection. If the server goes on with the session it sends again what is unacknowledged, but
    /// for what it did not hear of: that goes into an empty list.
    pub(crate) fn connected(&self, is_resumed: bool, unheard: &mut Vec<Token>) {
        let mut acknowledged = lock(&self.acknowledged);
        std::mem::swap(&mut *acknowledged, unheard);
        self.connections.fetch_add(1, Ordering::Relaxed);
        if is_resumed {
            self.resumptions.fetch_add(1, Ordering::Relaxed);
        } else {
            // It knows nothing of them any more.
            unheard.clear();
        }
    }

    /// The number of the connection that messages arrive on.
    pub(crate) fn connection(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// The number of the resumption that messages arrive under.
    pub(crate) fn resumption(&self) -> u32 {
        self.resumptions.load(Ordering::Relaxed)
    }

    /// Whether a message was left over from before the session was resumed, so that it comes again.
    pub(crate) fn is_stale(&self, message: &Received) -> bool {
        message.quality() > QoS::AtMostOnce && message.resumption != self.resumption()
    }
}

/// The messages that wait for one reader. The event loop fills it, the reader empties it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    contents: Mutex<Contents>,
    /// How many messages of QoS 0 may wait.
    capacity: usize,
    dropped: AtomicU64,
    /// A message came behind newer ones, of which the reader may have taken some out without reading them.
    has_late: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    /// In the order of arrival.
    queue: VecDeque<Received>,
    /// The number of the newest that ever came.
    newest: u64,
    /// How many of them are of QoS 0.
    unreliable: usize,
    wakers: Vec<Waker>,
    /// No message will come any more.
    has_ended: bool,
    /// The reader is gone.
    is_closed: bool,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            contents: Mutex::default(),
            capacity,
            dropped: AtomicU64::new(0),
            has_late: AtomicBool::new(false),
        })
    }

    /// Hands a message over: it goes before those that arrived later, which matters for what another reader had
    /// and did not take. One of QoS 0 without room is dropped and counted; the others always have
    /// room, since the server sends no more of them than it may. Gives the message back if the reader is
    /// gone.
    #[must_use]
    pub(crate) fn push(&self, message: Received) -> Option<Received> {
        let mut contents = lock(&self.contents);
        if contents.is_closed {
            return Some(message);
        }
        if message.quality() == QoS::AtMostOnce {
            if contents.unreliable >= self.capacity {
                drop(contents);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            contents.unreliable += 1;
        }
        if contents.newest <= message.number {
            contents.newest = message.number;
            contents.queue.push_back(message);
        } else {
            contents.insert(message);
            self.has_late.store(true, Ordering::Relaxed);
        }
        wake(contents);
        None
    }

    /// Whether a message came behind newer ones since this was asked: what the reader took out and has not read is
    /// to be [put back](Self::put_back), which finds its place.
    pub(crate) fn has_late(&self) -> bool {
        self.has_late.load(Ordering::Relaxed) && self.has_late.swap(false, Ordering::Relaxed)
    }

    /// Whether a message of QoS 0 would be kept; if not, it is counted as dropped.
    pub(crate) fn has_room(&self) -> bool {
        let room = lock(&self.contents).unreliable < self.capacity;
        if !room {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// The next message; `None` when the last has been taken.
    pub(crate) fn poll_pop(&self, context: &Context<'_>) -> Poll<Option<Received>> {
        let mut contents = lock(&self.contents);
        if let Some(message) = contents.pop() {
            return Poll::Ready(Some(message));
        }
        contents.wait(context)
    }

    /// Swaps all that waits into an empty queue; `Ready(false)` when nothing comes any more.
    pub(crate) fn poll_swap(
        &self,
        context: &Context<'_>,
        into: &mut VecDeque<Received>,
    ) -> Poll<bool> {
        let mut contents = lock(&self.contents);
        if contents.queue.is_empty() {
            return contents.wait(context).map(|_| false);
        }
        contents.swap(into);
        Poll::Ready(true)
    }

    /// A message that is there already.
    pub(crate) fn try_pop(&self) -> Option<Received> {
        lock(&self.contents).pop()
    }

    /// Swaps what is there already into an empty queue.
    pub(crate) fn try_swap(&self, into: &mut VecDeque<Received>) {
        lock(&self.contents).swap(into);
    }

    /// Takes out the messages that `choose` picks.
    pub(crate) fn take_where(&self, choose: impl Fn(&Received) -> bool) -> VecDeque<Received> {
        let mut contents = lock(&self.contents);
        let (taken, kept) = std::mem::take(&mut contents.queue)
            .into_iter()
            .partition::<VecDeque<_>, _>(|message| choose(message));
        contents.queue = kept;
        contents.unreliable -= unreliable(&taken);
        taken
    }

    /// Nothing will come any more; what is there can still be taken.
    pub(crate) fn end(&self) {
        let mut contents = lock(&self.contents);
        contents.has_ended = true;
        wake(contents);
    }

    /// The reader goes: no message is taken any more.
    pub(crate) fn close(&self) {
        lock(&self.contents).is_closed = true;
    }

    /// Whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.contents).is_closed
    }

    /// Puts back what the reader had taken out in one go and not read.
    pub(crate) fn put_back(&self, mut messages: VecDeque<Received>) {
        let mut contents = lock(&self.contents);
        messages.append(&mut contents.queue);
        messages
            .make_contiguous()
            .sort_by_key(|message| message.number);
        contents.unreliable = unreliable(&messages);
        contents.queue = messages;
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.contents).queue.len()
    }

    /// How many messages were dropped because nobody took them.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn unreliable(messages: &VecDeque<Received>) -> usize {
    let unreliable = |message: &&Received| message.quality() == QoS::AtMostOnce;
    messages.iter().filter(unreliable).count()
}

impl Contents {
    fn insert(&mut self, message: Received) {
        let older = |other: &Received| other.number <= message.number;
        let place = self.queue.iter().rposition(older);
        self.queue
            .insert(place.map_or(0, |place| place + 1), message);
    }

    fn pop(&mut self) -> Option<Received> {
        let message = self.queue.pop_front()?;
        if message.quality() == QoS::AtMostOnce {
            self.unreliable -= 1;
        }
        Some(message)
    }

    fn swap(&mut self, into: &mut VecDeque<Received>) {
        std::mem::swap(&mut self.queue, into);
        self.unreliable = 0;
    }

    fn wait(&mut self, context: &Context<'_>) -> Poll<Option<Received>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let waker = context.waker();
        if !self.wakers.iter().any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
        Poll::Pending
    }
}

/// Wakes who waits, without the lock.
fn wake(mut contents: MutexGuard<'_, Contents>) {
    if contents.wakers.is_empty() {
        return;
    }
    let wakers = std::mem::take(&mut contents.wakers);
    drop(contents);
    for waker in wakers {
        waker.wake();
    }
}
