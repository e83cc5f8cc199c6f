//! What each thread of the runtime keeps for the connection it runs at the moment.

use core::cell::{Cell, RefCell};

use crate::hub::publish::Batch;

/// Bytes that one read takes at most. A larger packet is gathered in a buffer of its connection.
const READ_BUFFER: usize = 256 * 1024;

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

/// Connections that have a turn between two waits of a thread, beyond which the thread counts as busy: a
/// message that comes alone gives two of them one.
const FEW_TURNS: u32 = 2;

thread_local! {
    static TURNS: Cell<Turns> = const { Cell::new(Turns { last: 0, current: None }) };
}

/// How many turns connections had on this thread.
#[derive(Clone, Copy)]
struct Turns {
    /// Between the last two waits.
    last: u32,
    /// Since the last wait; `None` on a thread of a runtime that does not tell.
    current: Option<u32>,
}

/// This thread has done what there was to do, and waits.
pub(crate) fn waits() {
    let current = TURNS.get().current;
    TURNS.set(Turns {
        last: current.unwrap_or(0),
        current: Some(0),
    });
}

/// A connection has its turn; tells whether so many have that it pays to hear all of them before anything is
/// written.
pub(crate) fn is_busy() -> bool {
    let Turns { last, current } = TURNS.get();
    let Some(current) = current else { return false };
    TURNS.set(Turns {
        last,
        current: Some(current.saturating_add(1)),
    });
    last.max(current) > FEW_TURNS
}
