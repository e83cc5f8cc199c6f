//! Sessions that have ended and still have messages of shared groups on the disk, which other members are to get.
//!
//! Until these are read, which takes a while, the session stays in the store without a client identifier and without
//! subscriptions. A broker that stops meanwhile goes on with it when it starts again.

use core::future::pending;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::auth::Owner;
use crate::client::{Client, Link};
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::hub::subscriptions::Subscriptions;
use crate::store::{Op, Rest, SessionNumber, SessionRecord, Span, StoredSession};

/// How long a publisher that is about to hand over what it has for the session is waited for, at a time.
const PAUSE: Duration = Duration::from_millis(10);

/// The sessions that are still to be read.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    waiting: Mutex<VecDeque<Arc<Client>>>,
    added: Notify,
}

impl Endings {
    /// Keeps the messages of a session on the disk that has ended, until shared groups have what is theirs.
    pub(super) fn add(&self, client: Arc<Client>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(client);
        self.added.notify_one();
    }

    async fn next(&self) -> Arc<Client> {
        loop {
            let next = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.pop_front()
            };
            match next {
                Some(client) => return client,
                None => self.added.notified().await,
            }
        }
    }
}

/// What the store keeps of a session that has ended but for its messages.
fn record() -> Box<SessionRecord> {
    Box::new(SessionRecord {
        client_id: "".into(),
        owner: Owner::Anybody,
        expiry_interval: 0,
        expires_at: None,
        will: None,
    })
}

/// What becomes of a session in the store that has ended, and has messages there that shared groups are to get.
/// What was in memory has been given away or is lost.
pub(super) fn changes(
    number: SessionNumber,
    subscriptions: &Subscriptions,
    in_memory: Vec<Op>,
) -> Vec<Op> {
    let mut ops = in_memory;
    ops.push(Op::Session(number, record()));
    ops.extend(
        subscriptions
            .iter()
            .map(|filter| Op::Unsubscribed(number, filter.into())),
    );
    ops
}

/// All messages of a session that was read back, as if none of them had been read.
fn whole_queue(stored: &StoredSession) -> Option<Rest> {
    let entries = &stored.entries;
    let Some((first, _)) = entries.first() else {
        return stored.rest;
    };
    let (last, _) = entries.last()?;
    let shared = entries.iter().filter(|(_, entry)| entry.group.is_some());
    let sizes = entries.iter().map(|(_, entry)| entry.message.size());
    let rest = stored.rest;
    Some(Rest {
        first: *first,
        last: rest.map_or(*last, |rest| rest.last),
        messages: stored.queued(),
        bytes: sizes.sum::<usize>() + rest.map_or(0, |rest| rest.bytes),
        shared: shared.count() + rest.map_or(0, |rest| rest.shared),
    })
}

impl Hub {
    /// Goes on with a session that the broker before was about to end.
    pub(super) fn resume_ending(&self, stored: StoredSession) {
        let client = self.routes.add_client("".into(), Some(stored.number));
        let rest = whole_queue(&stored).filter(|rest| rest.shared > 0);
        client.restore_queue(rest.map_or(0, |rest| rest.last), rest);
        let lost = client.set_link(Link::Ended);
        debug_assert_eq!(lost, 0, "it had no link");
        self.endings.add(client);
    }

    /// Gives to other members of shared groups what sessions have on the disk that ended. Never returns.
    pub(crate) async fn run_endings(&self) {
        loop {
            let client = self.endings.next().await;
            while self.give_away_portion(&client).await {}
            // Not reached where the store closes before the last portion.
            self.routes.remove_client(client.key);
            if let (Some(store), Some(number)) = (&self.store, client.stored()) {
                store.submit(&mut vec![Op::SessionEnded(number)]);
            }
        }
    }

    /// Reads and gives away a part; false if there is nothing left.
    async fn give_away_portion(&self, client: &Arc<Client>) -> bool {
        let (Some(store), Some(session)) = (&self.store, client.stored()) else {
            return false;
        };
        let Some((from, until)) = client.read_on() else {
            tokio::time::sleep(PAUSE).await;
            return client.on_disk().0.messages > 0;
        };
        let span = Span {
            session,
            from,
            until,
            bytes: self.config.stored_window_bytes,
        };
        let (done, read) = oneshot::channel();
        store.read(
            span,
            Box::new(move |portion| {
                // Nobody waits for it when the broker stops.
                let _ = done.send(portion);
            }),
        );
        let Ok(portion) = read.await else {
            // The store closes: the broker that comes after goes on with it.
            return pending().await;
        };
        let taken = client.take_portion(portion);
        let deliveries = taken.portion.into_iter().flat_map(|it| it.entries);
        let deliveries: Vec<Delivery> = deliveries
            .map(|(key, entry)| self.delivery(client, key, entry))
            .collect();
        let (shared, own): (Vec<_>, Vec<_>) = deliveries
            .into_iter()
            .partition(|delivery| delivery.group.is_some());
        let lost = taken.missing.messages + own.len();
        let lost = lost + self.return_to_groups(client, true, shared).len();
        self.count_drop(Some(client), DropReason::SessionEnded, lost as u64);
        taken.is_on_disk
    }
}
