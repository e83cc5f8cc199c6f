//! A subscriber: it acknowledges in order, now and then late, keeps the identifiers it has received at
//! QoS 2 over its connections, and subscribes to each filter once.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    client::{Client, Event},
    journal::{Interest, Journal, MessageId, Promise, identify},
    wire::{PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Publish, ack, subscribe, unsubscribe},
};

/// One answer in so many is held back, for so long at most.
const HELD_BACK: (usize, Duration) = (200, Duration::from_millis(200));
/// How long a filter that comes and goes stays as it is.
const CHANGE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(400));

/// When a subscriber is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// All the time.
    Steady,
    /// It comes and goes.
    Restless,
    /// It subscribes in its first round and stays away for half of the others.
    Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Out,
    /// SUBSCRIBE was sent.
    Coming,
    In,
    /// UNSUBSCRIBE was sent.
    Leaving,
}

/// A filter that it subscribes to.
struct Filter {
    text: String,
    qos: u8,
    changes: bool,
    state: State,
    /// The last subscription to it, in the journal.
    interest: usize,
}

/// One subscriber.
pub(super) struct Subscriber {
    session: usize,
    pub(super) client: Client,
    habit: Habit,
    away: bool,
    filters: Vec<Filter>,
    /// Filters by the identifier of their SUBSCRIBE or UNSUBSCRIBE on this connection.
    requests: HashMap<u16, usize>,
    /// Received at QoS 2 and not released; retained values and clears name no message that counts.
    unreleased: HashMap<u16, Option<MessageId>>,
    answers: VecDeque<(Instant, Vec<u8>)>,
    next_change: Instant,
}

impl Subscriber {
    /// `filters` are text, QoS, and whether it comes and goes.
    pub(super) fn new(
        client: Client,
        habit: Habit,
        filters: &[(String, u8, bool)],
        journal: &mut Journal,
    ) -> Self {
        let filters = filters.iter().map(|(text, qos, changes)| Filter {
            text: text.clone(),
            qos: *qos,
            changes: *changes,
            state: State::Out,
            interest: 0,
        });
        Self {
            session: journal.add_session(&client.name),
            client,
            habit,
            away: false,
            filters: filters.collect(),
            requests: HashMap::new(),
            unreleased: HashMap::new(),
            answers: VecDeque::new(),
            next_change: Instant::now(),
        }
    }

    /// A round begins.
    pub(super) fn begin(&mut self) {
        self.away =
            self.habit == Habit::Absent && self.is_subscribed() && self.client.random.once_in(2);
    }

    /// Nothing of it waits for the broker, or the broker for it.
    pub(super) fn is_done(&self) -> bool {
        self.client.is_connected()
            && self.requests.is_empty()
            && self.unreleased.is_empty()
            && self.answers.is_empty()
    }

    /// One look at its connection. While traffic goes on it is `lively`: as its habit is, and in no
    /// hurry to answer.
    pub(super) fn step(
        &mut self,
        now: Instant,
        address: SocketAddr,
        lively: bool,
        journal: &mut Journal,
    ) {
        if self.away && lively {
            return;
        }
        let restless = lively && self.habit != Habit::Steady && self.is_subscribed();
        let before = self.client.is_connected();
        for event in self.client.poll(now, address, restless, journal) {
            self.handle(event, now, lively, journal);
        }
        if before && !self.client.is_connected() {
            self.disconnected();
        }
        if !self.client.is_connected() {
            return;
        }
        if lively && now >= self.next_change {
            self.next_change = now + self.client.random.between(CHANGE.0, CHANGE.1);
            self.change(journal);
        }
        while let Some((due, answer)) = self.answers.front() {
            if *due > now && lively {
                break;
            }
            self.client.send(answer);
            self.answers.pop_front();
        }
        self.client.flush();
        if lively && self.habit == Habit::Absent && !self.away && self.is_subscribed() {
            self.away = self.client.random.once_in(1_000);
            if self.away {
                self.client.leave(now);
                self.disconnected();
            }
        }
    }

    /// The broker is dead: what it sent before counts.
    pub(super) fn crash(&mut self, now: Instant, journal: &mut Journal) {
        for event in self.client.last_words(now, journal) {
            self.handle(event, now, false, journal);
        }
        self.disconnected();
    }

    /// Every filter that does not come and go is subscribed to.
    fn is_subscribed(&self) -> bool {
        let mut filters = self.filters.iter();
        filters.all(|filter| filter.changes || filter.state == State::In)
    }

    fn disconnected(&mut self) {
        self.requests.clear();
        self.answers.clear();
    }

    /// Subscribes to what comes and goes, or unsubscribes from it.
    fn change(&mut self, journal: &mut Journal) {
        for index in 0..self.filters.len() {
            let filter = &self.filters[index];
            if filter.changes && matches!(filter.state, State::Out | State::In) {
                self.ask(index, journal);
            }
        }
    }

