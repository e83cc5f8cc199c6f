//! The messages of stored sessions that are on the disk alone, and their way into memory and back.

use mqtt_session::Outgoing;

use crate::amount::Amount;
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::hub::state::SessionState;
use crate::store::{Key, Portion};

/// What the messages of a portion cost while they wait, and how many of them shared groups chose.
pub(crate) fn cost(portion: &Portion) -> (Amount, usize) {
    let entries = portion.entries.iter();
    let sizes = entries.map(|(_, entry)| Delivery::cost(entry.message.size()));
    let amount = Amount {
        messages: portion.entries.len(),
        bytes: sizes.sum(),
    };
    let entries = portion.entries.iter();
    let shared = entries.filter(|(_, entry)| entry.group.is_some()).count();
    (amount, shared)
}

impl Hub {
    /// A session that has lost its connection keeps the first of its messages in memory, and the others on the disk
    /// alone, where they are anyway.
    pub(super) fn give_back_to_disk(&self, state: &mut SessionState) {
        let (Some(stored), Some(session)) = (&mut state.stored, &mut state.session) else {
            return;
        };
        let mut outbox = state.client.outbox();
        let bound = self.config.offline_window_bytes();
        let (mut bytes, mut cut) = (0, Key::MAX);
        for delivery in session.queued().chain(&outbox.deliveries) {
            if bytes >= bound {
                cut = cut.min(delivery.key);
            }
            bytes += delivery.size();
        }
        // What is in flight stays in memory: who reads on behind it does not meet it again.
        let in_flight = session.in_flight().filter_map(|one| one.handle);
        let behind = in_flight.map(|delivery| delivery.key + 1).max();
        cut = cut.max(behind.unwrap_or_default());
        let mut given = session.take_queued(|delivery| delivery.key >= cut);
        given.extend(
            outbox
                .deliveries
                .extract_if(.., |delivery| delivery.key >= cut),
        );
        if !given.is_empty()
            && let Some(window) = &mut outbox.window
        {
            let mut amount = Amount::default();
            for delivery in &given {
                amount += Amount::of_one(delivery.size());
                stored.forget(delivery);
            }
            let shared = given.iter().filter(|delivery| delivery.group.is_some());
            window.give_back(cut, amount, shared.count());
            session.shrink();
            outbox.deliveries.shrink_to_fit();
        }
        state.client.set_waiting(session.queue_size());
    }
}
