//! Packets that wait for what a service says of them: nothing behind them is read meanwhile.

use core::fmt;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::{FixedHeader, Packet, QoS, ReasonCode, Subscribe, TopicFilter};
use mqtt_session::{Time, Token};

use crate::auth::{Access, Asked, Denial, Question, Reply, Topics};
use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::hub::{Batch, with_worker};
use crate::mount;
use crate::shown::Shown;

type Answers = Vec<(Question, Reply)>;

/// What a connection asks a service, and what it was told lately.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// The state of the permissions in which it was told.
    epoch: u64,
    asked: Asked,
    parked: Option<Parked>,
    /// What was told of the packet that is being handled.
    answers: HashMap<Question, Reply, RandomState>,
}

/// What must be asked before it is known whether something is allowed.
#[derive(Debug)]
pub(crate) struct Doubt {
    pub(crate) question: Question,
    pub(crate) access: Arc<Access>,
    /// The state of the permissions in which it was looked at.
    pub(crate) epoch: u64,
}

/// A packet that waits.
struct Parked {
    frame: Box<[u8]>,
    what: What,
    topics: Arc<Topics>,
    /// The state of the permissions in which it was looked at.
    epoch: u64,
    /// What was known of it already: it is not forgotten while the packet waits for the rest.
    known: Answers,
    answers: Pin<Box<dyn Future<Output = Answers> + Send>>,
}

enum What {
    /// The topic is that of the client, an alias resolved.
    Publish {
        token: Token,
        topic: Box<str>,
    },
    Subscribe,
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parked")
            .field("bytes", &self.frame.len())
            .finish_non_exhaustive()
    }
}

impl Asking {
    /// What was told of it, if that still holds.
    pub(crate) fn known(&mut self, question: &Question, epoch: u64, now: Time) -> Option<Reply> {
        if let Some(reply) = self.answers.get(question) {
            return Some(*reply);
        }
        if self.epoch != epoch {
            self.epoch = epoch;
            self.asked = Asked::default();
        }
        self.asked.get(question, now)
    }
}

