//! What the store keeps, and the changes that it is told of.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mqtt_codec::{PacketId, QoS, SubscriptionIdentifier};
use mqtt_router::Subscription;
use mqtt_session::Time;

use crate::auth::Owner;
use crate::message::Message;

/// Names a stored session. Never used again within one store.
pub(crate) type SessionNumber = u64;
/// In the number of a session for which it is enough that the system has what is stored: whatever is written for a
/// session tells what it waits for. Low enough for a reader of JSON to whom all numbers are floating.
pub(crate) const UNSYNCED: SessionNumber = 1 << 52;
/// Names the stored body of a message that several sessions wait for. Never used again within one store.
pub(crate) type BodyNumber = u64;
/// Names a message within its session, in the order of the queue.
pub(crate) type Key = u64;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WallTime(pub(crate) u64);

impl WallTime {
    /// What the clock of the system says.
    pub(crate) fn now() -> Self {
        Self::of(SystemTime::now())
    }

    /// What is before 1970 counts as its beginning.
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }
}

/// Converts between the time of the store and that of a running broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The wall clock at [`Time::ZERO`].
    pub(crate) origin: WallTime,
}

impl Clock {
    /// A time that lies before the start of the broker becomes its start.
    pub(crate) fn time(self, wall: WallTime) -> Time {
        let millis = wall.0.saturating_sub(self.origin.0);
        Time::ZERO + core::time::Duration::from_millis(millis)
    }

    pub(crate) fn wall(self, time: Time) -> WallTime {
        let since = time.saturating_since(Time::ZERO).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        WallTime(self.origin.0.saturating_add(since))
    }
}

/// A session that outlives its connection, but for its subscriptions and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    /// Empty if the session has ended but for its messages.
    pub(crate) client_id: Arc<str>,
    pub(crate) owner: Owner,
    /// How long it outlives its connection, in seconds; `u32::MAX`: for ever.
    pub(crate) expiry_interval: u32,
    /// When it ends. `None` while it is connected, or if it never ends.
    pub(crate) expires_at: Option<WallTime>,
    pub(crate) will: Option<WillRecord>,
}

/// A will that is published when its delay has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WillRecord {
    /// Seconds.
    pub(crate) delay: u32,
    /// When it is published. `None` while its client is connected.
    pub(crate) due: Option<WallTime>,
    /// The level of the protocol of its client.
    pub(crate) level: u8,
    /// The message, as a PUBLISH of 5.0.
    pub(crate) publish: Box<[u8]>,
}

/// A QoS 1 or 2 message in the queue of a session, or in flight.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Arc<Message>,
    /// The message expires then.
    pub(crate) expires_at: Option<WallTime>,
    /// Where the body is, if it is not in the entry itself.
    pub(crate) body: Option<BodyNumber>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Option<Arc<[SubscriptionIdentifier]>>,
    /// The whole filter of the shared group that chose the session.
    pub(crate) group: Option<Arc<str>>,
}

/// A change of what is stored.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A session is there, or has changed.
    Session(SessionNumber, Box<SessionRecord>),
    /// A session has ended: all that belongs to it goes.
    SessionEnded(SessionNumber),
    /// A subscription is there, or has changed.
    Subscribed(SessionNumber, Box<str>, Subscription),
    Unsubscribed(SessionNumber, Box<str>),
    /// The body of a message that entries which follow in the same unit refer to. It goes with the last.
    Body(BodyNumber, Arc<Message>, Option<WallTime>),
    /// A message joins the queue of a session. Of no effect if the session has ended.
    Queued(SessionNumber, Key, Box<Entry>),
    /// A message is no longer needed: completed, dropped or given to somebody else.
    Dequeued(SessionNumber, Key, Option<BodyNumber>),
    /// A QoS 2 message of the queue got an identifier.
    Sent(SessionNumber, PacketId, Key),
    /// PUBREC came for it.
    Released(SessionNumber, PacketId),
    /// Its identifier is free.
    Completed(SessionNumber, PacketId),
    /// A QoS 2 message came under this identifier.
    Received(SessionNumber, PacketId),
    /// The identifier is free.
    Forgotten(SessionNumber, PacketId),
    /// The retained message of its topic, and the client identifier of its publisher, for No Local.
    Retained(Arc<Message>, Option<WallTime>, Option<Arc<str>>),
    /// A subscription is to get the retained messages of its filter, or has got them all.
    Owes(SessionNumber, Box<str>, bool),
    RetainedCleared(Box<str>),
}

