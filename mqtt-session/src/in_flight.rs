//! What is in flight, seen from outside: looked at, ended without the peer, and restored.

use alloc::vec::Vec;

use mqtt_codec::{PacketId, QoS};

use crate::{
    Change, ChangeNumber, Outgoing,
    change::Journal,
    outbound::{Outbound, Published, Released, Use},
    packet_ids::PacketIdMap,
};

/// A message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight<'a, H> {
    /// Its identifier.
    pub packet_id: PacketId,
    /// The message, where it is kept.
    pub handle: Option<&'a H>,
    /// How far it is.
    pub state: InFlightState,
}

/// How far a message in flight is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InFlightState {
    /// It has an identifier, but its PUBLISH was never written.
    Assigned,
    /// Its PUBLISH may have been written.
    Published,
    /// Its PUBREC came; PUBREL is sent or to be sent.
    Released,
}

impl<H: Outgoing> Outbound<H> {
    /// Ends all that is in flight without the peer; the messages, oldest first.
    pub(crate) fn discard(
        &mut self,
        journal: &mut Journal,
    ) -> impl Iterator<Item = (H, InFlightState)> {
        self.ids = PacketIdMap::new();
        self.in_flight_size = 0;
        let mut handles = Vec::new();
        for message in self.released.drain() {
            journal.record(Change::Completed {
                packet_id: message.packet_id,
            });
            let handle = message.handle;
            handles.extend(handle.map(|handle| (handle, InFlightState::Released)));
        }
        for message in self.published.drain() {
            journal.record(Change::Completed {
                packet_id: message.packet_id,
            });
            let state = message.state();
            handles.extend(message.handle.map(|handle| (handle, state)));
        }
        self.begin();
        handles.into_iter()
    }

    pub(crate) fn into_undelivered(mut self) -> Vec<H> {
        let published = self.published.drain();
        let mut handles: Vec<H> = published
            .filter(|message| message.qos != QoS::ExactlyOnce || !message.sent)
            .filter_map(|message| message.handle)
            .collect();
        handles.extend(self.queue.take(|_| true));
        handles
    }

    pub(crate) fn in_flight(&self) -> impl Iterator<Item = InFlight<'_, H>> {
        let released = self.released.iter().map(|(_, message)| InFlight {
            packet_id: message.packet_id,
            handle: message.handle.as_ref(),
            state: InFlightState::Released,
        });
        let published = self.published.iter().map(|(_, message)| InFlight {
            packet_id: message.packet_id,
            handle: message.handle.as_ref(),
            state: message.state(),
        });
        released.chain(published)
    }

    /// A message that may have been sent under this identifier before the restart.
    pub(crate) fn restore_sent(&mut self, packet_id: PacketId, handle: H) {
        let qos = handle.qos();
        self.last_id = packet_id.get();
        self.publish(Published {
            handle: Some(handle),
            after: ChangeNumber::ZERO,
            packet_id,
            qos,
            sent: true,
        });
    }

    pub(crate) fn restore_released(&mut self, packet_id: PacketId, handle: Option<H>) {
        let kept = match self.ids.get(packet_id) {
            Some(Use::Published(number)) => self.unpublish(number),
            _ => None,
        };
        self.release(Released {
            handle: handle.or(kept),
            after: ChangeNumber::ZERO,
            packet_id,
        });
    }

    pub(crate) fn restore_completed(&mut self, packet_id: PacketId) {
        match self.ids.remove(packet_id) {
            Some(Use::Published(number)) => drop(self.unpublish(number)),
            Some(Use::Released(number)) => drop(self.unrelease(number)),
            Some(Use::Request) | None => {}
        }
    }
}
