//! The receiver's part of a session: QoS 2 identifiers that outlive the connection.

use alloc::boxed::Box;

use mqtt_codec::{PacketId, ReasonCode};

use crate::{Change, ChangeNumber, change::Journal, packet_ids::PacketIdMap};

/// What became of a QoS 2 message whose identifier is not released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Delivered, neither accepted nor rejected.
    Open,
    Accepted,
    /// Refused; its PUBREC is not written yet.
    Rejected,
}

/// A QoS 2 identifier that the peer has not released.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    /// PUBREC leaves when this is durable.
    pub(crate) after: ChangeNumber,
    /// [`Token::place`] of the message.
    pub(crate) place: u32,
    pub(crate) fate: Fate,
    pub(crate) reason: ReasonCode,
    /// Its PUBLISH came on this connection.
    pub(crate) counted: bool,
}

impl Received {
    /// One that was accepted, and came on an earlier connection.
    const fn earlier(after: ChangeNumber) -> Self {
        Self {
            after,
            place: 0,
            fate: Fate::Accepted,
            reason: ReasonCode::SUCCESS,
            counted: false,
        }
    }
}

/// What of the receiver outlives a connection.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    /// Boxed: most sessions never receive at QoS 2.
    received: Option<Box<PacketIdMap<Received>>>,
    /// The last removal of an identifier: a PUBCOMP for an unknown one waits for it too, since it may
    /// be the answer to a PUBREL repeated on a new connection.
    pub(crate) last_removal: ChangeNumber,
}

impl Inbound {
    pub(crate) const fn new() -> Self {
        Self {
            received: None,
            last_removal: ChangeNumber::ZERO,
        }
    }

    pub(crate) fn get_mut(&mut self, id: PacketId) -> Option<&mut Received> {
        self.received.as_mut()?.get_mut(id)
    }

    pub(crate) fn remove(&mut self, id: PacketId) -> Option<Received> {
        self.received.as_mut()?.remove(id)
    }

    pub(crate) fn insert(&mut self, id: PacketId, received: Received) {
        self.received
            .get_or_insert_with(|| Box::new(PacketIdMap::new()))
            .insert(id, received);
    }

    pub(crate) fn len(&self) -> usize {
        self.received.as_ref().map_or(0, |received| received.len())
    }

    /// The identifiers of messages that were accepted and not released, in no order.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = PacketId> {
        let all = self.received.iter().flat_map(|received| received.iter());
        all.filter(|(_, received)| received.fate == Fate::Accepted)
            .map(|(id, _)| id)
    }

    /// The connection ends. What was not accepted is not ours: it will come again, and be new.
    pub(crate) fn end(&mut self) {
        if let Some(received) = &mut self.received {
            received.retain(|_, received| {
                received.counted = false;
                received.fate == Fate::Accepted
            });
        }
    }

    pub(crate) fn restore(&mut self, id: PacketId) {
        self.insert(id, Received::earlier(ChangeNumber::ZERO));
    }

    /// The message was taken after its connection.
    pub(crate) fn accept_late(&mut self, id: PacketId, journal: &mut Journal) {
        if self.get_mut(id).is_none() {
            let after = journal.record(Change::InboundReceived { packet_id: id });
            self.insert(id, Received::earlier(after));
        }
    }

    pub(crate) fn restore_removal(&mut self, id: PacketId) {
        self.remove(id);
    }

    /// Forgets all identifiers.
    pub(crate) fn discard(&mut self, journal: &mut Journal) {
        let Some(received) = self.received.take() else {
            return;
        };
        for (packet_id, received) in received.iter() {
            if received.fate == Fate::Accepted {
                self.last_removal = journal.record(Change::InboundReleased { packet_id });
            }
        }
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        match &mut self.received {
            Some(received) if received.len() > 0 => received.shrink(),
            received => *received = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session that has received at QoS 2 and holds nothing of it any more is as small as one that never has.
    #[test]
    fn nothing_is_kept_for_no_identifiers() {
        let mut inbound = Inbound::new();
        let ids: [PacketId; 40] =
            core::array::from_fn(|n| PacketId::new(u16::try_from(n + 1).unwrap()).unwrap());
        ids.iter().for_each(|id| inbound.restore(*id));
        assert_eq!(inbound.len(), ids.len());
        inbound.shrink();
        assert_eq!(inbound.accepted().count(), ids.len());
        for (gone, id) in ids.iter().enumerate() {
            assert!(inbound.remove(*id).is_some());
            assert_eq!(inbound.len(), ids.len() - gone - 1);
        }
        assert!(inbound.received.is_some());
        inbound.shrink();
        assert!(inbound.received.is_none());
    }
}
