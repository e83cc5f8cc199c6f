//! The engine: which records changes come to, and what is read back from them. The same on every database.

use core::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::config::Durability;
use crate::store::changes::{self, Known};
use crate::store::codec::{self, Flight, Marks, StateKey};
use crate::store::engine::{Engine, EngineError, Reader};
use crate::store::input::Undecodable;
use crate::store::portion::TableReader;
use crate::store::queue::{Bodies, Queue};
use crate::store::record::{
    Clock, Contents, Op, Retained, SessionNumber, SessionRecord, StoredSession, WallTime,
    number_after,
};
use crate::store::table::{Batch, Table, Tables};

/// So many damaged records are named in the log; the others are counted.
const SKIPS_SHOWN: u64 = 10;

/// Where the records are.
pub(crate) trait Database: Send {
    type Table: Table;

    fn batch(&self) -> <Self::Table as Table>::Batch;

    /// Makes the changes, all or none, and `sync`: with all before them safe from a loss of power.
    fn commit(
        &mut self,
        batch: <Self::Table as Table>::Batch,
        sync: bool,
    ) -> Result<(), EngineError>;

    /// Gives space back that removed records take.
    fn tidy(&mut self, tables: &Tables<Self::Table>) -> Result<(), EngineError>;
}

/// Why an engine refuses a commit.
#[derive(Debug, thiserror::Error)]
enum MisuseError {
    #[error("the store has not been read")]
    NotLoaded,
    #[error("a commit to the store failed before")]
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opened,
    Loaded,
    Failed,
}

/// An engine on a database.
pub(crate) struct Records<D: Database> {
    pub(super) tables: Tables<D::Table>,
    pub(super) known: Known,
    stage: Stage,
    /// Records that could not be decoded.
    skipped: u64,
    /// Behind the tables, which are handles into it.
    pub(super) database: D,
}

impl<D: Database> fmt::Debug for Records<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("marks", &self.known.marks)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl<D: Database> Records<D> {
    pub(super) fn new(database: D, tables: Tables<D::Table>) -> Result<Self, EngineError> {
        let marks = match tables.state.get(codec::MARKS_KEY)? {
            Some(value) => codec::decode_marks(&value)?,
            None => Marks::default(),
        };
        Ok(Self {
            tables,
            known: Known {
                marks,
                ..Known::default()
            },
            stage: Stage::Opened,
            skipped: 0,
            database,
        })
    }

    fn skip(&mut self, table: &D::Table, key: &[u8], error: Undecodable) {
        self.skipped += 1;
        if self.skipped <= SKIPS_SHOWN {
            let key = key.escape_ascii();
            warn!(table = table.name(), %key, %error, "skipped a damaged record of the store");
        }
    }

    fn load_bodies(&mut self, clock: Clock, all: bool) -> Result<Bodies<D::Table>, EngineError> {
        let table = self.tables.bodies.clone();
        let mut bodies = Bodies::new(table.clone());
        for record in table.iter() {
            let (key, value) = record?;
            let decoded = codec::decode_body_key(&key).and_then(|number| {
                let size = codec::message_size(&value)?;
                let message = if all {
                    let (message, _) = codec::decode_message(&value, |at| clock.time(at))?;
                    Some(Arc::new(message))
                } else {
                    None
                };
                Ok((number, size, message))
            });
            match decoded {
                Ok((number, size, message)) => {
                    let marks = &mut self.known.marks;
                    marks.next_body = marks.next_body.max(number.saturating_add(1));
                    bodies.insert(number, size, message);
                }
                Err(error) => self.skip(&table, &key, error),
            }
        }
        Ok(bodies)
    }

    fn load_state(&mut self) -> Result<Vec<StoredSession>, EngineError> {
        let mut loading = Sessions::default();
        let table = self.tables.state.clone();
        for record in table.iter() {
            let (key, value) = record?;
            if let Err(error) = loading.add(&key, &value, &mut self.known) {
                self.skip(&table, &key, error);
            }
        }
        loading.finish();
        Ok(loading.sessions)
    }

    fn load_queue(
        &mut self,
        clock: Clock,
        window: usize,
        sessions: &mut [StoredSession],
        bodies: &mut Bodies<D::Table>,
    ) -> Result<(), EngineError> {
        let table = self.tables.queue.clone();
        let mut sessions = sessions.iter_mut().peekable();
        let mut loading = Queue::default();
        for record in table.iter() {
            let (key, value) = record?;
            let (number, entry_key) = match codec::decode_entry_key(&key) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.skip(&table, &key, error);
                    continue;
                }
            };
            // Counted before the rest is looked at, as it is when the entry is removed.
            if let Ok(Some(body)) = codec::entry_body(&value) {
                *self.known.references.entry(body).or_default() += 1;
            }
            while sessions
                .next_if(|session| session.number < number)
                .is_some()
            {}
            let Some(session) = sessions.peek_mut().filter(|it| it.number == number) else {
                note_ended(&mut self.known, number);
                continue;
            };
            if let Err(error) = loading.add(session, entry_key, &value, window, bodies, clock)? {
                self.skip(&table, &key, error);
            }
            let loaded = entry_key.saturating_add(1);
            self.known.live.insert(number, loaded);
        }
        Ok(())
    }

    fn load_retained(&mut self, clock: Clock) -> Result<Vec<Retained>, EngineError> {
        let mut retained = Vec::new();
        let table = self.tables.retained.clone();
        for record in table.iter() {
            let (key, value) = record?;
            match codec::decode_retained(&value, |at| clock.time(at)) {
                Ok((_, Some(at), _)) if at <= clock.origin => self.known.expired.push(key),
                Ok((message, _, publisher)) if message.topic().as_bytes() == &*key => {
                    retained.push((Arc::new(message), publisher));
                }
                Ok(_) => self.skip(&table, &key, Undecodable("of another topic")),
                Err(error) => self.skip(&table, &key, error),
            }
        }
        Ok(retained)
    }
}