    /// Sends the SUBSCRIBE or UNSUBSCRIBE that takes a filter further, also when it was sent before.
    fn ask(&mut self, index: usize, journal: &mut Journal) {
        let now = journal.tick();
        let interests = &mut journal.sessions[self.session].interests;
        let filter = &mut self.filters[index];
        match filter.state {
            State::Out => {
                filter.interest = interests.len();
                filter.state = State::Coming;
                interests.push(Interest {
                    filter: filter.text.clone(),
                    qos: filter.qos,
                    made: None,
                    leaving: None,
                    left: None,
                });
            }
            State::In => {
                filter.state = State::Leaving;
                interests[filter.interest].leaving = Some(now);
            }
            State::Coming | State::Leaving => {}
        }
        let version = self.client.version;
        let id = self.client.next_id(|id| self.requests.contains_key(&id));
        self.requests.insert(id, index);
        let filter = &self.filters[index];
        let bytes = if filter.state == State::Coming {
            subscribe(version, id, &filter.text, filter.qos)
        } else {
            unsubscribe(version, id, &filter.text)
        };
        self.client.send(&bytes);
    }

    fn handle(&mut self, event: Event, now: Instant, lively: bool, journal: &mut Journal) {
        let packet = match event {
            Event::Connected { present, .. } => return self.resume(present, journal),
            Event::Packet(packet) => packet,
        };
        match packet {
            Packet::Publish(message) => self.message(&message, now, lively, journal),
            Packet::Ack {
                first: PUBREL, id, ..
            } => {
                let at = journal.tick();
                if let Some(message) = self.unreleased.remove(&id).flatten() {
                    let released = &mut journal.sessions[self.session].released;
                    released.push((message, at));
                }
                self.answer(ack(PUBCOMP, id), now, lively);
            }
            Packet::Suback { id, code } => self.answered(id, Some(code), journal),
            Packet::Unsuback { id } => self.answered(id, None, journal),
            other => {
                let text = format!("{}: unexpected {other:?}", self.client.name);
                journal.fail(Promise::Connection, text);
            }
        }
    }

    /// Asks again for what was not answered. Subscriptions that were are not repeated: the session holds
    /// them.
    fn resume(&mut self, present: bool, journal: &mut Journal) {
        if !present {
            self.unreleased.clear();
        }
        for index in 0..self.filters.len() {
            let filter = &self.filters[index];
            match filter.state {
                State::Out if !filter.changes => self.ask(index, journal),
                State::Coming | State::Leaving => self.ask(index, journal),
                _ => {}
            }
        }
    }

    fn message(&mut self, message: &Publish, now: Instant, lively: bool, journal: &mut Journal) {
        // A value from the time before the subscription is not owed, and a clear names nobody.
        let counts = !message.retain && !message.payload.is_empty();
        let named = identify(&message.payload).filter(|_| counts);
        let mut first = true;
        if message.qos == 2 {
            match self.unreleased.get(&message.id) {
                Some(before) if *before != named => {
                    let text = format!(
                        "{}: identifier {} names another message before PUBREL",
                        self.client.name, message.id
                    );
                    journal.fail(Promise::Connection, text);
                }
                Some(_) => first = false,
                None => _ = self.unreleased.insert(message.id, named),
            }
        }
        if first && counts {
            journal.deliver(self.session, &message.topic, &message.payload, message.qos);
        } else {
            journal.tick();
        }
        match message.qos {
            1 => self.answer(ack(PUBACK, message.id), now, lively),
            2 => self.answer(ack(PUBREC, message.id), now, lively),
            _ => {}
        }
    }

    /// Answers leave in the order of what they answer.
    fn answer(&mut self, bytes: Vec<u8>, now: Instant, lively: bool) {
        let mut due = now;
        if lively && self.client.random.once_in(HELD_BACK.0) {
            due += self.client.random.between(Duration::ZERO, HELD_BACK.1);
        }
        self.answers.push_back((due, bytes));
    }

    /// SUBACK came, or UNSUBACK.
    fn answered(&mut self, id: u16, code: Option<u8>, journal: &mut Journal) {
        let now = journal.tick();
        let Some(index) = self.requests.remove(&id) else {
            let text = format!("{}: an answer to no request, {id}", self.client.name);
            return journal.fail(Promise::Connection, text);
        };
        let filter = &mut self.filters[index];
        let interest = &mut journal.sessions[self.session].interests[filter.interest];
        match code {
            Some(code) if code == filter.qos => {
                filter.state = State::In;
                interest.made = Some(now);
            }
            None => {
                filter.state = State::Out;
                interest.left = Some(now);
            }
            Some(code) => {
                let text = format!("{}: {} answered {code}", self.client.name, filter.text);
                journal.fail(Promise::Connection, text);
            }
        }
    }
}
