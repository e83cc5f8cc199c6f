//! An end before the time is over: the first SIGINT or SIGTERM ends the load, and what was measured until then is
//! accounted for and printed; the second ends the program.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::super::signals::Signals;

/// Whether a signal has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    /// The exit status of the signal; 0: none has come.
    status: AtomicU8,
    sleepers: Mutex<()>,
    woken: Condvar,
}

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
                    seen.set(status);
                    let status = signals.recv().await;
                    std::process::exit(status.into());
                });
            })?;
        Ok(stop)
    }

    /// The signal has come that a shell has this exit status for.
    pub(super) fn set(&self, status: u8) {
        self.0.status.store(status, Ordering::Relaxed);
        // Whoever is about to sleep has the lock, or will see the status.
        drop(self.0.sleepers.lock());
        self.0.woken.notify_all();
    }

    /// The exit status that a shell has for the signal that came.
    pub(super) fn status(&self) -> Option<u8> {
        match self.0.status.load(Ordering::Relaxed) {
            0 => None,
            status => Some(status),
        }
    }

    /// Sleeps until the time has passed or a signal has come.
    pub(super) fn sleep(&self, time: Duration) {
        let sleeping = self.0.sleepers.lock();
        let sleeping = sleeping.unwrap_or_else(PoisonError::into_inner);
        let goes_on = |_: &mut ()| self.status().is_none();
        // A lock that is poisoned guards nothing.
        let _ = self.0.woken.wait_timeout_while(sleeping, time, goes_on);
    }
}
