//! Records as bytes. The numbers of a key are big-endian, so that a scan meets the records of a session
//! together and in order; those of a value are variable-length integers. The version of all of it is
//! [`FORMAT`], kept once in the store.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | state | `00` | the format, 2 bytes |
//! | state | `01` | time of the last commit, next session, next body |
//! | state | `02` session:8 `00` | [`SessionRecord`]: in format 1 from the client identifier on; else before it [`OWNED`] and the owner |
//! | state | `02` session:8 `01` filter | options, identifier or 0, rest of a filter over [`FILTER_IN_KEY`] |
//! | state | `02` session:8 `02` packet identifier:2 | [`Flight`] |
//! | state | `02` session:8 `03` packet identifier:2 | nothing: received |
//! | queue | session:8 key:8 | flags, what they announce, the message if it has no body of its own |
//! | bodies | body:8 | expiry, message |
//! | state | `02` session:8 `04` filter | rest of a filter over [`FILTER_IN_KEY`]: retained messages are owed to it |
//! | retained | topic | expiry, `80` and the publisher where it is known, message |
//!
//! An expiry is 0 for never, or else the time plus 1. A message is its QoS, topic, forwarded properties and
//! payload.

use std::sync::Arc;

use mqtt_codec::{PacketId, QoS, RetainHandling, SubscriptionIdentifier, SubscriptionOptions};
use mqtt_router::Subscription;
use mqtt_session::Time;
use xxhash_rust::xxh3::xxh3_64;

use crate::auth::Owner;
use crate::message::{Message, Parts};
use crate::store::input::{Input, NOT_UTF8, Undecodable, put_text, put_time, put_varint};
use crate::store::record::{
    BodyNumber, Entry, Key, SessionNumber, SessionRecord, WallTime, WillRecord,
};

/// The format that is written. [`OLDEST_FORMAT`] and those between are read and become this one: what changed
/// is told by the records themselves.
pub(crate) const FORMAT: u16 = 2;
/// Before sessions had owners.
pub(super) const OLDEST_FORMAT: u16 = 1;
pub(super) const FORMAT_KEY: [u8; 1] = [0];
pub(super) const MARKS_KEY: [u8; 1] = [1];
/// So much of a filter is in the key, which cannot hold the longest one; a hash stands for the rest.
pub(super) const FILTER_IN_KEY: usize = 60_000;

const SESSION_TAG: u8 = 2;
const RECORD: u8 = 0;
const SUBSCRIPTION: u8 = 1;
const FLIGHT: u8 = 2;
const RECEIVED: u8 = 3;
const OWED: u8 = 4;
/// Stands where a message begins otherwise, which its QoS does.
const PUBLISHER: u8 = 0x80;

/// What never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) at: WallTime,
    pub(super) next_session: SessionNumber,
    pub(super) next_body: BodyNumber,
}

/// A QoS 2 message that a session sends. `order` grows with each change of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flight {
    Sent { order: u64, key: Key },
    Released { order: u64 },
}

/// A retained message, when it expires, and its publisher.
pub(super) type RetainedValue = (Message, Option<WallTime>, Option<Arc<str>>);

