//! What outlives a connection.

use alloc::vec::Vec;

use mqtt_codec::{PacketId, QoS};

use crate::{
    Change, ChangeNumber, InFlight, InFlightState, Outgoing, Persistence, Token, change::Journal,
    inbound::Inbound, outbound::Outbound,
};

/// The state of a session, of either end: the queue of messages to send, what is in flight, and the
/// QoS 2 identifiers received. It is at home in a [`Connection`](crate::Connection) while there is one.
///
/// The queue is a window of handles. A caller with a store pushes as many as [`wanted`](Self::wanted)
/// says and holds the rest back; a caller that has them in memory anyway may push without end.
#[derive(Debug, Clone)]
pub struct Session<H> {
    pub(crate) outbound: Outbound<H>,
    pub(crate) inbound: Inbound,
    pub(crate) journal: Journal,
    /// How many messages the queue wants to hold.
    window: u32,
    /// Counts the connections, so that a token of an earlier one is known.
    pub(crate) connection: u32,
    /// The peer has this session too.
    pub(crate) is_established: bool,
}

impl<H: Outgoing> Session<H> {
    /// How many messages the queue wants to hold unless told otherwise.
    pub const DEFAULT_WINDOW: u32 = 64;

    /// An empty session.
    #[must_use]
    pub const fn new(persistence: Persistence) -> Self {
        Self {
            outbound: Outbound::new(),
            inbound: Inbound::new(),
            journal: Journal::new(persistence),
            window: Self::DEFAULT_WINDOW,
            connection: 0,
            is_established: false,
        }
    }

    /// Sets how many messages the queue wants to hold.
    pub const fn set_window(&mut self, window: u32) {
        self.window = window;
    }

    /// Whether the session is in a store.
    #[must_use]
    pub const fn persistence(&self) -> Persistence {
        self.journal.persistence()
    }

    /// Appends a message to the queue, even beyond the window.
    pub fn push(&mut self, handle: H) {
        self.outbound.queue.push(handle);
    }

    /// How many messages the queue has room for in its window.
    #[must_use]
    pub fn wanted(&self) -> usize {
        (self.window as usize).saturating_sub(self.outbound.queue.len())
    }

