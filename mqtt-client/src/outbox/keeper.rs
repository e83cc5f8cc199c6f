//! The client's task and its outbox: what it begins with, what it hands over, and what waits for the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mqtt_codec::{PacketId, QoS, ReasonCode};
use mqtt_session::{Change, ChangeNumber, InFlightState, Persistence, Session, Time};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::dispatch::{Fate, fate};
use crate::mailbox::Post;
use crate::outbound::Outbound;
use crate::outbox::log::{self, Stored};
use crate::outbox::record::Record;
use crate::outbox::round::Store;
use crate::outbox::state::record_length;
use crate::outbox::writer::Writer;
use crate::outbox::{Outbox, OutboxError, WeakOutbox};
use crate::reconnect::WINDOW;
use crate::{Error, Message, Options, Receipt, TryPublishError, Uncertain};

/// How long to wait before the disk is asked for room again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the end of a client waits for the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's use of an outbox, from its beginning to its end.
#[derive(Debug)]
struct Claim {
    writer: Arc<Writer>,
    post: Arc<Post>,
    id: u64,
    /// Messages with keys below are of earlier runs.
    below: u64,
    /// Changes of the session that wait for the disk, with the ticket that each waits for.
    waits: VecDeque<(u64, ChangeNumber)>,
    /// The last ticket.
    last: u64,
    retry_at: Option<Instant>,
    /// An earlier run had this session.
    is_continued: bool,
    // Keeps the directory open.
    _outbox: Outbox,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.writer.leave(self.id);
    }
}

/// The outbox of a client, if it has one.
#[derive(Debug)]
pub(crate) struct Keeper {
    claim: Option<Claim>,
    /// Why it cannot be used.
    error: Option<Error>,
}

/// Where the handles of a client store messages.
#[derive(Debug)]
pub(crate) struct Desk {
    outbox: WeakOutbox,
    user: u64,
}

/// What an earlier run left.
struct Left {
    client_id: Option<String>,
    messages: Vec<Stored>,
    in_flight: Vec<(PacketId, u64, bool)>,
    received: Vec<PacketId>,
    last_stored_at: u64,
}

impl Keeper {
    /// Begins to use the outbox of the options, if they have one.
    pub(crate) fn new(options: &Options, post: &Arc<Post>) -> (Self, Option<Desk>) {
        let Some(outbox) = &options.outbox else {
            let none = Self {
                claim: None,
                error: None,
            };
            return (none, None);
        };
        let writer = Arc::clone(&outbox.0.writer);
        let claimed = if options.client_id.is_empty() {
            Err(Error::Invalid {
                what: "Client Identifier",
                why: "an outbox belongs to one, and it is empty".to_owned(),
            })
        } else {
            // The caller is within a runtime: it spawns the client's task.
            let claimed = writer.claim(Handle::current(), Arc::clone(post));
            claimed.map_err(Error::Outbox)
        };
        match claimed {
            Ok((id, below)) => {
                let claim = Claim {
                    writer,
                    post: Arc::clone(post),
                    id,
                    below,
                    waits: VecDeque::new(),
                    last: 0,
                    retry_at: None,
                    is_continued: false,
                    _outbox: outbox.clone(),
                };
                let desk = Desk {
                    outbox: outbox.downgrade(),
                    user: id,
                };
                let keeper = Self {
                    claim: Some(claim),
                    error: None,
                };
                (keeper, Some(desk))
            }
            Err(error) => {
                let keeper = Self {
                    claim: None,
                    error: Some(error),
                };
                (keeper, None)
            }
        }
    }

    /// The session to begin with: an empty one, or that of an earlier run.
    pub(crate) async fn restore(
        &mut self,
        options: &Options,
        now: Time,
    ) -> Result<Session<Outbound>, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match &mut self.claim {
            Some(claim) => claim.restore(options, now).await,
            None => Ok(crate::reconnect::new_session()),
        }
    }

    /// Whether the session is that of an earlier run.
    pub(crate) fn is_continued(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.is_continued)
    }

    /// Hands over what happened in the session.
    pub(crate) fn keep(&mut self, session: &mut Session<Outbound>) {
        if let Some(claim) = &mut self.claim {
            claim.keep(session);
        }
    }

    /// Lets the session go on as far as the disk is.
    pub(crate) fn release(&mut self, session: &mut Session<Outbound>) -> Result<(), Error> {
        match &mut self.claim {
            Some(claim) => claim.release(session),
            None => Ok(()),
        }
    }

    /// The server has lost the session; these messages have ended with it.
    pub(crate) fn lost(&mut self, session: &mut Session<Outbound>, ended: &[u64]) {
        if let Some(claim) = &mut self.claim {
            claim.lost(session, ended, None);
        }
    }

    /// When to ask the disk for room again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.claim.as_ref().and_then(|claim| claim.retry_at)
    }

    /// Asks the disk for room again.
    pub(crate) fn retry(&mut self) {
        if let Some(claim) = &mut self.claim {
            claim.retry_at = Some(Instant::now() + RETRY);
            claim.writer.retry();
        }
    }

    /// Whether nothing waits for the disk.
    pub(crate) fn is_settled(&self) -> bool {
        self.claim
            .as_ref()
            .is_none_or(|claim| claim.waits.is_empty() && !claim.writer.is_storing())
    }

    /// Writes what is left, and lets go of the outbox.
    pub(crate) async fn close(&mut self) {
        if let Some(mut claim) = self.claim.take() {
            claim.change(Vec::new(), None, true);
            let settled = timeout(PATIENCE, claim.settled()).await;
            if !matches!(settled, Ok(Ok(()))) {
                tracing::warn!("the outbox could not be written to its end");
            }
        }
    }
}

