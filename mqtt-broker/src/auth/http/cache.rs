//! What a service said about clients lately.

use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::Instant;

use crate::auth::http::message::LoginAnswer;

/// Answers that are remembered.
const MOST: usize = 16_384;

/// A question, password included, from which nobody learns the password.
pub(super) type Mark = [u8; 32];

/// Answers by the question, each for the same time.
pub(super) struct Cache {
    key: [u8; 32],
    lasts: Duration,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    answers: HashMap<Mark, (Instant, LoginAnswer), RandomState>,
    /// In the order in which they end.
    ends: VecDeque<(Instant, Mark)>,
}

impl Cache {
    pub(super) fn new(lasts: Duration) -> Self {
        let mut key = [0; 32];
        // Without a key that nobody knows nothing is remembered.
        let lasts = match getrandom::fill(&mut key) {
            Ok(()) => lasts,
            Err(_) => Duration::ZERO,
        };
        Self {
            key,
            lasts,
            entries: Mutex::default(),
        }
    }

    /// What stands for a question in here.
    pub(super) fn mark(&self, body: &[u8]) -> Option<Mark> {
        if self.lasts.is_zero() {
            return None;
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(body);
        Some(mac.finalize().into_bytes().into())
    }

    pub(super) fn get(&self, mark: &Mark) -> Option<LoginAnswer> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = entries.answers.get(mark)?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    pub(super) fn put(&self, mark: Mark, answer: LoginAnswer) {
        let now = Instant::now();
        let until = now + self.lasts;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((end, mark)) = entries.ends.front().copied()
            && (end <= now || entries.ends.len() >= MOST)
        {
            entries.ends.pop_front();
            // A later answer to the same question has an end of its own.
            let is_this = |(until, _): &(Instant, LoginAnswer)| *until == end;
            if entries.answers.get(&mark).is_some_and(is_this) {
                entries.answers.remove(&mark);
            }
        }
        entries.answers.insert(mark, (until, answer));
        entries.ends.push_back((until, mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It holds for its time, and there are never more than so many.
    #[tokio::test(start_paused = true)]
    async fn answers_are_forgotten() {
        let cache = Cache::new(Duration::from_secs(10));
        let first = cache.mark(b"first").unwrap();
        assert_ne!(cache.mark(b"second"), Some(first));
        cache.put(first, LoginAnswer::Deny);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(cache.get(&first).is_some());
        cache.put(first, LoginAnswer::Next);
        tokio::time::advance(Duration::from_secs(5)).await;
        let other = cache.mark(b"other").unwrap();
        cache.put(other, LoginAnswer::Deny);
        assert!(matches!(cache.get(&first), Some(LoginAnswer::Next)));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(cache.get(&first).is_none());
        for number in 0..MOST as u64 + 100 {
            let mark = cache.mark(&number.to_be_bytes()).unwrap();
            cache.put(mark, LoginAnswer::Deny);
        }
        let entries = cache.entries.lock().unwrap();
        assert_eq!((entries.answers.len(), entries.ends.len()), (MOST, MOST));
        assert!(Cache::new(Duration::ZERO).mark(b"x").is_none());
    }
}
