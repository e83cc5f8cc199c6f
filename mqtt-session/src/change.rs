//! What a session tells the store: numbered changes, in order.

use alloc::{boxed::Box, collections::VecDeque};

use mqtt_codec::{PacketId, QoS};

/// The number of a change of one session. Numbers grow by at least one from change to change and
/// start again when a session is restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeNumber(u64);

impl ChangeNumber {
    /// Before the first change: what is always durable.
    pub const ZERO: Self = Self(0);

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `n`, for a caller that kept it as an integer.
    #[must_use]
    pub const fn from_u64(n: u64) -> Self {
        Self(n)
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A change of a session that must survive a crash for its deliveries to be exactly once.
///
/// The changes of a session, applied in order to an empty one together with the messages pushed to
/// it, give the session. A store may lose a tail of them, never one from the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A queued message got a packet identifier. A QoS 2 PUBLISH waits for this to be durable; a
    /// QoS 1 PUBLISH does not: after a crash it may come again under another identifier.
    Sent {
        /// The identifier under which it is sent until it is completed.
        packet_id: PacketId,
        /// The quality of service of the message.
        qos: QoS,
        /// [`Outgoing::key`](crate::Outgoing::key) of the message.
        key: u64,
    },
    /// A queued message was dropped before it was sent: expired, or too large for the peer.
    Dropped {
        /// [`Outgoing::key`](crate::Outgoing::key) of the message.
        key: u64,
    },
    /// The peer owns the QoS 2 message: its body is no longer needed. PUBREL waits for this.
    PubRecReceived {
        /// The identifier of the message.
        packet_id: PacketId,
    },
    /// The message is acknowledged and its identifier free. Nothing waits for this.
    Completed {
        /// The identifier of the message.
        packet_id: PacketId,
    },
    /// A QoS 2 message was accepted. PUBREC waits for this, which is one unit with what the caller
    /// did with the message.
    InboundReceived {
        /// The identifier of the message.
        packet_id: PacketId,
    },
    /// The peer released the identifier of a QoS 2 message. PUBCOMP waits for this.
    InboundReleased {
        /// The identifier of the message.
        packet_id: PacketId,
    },
}

/// Whether the caller's part of taking a message is done when it accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// It is: the acknowledgement needs to wait for nothing of the caller's.
    Now,
    /// It is written but not durable: the acknowledgement waits for the number that `accept` returns.
    Pending,
}

/// Whether a session is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// It is in memory only. It emits no changes, and no packet waits for one. It can still be
    /// resumed by another connection of the same process.
    Ephemeral,
    /// It emits changes, and packets wait for them.
    Durable,
}

/// Numbers the changes of a session and keeps them until the caller takes them.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    persistence: Persistence,
    last: ChangeNumber,
    durable: ChangeNumber,
    #[allow(
        clippy::box_collection,
        reason = "most sessions emit none: a pointer is smaller"
    )]
    changes: Option<Box<VecDeque<(ChangeNumber, Change)>>>,
}

impl Journal {
    pub(crate) const fn new(persistence: Persistence) -> Self {
        Self {
            persistence,
            last: ChangeNumber::ZERO,
            durable: ChangeNumber::ZERO,
            changes: None,
        }
    }

    pub(crate) const fn persistence(&self) -> Persistence {
        self.persistence
    }

    /// Whether what waits for `n` may leave.
    pub(crate) fn is_durable(&self, n: ChangeNumber) -> bool {
        n <= self.durable
    }

    /// Everything up to `n` is durable.
    pub(crate) fn durable(&mut self, n: ChangeNumber) {
        self.durable = self.durable.max(n.min(self.last));
    }

    /// A number to wait for, without a change of the session's own.
    pub(crate) const fn ticket(&mut self) -> ChangeNumber {
        self.last = self.last.next();
        self.last
    }

    /// Records a change; the number to wait for, which is zero where nothing is stored.
    pub(crate) fn record(&mut self, change: Change) -> ChangeNumber {
        match self.persistence {
            Persistence::Ephemeral => ChangeNumber::ZERO,
            Persistence::Durable => {
                let number = self.ticket();
                self.changes
                    .get_or_insert_default()
                    .push_back((number, change));
                number
            }
        }
    }

    /// Whether there are changes for the store.
    pub(crate) fn has_changes(&self) -> bool {
        self.changes.as_ref().is_some_and(|it| !it.is_empty())
    }

    pub(crate) fn poll(&mut self) -> Option<(ChangeNumber, Change)> {
        self.changes.as_mut()?.pop_front()
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        if let Some(changes) = &mut self.changes {
            changes.shrink_to_fit();
        }
    }
}