/// What a key of the keyspace "state" names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StateKey<'a> {
    Format,
    Marks,
    Session(SessionNumber),
    /// The part of the filter that is in the key, with the hash of the rest.
    Subscription(SessionNumber, &'a [u8]),
    Flight(SessionNumber, PacketId),
    Received(SessionNumber, PacketId),
    /// As that of a subscription.
    Owed(SessionNumber, &'a [u8]),
}

/// What all records of a session in "state" begin with.
pub(super) fn session_prefix(session: SessionNumber) -> [u8; 9] {
    let mut key = [SESSION_TAG; 9];
    key[1..].copy_from_slice(&session.to_be_bytes());
    key
}

pub(super) fn session_key(session: SessionNumber) -> [u8; 10] {
    let mut key = [RECORD; 10];
    key[..9].copy_from_slice(&session_prefix(session));
    key
}

pub(super) fn subscription_key(session: SessionNumber, filter: &str) -> Vec<u8> {
    filter_key(session, SUBSCRIPTION, filter)
}

pub(super) fn owed_key(session: SessionNumber, filter: &str) -> Vec<u8> {
    filter_key(session, OWED, filter)
}

fn filter_key(session: SessionNumber, kind: u8, filter: &str) -> Vec<u8> {
    let (head, rest) = split_filter(filter);
    let mut key = Vec::with_capacity(10 + head.len() + 8);
    key.extend_from_slice(&session_prefix(session));
    key.push(kind);
    key.extend_from_slice(head);
    if !rest.is_empty() {
        key.extend_from_slice(&xxh3_64(rest).to_be_bytes());
    }
    key
}

pub(super) fn flight_key(session: SessionNumber, id: PacketId) -> [u8; 12] {
    packet_key(session, FLIGHT, id)
}

pub(super) fn received_key(session: SessionNumber, id: PacketId) -> [u8; 12] {
    packet_key(session, RECEIVED, id)
}

fn packet_key(session: SessionNumber, kind: u8, id: PacketId) -> [u8; 12] {
    let mut key = [kind; 12];
    key[..9].copy_from_slice(&session_prefix(session));
    key[10..].copy_from_slice(&id.get().to_be_bytes());
    key
}

pub(super) fn entry_key(session: SessionNumber, key: Key) -> [u8; 16] {
    (u128::from(session) << 64 | u128::from(key)).to_be_bytes()
}

pub(super) fn body_key(body: BodyNumber) -> [u8; 8] {
    body.to_be_bytes()
}

pub(super) fn decode_state_key(key: &[u8]) -> Result<StateKey<'_>, Undecodable> {
    let mut input = Input::new(key);
    let found = match input.byte()? {
        0 => StateKey::Format,
        1 => StateKey::Marks,
        SESSION_TAG => {
            let session = u64::from_be_bytes(input.array()?);
            match input.byte()? {
                RECORD => StateKey::Session(session),
                SUBSCRIPTION => StateKey::Subscription(session, input.rest()),
                OWED => StateKey::Owed(session, input.rest()),
                FLIGHT => StateKey::Flight(session, input.packet_id()?),
                RECEIVED => StateKey::Received(session, input.packet_id()?),
                _ => return Err(Undecodable("unknown kind of key")),
            }
        }
        _ => return Err(Undecodable("unknown kind of key")),
    };
    input.end()?;
    Ok(found)
}

pub(super) fn decode_entry_key(key: &[u8]) -> Result<(SessionNumber, Key), Undecodable> {
    let mut input = Input::new(key);
    let session = u64::from_be_bytes(input.array()?);
    let key = u64::from_be_bytes(input.array()?);
    input.end()?;
    Ok((session, key))
}

pub(super) fn decode_body_key(key: &[u8]) -> Result<BodyNumber, Undecodable> {
    let mut input = Input::new(key);
    let body = u64::from_be_bytes(input.array()?);
    input.end()?;
    Ok(body)
}

pub(super) fn encode_marks(marks: Marks) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    put_varint(marks.at.0, &mut out);
    put_varint(marks.next_session, &mut out);
    put_varint(marks.next_body, &mut out);
    out
}

pub(super) fn decode_marks(value: &[u8]) -> Result<Marks, Undecodable> {
    let mut input = Input::new(value);
    let marks = Marks {
        at: WallTime(input.varint()?),
        next_session: input.varint()?,
        next_body: input.varint()?,
    };
    input.end()?;
    Ok(marks)
}

pub(super) fn encode_flight(flight: Flight) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    match flight {
        Flight::Sent { order, key } => {
            out.push(0);
            put_varint(order, &mut out);
            put_varint(key, &mut out);
        }
        Flight::Released { order } => {
            out.push(1);
            put_varint(order, &mut out);
        }
    }
    out
}

