//! A task that sleeps until its waker is used, and what loom is asked to look for.

use core::task::Waker;
use std::process::Command;
use std::sync::Arc;
use std::task::Wake;

use loom::sync::{Condvar, Mutex};
use loom::thread;

/// How often a thread may be interrupted where it does not wait itself: two are enough for most mistakes, and the
/// number of orders grows fast.
const PREEMPTIONS: usize = 3;

/// Runs `work` in every order of its steps.
pub(crate) fn in_every_order(work: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(work);
}

/// Set in the process of a planted mistake.
const PLANTED: &str = "CONCURRENCY_PLANTED";

/// `work`, in which a mistake is planted, fails in these words. The test `name`, which calls this, runs it in a process
/// of its own: what loom stops in the middle does not always unwind.
pub(crate) fn is_found(name: &str, said: &str, work: impl Fn() + Sync + Send + 'static) {
    if std::env::var_os(PLANTED).is_some() {
        return in_every_order(work);
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", "--nocapture", name])
        .env(PLANTED, name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{name} is not found");
    assert!(told.contains(said), "{name} says nothing of {said}: {told}");
}

/// Where a task sleeps.
#[derive(Debug, Default)]
pub(crate) struct Bed {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Bed {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            woken: Mutex::new(false),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Arc::clone(self).into()
    }

    /// Returns when it was woken since the last sleep. A task that nobody wakes is a deadlock, which loom tells.
    pub(crate) fn sleep(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.changed.wait(woken).unwrap();
        }
        *woken = false;
    }
}

impl Wake for Bed {
    fn wake(self: Arc<Self>) {
        *self.woken.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

pub(crate) fn spawn(work: impl FnOnce() + 'static) -> thread::JoinHandle<()> {
    thread::spawn(work)
}
