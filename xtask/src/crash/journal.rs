//! What the clients of a run did and saw, each with the number of its instant: one thread drives them
//! all, so that a lower number was earlier. The judge reads it when the run is over.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

/// A message: its publisher and its number there, from 0 on without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct MessageId {
    pub(super) publisher: u16,
    pub(super) number: u32,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} of publisher {}", self.number, self.publisher)
    }
}

/// What a publisher sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) topic: Arc<str>,
    /// 1 or 2.
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Bytes of the payload; 0 clears a retained value.
    pub(super) length: usize,
    /// When it was handed to the connection for the first time.
    pub(super) at: u64,
    /// When PUBACK or PUBREC came.
    pub(super) acknowledged: Option<u64>,
    /// When PUBACK or PUBCOMP came.
    pub(super) completed: Option<u64>,
    /// The reason code, where the broker refused it; it owes nothing then.
    pub(super) refused: Option<u8>,
}

/// A subscription from its SUBSCRIBE on; one that is made anew later is another.
#[derive(Debug, Clone)]
pub(super) struct Interest {
    pub(super) filter: String,
    /// The maximum QoS, asked for and granted.
    pub(super) qos: u8,
    /// When SUBACK came.
    pub(super) made: Option<u64>,
    /// When UNSUBSCRIBE was handed to the connection for the first time.
    pub(super) leaving: Option<u64>,
    /// When UNSUBACK came.
    pub(super) left: Option<u64>,
}

/// A message that a subscriber took: the repeats of a handshake at QoS 2 are none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) message: MessageId,
    pub(super) qos: u8,
    pub(super) at: u64,
}

/// What one subscriber did and saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Session {
    pub(super) name: String,
    pub(super) interests: Vec<Interest>,
    pub(super) deliveries: Vec<Delivery>,
    /// Messages whose PUBREL came, and when: their identifiers are forgotten.
    pub(super) released: Vec<(MessageId, u64)>,
}

/// What the broker promised and did not keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// An acknowledged message did not come.
    Lost,
    /// A message came twice at QoS 2.
    Twice,
    /// A message came for the first time after a later one.
    Order,
    /// A message came that nothing asks for any more.
    Unsubscribed,
    /// CONNACK says that there is no session.
    Session,
    /// A retained value is too old, or there is none or one too many.
    Retained,
    /// A message was never acknowledged.
    Unanswered,
    /// What came is not what was sent.
    Altered,
    /// The broker broke a connection, refused one, or broke off a handshake.
    Connection,
}

/// A broken promise and where it was seen.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) promise: Promise,
    pub(super) text: String,
}

/// Everything of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    now: u64,
    /// The wall clock at each instant, in microseconds since 1970.
    clock: Vec<u64>,
    /// Clients by name, and when their first CONNACK came.
    pub(super) established: Vec<(String, u64)>,
    /// By publisher and number.
    pub(super) sent: Vec<Vec<Sent>>,
    pub(super) sessions: Vec<Session>,
    /// What was seen to be wrong at once.
    pub(super) failures: Vec<Failure>,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) delivered: u64,
}

impl Journal {
    /// The number of this instant; the next one is higher.
    pub(super) fn tick(&mut self) -> u64 {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        self.clock
            .push(time.map_or(0, |time| time.as_micros() as u64));
        self.now += 1;
        self.now
    }

    /// The last instant at which the wall clock was below `micros`.
    pub(super) fn instant_before(&self, micros: u64) -> u64 {
        self.clock.partition_point(|time| *time < micros) as u64
    }

