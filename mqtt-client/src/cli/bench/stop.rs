//! An end before the time is over: the first SIGINT or SIGTERM ends the sending, and what was measured until then is
//! accounted for and printed; the second ends the program.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use super::super::signals::Signals;

/// Whether a signal has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<AtomicU8>);

impl Stop {
    /// From now on a signal does not end the program by itself. A thread waits for it, since the load has one
    /// thread that waits for nothing but its connections.
    pub(super) fn on_signals() -> io::Result<Self> {
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?;
        let mut signals = {
            let _context = runtime.enter();
            Signals::new()?
        };
        let seen = stop.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let status = signals.recv().await;
                    seen.0.store(status, Ordering::Relaxed);
                    let status = signals.recv().await;
                    std::process::exit(status.into());
                });
            })?;
        Ok(stop)
    }

    /// The exit status that a shell has for the signal that came.
    pub(super) fn status(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            status => Some(status),
        }
    }
}
