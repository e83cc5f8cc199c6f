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
use crate::connection::handshake::{ConnectPacket, Refusal};
use crate::connection::login;
use crate::hub::{Hub, SessionState, Stay, with_worker};
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

/// A packet that waits.
struct Parked {
    frame: Box<[u8]>,
    what: What,
    topics: Arc<Topics>,
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

    /// Asks whether a message may be published; it waits until then.
    pub(crate) fn ask_about_publish(
        &mut self,
        question: Question,
        token: Token,
        topic: Box<str>,
        frame: &[u8],
    ) {
        let what = What::Publish { token, topic };
        self.park(vec![question], what, frame);
    }

    /// Asks about the filters of a SUBSCRIBE of which it is not known whether they are allowed; returns whether
    /// there are some, and the packet waits.
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
        let mut questions = Vec::new();
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
            if access.subscribe(filter).is_some()
                && asking.known(&question, permissions, now).is_none()
                && seen.insert(question.clone())
            {
                questions.push(question);
            }
        }
        if questions.is_empty() {
            return false;
        }
        let frame = bytes.get(place).unwrap_or_default();
        self.park(questions, What::Subscribe, frame);
        true
    }

    fn park(&mut self, questions: Vec<Question>, what: What, frame: &[u8]) {
        let Some((access, topics)) = asked_by(self.client.access.load_full()) else {
            return;
        };
        let hub = Arc::clone(&self.hub);
        let asked = Arc::clone(&topics);
        let answers = async move { asked.ask(&access, questions, &hub.counters).await };
        self.asking.get_or_insert_default().parked = Some(Parked {
            frame: frame.into(),
            what,
            topics,
            answers: Box::pin(answers),
        });
    }

    /// Waits for the answer, and then handles the packet that waits for it.
    pub(crate) fn poll_asking(&mut self, cx: &mut Context<'_>, now: Time) -> Poll<Result<(), End>> {
        let epoch = self.hub.permissions();
        let Some(asking) = &mut self.asking else {
            return Poll::Ready(Ok(()));
        };
        let Some(parked) = &mut asking.parked else {
            return Poll::Ready(Ok(()));
        };
        let answers = ready!(parked.answers.as_mut().poll(cx));
        let lasts = parked.topics.cache;
        let Some(Parked { frame, what, .. }) = asking.parked.take() else {
            return Poll::Ready(Ok(()));
        };
        for (question, reply) in &answers {
            // What was told before a reload is forgotten by it.
            if asking.epoch == epoch {
                asking.asked.put(question.clone(), *reply, now, lasts);
            }
        }
        let handled = match what {
            What::Publish { token, topic } => {
                let reply = answers.first().map_or(Reply::Failed, |(_, reply)| *reply);
                self.go_on(now, token, &topic, &frame, reply)
            }
            What::Subscribe => {
                asking.answers = answers.into_iter().collect();
                let handled = self.subscribe_again(&frame);
                if let Some(asking) = &mut self.asking {
                    asking.answers = HashMap::default();
                }
                handled
            }
        };
        Poll::Ready(handled)
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
            Reply::Allowed | Reply::Waived => with_worker(|_, batch| {
                batch.begin(&self.hub);
                let passed = self.pass_publish(now, token, topic, frame, batch);
                self.drain_changes(&mut batch.ops);
                let ticket = batch.end(&self.hub, &[]);
                self.submitted(ticket);
                passed
            }),
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

    fn subscribe_again(&mut self, frame: &[u8]) -> Result<(), End> {
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
        with_worker(|_, batch| {
            batch.begin(&self.hub);
            let handled = self.handle_subscribe(&subscribe, batch);
            self.drain_changes(&mut batch.ops);
            let ticket = batch.end(&self.hub, &[]);
            self.submitted(ticket);
            handled
        })
    }

    /// What SUBACK says of a filter that the service does not allow.
    pub(crate) fn refused_by_service(
        &mut self,
        filter: TopicFilter<'_>,
        qos: QoS,
    ) -> Option<ReasonCode> {
        asked_by(self.client.access.load_full())?;
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

/// An access whose topics a service is asked about, and that service.
fn asked_by(access: Option<Arc<Access>>) -> Option<(Arc<Access>, Arc<Topics>)> {
    let access = access?;
    let topics = Arc::clone(access.topics.as_ref()?);
    Some((access, topics))
}

/// Asks about each subscription of a session that is resumed, and takes from it what is not allowed any more. If
/// the service fails, the session stays as it is and its client is not let in.
pub(super) async fn check_subscriptions(
    hub: &Hub,
    mut state: Box<SessionState>,
    stay: &Stay,
    packet: &ConnectPacket,
) -> Result<Box<SessionState>, Refusal> {
    let Some((access, topics)) = asked_by(state.client.access.load_full()) else {
        return Ok(state);
    };
    let filters: Vec<Box<str>> = state.subscriptions.iter().map(Into::into).collect();
    let parsed = filters.iter().map(|text| TopicFilter::new(text));
    let questions = parsed.filter_map(|filter| Some(Question::subscribe(filter.ok()?, None)));
    let answers = topics.ask(&access, questions.collect(), &hub.counters);
    let answers = answers.await;
    if answers.iter().any(|(_, reply)| *reply == Reply::Failed) {
        let stay = Stay {
            expiry_interval: state.expiry_interval.max(stay.expiry_interval),
            will: None,
        };
        hub.detach(state, stay);
        return Err(packet.with_connect(|connect| login::service_failed(hub, connect)));
    }
    let denied = answers.iter().filter(|(_, reply)| !reply.allows());
    let denied: Vec<&str> = denied.map(|(question, _)| question.text()).collect();
    hub.take_subscriptions(&mut state, &denied);
    Ok(state)
}
