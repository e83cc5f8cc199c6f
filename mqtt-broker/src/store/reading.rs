//! The thread that reads on in queues, so that neither a connection nor a commit waits for it.

use core::fmt;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::store::engine::{EngineError, Reader};
use crate::store::record::{Clock, Portion, Span};
use crate::store::{RETRY, Ticket};

/// Gets what was read.
pub(crate) type Done = Box<dyn FnOnce(Portion) + Send>;

/// A part of a queue that is to be read.
struct Wish {
    span: Span,
    /// All of it is there when this is durable.
    after: Ticket,
    /// It failed, and is tried again then.
    again: Option<Instant>,
    done: Done,
}

#[derive(Default)]
struct Wishes {
    /// One for each session at most: who asks waits for the answer.
    queue: VecDeque<Wish>,
    closing: bool,
}

impl Wishes {
    /// The first that can be met.
    fn next(&mut self, durable: Ticket, now: Instant) -> Option<Wish> {
        let next = self
            .queue
            .iter()
            .position(|wish| wish.after <= durable && wish.again.is_none_or(|again| again <= now));
        next.and_then(|next| self.queue.remove(next))
    }
}

/// What is to be read, and how.
#[derive(Default)]
pub(super) struct Reading {
    wishes: Mutex<Wishes>,
    changed: Condvar,
    /// Locked while it reads. `None` while the store is closed after a failure.
    reader: Mutex<Option<Box<dyn Reader>>>,
}

impl Reading {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads with this from now on. Nothing is read any more with the one before when this returns.
    pub(super) fn set_reader(&self, reader: Option<Box<dyn Reader>>) {
        let mut place = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        *place = reader;
    }

    pub(super) fn add(&self, span: Span, after: Ticket, done: Done) {
        let wish = Wish {
            span,
            after,
            again: None,
            done,
        };
        self.wishes().queue.push_back(wish);
        self.changed.notify_one();
    }

    /// More has become durable.
    pub(super) fn look(&self) {
        if !self.wishes().queue.is_empty() {
            self.changed.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.wishes().closing = true;
        self.changed.notify_one();
    }

    /// Reads until the store is closed; `durable` tells the last ticket that is.
    pub(super) fn run(&self, durable: impl Fn() -> Ticket, clock: Clock) {
        while let Some(wish) = self.take(&durable) {
            self.meet(wish, clock);
        }
    }

    /// Reads what can be read now, without waiting.
    #[cfg(test)]
    pub(super) fn step(&self, durable: Ticket, clock: Clock) {
        loop {
            let next = self.wishes().next(durable, Instant::now());
            let Some(wish) = next else { return };
            self.meet(wish, clock);
        }
    }

    /// Reads what is wished; what cannot be read is wished again.
    fn meet(&self, mut wish: Wish, clock: Clock) {
        match self.read(&wish.span, clock) {
            Some(Ok(portion)) => (wish.done)(portion),
            failed => {
                if let Some(Err(error)) = failed {
                    let session = wish.span.session;
                    tracing::error!(session, %error, "the queue of a session cannot be read");
                }
                wish.again = Some(Instant::now() + RETRY);
                self.wishes().queue.push_back(wish);
            }
        }
    }

    /// `None`: the store is not open.
    fn read(&self, span: &Span, clock: Clock) -> Option<Result<Portion, EngineError>> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.as_ref().map(|reader| reader.read(span, clock))
    }

    /// Waits for a wish that can be met; `None` when there will be none.
    fn take(&self, durable: impl Fn() -> Ticket) -> Option<Wish> {
        let mut wishes = self.wishes();
        loop {
            if wishes.closing {
                return None;
            }
            let now = Instant::now();
            if let Some(wish) = wishes.next(durable(), now) {
                return Some(wish);
            }
            let again = wishes.queue.iter().filter_map(|wish| wish.again).min();
            wishes = match again {
                Some(again) => {
                    let wait = again.saturating_duration_since(now).max(RETRY / 16);
                    let waited = self.changed.wait_timeout(wishes, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(wishes)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}