pub(super) fn decode_flight(value: &[u8]) -> Result<Flight, Undecodable> {
    let mut input = Input::new(value);
    let flight = match input.byte()? {
        0 => Flight::Sent {
            order: input.varint()?,
            key: input.varint()?,
        },
        1 => Flight::Released {
            order: input.varint()?,
        },
        _ => return Err(Undecodable("unknown state of a message in flight")),
    };
    input.end()?;
    Ok(flight)
}

pub(super) fn encode_subscription(filter: &str, subscription: &Subscription) -> Vec<u8> {
    let options = subscription.options;
    let bits = options.qos as u8
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4;
    let mut out = vec![bits];
    put_varint(
        subscription.identifier.map_or(0, |id| id.get().into()),
        &mut out,
    );
    out.extend_from_slice(split_filter(filter).1);
    out
}

/// `in_key` is what the key holds of the filter.
pub(super) fn decode_subscription(
    in_key: &[u8],
    value: &[u8],
) -> Result<(Box<str>, Subscription), Undecodable> {
    let mut input = Input::new(value);
    let bits = input.byte()?;
    let options = SubscriptionOptions {
        qos: qos(bits & 3)?,
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: match bits >> 4 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(Undecodable("unknown retain handling")),
        },
    };
    let identifier = match input.varint()? {
        0 => None,
        id => Some(identifier(id)?),
    };
    let filter = decode_filter(in_key, input.rest())?;
    Ok((
        filter,
        Subscription {
            options,
            identifier,
        },
    ))
}

/// What the value of an [`StateKey::Owed`] is.
pub(super) fn encode_owed(filter: &str) -> &[u8] {
    split_filter(filter).1
}

/// A filter of which `in_key` is in the key, and `rest` in the value.
pub(super) fn decode_filter(in_key: &[u8], rest: &[u8]) -> Result<Box<str>, Undecodable> {
    let filter = if rest.is_empty() {
        in_key.to_vec()
    } else {
        let head = in_key
            .get(..FILTER_IN_KEY)
            .ok_or(Undecodable("short filter in two parts"))?;
        [head, rest].concat()
    };
    let filter = String::from_utf8(filter).map_err(|_| NOT_UTF8)?;
    Ok(filter.into_boxed_str())
}

fn split_filter(filter: &str) -> (&[u8], &[u8]) {
    let bytes = filter.as_bytes();
    bytes.split_at(bytes.len().min(FILTER_IN_KEY))
}

/// What a record with an owner begins with: the length of a client identifier that no stored session has.
const OWNED: u64 = 0;
const ANYBODY: u8 = 0;
const ANONYMOUS: u8 = 1;
const USER: u8 = 2;

pub(super) fn encode_session(record: &SessionRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.client_id.len() + 16);
    put_varint(OWNED, &mut out);
    match &record.owner {
        Owner::Anybody => out.push(ANYBODY),
        Owner::Anonymous => out.push(ANONYMOUS),
        Owner::User(user) => {
            out.push(USER);
            put_text(user, &mut out);
        }
    }
    put_text(&record.client_id, &mut out);
    put_varint(record.expiry_interval.into(), &mut out);
    put_time(record.expires_at, &mut out);
    if let Some(will) = &record.will {
        out.push(will.level);
        put_varint(will.delay.into(), &mut out);
        put_time(will.due, &mut out);
        out.extend_from_slice(&will.publish);
    }
    out
}

pub(super) fn decode_session(value: &[u8]) -> Result<SessionRecord, Undecodable> {
    let mut input = Input::new(value);
    let mut owner = Owner::Anybody;
    let mut client_id = input.text()?;
    // Format 1 had no owners, and its records stay as they are until they change.
    if client_id.is_empty() {
        owner = match input.byte()? {
            ANYBODY => Owner::Anybody,
            ANONYMOUS => Owner::Anonymous,
            USER => Owner::User(input.text()?.into()),
            _ => return Err(Undecodable("unknown kind of owner")),
        };
        client_id = input.text()?;
    }
    let client_id = client_id.into();
    let expiry_interval = input.varint_u32()?;
    let expires_at = input.time()?;
    let will = if input.is_empty() {
        None
    } else {
        Some(WillRecord {
            level: input.byte()?,
            delay: input.varint_u32()?,
            due: input.time()?,
            publish: input.rest().into(),
        })
    };
    Ok(SessionRecord {
        client_id,
        owner,
        expiry_interval,
        expires_at,
        will,
    })
}