    /// The number of the last instant: it stands still where nothing happens.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn fail(&mut self, promise: Promise, text: impl Into<String>) {
        let text = text.into();
        self.failures.push(Failure { promise, text });
    }

    pub(super) fn add_publisher(&mut self) -> u16 {
        self.sent.push(Vec::new());
        (self.sent.len() - 1) as u16
    }

    pub(super) fn add_session(&mut self, name: &str) -> usize {
        self.sessions.push(Session {
            name: name.to_owned(),
            ..Session::default()
        });
        self.sessions.len() - 1
    }

    /// A message is about to be sent for the first time.
    pub(super) fn send(
        &mut self,
        publisher: u16,
        topic: &Arc<str>,
        qos: u8,
        retain: bool,
        length: usize,
    ) -> MessageId {
        let at = self.tick();
        let sent = &mut self.sent[usize::from(publisher)];
        let number = sent.len() as u32;
        sent.push(Sent {
            topic: Arc::clone(topic),
            qos,
            retain,
            length,
            at,
            acknowledged: None,
            completed: None,
            refused: None,
        });
        MessageId { publisher, number }
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&Sent> {
        let sent = self.sent.get(usize::from(id.publisher))?;
        sent.get(id.number as usize)
    }

    /// PUBACK or PUBREC came, or with `complete` PUBACK or PUBCOMP.
    pub(super) fn acknowledge(&mut self, id: MessageId, reason: u8, complete: bool) {
        let now = self.tick();
        let sent = &mut self.sent[usize::from(id.publisher)][id.number as usize];
        if reason >= 0x80 {
            sent.refused = Some(reason);
            self.refused += 1;
            return;
        }
        if sent.acknowledged.is_none() {
            sent.acknowledged = Some(now);
            self.acknowledged += 1;
        }
        if complete {
            sent.completed = Some(now);
        }
    }

    /// A subscriber took a message; what is not known for one of this run is a failure.
    pub(super) fn deliver(&mut self, session: usize, topic: &str, payload: &[u8], qos: u8) {
        let at = self.tick();
        let id = identify(payload);
        let known = id.and_then(|id| self.message(id));
        let (Some(message), Some(sent)) = (id, known) else {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(24)]).into_owned();
            let name = &self.sessions[session].name;
            let text = format!("{name} got {shown:?} on {topic}, which was never sent");
            return self.fail(Promise::Altered, text);
        };
        if &*sent.topic != topic || payload != content(message, sent.length) {
            let name = &self.sessions[session].name;
            let text = format!("{name} got {message} on {topic} with another topic or payload");
            return self.fail(Promise::Altered, text);
        }
        self.delivered += 1;
        let delivery = Delivery { message, qos, at };
        self.sessions[session].deliveries.push(delivery);
    }

    /// What each retained topic may hold now.
    fn retained(&self) -> BTreeMap<Arc<str>, Retained> {
        let mut topics: BTreeMap<Arc<str>, Retained> = BTreeMap::new();
        for (publisher, sent) in self.sent.iter().enumerate() {
            for (number, sent) in sent.iter().enumerate().filter(|(_, sent)| sent.retain) {
                let topic = topics.entry(Arc::clone(&sent.topic)).or_default();
                if sent.acknowledged.is_some() {
                    topic.possible.clear();
                    topic.owed = sent.length > 0;
                } else if sent.length == 0 || sent.refused.is_some() {
                    // One that is refused ends what was retained before.
                    topic.owed = false;
                }
                topic.possible.push(MessageId {
                    publisher: publisher as u16,
                    number: number as u32,
                });
            }
        }
        topics
    }

    /// How many retained topics must hold a value.
    pub(super) fn owed_retained(&self) -> usize {
        self.retained().values().filter(|topic| topic.owed).count()
    }

    /// Compares the retained values that a new subscriber found with those that it may find.
    pub(super) fn check_retained(&mut self, found: &BTreeMap<String, Vec<u8>>, when: &str) {
        let topics = self.retained();
        for (topic, Retained { possible, owed }) in &topics {
            let text = match found.get(&**topic).map(|payload| identify(payload)) {
                None if *owed => "nothing".to_owned(),
                None => continue,
                Some(Some(id)) if possible.contains(&id) => continue,
                Some(Some(id)) => id.to_string(),
                Some(None) => "something else".to_owned(),
            };
            let Some(last) = possible.first() else {
                continue;
            };
            let cleared = self.message(*last).is_some_and(|sent| sent.length == 0);
            let what = if cleared { "cleared by" } else { "set to" };
            let text = format!("{when}: {topic} holds {text}, but was {what} {last}");
            self.fail(Promise::Retained, text);
        }
        for topic in found.keys().filter(|topic| !topics.contains_key(&***topic)) {
            let text = format!("{when}: {topic} was never set");
            self.fail(Promise::Retained, text);
        }
    }
}