impl<D: Database> Engine for Records<D> {
    fn last_commit_at(&self) -> Option<WallTime> {
        let at = self.known.marks.at;
        (at != WallTime::default()).then_some(at)
    }

    fn load(&mut self, clock: Clock, window: usize) -> Result<Contents, EngineError> {
        self.known = Known {
            marks: self.known.marks,
            ..Known::default()
        };
        self.skipped = 0;
        let mut bodies = self.load_bodies(clock, window == usize::MAX)?;
        let mut sessions = self.load_state()?;
        self.load_queue(clock, window, &mut sessions, &mut bodies)?;
        drop(bodies);
        let retained = self.load_retained(clock)?;
        if self.skipped > 0 {
            warn!(
                records = self.skipped,
                "skipped damaged records of the store"
            );
        }
        self.stage = Stage::Loaded;
        Ok(Contents {
            sessions,
            retained,
            next_session: self.known.marks.next_session,
            next_body: self.known.marks.next_body,
            skipped: self.skipped,
        })
    }

    fn reader(&self) -> Box<dyn Reader> {
        Box::new(TableReader {
            queue: self.tables.queue.clone(),
            bodies: self.tables.bodies.clone(),
        })
    }

    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError> {
        match self.stage {
            Stage::Opened => return Err(MisuseError::NotLoaded.into()),
            Stage::Failed => return Err(MisuseError::Failed.into()),
            Stage::Loaded => {}
        }
        // Whatever fails below, the counts may then be ahead of what is stored.
        self.stage = Stage::Failed;
        let mut batch = self.database.batch();
        changes::write(ops, at, &mut self.known, &self.tables, &mut batch)?;
        let records = batch.len();
        self.database
            .commit(batch, durability == Durability::Disk)?;
        self.stage = Stage::Loaded;
        Ok(records)
    }

    fn tidy(&mut self) -> Result<(), EngineError> {
        self.database.tidy(&self.tables)
    }
}

/// The sessions that are read back, record by record in the order of their keys.
#[derive(Default)]
struct Sessions {
    sessions: Vec<StoredSession>,
    /// What is in flight of the last session.
    flights: Vec<(mqtt_codec::PacketId, Flight)>,
}

impl Sessions {
    fn add(&mut self, key: &[u8], value: &[u8], known: &mut Known) -> Result<(), Undecodable> {
        let number = match codec::decode_state_key(key)? {
            StateKey::Format | StateKey::Marks => return Ok(()),
            StateKey::Session(number) => {
                let marks = &mut known.marks;
                marks.next_session = marks.next_session.max(number_after(number));
                let record =
                    codec::decode_session(value).inspect_err(|_| note_ended(known, number))?;
                self.begin(number, record);
                known.live.insert(number, 0);
                return Ok(());
            }
            StateKey::Subscription(number, _)
            | StateKey::Owed(number, _)
            | StateKey::Flight(number, _)
            | StateKey::Received(number, _) => number,
        };
        let Some(session) = self.sessions.last_mut().filter(|it| it.number == number) else {
            note_ended(known, number);
            return Ok(());
        };
        match codec::decode_state_key(key)? {
            StateKey::Subscription(_, in_key) => {
                let subscription = codec::decode_subscription(in_key, value)?;
                session.subscriptions.push(subscription);
            }
            StateKey::Owed(_, in_key) => {
                session.owed.push(codec::decode_filter(in_key, value)?);
            }
            StateKey::Flight(_, id) => {
                let flight = codec::decode_flight(value)?;
                let (Flight::Sent { order, .. } | Flight::Released { order }) = flight;
                known.order = known.order.max(order.saturating_add(1));
                known.flights.insert((number, id.get()));
                self.flights.push((id, flight));
            }
            StateKey::Received(_, id) => {
                known.received.insert((number, id.get()));
                session.received.push(id);
            }
            StateKey::Format | StateKey::Marks | StateKey::Session(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, number: SessionNumber, record: SessionRecord) {
        self.finish();
        self.sessions.push(StoredSession {
            number,
            record,
            subscriptions: Vec::new(),
            owed: Vec::new(),
            entries: Vec::new(),
            rest: None,
            sent: Vec::new(),
            released: Vec::new(),
            received: Vec::new(),
        });
    }

    /// Puts what is in flight of the last session in its order.
    fn finish(&mut self) {
        let Some(session) = self.sessions.last_mut() else {
            return;
        };
        self.flights.sort_by_key(|(_, flight)| match flight {
            Flight::Sent { order, .. } | Flight::Released { order } => *order,
        });
        for (id, flight) in self.flights.drain(..) {
            match flight {
                Flight::Sent { key, .. } => session.sent.push((id, key)),
                Flight::Released { .. } => session.released.push(id),
            }
        }
    }
}

/// A session has ended and left a record, or its own is damaged: the next commits remove all it has.
fn note_ended(known: &mut Known, session: SessionNumber) {
    let marks = &mut known.marks;
    marks.next_session = marks.next_session.max(number_after(session));
    known.ended.insert(session, 0);
}

#[cfg(test)]
impl<D: Database> Records<D> {
    /// Records in the queues, and bodies.
    pub(super) fn records(&self) -> [usize; 2] {
        [&self.tables.queue, &self.tables.bodies].map(|it| it.iter().count())
    }

    pub(super) fn damage(&mut self, session: SessionNumber, key: crate::store::record::Key) {
        let mut batch = self.database.batch();
        batch.insert(&self.tables.queue, codec::entry_key(session, key), *b"\xff");
        self.database.commit(batch, false).unwrap();
    }
}
