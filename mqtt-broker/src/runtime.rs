//! A runtime whose threads tell the broker when they wait.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::hub;

/// A runtime with a thread for each processor, on which the broker knows when a thread has nothing more to do.
///
/// The broker runs on any runtime of tokio with time and I/O. On this one a busy thread reads from all its
/// connections before it writes to any, which takes fewer writes and wakes fewer peers.
///
/// # Errors
/// What the system says when threads cannot be started.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(hub::waits)
        .build()
}
