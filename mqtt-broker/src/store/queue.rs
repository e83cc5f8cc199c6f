//! The queues as they are read when a store is opened: their heads, and how much there is behind.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::message::Message;
use crate::store::codec;
use crate::store::engine::EngineError;
use crate::store::input::Undecodable;
use crate::store::portion::{body, held};
use crate::store::record::{BodyNumber, Clock, Key, Rest, SessionNumber, StoredSession};
use crate::store::table::Table;

const NO_BODY: Undecodable = Undecodable("its body is missing");

/// The bodies that several entries share.
pub(super) struct Bodies<T> {
    table: T,
    known: HashMap<BodyNumber, Body, RandomState>,
}

struct Body {
    /// What it takes in memory.
    size: usize,
    /// Read when an entry that is held needs it.
    message: Option<Arc<Message>>,
}

impl<T: Table> Bodies<T> {
    pub(super) fn new(table: T) -> Self {
        Self {
            table,
            known: HashMap::default(),
        }
    }

    pub(super) fn insert(
        &mut self,
        number: BodyNumber,
        size: usize,
        message: Option<Arc<Message>>,
    ) {
        self.known.insert(number, Body { size, message });
    }

    fn message(
        &mut self,
        number: BodyNumber,
        clock: Clock,
    ) -> Result<Option<Arc<Message>>, EngineError> {
        let Some(known) = self.known.get_mut(&number) else {
            return Ok(None);
        };
        if known.message.is_none() {
            known.message = body(&self.table, number, clock)?;
        }
        Ok(known.message.clone())
    }
}

/// How far the queue of a session is read.
#[derive(Default)]
pub(super) struct Queue {
    session: Option<SessionNumber>,
    /// The last message in flight: all up to it are held.
    in_flight: Key,
    /// Bytes of the messages behind it that are held.
    held: usize,
}

impl Queue {
    /// Holds the next entry of the session, or counts it.
    pub(super) fn add<T: Table>(
        &mut self,
        session: &mut StoredSession,
        key: Key,
        value: &[u8],
        window: usize,
        bodies: &mut Bodies<T>,
        clock: Clock,
    ) -> Result<Result<(), Undecodable>, EngineError> {
        if self.session != Some(session.number) {
            let sent = session.sent.iter().map(|(_, key)| *key);
            *self = Self {
                session: Some(session.number),
                in_flight: sent.max().unwrap_or_default(),
                held: 0,
            };
        }
        let shape = match codec::entry_shape(value) {
            Ok(shape) => shape,
            Err(error) => return Ok(Err(error)),
        };
        if session.rest.is_some() || (key > self.in_flight && self.held >= window) {
            return Ok(count(session, key, shape, bodies));
        }
        let message = match shape.body {
            Some(number) => bodies.message(number, clock)?,
            None => None,
        };
        let entry = match codec::decode_entry(value, |at| clock.time(at), |_| message) {
            Ok(entry) => entry,
            Err(error) => return Ok(Err(error)),
        };
        if key > self.in_flight {
            self.held = self.held.saturating_add(held(&entry.message));
        }
        session.entries.push((key, entry));
        Ok(Ok(()))
    }
}

fn count<T>(
    session: &mut StoredSession,
    key: Key,
    shape: codec::Shape,
    bodies: &Bodies<T>,
) -> Result<(), Undecodable> {
    let size = match shape.body {
        Some(number) => bodies.known.get(&number).ok_or(NO_BODY)?.size,
        None => shape.size,
    };
    let rest = session.rest.get_or_insert(Rest {
        first: key,
        last: key,
        messages: 0,
        bytes: 0,
        shared: 0,
    });
    rest.last = key;
    rest.messages += 1;
    rest.bytes = rest.bytes.saturating_add(size);
    rest.shared += usize::from(shape.shared);
    Ok(())
}
