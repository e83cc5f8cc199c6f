//! What was promised to each session, and what came: the naive account that a run is held against.

use core::time::Duration;
use std::collections::HashMap;

use mqtt_codec::QoS;
use tokio::time::Instant;

use super::groups::{self, Groups};
use super::repeats::Arrived;
use super::retained::Wanted;
use super::wills::Wills;

/// Failures that are told; a run that goes wrong goes wrong at many places.
const TOLD: usize = 8;

/// A Message Expiry Interval of so many seconds is longer than any run.
pub(super) const LONG: u32 = 2_000;

/// Counts events: what is before what.
pub(super) type Tick = u64;

/// A message, as its publisher knows it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Its Message Expiry Interval, seconds.
    pub(super) expiry: Option<u32>,
    pub(super) sent: Tick,
    /// When it was first sent.
    pub(super) begun: Instant,
    /// When the broker had it at the latest, where that is known.
    pub(super) arrived: Option<Instant>,
    /// How often it was sent.
    pub(super) times: usize,
    pub(super) acknowledged: Option<Tick>,
    /// It is published when somebody else says so.
    pub(super) is_will: bool,
    /// It must not be published any more.
    called_back: bool,
    /// Of a will: between these it is to come, as far as that is known.
    due: (Option<Instant>, Option<Instant>),
}

impl Message {
    /// It expires within the run, and so is owed to nobody in the end.
    pub(super) fn is_short_lived(&self) -> bool {
        self.expiry.is_some_and(|interval| interval < LONG)
    }
}

/// A subscription, from SUBACK on.
#[derive(Debug)]
pub(super) struct Interest {
    pub(super) filter: String,
    pub(super) qos: QoS,
    pub(super) from: Tick,
    /// UNSUBSCRIBE was sent.
    pub(super) until: Option<Tick>,
    /// The broker was allowed to forget it, with all that it brought.
    pub(super) void: bool,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) interests: Vec<Interest>,
    pub(super) wanted: Vec<Wanted>,
    /// Filters that were asked for, whether or not that was answered.
    pub(super) asked: Vec<String>,
    /// How often each message came.
    pub(super) came: HashMap<usize, usize>,
    /// The same at QoS 2: what came at QoS 0 before may come when its publisher repeats it.
    came_once: HashMap<usize, usize>,
    /// The last message that came for the first time, by topic and QoS: each QoS has an order of its own.
    last: HashMap<(String, u8), usize>,
    /// What was completed may come again: the session was lost, or the end of it.
    pub(super) forgetful: bool,
    /// What came at QoS 1, by message, until it is known to be over.
    pub(super) arrived: HashMap<usize, Arrived>,
    /// When its client last began anew.
    pub(super) discarded: Tick,
}

/// The account of one run.
#[derive(Debug, Default)]
pub(super) struct Model {
    tick: Tick,
    pub(super) messages: Vec<Message>,
    pub(super) sessions: Vec<Session>,
    pub(super) groups: Groups,
    pub(super) wills: Wills,
    /// When a broker last ended, and when one last was killed or lost its power.
    pub(super) ended: Tick,
    pub(super) crashed: Tick,
    /// Clients with a will that are still to leave for good.
    pub(super) departing: usize,
    pub(super) failures: Vec<String>,
    pub(super) delivered: usize,
    pub(super) retained_delivered: usize,
}

impl Model {
    pub(super) fn new(sessions: usize) -> Self {
        Self {
            sessions: (0..sessions).map(|_| Session::default()).collect(),
            ..Self::default()
        }
    }

    pub(super) fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub(super) fn fail(&mut self, text: String) {
        if self.failures.len() < TOLD {
            self.failures.push(text);
        }
    }

    /// A message is about to be sent for the first time; its number.
    pub(super) fn send(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
        expiry: Option<u32>,
    ) -> usize {
        let sent = self.tick();
        self.messages.push(Message {
            topic: topic.to_owned(),
            qos,
            retain,
            expiry,
            sent,
            begun: Instant::now(),
            arrived: None,
            times: 0,
            acknowledged: None,
            is_will: false,
            called_back: false,
            due: (None, None),
        });
        self.messages.len() - 1
    }

