//! Who clients are, as a service says it.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mqtt_session::Time;
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::auth::denials::LogLimit;
use crate::auth::http::cache::Cache;
use crate::auth::http::endpoint::{Endpoint, Failure};
use crate::auth::http::message::{Allowance, LoginAnswer, LoginRequest, login_answer};
use crate::auth::http::{HttpError, HttpKey};
use crate::auth::settings::{HttpSettings, OnFailure};
use crate::counters::Counters;

/// A service that lets clients in.
pub(crate) struct Service {
    endpoint: Endpoint,
    url: Arc<str>,
    source: Arc<str>,
    on_failure: OnFailure,
    cache: Cache,
    waiting: AtomicUsize,
    most_waiting: usize,
    log: FailureLog,
}

/// What becomes of a client.
#[derive(Clone, Debug)]
pub(crate) enum Answered {
    Allowed(Allowance),
    Denied,
    /// The others are asked.
    Next,
}

/// Why nothing becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Too many wait already.
    Busy,
    /// The service failed, and nobody is let in then.
    Failed,
}

/// One that waits, until it is dropped.
struct Waiting<'p>(&'p AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    /// None: the settings name none. Blocks.
    pub(crate) fn load(settings: &HttpSettings) -> Result<Option<Self>, HttpError> {
        let Some(url) = &settings.url else {
            return Ok(None);
        };
        Ok(Some(Self {
            endpoint: Endpoint::new(url, HttpKey::Url, settings)?,
            url: url.as_str().into(),
            source: "service".into(),
            on_failure: settings.on_failure,
            cache: Cache::new(settings.cache.0),
            waiting: AtomicUsize::new(0),
            most_waiting: settings.waiting_requests,
            log: FailureLog::new(),
        }))
    }

    /// What tells it from others.
    pub(crate) fn url(&self) -> &Arc<str> {
        &self.url
    }

    /// Asks about a client.
    pub(crate) async fn ask(
        &self,
        request: &LoginRequest<'_>,
        counters: &Counters,
    ) -> Result<Answered, Unanswered> {
        let body = request.body();
        let mark = self.cache.mark(&body);
        if let Some(known) = mark.as_ref().and_then(|mark| self.cache.get(mark)) {
            return Ok(known.into());
        }
        let turn = self.turn().await.ok_or(Unanswered::Busy)?;
        counters.count_asked();
        let reply = self.endpoint.post(&turn, body).await;
        match reply.and_then(|reply| login_answer(&reply, &self.source)) {
            Ok(answer) => {
                if let Some(mark) = mark {
                    self.cache.put(mark, answer.clone());
                }
                Ok(answer.into())
            }
            Err(failure) => {
                counters.count_ask_failed();
                self.log.tell(&self.endpoint, failure);
                match self.on_failure {
                    OnFailure::Deny => Err(Unanswered::Failed),
                    OnFailure::Allow => Ok(Answered::Allowed(Allowance::default())),
                    OnFailure::Next => Ok(Answered::Next),
                }
            }
        }
    }

    /// That others are asked for so long that no turn comes is no failure: who lets many come at once does not
    /// decide what happens then.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        if let Some(turn) = self.endpoint.try_turn() {
            return Some(turn);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.most_waiting {
            return None;
        }
        self.endpoint.turn().await
    }
}

impl From<LoginAnswer> for Answered {
    fn from(answer: LoginAnswer) -> Self {
        match answer {
            LoginAnswer::Allow(allowance) => Self::Allowed(allowance),
            LoginAnswer::Deny => Self::Denied,
            LoginAnswer::Next => Self::Next,
        }
    }
}

/// Tells of failures without flooding the log.
pub(super) struct FailureLog {
    since: Instant,
    limit: Mutex<LogLimit>,
}

impl FailureLog {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            limit: Mutex::default(),
        }
    }

    pub(super) fn tell(&self, endpoint: &Endpoint, failure: Failure) {
        let now = Time::ZERO + self.since.elapsed();
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(withheld) = limit.pass(now) {
            tracing::warn!(url = %endpoint, withheld, "the authorisation service failed: {failure}");
        }
    }
}