/// A body.
pub(super) fn encode_message(message: &Message, expires_at: Option<WallTime>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.size());
    put_time(expires_at, &mut out);
    put_message(message, &mut out);
    out
}

/// A retained message and its publisher.
pub(super) fn encode_retained(
    message: &Message,
    expires_at: Option<WallTime>,
    publisher: Option<&str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.size());
    put_time(expires_at, &mut out);
    if let Some(publisher) = publisher {
        out.push(PUBLISHER);
        put_text(publisher, &mut out);
    }
    put_message(message, &mut out);
    out
}

/// `time` converts the expiry to that of the message.
pub(super) fn decode_retained(
    value: &[u8],
    time: impl FnOnce(WallTime) -> Time,
) -> Result<RetainedValue, Undecodable> {
    let mut input = Input::new(value);
    let expires_at = input.time()?;
    let publisher = input.takes(PUBLISHER).then(|| input.text()).transpose()?;
    let publisher = publisher.map(Arc::from);
    let message = message(&mut input, expires_at.map(time))?;
    Ok((message, expires_at, publisher))
}

/// `time` converts the expiry to that of the message.
pub(super) fn decode_message(
    value: &[u8],
    time: impl FnOnce(WallTime) -> Time,
) -> Result<(Message, Option<WallTime>), Undecodable> {
    let mut input = Input::new(value);
    let expires_at = input.time()?;
    Ok((message(&mut input, expires_at.map(time))?, expires_at))
}

const QOS_BITS: u8 = 3;
const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const HAS_BODY: u8 = 1 << 4;
const IDENTIFIERS: u8 = 1 << 5;
const GROUP: u8 = 1 << 6;
const UNKNOWN: u8 = 1 << 7;

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    let inline = if entry.body.is_none() {
        entry.message.size()
    } else {
        0
    };
    let mut out = Vec::with_capacity(24 + inline);
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    out.push(
        entry.qos as u8
            | flag(entry.retain, RETAIN)
            | flag(entry.expires_at.is_some(), EXPIRES)
            | flag(entry.body.is_some(), HAS_BODY)
            | flag(entry.identifiers.is_some(), IDENTIFIERS)
            | flag(entry.group.is_some(), GROUP),
    );
    if let Some(body) = entry.body {
        put_varint(body, &mut out);
    }
    if let Some(at) = entry.expires_at {
        put_varint(at.0, &mut out);
    }
    if let Some(identifiers) = &entry.identifiers {
        put_varint(identifiers.len() as u64, &mut out);
        for identifier in identifiers.iter() {
            put_varint(identifier.get().into(), &mut out);
        }
    }
    if let Some(group) = &entry.group {
        put_text(group, &mut out);
    }
    if entry.body.is_none() {
        put_message(&entry.message, &mut out);
    }
    out
}

/// The body that the entry of this value refers to.
pub(super) fn entry_body(value: &[u8]) -> Result<Option<BodyNumber>, Undecodable> {
    let mut input = Input::new(value);
    let has_body = input.byte()? & HAS_BODY != 0;
    has_body.then(|| input.varint()).transpose()
}

/// What can be told of an entry without a copy of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Where the body is, if it is not in the entry itself.
    pub(super) body: Option<BodyNumber>,
    /// What the message takes in memory, if it is in the entry.
    pub(super) size: usize,
    /// A shared group chose the session.
    pub(super) shared: bool,
}

