//! How much is held: messages, and the bytes that they cost.

use core::ops::AddAssign;

use mqtt_session::{Outgoing, Session};

use crate::delivery::Delivery;

/// Messages and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Amount {
    pub(crate) const MAX: Self = Self {
        messages: usize::MAX,
        bytes: usize::MAX,
    };

    /// One message.
    pub(crate) fn of_one(bytes: usize) -> Self {
        Self { messages: 1, bytes }
    }

    /// What waits for a session.
    pub(crate) fn of(delivery: &Delivery) -> Self {
        Self {
            messages: delivery.count(),
            bytes: delivery.size(),
        }
    }

    /// What a session holds, in flight and not.
    pub(crate) fn held(session: &Session<Delivery>) -> Self {
        Self {
            messages: session.queue_len() + session.in_flight_len(),
            bytes: session.held_size(),
        }
    }

    pub(crate) fn checked_sub(self, other: Self) -> Option<Self> {
        Some(Self {
            messages: self.messages.checked_sub(other.messages)?,
            bytes: self.bytes.checked_sub(other.bytes)?,
        })
    }

    pub(crate) fn saturating_sub(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}
