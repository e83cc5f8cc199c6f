//! How much may wait for one session: read for each batch of messages, and changed by a reload while they come.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;

/// The bounds that hold now. Each is a number by itself: whoever reads two of them while they change may read one of
/// before, which does no harm.
#[derive(Debug)]
pub(crate) struct Bounds {
    outbox_bytes: AtomicUsize,
    queue_bytes: AtomicUsize,
    stored_queue_bytes: AtomicUsize,
    queue_messages: AtomicUsize,
}

impl Bounds {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            outbox_bytes: AtomicUsize::new(config.outbox_bytes),
            queue_bytes: AtomicUsize::new(config.queue_bytes),
            stored_queue_bytes: AtomicUsize::new(config.stored_queue_bytes),
            queue_messages: AtomicUsize::new(config.queue_messages),
        }
    }

    /// Others hold for what comes from now on; what waits already stays, though it be more.
    pub(crate) fn set(&self, config: &Config) {
        for (bound, now) in [
            (&self.outbox_bytes, config.outbox_bytes),
            (&self.queue_bytes, config.queue_bytes),
            (&self.stored_queue_bytes, config.stored_queue_bytes),
            (&self.queue_messages, config.queue_messages),
        ] {
            bound.store(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn stored_queue_bytes(&self) -> usize {
        self.stored_queue_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn queue_messages(&self) -> usize {
        self.queue_messages.load(Ordering::Relaxed)
    }
}
