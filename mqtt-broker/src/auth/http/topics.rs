//! What clients may publish and subscribe to, as a service says it.

use core::fmt;

use bytes::Bytes;
use tokio::time::timeout;

use crate::auth::access::Access;
use crate::auth::http::asked::Question;
use crate::auth::http::endpoint::{Endpoint, Failure};
use crate::auth::http::message::{TopicRequest, topic_answer};
use crate::auth::http::service::FailureLog;
use crate::auth::http::{HttpError, HttpKey};
use crate::auth::rule::Action;
use crate::auth::settings::{HttpSettings, OnFailure};
use crate::counters::Counters;

/// What a service says of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Allowed,
    Denied,
    /// It failed, and its word is needed.
    Failed,
    /// It failed, and its word is not needed.
    Waived,
}

impl Reply {
    /// Whether it was said, and so can be remembered.
    pub(crate) fn is_said(self) -> bool {
        matches!(self, Self::Allowed | Self::Denied)
    }

    pub(crate) fn allows(self) -> bool {
        matches!(self, Self::Allowed | Self::Waived)
    }
}

/// Why a question has no answer.
enum Unsaid {
    /// Others are asked about for so long that no turn came.
    Busy,
    Failed(Failure),
}

/// A service that is asked about topics.
pub(crate) struct Topics {
    endpoint: Endpoint,
    on_failure: OnFailure,
    /// How long an answer holds for a connection.
    pub(crate) cache: core::time::Duration,
    log: FailureLog,
}

impl Topics {
    /// None: the settings name none. Blocks.
    pub(crate) fn load(settings: &HttpSettings) -> Result<Option<Self>, HttpError> {
        let Some(url) = &settings.topic_url else {
            return Ok(None);
        };
        Ok(Some(Self {
            endpoint: Endpoint::new(url, HttpKey::TopicUrl, settings)?,
            on_failure: settings.on_failure,
            cache: settings.topic_cache.0,
            log: FailureLog::new(),
        }))
    }

    /// Asks one question after the other; the answers come in their order, one for each. It takes no longer than two
    /// answers may, one for its turn.
    ///
    /// What was not asked for want of time or of a turn has failed, whatever the settings say of failures: who asks for
    /// much at once, or keeps all turns busy, does not decide what happens then. Nothing more is asked of a service
    /// that cannot be connected to, or has failed where its word is needed.
    pub(crate) async fn ask(
        &self,
        access: &Access,
        questions: Vec<Question>,
        counters: &Counters,
    ) -> Vec<(Question, Reply)> {
        let failed = |question| (question, Reply::Failed);
        let mut answers: Vec<_> = questions.into_iter().map(failed).collect();
        let mut left = answers.iter_mut();
        let asking = async {
            while let Some((question, reply)) = left.next() {
                match self.ask_one(access, question, counters).await {
                    Ok(said) => *reply = said,
                    Err(Unsaid::Busy) => return,
                    Err(Unsaid::Failed(failure)) => {
                        *reply = self.without();
                        if *reply == Reply::Failed {
                            return;
                        }
                        if failure.is_without_connection() {
                            left.for_each(|(_, reply)| *reply = self.without());
                            return;
                        }
                    }
                }
            }
        };
        if timeout(self.endpoint.timeout * 2, asking).await.is_err() {
            counters.count_ask_failed();
            self.log.tell(&self.endpoint, Failure::TimedOut);
        }
        answers
    }

    fn without(&self) -> Reply {
        match self.on_failure {
            OnFailure::Deny => Reply::Failed,
            // What the rules say of it was looked at before.
            OnFailure::Allow | OnFailure::Next => Reply::Waived,
        }
    }

    async fn ask_one(
        &self,
        access: &Access,
        question: &Question,
        counters: &Counters,
    ) -> Result<Reply, Unsaid> {
        let (group, topic) = question.parts();
        let request = TopicRequest {
            action: match question.action() {
                Action::Publish => "publish",
                Action::Subscribe | Action::Receive => "subscribe",
            },
            topic,
            group,
            qos: question.qos().map(|qos| qos as u8),
            retain: question.retain(),
            client_id: &access.client_id,
            user: access.owner.user().map(|user| &**user),
            listener: access.realm.as_deref(),
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let Some(turn) = self.endpoint.turn().await else {
            counters.count_ask_failed();
            return Err(Unsaid::Busy);
        };
        counters.count_asked();
        let reply = self.endpoint.post(&turn, Bytes::from(body)).await;
        match reply.and_then(|reply| topic_answer(&reply)) {
            Ok(Some(false)) => Ok(Reply::Denied),
            // What the rules say of it was looked at before.
            Ok(Some(true) | None) => Ok(Reply::Allowed),
            Err(failure) => {
                counters.count_ask_failed();
                self.log.tell(&self.endpoint, failure);
                Err(Unsaid::Failed(failure))
            }
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topics({})", self.endpoint)
    }
}