impl Claim {
    async fn restore(&mut self, options: &Options, now: Time) -> Result<Session<Outbound>, Error> {
        let (writer, below) = (Arc::clone(&self.writer), self.below);
        let reading = tokio::task::spawn_blocking(move || read(&writer, below));
        let left = reading.await.map_err(|_| Error::Closed)?;
        let left = left.map_err(Error::Outbox)?;
        let is_ours = left.client_id.as_deref() == Some(&options.client_id);
        self.is_continued = is_ours;
        let clock = self.writer.wall_clock().max(left.last_stored_at);
        let mut session = Session::new(Persistence::Durable);
        session.set_window(WINDOW);
        let mut messages: BTreeMap<u64, Outbound> = left
            .messages
            .into_iter()
            .map(|stored| {
                let key = stored.key;
                let interval = stored.message.property().message_expiry_interval;
                let rest = interval.map(|seconds| remaining(seconds, stored.stored_at, clock));
                let outcome = self.writer.take_outcome(key);
                // Or else nobody waits for it.
                let outcome = outcome.unwrap_or_else(|| oneshot::channel().0);
                let expires_at = rest.map(|rest| now + rest);
                let message = Outbound::stored(stored.message, expires_at, key, outcome);
                (key, message)
            })
            .collect();
        for (packet_id, key, is_released) in left.in_flight {
            match messages.remove(&key) {
                Some(message) if is_released => session.restore_released(packet_id, Some(message)),
                Some(message) => session.restore_sent(packet_id, message),
                None => {}
            }
        }
        for packet_id in left.received {
            session.restore_received(packet_id);
        }
        let mut anew = Vec::new();
        let mut ended = Vec::new();
        if is_ours {
            session.set_established();
        } else {
            // It is in flight to a session that this client does not have.
            for (message, state) in session.discard() {
                let key = message.key;
                if let Some(message) = end(message, state, options.when_uncertain) {
                    anew.push(message);
                } else {
                    ended.push(key);
                }
            }
        }
        for message in anew.into_iter().chain(messages.into_values()) {
            session.push(message);
        }
        if !is_ours {
            let client_id = Some(options.client_id.clone());
            self.lost(&mut session, &ended, client_id);
            // The server may have the session as soon as CONNECT leaves.
            self.settled().await?;
            self.release(&mut session)?;
        }
        Ok(session)
    }

    fn change(
        &mut self,
        records: Vec<Record<'static>>,
        client_id: Option<String>,
        needs_sync: bool,
    ) {
        self.last = self.writer.change(records, client_id, needs_sync);
    }

    fn keep(&mut self, session: &mut Session<Outbound>) {
        let mut last = None;
        let mut records = Vec::new();
        let mut needs_sync = false;
        while let Some((number, change)) = session.poll_change() {
            last = Some(number);
            needs_sync |= match change {
                Change::Sent { qos, .. } => qos == QoS::ExactlyOnce,
                // Nothing waits for these; a message that is sent again or was told of does no harm.
                Change::Completed { .. } | Change::Dropped { .. } => false,
                _ => true,
            };
            records.extend(Record::of(change));
        }
        if let Some(number) = last {
            self.change(records, None, needs_sync);
            if needs_sync {
                self.waits.push_back((self.last, number));
            }
        }
    }

    fn lost(&mut self, session: &mut Session<Outbound>, ended: &[u64], client_id: Option<String>) {
        // What the session says of each identifier is in one record, behind what has ended: without the
        // others it is as if nothing had happened yet.
        let mut records: Vec<_> = ended
            .iter()
            .map(|key| Record::Removed { key: *key })
            .collect();
        records.push(Record::SessionLost);
        let mut last = None;
        while let Some((number, _)) = session.poll_change() {
            last = Some(number);
        }
        self.change(records, client_id, true);
        if let Some(number) = last {
            self.waits.push_back((self.last, number));
        }
    }

