//! Batches of changes that gather while the one before is committed, and who waits for which of them.
//!
//! `tests/concurrency` includes this file.

use core::task::Waker;
use core::time::Duration;
use std::time::Instant;

use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Names the batch that a change is in. All changes up to a ticket are durable, or none of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

#[cfg(test)]
impl Ticket {
    pub(crate) fn for_test(number: u64) -> Self {
        Self(number)
    }
}

/// Changes that wait for the committing thread.
struct Gathering<T> {
    items: Vec<T>,
    bytes: usize,
    /// Some of them want to be synced.
    sync: bool,
    waiting: Vec<(Ticket, Waker)>,
    closing: bool,
}

/// What the committing thread took, but for the changes.
pub(crate) struct Taken {
    ticket: Ticket,
    /// Of the changes.
    pub(crate) bytes: usize,
    pub(crate) sync: bool,
}

/// What waiting for changes came to.
pub(crate) enum Waited {
    Changes(Taken),
    Closing,
    /// Nothing has come, and it is not the only thing to wait for.
    Nothing,
}

pub(crate) struct Batches<T> {
    gathering: Mutex<Gathering<T>>,
    changed: Condvar,
    /// The ticket of the batch that gathers. Changed under the lock.
    current: AtomicU64,
    /// The last ticket that is durable.
    durable: AtomicU64,
    /// Bytes that were submitted and are not durable.
    pending: AtomicUsize,
}

impl<T> Batches<T> {
    pub(crate) fn new() -> Self {
        Self {
            gathering: Mutex::new(Gathering {
                items: Vec::new(),
                bytes: 0,
                sync: false,
                waiting: Vec::new(),
                closing: false,
            }),
            changed: Condvar::new(),
            current: AtomicU64::new(1),
            durable: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
        }
    }

    fn gathering(&self) -> MutexGuard<'_, Gathering<T>> {
        self.gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds changes, in order and as one unit, to the batch that gathers; empties `items`.
    pub(crate) fn submit(&self, items: &mut Vec<T>, bytes: usize, sync: bool) -> Ticket {
        self.pending.fetch_add(bytes, Ordering::Relaxed);
        let mut gathering = self.gathering();
        let was_empty = gathering.items.is_empty();
        gathering.bytes += bytes;
        gathering.sync |= sync;
        if was_empty {
            core::mem::swap(&mut gathering.items, items);
        } else {
            gathering.items.append(items);
        }
        let ticket = Ticket(self.current.load(Ordering::Relaxed));
        drop(gathering);
        if was_empty {
            self.changed.notify_one();
        }
        ticket
    }

    /// The last ticket that is durable.
    pub(crate) fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn is_durable(&self, ticket: Ticket) -> bool {
        self.durable() >= ticket
    }

    /// Has `waker` woken when the ticket is durable; false if it is already.
    pub(crate) fn wake_when_durable(&self, ticket: Ticket, waker: &Waker) -> bool {
        let mut gathering = self.gathering();
        if self.is_durable(ticket) {
            return false;
        }
        gathering.waiting.push((ticket, waker.clone()));
        true
    }

    /// The ticket that is durable when everything is that was submitted by now.
    pub(crate) fn last_submitted(&self) -> Ticket {
        let gathering = self.gathering();
        let current = self.current.load(Ordering::Relaxed);
        Ticket(current - u64::from(gathering.items.is_empty()))
    }

    /// Bytes that were submitted and are not durable.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// A ticket after which less is pending: the batch that is being written.
    pub(crate) fn next_durable(&self) -> Ticket {
        Ticket(self.durable().0 + 1)
    }

    /// Takes what has gathered, if anything has.
    #[cfg(test)]
    pub(crate) fn take(&self, items: &mut Vec<T>) -> Option<Taken> {
        self.take_from(&mut self.gathering(), items)
    }

    /// From now on the next batch gathers.
    fn take_from(&self, gathering: &mut Gathering<T>, items: &mut Vec<T>) -> Option<Taken> {
        if gathering.items.is_empty() {
            return None;
        }
        core::mem::swap(&mut gathering.items, items);
        Some(Taken {
            ticket: Ticket(self.current.fetch_add(1, Ordering::Relaxed)),
            bytes: core::mem::take(&mut gathering.bytes),
            sync: core::mem::take(&mut gathering.sync),
        })
    }

    /// Waits for changes and takes them; for so long at most, where `patience` says so.
    pub(crate) fn wait(
        &self,
        items: &mut Vec<T>,
        patience: impl Fn() -> Option<Duration>,
    ) -> Waited {
        let mut gathering = self.gathering();
        loop {
            if let Some(taken) = self.take_from(&mut gathering, items) {
                return Waited::Changes(taken);
            }
            if gathering.closing {
                return Waited::Closing;
            }
            gathering = match patience() {
                None => self
                    .changed
                    .wait(gathering)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.changed.wait_timeout(gathering, patience);
                    let (gathering, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    if waited.timed_out() && gathering.items.is_empty() && !gathering.closing {
                        return Waited::Nothing;
                    }
                    gathering
                }
            };
        }
    }

    /// Waits a while, whatever is submitted; true as soon as it is closing.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut gathering = self.gathering();
        while !gathering.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(gathering, left);
            (gathering, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// What was taken is durable: does `first`, then wakes everybody who waits for it.
    pub(crate) fn announce(&self, taken: &Taken, first: impl FnOnce()) {
        let woken: Vec<Waker> = {
            let mut gathering = self.gathering();
            self.durable.store(taken.ticket.0, Ordering::Release);
            let waiting = &mut gathering.waiting;
            let due = waiting.extract_if(.., |(wanted, _)| *wanted <= taken.ticket);
            due.map(|(_, waker)| waker).collect()
        };
        first();
        woken.into_iter().for_each(Waker::wake);
        self.pending.fetch_sub(taken.bytes, Ordering::Relaxed);
    }

    /// Has whoever waits for changes look at its patience again.
    pub(crate) fn nudge(&self) {
        // Not between its look and its wait.
        drop(self.gathering());
        self.changed.notify_one();
    }

    /// Ends the waiting once nothing gathers any more.
    pub(crate) fn close(&self) {
        self.gathering().closing = true;
        self.changed.notify_one();
    }
}