/// The first number, without [`UNSYNCED`], that was not used by then.
pub(crate) fn number_after(session: SessionNumber) -> SessionNumber {
    (session & !UNSYNCED).saturating_add(1)
}

impl Op {
    /// Whether whoever waits for the change waits for the disk. `retained`: for that of a retained message.
    pub(crate) fn wants_sync(&self, retained: bool) -> bool {
        match self {
            Self::Session(number, _)
            | Self::SessionEnded(number)
            | Self::Subscribed(number, ..)
            | Self::Unsubscribed(number, _)
            | Self::Owes(number, ..)
            | Self::Queued(number, ..)
            | Self::Dequeued(number, ..)
            | Self::Sent(number, ..)
            | Self::Released(number, _)
            | Self::Completed(number, _)
            | Self::Received(number, _)
            | Self::Forgotten(number, _) => number & UNSYNCED == 0,
            // Those that refer to it say.
            Self::Body(..) => false,
            Self::Retained(..) | Self::RetainedCleared(_) => retained,
        }
    }

    /// Bytes that it takes while it waits, about.
    pub(crate) fn size(&self) -> usize {
        let own = size_of::<Self>();
        own + match self {
            Self::Session(_, record) => {
                let user = record.owner.user().map_or(0, |user| user.len());
                size_of::<SessionRecord>() + record.client_id.len() + user
            }
            Self::Subscribed(_, filter, _)
            | Self::Unsubscribed(_, filter)
            | Self::Owes(_, filter, _) => filter.len(),
            Self::Body(_, message, _) | Self::Retained(message, ..) => message.size(),
            Self::Queued(_, _, entry) if entry.body.is_some() => size_of::<Entry>(),
            Self::Queued(_, _, entry) => size_of::<Entry>() + entry.message.size(),
            Self::RetainedCleared(topic) => topic.len(),
            _ => 0,
        }
    }
}

/// A session as it was read back.
#[derive(Debug)]
pub(crate) struct StoredSession {
    pub(crate) number: SessionNumber,
    pub(crate) record: SessionRecord,
    pub(crate) subscriptions: Vec<(Box<str>, Subscription)>,
    /// Filters of subscriptions that have not got all of their retained messages.
    pub(crate) owed: Vec<Box<str>>,
    /// In the order of their keys: all, or those at the head of the queue.
    pub(crate) entries: Vec<(Key, Entry)>,
    /// Those behind them.
    pub(crate) rest: Option<Rest>,
    /// QoS 2 messages in flight, in the order in which they were sent.
    pub(crate) sent: Vec<(PacketId, Key)>,
    /// QoS 2 identifiers that wait for PUBCOMP, in the order of their PUBRECs.
    pub(crate) released: Vec<PacketId>,
    /// QoS 2 identifiers of messages received.
    pub(crate) received: Vec<PacketId>,
}

impl StoredSession {
    /// Whether it has ended but for its messages.
    pub(crate) fn is_ending(&self) -> bool {
        self.record.client_id.is_empty()
    }

    /// How many messages it has, in flight and not.
    pub(crate) fn queued(&self) -> usize {
        self.entries.len() + self.rest.map_or(0, |rest| rest.messages)
    }
}

/// Messages of a queue that were counted and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    /// The first and the last key.
    pub(crate) first: Key,
    pub(crate) last: Key,
    pub(crate) messages: usize,
    /// What they take in memory.
    pub(crate) bytes: usize,
    /// How many of them were chosen by shared groups.
    pub(crate) shared: usize,
}

/// A part of the queue of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) session: SessionNumber,
    pub(crate) from: Key,
    /// The first key behind it.
    pub(crate) until: Key,
    /// How much is wanted of it.
    pub(crate) bytes: usize,
}

/// What was read of a [`Span`].
#[derive(Debug)]
pub(crate) struct Portion {
    pub(crate) from: Key,
    /// The first key that was not reached: no entry is left out before it, but those that are damaged.
    pub(crate) next: Key,
    /// In the order of their keys.
    pub(crate) entries: Vec<(Key, Entry)>,
}

/// A retained message, and the client identifier of its publisher where it is known.
pub(crate) type Retained = (Arc<Message>, Option<Arc<str>>);

/// Everything that was read back.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) sessions: Vec<StoredSession>,
    pub(crate) retained: Vec<Retained>,
    /// Numbers from here on were never used.
    pub(crate) next_session: SessionNumber,
    pub(crate) next_body: BodyNumber,
    /// Records that make no sense; they are left where they are.
    pub(crate) skipped: u64,
}
