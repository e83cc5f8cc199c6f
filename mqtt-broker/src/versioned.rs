//! Something that is read much and changed seldom, with a version that tells whether what was read still holds.
//!
//! Whoever remembers what was read asks for the version first and reads then: what is changed in between makes the
//! memory look older than it is, never newer. `tests/concurrency` includes this file.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{PoisonError, RwLock, RwLockReadGuard};

#[derive(Debug, Default)]
pub(crate) struct Versioned<T> {
    value: RwLock<T>,
    /// Raised after each change, before whoever asked for the change hears of it.
    version: AtomicU64,
}

impl<T> Versioned<T> {
    /// The state that something must have been read from to hold now.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it; `version` is that of the changed value.
    pub(crate) fn change<R>(
        &self,
        change: impl FnOnce(&mut T) -> R,
        version: impl FnOnce(&T) -> u64,
    ) -> R {
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut value);
        self.version.store(version(&value), Ordering::Release);
        result
    }
}