    fn release(&mut self, session: &mut Session<Outbound>) -> Result<(), Error> {
        if let Some(error) = self.writer.failed() {
            return Err(Error::Outbox(error));
        }
        if self.waits.is_empty() {
            return Ok(());
        }
        let durable = self.writer.durable();
        while let Some((ticket, number)) = self.waits.front()
            && *ticket <= durable
        {
            session.durable(*number);
            self.waits.pop_front();
        }
        if self.waits.is_empty() || !self.writer.is_stalled() {
            self.retry_at = None;
        } else {
            self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
        Ok(())
    }

    /// Waits until the last ticket is durable and nobody writes.
    async fn settled(&mut self) -> Result<(), Error> {
        loop {
            if let Some(error) = self.writer.failed() {
                return Err(Error::Outbox(error));
            }
            if self.writer.is_idle() {
                if self.writer.durable() >= self.last {
                    return Ok(());
                }
                if self.writer.is_stalled() {
                    let full = std::io::ErrorKind::StorageFull;
                    return Err(Error::Outbox(std::io::Error::from(full).into()));
                }
            }
            self.post.bell.notified().await;
        }
    }
}

fn read(writer: &Writer, below: u64) -> Result<Left, OutboxError> {
    writer.with_log(|log| {
        let messages = log.messages(below)?;
        let state = &log.state;
        Ok(Left {
            messages,
            client_id: state.client_id.clone(),
            in_flight: state.in_flight(),
            received: state.received.iter().copied().collect(),
            last_stored_at: state.last_stored_at,
        })
    })
}

/// Ends a message whose session is lost, unless it is to be published anew.
fn end(message: Outbound, state: InFlightState, when_uncertain: Uncertain) -> Option<Outbound> {
    match fate(&message, state, when_uncertain) {
        Fate::Anew => return Some(message),
        Fate::Complete => message.resolve(Ok(ReasonCode::SUCCESS)),
        Fate::Uncertain => message.resolve(Err(Error::SessionLost.uncertain())),
    }
    None
}

/// What is left of an expiry interval. A clock that was set back counts as one that stood still.
fn remaining(seconds: u32, stored_at: u64, now: u64) -> Duration {
    let passed = Duration::from_millis(now.saturating_sub(stored_at));
    Duration::from_secs(u64::from(seconds)).saturating_sub(passed)
}

impl Desk {
    /// Stores a message of QoS 1 or 2, waiting for room in the outbox and in the queue, and for the disk.
    pub(crate) async fn publish(
        &self,
        publishes: &mpsc::Sender<Outbound>,
        outbound: Outbound,
        receipt: Receipt,
    ) -> Result<Receipt, Error> {
        let writer = self.outbox.writer().ok_or(Error::Closed)?;
        let packet = log::packet(&outbound.message)?;
        let room = writer.reserve(record_length(packet.len())).await?;
        let place = publishes.clone().reserve_owned().await;
        let store = Store {
            message: outbound,
            packet,
            place: place.map_err(|_| Error::Closed)?,
        };
        let stored = writer.store(self.user, store, room);
        let stored = stored.map_err(|(_, error)| error)?;
        let mut receipt = receipt.with_storage(stored);
        receipt.stored().await?;
        Ok(receipt)
    }

    /// Stores a message of QoS 1 or 2 if there is room for it.
    pub(crate) fn try_publish(
        &self,
        publishes: &mpsc::Sender<Outbound>,
        outbound: Outbound,
        receipt: Receipt,
    ) -> Result<Receipt, TryPublishError> {
        let Some(writer) = self.outbox.writer() else {
            return Err(TryPublishError::Closed(outbound.message));
        };
        let packet = match log::packet(&outbound.message) {
            Ok(packet) => packet,
            Err(error) => {
                outbound.resolve(Err(error));
                return Ok(receipt);
            }
        };
        let room = match writer.try_reserve(record_length(packet.len())) {
            Ok(Some(room)) => room,
            Ok(None) => return Err(TryPublishError::Full(outbound.message)),
            Err(error) => {
                outbound.resolve(Err(error));
                return Ok(receipt);
            }
        };
        let place = match publishes.clone().try_reserve_owned() {
            Ok(place) => place,
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(TryPublishError::Full(outbound.message));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Err(TryPublishError::Closed(outbound.message));
            }
        };
        let store = Store {
            message: outbound,
            packet,
            place,
        };
        match writer.store(self.user, store, room) {
            Ok(stored) => Ok(receipt.with_storage(stored)),
            Err((message, _)) => Err(TryPublishError::Closed(message)),
        }
    }

    /// Whether a message of this kind is stored.
    pub(crate) fn takes(&self, message: &Message) -> bool {
        message.quality() > QoS::AtMostOnce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_does_not_make_a_message_live_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(remaining(10, 5_000, 6_000), 9 * second);
        assert_eq!(remaining(10, 5_000, 15_000), Duration::ZERO);
        assert_eq!(remaining(10, 5_000, u64::MAX), Duration::ZERO);
        // Set back: no time has passed.
        assert_eq!(remaining(10, 5_000, 0), 10 * second);
    }
}
