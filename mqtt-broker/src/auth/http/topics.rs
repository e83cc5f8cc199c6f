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

    /// Asks one question after the other; when one has no answer, those behind it have none either. It takes no
    /// longer than two answers may, one for its turn.
    pub(crate) async fn ask(
        &self,
        access: &Access,
        questions: Vec<Question>,
        counters: &Counters,
    ) -> Vec<(Question, Reply)> {
        let mut answers = Vec::with_capacity(questions.len());
        let mut all = questions.into_iter();
        let asking = async {
            for question in all.by_ref() {
                let said = self.ask_one(access, &question, counters).await;
                let failed = said.is_none();
                answers.push((question, said));
                if failed {
                    return;
                }
            }
        };
        if timeout(self.endpoint.timeout * 2, asking).await.is_err() {
            counters.count_ask_failed();
            self.log.tell(&self.endpoint, Failure::TimedOut);
        }
        let answers = answers
            .into_iter()
            .chain(all.map(|question| (question, None)));
        let answers = answers.map(|(question, said)| (question, said.unwrap_or(self.without())));
        answers.collect()
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
    ) -> Option<Reply> {
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
        let reply = match self.endpoint.turn().await {
            Some(turn) => {
                counters.count_asked();
                self.endpoint.post(&turn, Bytes::from(body)).await
            }
            None => Err(Failure::TimedOut),
        };
        match reply.and_then(|reply| topic_answer(&reply)) {
            Ok(Some(false)) => Some(Reply::Denied),
            // What the rules say of it was looked at before.
            Ok(Some(true) | None) => Some(Reply::Allowed),
            Err(failure) => {
                counters.count_ask_failed();
                self.log.tell(&self.endpoint, failure);
                None
            }
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topics({})", self.endpoint)
    }
}
