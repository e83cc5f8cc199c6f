//! What is to be written to an outbox, and one round of writing.

use std::io;

use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::outbound::Outbound;
use crate::outbox::log::{Failure, Log};
use crate::outbox::record::Record;

/// A message to store, and to hand to the client's task when that is done.
pub(crate) struct Store {
    pub(crate) message: Outbound,
    pub(crate) packet: Vec<u8>,
    pub(crate) place: mpsc::OwnedPermit<Outbound>,
}

/// What is to be written.
pub(crate) enum Command {
    Store {
        store: Store,
        stored_at: u64,
        told: oneshot::Sender<Result<(), Error>>,
    },
    /// What happened in the session.
    Changes {
        records: Vec<Record<'static>>,
        client_id: Option<String>,
        ticket: u64,
        needs_sync: bool,
    },
}

impl Command {
    pub(crate) fn records<'a>(&'a self, into: &mut Vec<Record<'a>>) {
        match self {
            Self::Store {
                store, stored_at, ..
            } => into.push(Record::Message {
                key: store.message.key,
                stored_at: *stored_at,
                packet: &store.packet,
            }),
            Self::Changes {
                records, client_id, ..
            } => {
                into.extend_from_slice(records);
                let client_id = client_id.as_deref();
                into.extend(client_id.map(|client_id| Record::Session { client_id }));
            }
        }
    }

    pub(crate) fn needs_sync(&self) -> bool {
        match self {
            Self::Store { .. } => true,
            Self::Changes { needs_sync, .. } => *needs_sync,
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Store { .. } => "Store",
            Self::Changes { .. } => "Changes",
        })
    }
}

/// What one round of writing came to.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) done: Vec<Command>,
    pub(crate) refused: Vec<(Command, Error)>,
    pub(crate) held: Vec<Command>,
    pub(crate) freed: u64,
    /// All changes up to this ticket are synced.
    pub(crate) synced: Option<u64>,
}

/// Writes all commands, or each by itself where the disk has no room for all.
pub(crate) fn round(
    log: &mut Log,
    commands: Vec<Command>,
    appended: &mut u64,
) -> Result<Round, (io::Error, Vec<Command>)> {
    let mut round = Round::default();
    let mut records = Vec::new();
    for command in &commands {
        command.records(&mut records);
    }
    match log.append(&records) {
        Ok(freed) => {
            drop(records);
            round.freed = freed;
            round.done = commands;
        }
        Err(Failure::Broken(error)) => {
            drop(records);
            return Err((error, commands));
        }
        Err(Failure::Full(_)) => {
            drop(records);
            one_by_one(log, commands, &mut round)?;
        }
    }
    for command in &round.done {
        if let Command::Changes { ticket, .. } = command {
            *appended = (*appended).max(*ticket);
        }
    }
    if round.done.iter().any(Command::needs_sync) {
        if let Err(error) = log.sync() {
            return Err((error, round.done));
        }
        round.synced = Some(*appended);
    }
    Ok(round)
}

fn one_by_one(
    log: &mut Log,
    commands: Vec<Command>,
    round: &mut Round,
) -> Result<(), (io::Error, Vec<Command>)> {
    let mut commands = commands.into_iter();
    while let Some(command) = commands.next() {
        let is_change = matches!(command, Command::Changes { .. });
        if is_change && !round.held.is_empty() {
            // Changes keep their order.
            round.held.push(command);
            continue;
        }
        let mut records = Vec::new();
        command.records(&mut records);
        match log.append(&records) {
            Ok(freed) => {
                round.freed += freed;
                round.done.push(command);
            }
            Err(Failure::Full(_)) if is_change => round.held.push(command),
            Err(Failure::Full(error)) => {
                let error = Error::Outbox(error.into());
                round.refused.push((command, error));
            }
            Err(Failure::Broken(error)) => {
                let mut rest = std::mem::take(&mut round.done);
                rest.extend(round.refused.drain(..).map(|(command, _)| command));
                rest.push(command);
                rest.extend(commands);
                return Err((error, rest));
            }
        }
    }
    Ok(())
}
