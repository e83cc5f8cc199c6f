//! What a session is while and after it has a connection.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_session::{Persistence, Session, Time};

use crate::client::Client;
use crate::delivery::Delivery;
use crate::hub::pulls::Pulls;
use crate::will::StoredWill;

/// The filters of a session as its client wrote them, and what they cost.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    filters: HashSet<Box<str>, RandomState>,
    bytes: usize,
}

impl Subscriptions {
    /// Bytes that a filter takes, in here and in the tree, at most: each level may be a node of its own, with
    /// a text of its own, and tables and arenas are up to half empty.
    fn cost(filter: &str) -> usize {
        const FILTER: usize = 128;
        const LEVEL: usize = 128;
        let levels = 1 + filter.bytes().filter(|byte| *byte == b'/').count();
        FILTER + 2 * filter.len() + LEVEL * levels
    }

    /// Adds a filter; false if it is new and would make more than `bound` bytes.
    #[must_use]
    pub(crate) fn insert(&mut self, filter: &str, bound: usize) -> bool {
        if self.filters.contains(filter) {
            return true;
        }
        let bytes = self.bytes + Self::cost(filter);
        if bytes > bound {
            return false;
        }
        self.bytes = bytes;
        self.filters.insert(filter.into())
    }

    pub(crate) fn remove(&mut self, filter: &str) {
        if self.filters.remove(filter) {
            self.bytes -= Self::cost(filter);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().map(|filter| &**filter)
    }
}

/// A session with all that belongs to it. Owned by one task, or by the registry.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) client: Arc<Client>,
    /// QoS 1 and 2 in both directions. `None` while a connection has it.
    pub(crate) session: Option<Session<Delivery>>,
    pub(crate) subscriptions: Subscriptions,
    /// Retained messages that new subscriptions have not got yet.
    pub(crate) pulls: Pulls,
    /// A will whose delay runs, with the time it is due.
    pub(crate) will: Option<(StoredWill, Time)>,
    /// When the session ends, while it has no connection. `None`: never.
    pub(crate) expires_at: Option<Time>,
}

impl SessionState {
    /// A session without messages. It is not stored: it emits no changes.
    pub(crate) fn new_session() -> Session<Delivery> {
        Session::new(Persistence::Ephemeral)
    }

    /// When something is to be done about a session without connection.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let will = self.will.as_ref().map(|(_, due)| *due);
        match (will, self.expires_at) {
            (Some(will), Some(end)) => Some(will.min(end)),
            (will, end) => will.or(end),
        }
    }
}
