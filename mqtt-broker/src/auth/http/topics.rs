//! What clients may publish and subscribe to, as a service says it.

use core::fmt;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};

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

/// Questions of one client that are asked at once.
const AT_ONCE: usize = 8;

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

/// A question that is being asked, by its number.
type Asking<'a> = Pin<Box<dyn Future<Output = (usize, Result<Reply, Unsaid>)> + Send + 'a>>;

/// The first that has its answer, which is taken out.
fn poll_any(
    running: &mut Vec<Asking<'_>>,
    cx: &mut Context<'_>,
) -> Poll<(usize, Result<Reply, Unsaid>)> {
    let answered = |(at, asking): (usize, &mut Asking<'_>)| match asking.as_mut().poll(cx) {
        Poll::Ready(answer) => Some((at, answer)),
        Poll::Pending => None,
    };
    match running.iter_mut().enumerate().find_map(answered) {
        Some((at, answer)) => {
            drop(running.swap_remove(at));
            Poll::Ready(answer)
        }
        None => Poll::Pending,
    }
}

/// A service that is asked about topics.
pub(crate) struct Topics {
    endpoint: Endpoint,
    on_failure: OnFailure,
    /// Questions of one client that are asked at once.
    at_once: usize,
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
            at_once: settings.requests.clamp(1, AT_ONCE),
            cache: settings.topic_cache.0,
            log: FailureLog::new(),
        }))
    }

    /// Asks the questions that have no answer yet, some at once; what is said takes the place of [`Reply::Failed`], as
    /// soon as it is said. It takes no longer than two answers may, one for its turn; a caller that gives up earlier
    /// has what was said until then.
    ///
    /// What was not asked for want of time or of a turn has failed, whatever the settings say of failures: who asks for
    /// much at once, or keeps all turns busy, does not decide what happens then. Nothing more is asked of a service
    /// that cannot be connected to, or has failed where its word is needed: one question goes first, and more go at once
    /// as long as there are answers.
    pub(crate) async fn ask(
        &self,
        access: &Access,
        questions: &[Question],
        replies: &mut [Reply],
        counters: &Counters,
    ) {
        let is_open = |(_, reply): &(usize, &Reply)| **reply == Reply::Failed;
        let open = replies.iter().enumerate().filter(is_open);
        let open: Vec<usize> = open.map(|(number, _)| number).collect();
        let mut left = open.into_iter();
        let asking = async {
            let mut running: Vec<Asking<'_>> = Vec::new();
            let mut at_once = 1;
            loop {
                while running.len() < at_once
                    && let Some(number) = left.next()
                {
                    let Some(question) = questions.get(number) else {
                        continue;
                    };
                    running.push(Box::pin(async move {
                        (number, self.ask_one(access, question, counters).await)
                    }));
                }
                if running.is_empty() {
                    return;
                }
                let (number, said) = poll_fn(|cx| poll_any(&mut running, cx)).await;
                let Some(reply) = replies.get_mut(number) else {
                    continue;
                };
                match said {
                    Ok(said) => {
                        *reply = said;
                        at_once = (at_once * 2).min(self.at_once);
                    }
                    Err(Unsaid::Busy) => return,
                    Err(Unsaid::Failed(failure)) => {
                        *reply = self.without();
                        at_once = 1;
                        if *reply == Reply::Failed {
                            return;
                        }
                        if failure.is_without_connection() {
                            for number in left.by_ref() {
                                if let Some(reply) = replies.get_mut(number) {
                                    *reply = self.without();
                                }
                            }
                        }
                    }
                }
            }
        };
        if timeout(self.endpoint.timeout * 2, asking).await.is_err() {
            counters.count_ask_failed();
            self.log.tell(&self.endpoint, Failure::TimedOut);
        }
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