/// What one retained topic may hold.
#[derive(Debug, Default)]
struct Retained {
    /// From the last acknowledged value on; those that clear it are among them.
    possible: Vec<MessageId>,
    /// It must hold one.
    owed: bool,
}

/// The payload of a message: who it is, and filler.
pub(super) fn content(id: MessageId, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    if length > 0 {
        bytes.extend(format!("{} {} ", id.publisher, id.number).into_bytes());
        bytes.resize(length.max(bytes.len()), b'.');
    }
    bytes
}

/// The message that a payload names.
pub(super) fn identify(payload: &[u8]) -> Option<MessageId> {
    let head = &payload[..payload.len().min(24)];
    let mut words = head.split(|byte| *byte == b' ');
    let publisher = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    Some(MessageId { publisher, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values 0 to 3 of a topic, of which the first so many are acknowledged; the last one clears.
    fn retained(acknowledged: u32, found: Option<u32>) -> usize {
        let mut journal = Journal::default();
        let publisher = journal.add_publisher();
        let topic = Arc::from("kept/0");
        for number in 0..4 {
            let length = if number == 3 { 0 } else { 40 };
            let id = journal.send(publisher, &topic, 1, true, length);
            if number < acknowledged {
                journal.acknowledge(id, 0, true);
            }
        }
        let payload = |number| content(MessageId { publisher, number }, 40);
        let found = found.map(|number| ("kept/0".to_owned(), payload(number)));
        journal.check_retained(&found.into_iter().collect(), "now");
        journal.failures.len()
    }

    #[test]
    fn a_retained_value_is_one_from_the_last_acknowledged_on() {
        assert_eq!(retained(2, Some(0)), 1);
        assert_eq!(retained(2, Some(1)), 0);
        assert_eq!(retained(2, Some(2)), 0);
        assert_eq!(retained(2, Some(9)), 1);
        assert_eq!(retained(0, None), 0);
        // The clear may have arrived, though nothing says so.
        assert_eq!(retained(2, None), 0);
        assert_eq!(retained(4, None), 0);
        assert_eq!(retained(4, Some(2)), 1);
    }

    #[test]
    fn a_value_that_nothing_clears_must_be_there() {
        let mut journal = Journal::default();
        let publisher = journal.add_publisher();
        let id = journal.send(publisher, &Arc::from("kept/0"), 2, true, 30);
        journal.check_retained(&BTreeMap::new(), "before");
        assert!(journal.failures.is_empty());
        journal.acknowledge(id, 0, false);
        journal.check_retained(&BTreeMap::new(), "after");
        assert_eq!(journal.failures.len(), 1);
        let stranger = BTreeMap::from([
            ("kept/0".to_owned(), content(id, 30)),
            ("kept/9".to_owned(), content(id, 30)),
        ]);
        journal.check_retained(&stranger, "then");
        assert_eq!(journal.failures.len(), 2);
    }

    #[test]
    fn a_payload_names_its_message() {
        let id = MessageId {
            publisher: 3,
            number: 70_000,
        };
        assert_eq!(identify(&content(id, 500)), Some(id));
        assert_eq!(identify(&content(id, 1)), Some(id));
        assert_eq!(identify(b""), None);
        assert_eq!(identify(b"a message"), None);
    }

    #[test]
    fn what_was_never_sent_is_noticed() {
        let mut journal = Journal::default();
        let publisher = journal.add_publisher();
        let session = journal.add_session("one");
        let id = journal.send(publisher, &Arc::from("a"), 1, false, 40);
        journal.deliver(session, "a", &content(id, 40), 1);
        assert!(journal.failures.is_empty());
        journal.deliver(session, "b", &content(id, 40), 1);
        journal.deliver(session, "a", &content(id, 41), 1);
        journal.deliver(session, "a", b"0 1 ", 1);
        journal.deliver(session, "a", b"hello", 1);
        assert_eq!(journal.failures.len(), 4);
        assert_eq!(journal.sessions[session].deliveries.len(), 1);
    }
}
