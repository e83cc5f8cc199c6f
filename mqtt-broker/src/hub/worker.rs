//! What each thread of the runtime keeps for the connection it runs at the moment.

use core::cell::RefCell;

use crate::hub::publish::Batch;

/// Bytes that one read takes at most. A larger packet is gathered in a buffer of its connection.
const READ_BUFFER: usize = 64 * 1024;

struct Worker {
    read: Box<[u8]>,
    batch: Batch,
}

thread_local! {
    static WORKER: RefCell<Worker> =
        RefCell::new(Worker { read: vec![0; READ_BUFFER].into_boxed_slice(), batch: Batch::default() });
}

/// Lends the read buffer and the batch of this thread. Calls do not nest.
pub(crate) fn with_worker<R>(use_it: impl FnOnce(&mut [u8], &mut Batch) -> R) -> R {
    WORKER.with_borrow_mut(|worker| use_it(&mut worker.read, &mut worker.batch))
}
