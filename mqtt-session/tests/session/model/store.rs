//! What one end has written: a durable part, and a tail of which a crash leaves any prefix.

use std::{collections::VecDeque, iter};

use mqtt_codec::QoS;
use mqtt_session::{Change, ChangeNumber, InFlightState, Outgoing, Persistence, Session};

use super::setup::{Kind, Mutant, Restart, Setup};
use crate::message::Message;

/// One record of the store.
#[derive(Debug, Clone)]
pub(super) enum Record {
    /// A message to send.
    Pushed(Message),
    /// A message of the peer, with what the application did with it.
    Taken(u8),
    Changed(Change),
}

/// Records that are written together or not at all.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// What waits for this unit.
    pub(super) number: Option<ChangeNumber>,
    pub(super) records: Vec<Record>,
}

impl Unit {
    /// Its change, if something may wait for it.
    pub(super) fn kind(&self) -> Option<Kind> {
        match self.records.first()? {
            Record::Pushed(_) => None,
            Record::Taken(_) => Some(Kind::Taken),
            Record::Changed(change) => Some(kind(change)),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Store {
    /// What the durable units give back.
    saved: Session<Message>,
    /// How many messages to send are durable.
    pub(super) pushed: usize,
    /// The durable messages of the peer, in the order they were taken.
    pub(super) taken: Vec<u8>,
    /// Units that the session does not know to be durable.
    pub(super) tail: VecDeque<Unit>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            saved: established(),
            pushed: 0,
            taken: Vec::new(),
            tail: VecDeque::new(),
        }
    }

    pub(super) fn append(&mut self, unit: Unit, persistence: Persistence) {
        match persistence {
            Persistence::Durable => self.tail.push_back(unit),
            // In memory, where nothing is lost.
            Persistence::Ephemeral => {
                for record in unit.records {
                    match record {
                        Record::Pushed(_) => self.pushed += 1,
                        Record::Taken(key) => self.taken.push(key),
                        Record::Changed(change) => panic!("{change:?} of a session in memory"),
                    }
                }
            }
        }
    }

    /// The next unit becomes durable; what waits for it.
    pub(super) fn advance(&mut self, setup: &Setup) -> Option<ChangeNumber> {
        let unit = self.tail.pop_front()?;
        for record in unit.records {
            match record {
                Record::Pushed(message) => {
                    self.pushed += 1;
                    self.saved.push(message);
                }
                Record::Taken(key) => self.taken.push(key),
                Record::Changed(change) => {
                    if !setup.is_broken_by(Mutant::Loses(kind(&change))) {
                        self.saved.apply(&change);
                    }
                }
            }
        }
        unit.number
    }

    /// A crash that leaves the first `units` of the tail: the session that begins again.
    pub(super) fn crash(&mut self, units: usize, setup: &Setup) -> Session<Message> {
        for _ in 0..units {
            self.advance(setup);
        }
        self.tail.clear();
        let session = if setup.is_broken_by(Mutant::ForgetsInFlight) {
            from_table(&self.saved, false)
        } else if setup.restart == Restart::Table {
            from_table(&self.saved, true)
        } else {
            self.saved.clone()
        };
        self.saved = session.clone();
        session
    }

    /// What was taken, durable or not yet, in order.
    pub(super) fn all_taken(&self) -> impl Iterator<Item = u8> {
        let tail = self.tail.iter().flat_map(|unit| &unit.records);
        let tail = tail.filter_map(|record| match record {
            Record::Taken(key) => Some(*key),
            _ => None,
        });
        self.taken.iter().copied().chain(tail)
    }
}

fn established() -> Session<Message> {
    let mut session = Session::new(Persistence::Durable);
    session.set_established();
    session
}

/// A session restored from the parts of one.
fn from_table(saved: &Session<Message>, keeps_in_flight: bool) -> Session<Message> {
    let mut session = established();
    for message in saved.in_flight().filter(|_| keeps_in_flight) {
        match (message.state, message.handle) {
            (InFlightState::Released, handle) => {
                session.restore_released(message.packet_id, handle.cloned());
            }
            (_, Some(handle)) => session.restore_sent(message.packet_id, handle.clone()),
            (_, None) => panic!("{message:?} has no body"),
        }
    }
    saved
        .received()
        .for_each(|packet_id| session.restore_received(packet_id));
    saved.queued().for_each(|message| {
        assert!(message.qos() > QoS::AtMostOnce, "it is not stored");
        session.push(message.clone());
    });
    session
}

fn kind(change: &Change) -> Kind {
    match change {
        Change::Sent { .. } => Kind::Sent,
        Change::PubRecReceived { .. } => Kind::PubRecReceived,
        Change::Completed { .. } => Kind::Completed,
        Change::InboundReceived { .. } => Kind::InboundReceived,
        Change::InboundReleased { .. } => Kind::InboundReleased,
        other => panic!("{other:?} is not expected"),
    }
}

/// The changes of a session, each a unit of its own.
pub(super) fn units(
    poll: impl FnMut() -> Option<(ChangeNumber, Change)>,
) -> impl Iterator<Item = Unit> {
    iter::from_fn(poll).map(|(number, change)| Unit {
        number: Some(number),
        records: vec![Record::Changed(change)],
    })
}
