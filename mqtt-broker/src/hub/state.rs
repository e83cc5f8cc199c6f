//! What a session is while and after it has a connection.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_session::{Persistence, Session, Time};

use crate::client::Client;
use crate::delivery::Delivery;
use crate::will::StoredWill;

/// A session with all that belongs to it. Owned by one task, or by the registry.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) client: Arc<Client>,
    /// QoS 1 and 2 in both directions. `None` while a connection has it.
    pub(crate) session: Option<Session<Delivery>>,
    /// Filters as the client wrote them.
    pub(crate) subscriptions: HashSet<Box<str>, RandomState>,
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
