//! What is explored: the messages, the limits, what may go wrong, and what is broken on purpose.

use std::num::NonZeroU16;

use mqtt_codec::{ProtocolVersion, QoS};
use mqtt_session::Persistence;

/// The client.
pub(super) const CLIENT: usize = 0;
/// The server.
pub(super) const SERVER: usize = 1;

/// One exploration.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) version: ProtocolVersion,
    /// What the client sends, then what the server sends. Message n has the key n, from 1 on.
    pub(super) messages: [Vec<QoS>; 2],
    /// The Receive Maximum, both ways.
    pub(super) window: NonZeroU16,
    /// Any connection may have a smaller one. For versions that say so.
    pub(super) narrows: bool,
    /// An end that is not durable never crashes.
    pub(super) persistence: [Persistence; 2],
    pub(super) restart: Restart,
    /// The application takes what is delivered in any order, not in that of delivery.
    pub(super) takes_in_any_order: bool,
    /// How often the link breaks, other than by a crash.
    pub(super) cuts: u8,
    /// How often an end crashes.
    pub(super) crashes: u8,
    pub(super) mutant: Option<Mutant>,
}

impl Setup {
    /// Both ends are durable, have room for two messages, and suffer one fault of each kind.
    pub(super) fn new(version: ProtocolVersion, messages: [&[QoS]; 2]) -> Self {
        Self {
            version,
            messages: messages.map(<[QoS]>::to_vec),
            window: NonZeroU16::MIN.saturating_add(1),
            narrows: false,
            persistence: [Persistence::Durable; 2],
            restart: Restart::Log,
            takes_in_any_order: false,
            cuts: 1,
            crashes: 1,
            mutant: None,
        }
    }

    pub(super) fn is_broken_by(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// The quality of service of a message that the other end sends.
    pub(super) fn qos_of(&self, sender: usize, key: u8) -> QoS {
        self.messages[sender][usize::from(key) - 1]
    }
}

/// How a store gives a session back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// Its changes are applied one after the other.
    Log,
    /// It kept a table of what is in flight, which the `restore` functions put back.
    Table,
}

/// A rule that is broken, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// The store does not save this kind of change.
    Loses(Kind),
    /// What is in flight is not restored.
    ForgetsInFlight,
    /// What waits for this kind of change is released before it is written.
    ReleasesEarly(Kind),
    /// A message and its change are two units.
    SplitsUnits,
    /// The store never says that it has written.
    KeepsSilent,
    /// The application takes messages in any order.
    TakesInAnyOrder,
    /// The sender is told of more room than the receiver has.
    WidensWindow,
}

/// The kinds of [`mqtt_session::Change`], and what a unit without one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sent,
    PubRecReceived,
    Completed,
    InboundReceived,
    InboundReleased,
    /// A message of QoS 1 that was taken.
    Taken,
}