impl Driver {
    /// Whether a packet waits for the service.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking.as_ref().is_some_and(|it| it.parked.is_some())
    }

    /// Bytes of the packet that waits.
    pub(crate) fn parked_bytes(&self) -> usize {
        let parked = self.asking.as_ref().and_then(|it| it.parked.as_ref());
        parked.map_or(0, |parked| parked.frame.len())
    }

    /// Forgets a packet that waits: nothing was said of it, and nothing will be.
    pub(crate) fn drop_parked(&mut self) {
        if let Some(asking) = &mut self.asking {
            asking.parked = None;
        }
    }

    /// Asks whether a message may be published; it waits until then.
    pub(crate) fn ask_about_publish(
        &mut self,
        doubt: Doubt,
        token: Token,
        topic: Box<str>,
        frame: &[u8],
    ) {
        let Doubt {
            question,
            access,
            epoch,
        } = doubt;
        let what = What::Publish { token, topic };
        self.park(access, epoch, what, frame, Vec::new(), vec![question]);
    }

    /// Asks about the filters of a SUBSCRIBE of which it is not known whether they are allowed; returns whether
    /// there are some, and the packet waits. If there are none, what is known holds until [`Self::forget_answers`].
    pub(crate) fn asks_about_subscribe(
        &mut self,
        now: Time,
        subscribe: &Subscribe<'_>,
        place: Range<usize>,
        bytes: &[u8],
    ) -> bool {
        let permissions = self.hub.permissions();
        if permissions == 0 {
            return false;
        }
        let access = self.client.access.load_full();
        let Some(access) = access.filter(|access| access.topics.is_some()) else {
            return false;
        };
        let mount = self.client.mount();
        let asking = self.asking.get_or_insert_default();
        let (mut questions, mut known) = (Vec::new(), Vec::new());
        let mut seen: HashSet<Question, RandomState> = HashSet::default();
        for wanted in &subscribe.filters {
            let mounted = mount.map(|mount| mount::filter(mount, wanted.filter));
            let filter = match &mounted {
                None => wanted.filter,
                Some(text) => match TopicFilter::new(text) {
                    Ok(filter) => filter,
                    // Refused when it is handled.
                    Err(_) => continue,
                },
            };
            let question = Question::subscribe(filter, Some(wanted.options.qos));
            if access.subscribe(filter).is_none() || !seen.insert(question.clone()) {
                continue;
            }
            match asking.known(&question, permissions, now) {
                Some(reply) => known.push((question, reply)),
                None => questions.push(question),
            }
        }
        if questions.is_empty() {
            asking.answers = known.into_iter().collect();
            return false;
        }
        let frame = bytes.get(place).unwrap_or_default();
        self.park(
            access,
            permissions,
            What::Subscribe,
            frame,
            known,
            questions,
        );
        true
    }

    /// The packet was handled that something was told of.
    pub(crate) fn forget_answers(&mut self) {
        if let Some(asking) = &mut self.asking
            && !asking.answers.is_empty()
        {
            asking.answers = HashMap::default();
        }
    }

    fn park(
        &mut self,
        access: Arc<Access>,
        epoch: u64,
        what: What,
        frame: &[u8],
        known: Answers,
        questions: Vec<Question>,
    ) {
        let Some(topics) = access.topics.clone() else {
            return;
        };
        let hub = Arc::clone(&self.hub);
        let asked = Arc::clone(&topics);
        let answers = async move {
            let mut replies = vec![Reply::Failed; questions.len()];
            asked
                .ask(&access, &questions, &mut replies, &hub.counters)
                .await;
            questions.into_iter().zip(replies).collect()
        };
        self.asking.get_or_insert_default().parked = Some(Parked {
            frame: frame.into(),
            what,
            topics,
            epoch,
            known,
            answers: Box::pin(answers),
        });
    }

    /// Waits for the answer, and then handles the packet that waits for it.
    pub(crate) fn poll_asking(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<Result<(), End>> {
        let Some(asking) = &mut self.asking else {
            return Poll::Ready(Ok(()));
        };
        let Some(parked) = &mut asking.parked else {
            return Poll::Ready(Ok(()));
        };
        let answers = ready!(parked.answers.as_mut().poll(cx));
        let lasts = parked.topics.cache;
        let Some(parked) = asking.parked.take() else {
            return Poll::Ready(Ok(()));
        };
        let Parked {
            frame, what, known, ..
        } = parked;
        if parked.epoch != self.hub.permissions() {
            // What was allowed by the rules of then, and by whom they had asked, may not be any more.
            return Poll::Ready(match what {
                What::Publish { token, topic } => {
                    self.publish_parked(now, token, &topic, &frame, false)
                }
                What::Subscribe => self.subscribe_parked(now, &frame, false),
            });
        }
        asking.asked.make_room(known.len() + answers.len());
        for (question, reply) in &answers {
            asking.asked.put(question.clone(), *reply, now, lasts);
        }
        Poll::Ready(match what {
            What::Publish { token, topic } => {
                let reply = answers.first().map_or(Reply::Failed, |(_, reply)| *reply);
                self.go_on(now, token, &topic, &frame, reply)
            }
            What::Subscribe => {
                asking.answers = known.into_iter().chain(answers).collect();
                self.subscribe_parked(now, &frame, true)
            }
        })
    }

    fn go_on(
        &mut self,
        now: Time,
        token: Token,
        topic: &str,
        frame: &[u8],
        reply: Reply,
    ) -> Result<(), End> {
        let shown = Shown(topic).to_string();
        match reply {
            Reply::Allowed | Reply::Waived => self.publish_parked(now, token, topic, frame, true),
            Reply::Denied => self.deny_publish(now, token, token.qos(), &shown),
            Reply::Failed => {
                self.deny(now, Denial::Service, &shown);
                if token.qos() == QoS::AtMostOnce {
                    return Ok(());
                }
                let reason = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;
                if self.version.has_reason_codes() {
                    self.connection.reject(token, reason);
                    return Ok(());
                }
                // It is not lost: without an acknowledgement the client sends it again.
                let detail = "PUBLISH: the authorisation service failed";
                Err(End::violation(reason, detail))
            }
        }
    }

    fn publish_parked(
        &mut self,
        now: Time,
        token: Token,
        topic: &str,
        frame: &[u8],
        is_allowed: bool,
    ) -> Result<(), End> {
        self.in_batch(|it, batch| it.pass_publish(now, token, topic, frame, is_allowed, batch))
    }

    /// Handles a packet that has waited, in a batch of its own.
    fn in_batch(
        &mut self,
        handle: impl FnOnce(&mut Self, &mut Batch) -> Result<(), End>,
    ) -> Result<(), End> {
        with_worker(|_, batch| {
            batch.begin(&self.hub);
            let handled = handle(self, batch);
            self.drain_changes(&mut batch.ops);
            let ticket = batch.end(&self.hub, &[]);
            self.submitted(ticket);
            handled
        })
    }

    /// `is_known`: what is to be known of it was told.
    fn subscribe_parked(&mut self, now: Time, frame: &[u8], is_known: bool) -> Result<(), End> {
        let Some(header) = FixedHeader::parse(frame)? else {
            return Ok(());
        };
        let body = frame.get(usize::from(header.header_len)..header.frame_len());
        // It was decoded before.
        let Packet::Subscribe(subscribe) =
            Packet::decode(header, body.unwrap_or_default(), self.version)?
        else {
            return Ok(());
        };
        if !is_known && self.asks_about_subscribe(now, &subscribe, 0..frame.len(), frame) {
            return Ok(());
        }
        let handled = self.in_batch(|it, batch| it.handle_subscribe(&subscribe, batch));
        self.forget_answers();
        handled
    }

    /// What SUBACK says of a filter that the service does not allow.
    pub(crate) fn refused_by_service(
        &mut self,
        filter: TopicFilter<'_>,
        qos: QoS,
    ) -> Option<ReasonCode> {
        self.client.access.load().as_ref()?.topics.as_ref()?;
        let question = Question::subscribe(filter, Some(qos));
        let (permissions, now) = (self.hub.permissions(), self.hub.now());
        let asking = self.asking.get_or_insert_default();
        // Not known: the configuration has changed since the packet was looked at.
        let reply = asking.known(&question, permissions, now);
        let (denial, reason) = match reply.unwrap_or(Reply::Failed) {
            Reply::Allowed | Reply::Waived => return None,
            Reply::Denied => (Denial::Subscribe, ReasonCode::NOT_AUTHORIZED),
            Reply::Failed => {
                let reason = ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR;
                (Denial::Service, reason)
            }
        };
        let shown = Shown(filter.as_str()).to_string();
        self.deny(now, denial, &shown);
        Some(reason)
    }
}
