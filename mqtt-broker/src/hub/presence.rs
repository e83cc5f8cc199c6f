//! How many connections there are, for whoever waits for the last one to end.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use tokio::sync::Notify;

/// Counts those who are present.
#[derive(Clone, Debug, Default)]
pub(crate) struct Presence {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicUsize,
    empty: Notify,
}

impl Presence {
    /// One more is present until what this returns is dropped.
    pub(crate) fn enter(&self) -> Present {
        self.shared.count.fetch_add(1, Ordering::SeqCst);
        Present {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Resolves when nobody is present.
    pub(crate) async fn empty(&self) {
        loop {
            let empty = self.shared.empty.notified();
            if self.shared.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            empty.await;
        }
    }
}

/// One who is present.
#[derive(Debug)]
pub(crate) struct Present {
    shared: Arc<Shared>,
}

impl Drop for Present {
    fn drop(&mut self) {
        if self.shared.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.empty.notify_waiters();
        }
    }
}
