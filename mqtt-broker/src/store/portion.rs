//! Parts of queues, read beside the thread that commits.

use std::sync::Arc;

use tracing::warn;

use crate::message::Message;
use crate::store::codec;
use crate::store::engine::{EngineError, Reader};
use crate::store::input::Undecodable;
use crate::store::record::{BodyNumber, Clock, Entry, Key, Portion, Span};
use crate::store::table::Table;

/// Reads the queues of one database.
pub(super) struct TableReader<T> {
    pub(super) queue: T,
    pub(super) bodies: T,
}

impl<T> core::fmt::Debug for TableReader<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TableReader").finish_non_exhaustive()
    }
}

impl<T: Table> TableReader<T> {
    fn entry(&self, value: &[u8], clock: Clock) -> Result<Result<Entry, Undecodable>, EngineError> {
        let mut failed = None;
        let body = |number| match body(&self.bodies, number, clock) {
            Ok(message) => message,
            Err(error) => {
                failed = Some(error);
                None
            }
        };
        let entry = codec::decode_entry(value, |at| clock.time(at), body);
        match failed {
            Some(error) => Err(error),
            None => Ok(entry),
        }
    }
}

impl<T: Table> Reader for TableReader<T> {
    fn read(&self, span: &Span, clock: Clock) -> Result<Portion, EngineError> {
        let mut portion = Portion {
            from: span.from,
            next: span.until,
            entries: Vec::new(),
        };
        let key = |key| codec::entry_key(span.session, key);
        let mut bytes = 0;
        for record in self.queue.range(key(span.from)..key(span.until)) {
            let (key, value) = record?;
            let entry_key: Key = match codec::decode_entry_key(&key) {
                Ok((_, entry_key)) => entry_key,
                Err(_) => continue,
            };
            if bytes >= span.bytes && !portion.entries.is_empty() {
                portion.next = entry_key;
                break;
            }
            match self.entry(&value, clock)? {
                Ok(entry) => {
                    bytes += held(&entry.message);
                    portion.entries.push((entry_key, entry));
                }
                Err(error) => {
                    let key = key.escape_ascii();
                    warn!(%key, %error, "left out a damaged message of a queue in the store");
                }
            }
        }
        Ok(portion)
    }
}

/// What a message takes in memory, about.
pub(super) fn held(message: &Message) -> usize {
    message.size() + 2 * size_of::<(Key, Entry)>()
}

/// The body of this number; `None` if there is none that makes sense.
pub(super) fn body(
    bodies: &impl Table,
    number: BodyNumber,
    clock: Clock,
) -> Result<Option<Arc<Message>>, EngineError> {
    let value = bodies.get(codec::body_key(number))?;
    let decoded = value.and_then(|value| codec::decode_message(&value, |at| clock.time(at)).ok());
    Ok(decoded.map(|(message, _)| Arc::new(message)))
}
