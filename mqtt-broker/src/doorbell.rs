//! Whom to wake for what was left somewhere: a task is woken once, however much is left before it looks.
//!
//! Lies beside what it is for, under the same lock. `tests/concurrency` includes this file.

use core::task::Waker;

#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    /// The task was woken for what is here and has not looked yet.
    rung: bool,
    waker: Option<Waker>,
}

impl Doorbell {
    /// Something was left. Returns whom to wake, without the lock, if nobody was woken since the task last looked.
    pub(crate) fn ring(&mut self) -> Option<Waker> {
        if self.rung {
            return None;
        }
        self.rung = true;
        self.waker.clone()
    }

    /// The task looks, under the lock, and is to be woken when more is left.
    pub(crate) fn answer(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        self.rung = false;
    }

    /// Whom to wake whether or not that was done: a task that waits for something else has not looked for a while.
    pub(crate) fn owner(&self) -> Option<Waker> {
        self.waker.clone()
    }

    /// There is no task any more.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