    /// A CONNECT with this will is about to be sent; its number. It counts as acknowledged when its connection has ended
    /// without a farewell.
    pub(super) fn send_will(&mut self, topic: &str, qos: QoS) -> usize {
        let number = self.send(topic, qos, false, None);
        self.messages[number].is_will = true;
        number
    }

    /// A will must not come earlier.
    pub(super) fn due_from(&mut self, number: usize, from: Instant) {
        self.messages[number].due.0 = Some(from);
    }

    /// A will is promised, and must not come later.
    pub(super) fn due_until(&mut self, number: usize, until: Instant) {
        self.messages[number].due.1 = Some(until);
        self.acknowledge(number);
    }

    /// A will waits no longer, for its client is back.
    pub(super) fn call_back(&mut self, number: usize) {
        self.messages[number].called_back = true;
    }

    pub(super) fn message(&self, number: usize) -> &Message {
        &self.messages[number]
    }

    /// PUBACK or PUBREC has come.
    pub(super) fn acknowledge(&mut self, number: usize) {
        let tick = self.tick();
        self.messages[number].acknowledged.get_or_insert(tick);
        self.arrive(number);
    }

    /// By now the broker has it.
    pub(super) fn arrive(&mut self, number: usize) {
        self.messages[number].arrived.get_or_insert(Instant::now());
    }

    pub(super) fn acknowledged(&self) -> usize {
        let messages = self.messages.iter();
        messages.filter(|it| it.acknowledged.is_some()).count()
    }

    /// SUBACK has come.
    pub(super) fn subscribe(&mut self, session: usize, filter: &str, qos: QoS) {
        let from = self.tick();
        self.end_interests(session, filter);
        let kept = &mut self.sessions[session];
        let wanted = kept.wanted.iter_mut().filter(|it| it.filter == filter);
        wanted.for_each(|it| it.promised = qos != QoS::AtMostOnce);
        kept.interests.push(Interest {
            filter: filter.to_owned(),
            qos,
            from,
            until: None,
            void: false,
        });
    }

    /// UNSUBSCRIBE is about to be sent.
    pub(super) fn unsubscribe(&mut self, session: usize, filter: &str) {
        self.end_interests(session, filter);
        let wanted = &mut self.sessions[session].wanted;
        wanted.retain(|it| it.filter != filter);
    }

    fn end_interests(&mut self, session: usize, filter: &str) {
        let tick = self.tick();
        for interest in &mut self.sessions[session].interests {
            if interest.filter == filter {
                interest.until.get_or_insert(tick);
            }
        }
    }

    /// A broker has ended.
    pub(super) fn broker_ends(&mut self, crashes: bool) {
        self.ended = self.tick();
        if crashes {
            self.crashed = self.ended;
        }
    }

    /// The broker may have lost the session, or the end of it.
    pub(super) fn lose(&mut self, session: usize) {
        self.void(session, true);
        self.lose_to_groups(session);
    }

    /// The session may be gone, or any part of it.
    pub(super) fn void(&mut self, session: usize, forgetful: bool) {
        self.tick();
        let session = &mut self.sessions[session];
        session.forgetful |= forgetful;
        if !forgetful {
            session.discarded = self.tick;
        }
        session.wanted.clear();
        for interest in &mut session.interests {
            interest.void = true;
        }
    }

