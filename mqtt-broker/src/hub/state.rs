//! What a session is while and after it has a connection.

use std::sync::Arc;

use mqtt_session::{ChangeNumber, Persistence, Session, Time};

use crate::auth::{Owner, Told};
use crate::client::Client;
use crate::delivery::Delivery;
use crate::hub::pulls::Pulls;
use crate::hub::stored::Stored;
use crate::hub::subscriptions::Subscriptions;
use crate::hub::withdrawn::Withdrawn;
use crate::seldom::SeldomQueue;
use crate::store::Ticket;
use crate::will::StoredWill;

/// A session with all that belongs to it. Owned by one task, or by the registry.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) client: Arc<Client>,
    pub(crate) owner: Owner,
    /// The state of the permissions in which its subscriptions were all allowed. 0: not known, or nobody was
    /// restricted.
    pub(crate) permissions: u64,
    /// QoS 1 and 2 in both directions. `None` while a connection has it.
    pub(crate) session: Option<Box<Session<Delivery>>>,
    pub(crate) subscriptions: Subscriptions,
    /// Those that were taken from it while messages that had come by them were on the disk.
    pub(crate) withdrawn: SeldomQueue<Withdrawn>,
    /// What a service has said of them to a client that was not let in.
    pub(crate) told: Option<Box<Told>>,
    /// Its part of the store, if it is stored.
    pub(crate) stored: Option<Box<Stored>>,
    /// What was not durable when its connection ended, of its own and of messages that others took from it, and
    /// what that waits for.
    pub(crate) unfinished: Option<(Ticket, ChangeNumber)>,
    /// Retained messages that new subscriptions have not got yet.
    pub(crate) pulls: Pulls,
    /// A will whose delay runs, with the time it is due.
    pub(crate) will: Option<(StoredWill, Time)>,
    /// How long the session outlives a connection, in seconds, as was said last.
    pub(crate) expiry_interval: u32,
    /// When the session ends, while it has no connection. `None`: never.
    pub(crate) expires_at: Option<Time>,
}

impl SessionState {
    /// A session without messages and subscriptions.
    pub(crate) fn new(client: Arc<Client>, owner: Owner) -> Self {
        let stored = client.stored().map(|number| Box::new(Stored::new(number)));
        let persistence = if stored.is_some() {
            Persistence::Durable
        } else {
            Persistence::Ephemeral
        };
        Self {
            client,
            owner,
            permissions: 0,
            session: Some(Box::new(Session::new(persistence))),
            subscriptions: Subscriptions::default(),
            withdrawn: SeldomQueue::default(),
            told: None,
            stored,
            unfinished: None,
            pulls: Pulls::default(),
            will: None,
            expiry_interval: 0,
            expires_at: None,
        }
    }

    /// Takes the session out for a connection. Of one that somebody else has already, nothing is done with what
    /// this returns.
    pub(crate) fn take_session(&mut self) -> Session<Delivery> {
        self.session
            .take()
            .map_or_else(Self::no_session, |session| *session)
    }

    /// A session that stands for one that somebody else has: nothing is done with it.
    pub(crate) fn no_session() -> Session<Delivery> {
        Session::new(Persistence::Ephemeral)
    }

    /// Whether its time is over by `now`, though nobody may have ended it yet.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
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
