//! When something is due for a session that has no connection: the end of a will's delay, or its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mqtt_session::Time;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// When, and for which client identifier; the earliest first.
type Deadline = (Time, Arc<str>);

/// The deadlines of all sessions without connection, one each at most.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    all: Mutex<BTreeSet<Deadline>>,
    earlier: Notify,
}

impl Deadlines {
    fn all(&self) -> MutexGuard<'_, BTreeSet<Deadline>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, deadline: Time, id: &Arc<str>) {
        let mut all = self.all();
        let is_first = all.first().is_none_or(|(first, _)| deadline < *first);
        all.insert((deadline, Arc::clone(id)));
        drop(all);
        if is_first {
            self.earlier.notify_one();
        }
    }

    pub(crate) fn remove(&self, deadline: Time, id: &Arc<str>) {
        self.all().remove(&(deadline, Arc::clone(id)));
    }

    /// Waits for the earliest deadline and takes it out.
    pub(crate) async fn next(&self, instant: impl Fn(Time) -> Instant) -> Deadline {
        loop {
            let due = {
                let mut all = self.all();
                let due = all.first().map(|(first, _)| instant(*first));
                if due.is_some_and(|due| due <= Instant::now())
                    && let Some(deadline) = all.pop_first()
                {
                    return deadline;
                }
                due
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = self.earlier.notified() => {}
                    }
                }
                None => self.earlier.notified().await,
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }
}