    /// Whether the queue has room in its window.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.wanted() > 0
    }

    /// How many messages were never sent.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.outbound.queue.len()
    }

    /// What the messages in the queue cost: the sum of [`Outgoing::size`].
    #[must_use]
    pub const fn queue_size(&self) -> usize {
        self.outbound.queue.size()
    }

    /// What all messages that the session holds cost: those in the queue, and those in flight that are
    /// kept until their acknowledgement.
    #[must_use]
    pub const fn held_size(&self) -> usize {
        self.outbound.queue.size() + self.outbound.in_flight_size
    }

    /// The messages in the queue, in order.
    pub fn queued(&self) -> impl Iterator<Item = &H> {
        self.outbound.queue.iter()
    }

    /// Takes messages out of the queue: those of a shared subscription, to give them to another
    /// member. A message that has an identifier stays with the session ([MQTT-4.8.2-4]).
    pub fn take_queued(&mut self, choose: impl FnMut(&H) -> bool) -> Vec<H> {
        self.outbound.queue.take(choose)
    }

    /// Ends the session: the messages that somebody else may still be given, oldest first. Those are what
    /// was never sent and what was sent at QoS 1 and is kept; a QoS 2 message that was sent belongs to this
    /// session alone ([MQTT-4.8.2-5]).
    #[must_use]
    pub fn into_undelivered(self) -> Vec<H> {
        self.outbound.into_undelivered()
    }

    /// How many messages have an identifier and are not completed.
    #[must_use]
    pub const fn in_flight_len(&self) -> usize {
        self.outbound.in_flight_len()
    }

    /// The messages in flight: those that wait for PUBCOMP in the order of their PUBRECs, then those
    /// that wait for PUBACK or PUBREC in the order they are sent.
    pub fn in_flight(&self) -> impl Iterator<Item = InFlight<'_, H>> {
        self.outbound.in_flight()
    }

    /// The QoS 2 identifiers of accepted messages that the peer has not released, in no order.
    pub fn received(&self) -> impl Iterator<Item = PacketId> {
        self.inbound.accepted()
    }

    /// How many QoS 2 identifiers of the peer are open.
    #[must_use]
    pub fn received_len(&self) -> usize {
        self.inbound.len()
    }

    /// How many acknowledgements came for identifiers that are not in use.
    #[must_use]
    pub const fn unknown_acks(&self) -> u32 {
        self.outbound.unknown_acks
    }

    /// All changes up to this one are durable: what waits for them may leave.
    pub fn durable(&mut self, number: ChangeNumber) {
        self.journal.durable(number);
    }

    /// The next change for the store, in order.
    #[must_use]
    pub fn poll_change(&mut self) -> Option<(ChangeNumber, Change)> {
        self.journal.poll()
    }

    /// Applies a change read back from the store. The messages it speaks of were pushed before, with
    /// the keys that it gives them. Use it before the first connection only.
    pub fn apply(&mut self, change: &Change) {
        self.is_established = true;
        match *change {
            Change::Sent { packet_id, key, .. } => {
                if let Some(handle) = self.take_key(key) {
                    self.outbound.restore_sent(packet_id, handle);
                }
            }
            Change::Dropped { key } => drop(self.take_key(key)),
            Change::PubRecReceived { packet_id } => self.outbound.restore_released(packet_id, None),
            Change::Completed { packet_id } => self.outbound.restore_completed(packet_id),
            Change::InboundReceived { packet_id } => self.inbound.restore(packet_id),
            Change::InboundReleased { packet_id } => self.inbound.restore_removal(packet_id),
        }
    }

    fn take_key(&mut self, key: u64) -> Option<H> {
        if self
            .outbound
            .queue
            .front()
            .is_some_and(|handle| handle.key() == key)
        {
            return self.outbound.queue.pop();
        }
        self.outbound.queue.take(|handle| handle.key() == key).pop()
    }

    /// Restores a message in flight whose PUBREC or PUBACK did not come, in the order they were sent.
    pub fn restore_sent(&mut self, packet_id: PacketId, handle: H) {
        self.is_established = true;
        self.outbound.restore_sent(packet_id, handle);
    }

    /// Restores a QoS 2 message that waits for PUBCOMP, in the order of the PUBRECs. Its body is not needed.
    pub fn restore_released(&mut self, packet_id: PacketId, handle: Option<H>) {
        self.is_established = true;
        self.outbound.restore_released(packet_id, handle);
    }

    /// Restores a QoS 2 identifier that the peer has not released.
    pub fn restore_received(&mut self, packet_id: PacketId) {
        self.is_established = true;
        self.inbound.restore(packet_id);
    }

    /// The caller took a message when the connection that it came on had ended. One of QoS 2 will come again on the
    /// next connection, and is then a duplicate; one of QoS 1 will come again and be new. Between two connections, or
    /// on the next one before anything has come on it: later the token means nothing, and must not be used here.
    pub fn accept_late(&mut self, token: Token) {
        if let (QoS::ExactlyOnce, Some(packet_id)) = (token.qos, token.packet_id) {
            self.inbound.accept_late(packet_id, &mut self.journal);
        }
    }

    /// Says that the peer has this session too, though there is nothing in flight: for a session that
    /// was read back from a store. It makes `session_present` true at the next connection.
    pub const fn set_established(&mut self) {
        self.is_established = true;
    }

    /// Forgets what the peer no longer knows: identifiers and what is in flight, whose messages are
    /// given back, oldest first, with how far they were. The queue stays.
    pub fn discard(&mut self) -> impl Iterator<Item = (H, InFlightState)> {
        self.is_established = false;
        self.inbound.discard(&mut self.journal);
        self.outbound.discard(&mut self.journal)
    }

    /// Gives spare memory back, for a session that is idle.
    pub fn shrink(&mut self) {
        self.outbound.shrink();
        self.inbound.shrink();
        self.journal.shrink();
    }

    pub(crate) fn begin(&mut self) {
        self.end();
        self.connection = self.connection.wrapping_add(1);
        self.outbound.begin();
    }

    pub(crate) fn end(&mut self) {
        self.outbound.end();
        self.inbound.end();
    }
}