pub(super) fn entry_shape(value: &[u8]) -> Result<Shape, Undecodable> {
    let mut input = Input::new(value);
    let flags = input.byte()?;
    if flags & UNKNOWN != 0 {
        return Err(Undecodable("unknown flag"));
    }
    let optional = |bit: u8| flags & bit != 0;
    let body = optional(HAS_BODY).then(|| input.varint()).transpose()?;
    if optional(EXPIRES) {
        input.varint()?;
    }
    if optional(IDENTIFIERS) {
        for _ in 0..input.varint()? {
            input.varint()?;
        }
    }
    let shared = optional(GROUP);
    if shared {
        input.bytes()?;
    }
    let size = match body {
        Some(_) => 0,
        None => size(&mut input)?,
    };
    Ok(Shape { body, size, shared })
}

/// What the message of [`encode_message`] takes in memory.
pub(super) fn message_size(value: &[u8]) -> Result<usize, Undecodable> {
    let mut input = Input::new(value);
    input.time()?;
    size(&mut input)
}

fn size(input: &mut Input<'_>) -> Result<usize, Undecodable> {
    input.byte()?;
    let head = input.bytes()?.len() + input.bytes()?.len();
    Ok(size_of::<Message>() + head + input.rest().len())
}

/// `time` converts the expiry to that of the message; `body` finds the message that the entry refers to.
pub(super) fn decode_entry(
    value: &[u8],
    time: impl FnOnce(WallTime) -> Time,
    body: impl FnOnce(BodyNumber) -> Option<Arc<Message>>,
) -> Result<Entry, Undecodable> {
    let mut input = Input::new(value);
    let flags = input.byte()?;
    if flags & UNKNOWN != 0 {
        return Err(Undecodable("unknown flag"));
    }
    let optional = |bit: u8| flags & bit != 0;
    let number = optional(HAS_BODY).then(|| input.varint()).transpose()?;
    let expires_at = optional(EXPIRES).then(|| input.varint()).transpose()?;
    let expires_at = expires_at.map(WallTime);
    let identifiers = if optional(IDENTIFIERS) {
        let count = input.varint()?;
        // No count is trusted to reserve memory: each takes a byte at least.
        let identifiers: Result<Vec<_>, _> =
            (0..count).map(|_| identifier(input.varint()?)).collect();
        Some(identifiers?.into())
    } else {
        None
    };
    let group = optional(GROUP).then(|| input.text()).transpose()?;
    let group = group.map(Arc::from);
    let message = match number {
        Some(number) => {
            input.end()?;
            body(number).ok_or(Undecodable("its body is missing"))?
        }
        None => Arc::new(message(&mut input, expires_at.map(time))?),
    };
    Ok(Entry {
        message,
        expires_at,
        body: number,
        qos: qos(flags & QOS_BITS)?,
        retain: optional(RETAIN),
        identifiers,
        group,
    })
}

fn qos(bits: u8) -> Result<QoS, Undecodable> {
    QoS::from_bits(bits).ok_or(Undecodable("unknown QoS"))
}

fn identifier(value: u64) -> Result<SubscriptionIdentifier, Undecodable> {
    u32::try_from(value)
        .ok()
        .and_then(SubscriptionIdentifier::new)
        .ok_or(Undecodable("subscription identifier out of range"))
}

fn put_message(message: &Message, out: &mut Vec<u8>) {
    let parts = message.parts();
    out.push(message.qos as u8);
    put_text(message.topic(), out);
    put_varint(parts.properties.len() as u64, out);
    out.extend_from_slice(parts.properties);
    out.extend_from_slice(parts.payload);
}

/// Always the last: the payload has no length of its own.
fn message(input: &mut Input<'_>, expires_at: Option<Time>) -> Result<Message, Undecodable> {
    let qos = qos(input.byte()?)?;
    let topic = input.text()?;
    let properties = input.bytes()?;
    if u16::try_from(topic.len()).is_err() || u32::try_from(properties.len()).is_err() {
        return Err(Undecodable("topic or properties too long"));
    }
    let parts = Parts {
        topic: topic.as_bytes(),
        properties,
        payload: input.rest(),
    };
    Ok(Message::new(parts, qos, expires_at))
}
