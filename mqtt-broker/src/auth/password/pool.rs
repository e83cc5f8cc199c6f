//! Checks of hashes, which take long: off the threads of connections, few at once, and not too many waiting.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::auth::password::hash::PasswordHash;
use crate::auth::secret::Secret;

/// Too many checks wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Where checks run.
#[derive(Debug)]
pub(crate) struct HashPool {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
    most_waiting: usize,
}

/// One that waits, until it is dropped.
struct Waiting<'p>(&'p AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HashPool {
    /// `at_once` checks run while `most_waiting` wait.
    pub(crate) fn new(at_once: usize, most_waiting: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            most_waiting,
        }
    }

    /// Whether the password is the one that was hashed.
    pub(crate) async fn verify(
        &self,
        hash: Arc<PasswordHash>,
        password: Secret,
    ) -> Result<bool, Busy> {
        let same = self.run(move || hash.verify(password.bytes())).await?;
        // A check that panics lets nobody in.
        Ok(same.unwrap_or(false))
    }

    /// Runs a check of any kind; none if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Busy> {
        let running = Arc::clone(&self.running);
        let permit = match Arc::clone(&running).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let before = self.waiting.fetch_add(1, Ordering::Relaxed);
                let _waiting = Waiting(&self.waiting);
                if before >= self.most_waiting {
                    return Err(Busy);
                }
                // Never closed.
                running.acquire_owned().await.map_err(|_| Busy)?
            }
        };
        let check = tokio::task::spawn_blocking(move || {
            let done = check();
            // Held until here, though whoever asked may have gone.
            drop(permit);
            done
        });
        Ok(check.await.ok())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// However many ask at once, so many are answered and the rest is told so at once.
    #[tokio::test]
    async fn what_is_beyond_the_bound_is_refused() {
        let pool = HashPool::new(1, 3);
        let hash = Arc::new(PasswordHash::parse("$7$2000$YQ==$YWFhYQ==").unwrap());
        let checks = (0..20).map(|_| pool.verify(Arc::clone(&hash), Secret::new(*b"x")));
        let answers = join_all(checks).await;
        let served = answers
            .iter()
            .filter(|answer| **answer == Ok(false))
            .count();
        assert_eq!(served, 4, "one runs and three wait");
        assert!(answers[4..].iter().all(|answer| *answer == Err(Busy)));
        assert_eq!(pool.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(pool.verify(hash, Secret::new(*b"x")).await, Ok(false));
    }
}