    /// A message has come that is not known to be a repetition.
    pub(super) fn deliver(&mut self, session: usize, number: usize, topic: &str, qos: QoS) {
        self.delivered += 1;
        let Some(message) = self.messages.get(number) else {
            return self.fail(format!(
                "session {session}: message {number} was never sent"
            ));
        };
        let kept = &mut self.sessions[session];
        let told = |what: &str| {
            format!(
                "session {session}: message {number} ({topic}, {:?} as {qos:?}) {what}",
                message.qos
            )
        };
        let mut failures = Vec::new();
        if message.called_back {
            failures.push(told("is a will that was called back"));
        }
        let now = Instant::now();
        let (from, until) = message.due;
        if let Some(early) = from.map(|from| from.saturating_duration_since(now))
            && early > Duration::ZERO
        {
            failures.push(told(&format!("is a will that came {early:?} too early")));
        }
        if let Some(late) = until.map(|until| now.saturating_duration_since(until))
            && late > Duration::ZERO
        {
            failures.push(told(&format!("is a will that came {late:?} too late")));
        }
        // What has been replaced need not come any more.
        kept.wanted
            .retain(|it| it.topic != topic || it.number >= number);
        if message.topic != topic {
            failures.push(told("has another topic"));
        }
        if !kept.asked.iter().any(|filter| matches(filter, topic)) {
            failures.push(told("was not asked for"));
        }
        if qos > message.qos {
            failures.push(told("has a higher QoS than it was published with"));
        }
        let times = kept.came.entry(number).or_default();
        *times += 1;
        if *times > 1 && message.qos == QoS::AtMostOnce {
            failures.push(told("came again"));
        }
        let exactly = kept.came_once.entry(number).or_default();
        *exactly += usize::from(qos == QoS::ExactlyOnce);
        if qos == QoS::ExactlyOnce && *exactly > 1 && !kept.forgetful {
            failures.push(told("came again"));
        }
        if *times == 1 {
            let last = kept.last.insert((topic.to_owned(), qos as u8), number);
            // One from before the subscription, or at QoS 0, may have been passed over, and comes when its publisher
            // repeats it.
            let stood = |it: &Interest| it.until.is_none() && it.qos >= qos;
            // Nor has a shared subscription an order (section 4.6), and one that expires may have been passed over.
            let passed_over = qos == QoS::AtMostOnce
                || message.is_short_lived()
                // A crash may undo the end of a connection, and its will comes after that.
                || message.is_will
                || !kept.interests(message).any(stood);
            if !passed_over && last.is_some_and(|last| last > number) {
                failures.push(told(&format!("came behind {}", last.unwrap_or_default())));
            }
        }
        failures.into_iter().for_each(|text| self.fail(text));
    }

    /// Messages that are promised to sessions and have not come: the first, and how many.
    pub(super) fn missing(&self) -> (Option<(usize, usize)>, usize) {
        let mut first = None;
        let mut count = 0;
        for (index, session) in self.sessions.iter().enumerate() {
            for (number, message) in self.messages.iter().enumerate() {
                if session.is_owed(message) && !session.came.contains_key(&number) {
                    first.get_or_insert((index, number));
                    count += 1;
                }
            }
            for wanted in session.wanted.iter().filter(|it| it.promised) {
                if self.may_have_expired(&wanted.topic, wanted.number) {
                    continue;
                }
                first.get_or_insert((index, wanted.number));
                count += 1;
            }
        }
        let (of_groups, more) = self.missing_in_groups();
        (first.or(of_groups), count + more)
    }

    /// Whether something is still to come, and nothing has gone wrong.
    pub(super) fn is_waiting(&self) -> bool {
        self.failures.is_empty() && self.missing().1 > 0
    }
}

impl Session {
    fn is_owed(&self, message: &Message) -> bool {
        let Some(acknowledged) = message.acknowledged else {
            return false;
        };
        message.qos != QoS::AtMostOnce
            && !message.is_short_lived()
            && self.interests(message).any(|interest| {
                interest.qos != QoS::AtMostOnce
                    // A will may be published long after its connection has ended.
                    && interest
                        .until
                        .is_none_or(|until| !message.is_will && acknowledged < until)
            })
    }

    /// Those of its own that stood before a message was sent.
    pub(super) fn interests<'s>(
        &'s self,
        message: &'s Message,
    ) -> impl Iterator<Item = &'s Interest> {
        self.interests.iter().filter(|interest| {
            !interest.void
                && !groups::is_shared(&interest.filter)
                && interest.from < message.sent
                && matches(&interest.filter, &message.topic)
        })
    }
}

/// Whether a filter, or what is shared by it, matches a topic, level by level.
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let filter = groups::inner(filter);
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        match (level, topic.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(other)) if level == other => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}
