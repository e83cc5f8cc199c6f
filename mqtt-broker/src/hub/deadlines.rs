//! When something is due for a session that has no connection: the end of a will's delay, or its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use mqtt_session::Time;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// When, and for which client identifier; the earliest first.
type Deadline = Reverse<(Time, Arc<str>)>;

/// A heap of deadlines. An entry is a hint: the session may have gone on in the meantime.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: Mutex<BinaryHeap<Deadline>>,
    earlier: Notify,
}

impl Deadlines {
    pub(crate) fn add(&self, deadline: Time, id: Arc<str>) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = heap
            .peek()
            .is_none_or(|Reverse((first, _))| deadline < *first);
        heap.push(Reverse((deadline, id)));
        drop(heap);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// Waits for the earliest deadline and takes it out.
    pub(crate) async fn next(&self, instant: impl Fn(Time) -> Instant) -> (Time, Arc<str>) {
        loop {
            let due = {
                let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
                match heap.peek() {
                    Some(Reverse((first, _))) if instant(*first) <= Instant::now() => {
                        if let Some(Reverse(entry)) = heap.pop() {
                            return entry;
                        }
                        None
                    }
                    Some(Reverse((first, _))) => Some(instant(*first)),
                    None => None,
                }
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
}
