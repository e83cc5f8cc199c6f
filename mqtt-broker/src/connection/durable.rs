//! What a connection may send only when the store has it.

use core::task::Context;
use std::collections::VecDeque;

use mqtt_session::ChangeNumber;

use crate::connection::driver::Driver;
use crate::store::{Op, Ticket};

/// Packets and changes that wait for the same batch of the store.
#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    /// The session may send what waits for changes up to this one.
    changes: ChangeNumber,
    /// SUBACKs and UNSUBACKs.
    answers: Vec<u8>,
}

/// What waits for the store, in order.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    // Boxed: most connections never wait.
    some: Option<Box<SomeWaits>>,
}

#[derive(Debug, Default)]
struct SomeWaits {
    waiting: VecDeque<Wait>,
    /// The last change of the session that is in a batch of the store, or will be.
    changes: ChangeNumber,
    /// What the last wait was for.
    submitted: ChangeNumber,
    /// Answers whose batch was not submitted yet.
    answers: Vec<u8>,
    /// Bytes of all answers that wait.
    bytes: usize,
    /// The task is woken when this is durable.
    registered: Option<Ticket>,
}

impl Waits {
    /// Bytes of answers that wait.
    pub(crate) fn len(&self) -> usize {
        self.some.as_ref().map_or(0, |some| some.bytes)
    }

    /// Whether nothing waits for the store, or is to be submitted to it.
    pub(crate) fn is_idle(&self) -> bool {
        let some = self.some.as_ref();
        some.is_none_or(|some| some.waiting.is_empty() && some.answers.is_empty())
    }

    /// What an earlier connection of the session left.
    pub(crate) fn resume(unfinished: Option<(Ticket, ChangeNumber)>) -> Self {
        let mut waits = Self::default();
        if let Some((ticket, changes)) = unfinished {
            let some = waits.some.get_or_insert_default();
            some.changes = changes;
            some.submitted = changes;
            some.waiting.push_back(Wait {
                ticket,
                changes,
                answers: Vec::new(),
            });
        }
        waits
    }

    /// What the next connection of the session has to wait for.
    pub(crate) fn unfinished(&self) -> Option<(Ticket, ChangeNumber)> {
        let last = self.some.as_ref()?.waiting.back()?;
        Some((last.ticket, last.changes))
    }

    /// What leaves may have to wait for this change of the session.
    pub(crate) fn note(&mut self, number: ChangeNumber) {
        let some = self.some.get_or_insert_default();
        some.changes = some.changes.max(number);
    }
}

impl SomeWaits {
    fn submitted(&mut self, ticket: Option<Ticket>) {
        if self.changes == self.submitted && self.answers.is_empty() {
            return;
        }
        self.submitted = self.changes;
        // Without changes of its own it keeps its place behind what waits already, in the next connection too.
        let before = self.waiting.back().map(|wait| wait.ticket);
        let wait = Wait {
            ticket: ticket.max(before).unwrap_or_default(),
            changes: self.changes,
            answers: core::mem::take(&mut self.answers),
        };
        self.waiting.push_back(wait);
    }
}

impl Driver {
    /// Sends an answer when what it says is durable.
    pub(crate) fn answer_when_durable<E>(
        &mut self,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.client.stored().is_none() {
            return self.output.control_with(encode);
        }
        let waits = self.waits.some.get_or_insert_default();
        let before = waits.answers.len();
        let outcome = encode(&mut waits.answers);
        waits.bytes += waits.answers.len() - before;
        outcome
    }

    /// Adds the changes of the session to those for the store.
    pub(crate) fn drain_changes(&mut self, ops: &mut Vec<Op>) {
        let stored = self.state.as_mut().and_then(|state| state.stored.as_mut());
        let Some(stored) = stored else { return };
        while let Some((number, change)) = self.connection.poll_change() {
            stored.change(change, ops);
            self.waits.note(number);
        }
    }

    /// What was noted since the last time is in the batch of `ticket`; without one it needs no store.
    pub(crate) fn submitted(&mut self, ticket: Option<Ticket>) {
        if let Some(waits) = &mut self.waits.some {
            waits.submitted(ticket);
        }
    }

    /// Lets go what has become durable.
    pub(crate) fn release_durable(&mut self) {
        let (Some(store), Some(waits)) = (&self.hub.store, &mut self.waits.some) else {
            return;
        };
        while let Some(wait) = waits.waiting.front()
            && store.is_durable(wait.ticket)
            && let Some(wait) = waits.waiting.pop_front()
        {
            self.connection.session_mut().durable(wait.changes);
            waits.bytes -= wait.answers.len();
            self.output
                .control_with(|out| out.extend_from_slice(&wait.answers));
        }
    }

    /// Has the task woken when the next of what waits becomes durable; false if it is already.
    pub(crate) fn await_durable(&mut self, cx: &Context<'_>) -> bool {
        let (Some(store), Some(waits)) = (&self.hub.store, &mut self.waits.some) else {
            return true;
        };
        let Some(wait) = waits.waiting.front() else {
            return true;
        };
        if waits.registered == Some(wait.ticket) {
            return true;
        }
        waits.registered = Some(wait.ticket);
        store.wake_when_durable(wait.ticket, cx.waker())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What needs no store follows what waits for it: the next connection of the session waits for both.
    #[test]
    fn the_next_connection_waits_for_all() {
        let ticket = Ticket::for_test(5);
        let mut waits = Waits::default();
        let some = waits.some.get_or_insert_default();
        some.answers.push(1);
        some.submitted(Some(ticket));
        some.answers.push(2);
        some.submitted(None);
        assert_eq!(waits.unfinished(), Some((ticket, ChangeNumber::ZERO)));
    }
}
