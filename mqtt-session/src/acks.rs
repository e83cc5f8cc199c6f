//! The acknowledgements of one connection, which leave in order when what they stand on is durable.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use mqtt_codec::{Ack, PacketId, PacketType, PlainAck, ProtocolVersion, QoS, ReasonCode};

use crate::{
    Buffer, Change, ChangeNumber, Durability, Error, Persistence, Role, Token,
    change::Journal,
    inbound::{Fate, Inbound, Received},
};

/// A PUBACK that is written or to be written.
#[derive(Debug, Clone, Copy)]
struct PubAck {
    after: ChangeNumber,
    packet_id: PacketId,
    /// None: neither accepted nor rejected.
    reason: Option<ReasonCode>,
}

/// A PUBREC that is to be written.
#[derive(Debug, Clone, Copy)]
struct PubRec {
    packet_id: PacketId,
    /// What it waits for and says, once the peer has released the identifier without waiting for it. Until then
    /// that is kept with the identifier.
    released: Option<(ChangeNumber, ReasonCode)>,
}

impl PubRec {
    const fn new(packet_id: PacketId) -> Self {
        Self {
            packet_id,
            released: None,
        }
    }
}

/// A PUBCOMP, or a PUBREL that no message of ours stands behind.
#[derive(Debug, Clone, Copy)]
struct Reply {
    after: ChangeNumber,
    packet_id: PacketId,
    reason: ReasonCode,
    packet_type: PacketType,
}

/// The acknowledgements of QoS 2, in a box of their own: most connections need none.
#[derive(Debug, Default)]
struct QoS2Acks {
    /// The PUBRECs to be written, in the order of their PUBLISHes.
    pubrecs: VecDeque<PubRec>,
    replies: VecDeque<Reply>,
    /// The place of the next new message.
    next_place: u32,
}

/// The acknowledgements of one connection that are not written yet, in the order they must leave:
/// PUBACKs in that of their PUBLISHes, PUBRECs in that of theirs ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
#[derive(Debug)]
pub(crate) struct Acks {
    #[allow(
        clippy::box_collection,
        reason = "most connections acknowledge nothing: a pointer is smaller"
    )]
    pubacks: Option<Box<VecDeque<PubAck>>>,
    /// The place of the first of them.
    first: u32,
    /// PUBLISHes of QoS 1 and 2 without their last acknowledgement. Below zero by the PUBCOMPs sent for
    /// messages of earlier connections: the sender counts those as room (section 4.9).
    unacknowledged: i32,
    qos2: Option<Box<QoS2Acks>>,
}

/// What is known when acknowledgements are written.
#[derive(Clone, Copy)]
pub(crate) struct AckWriter<'a> {
    pub(crate) version: ProtocolVersion,
    pub(crate) journal: &'a Journal,
    pub(crate) limit: usize,
    /// The Receive Maximum of this end.
    pub(crate) maximum: i32,
}

#[inline]
pub(crate) fn write_ack(
    packet_type: PacketType,
    packet_id: PacketId,
    reason: ReasonCode,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    if reason == ReasonCode::SUCCESS
        && let Some(plain) = PlainAck::new(packet_type, packet_id)
    {
        out.extend_from_slice(&plain.to_bytes());
        return;
    }
    // An acknowledgement without properties is a few bytes long and always within the limits.
    let _ = Ack::new(packet_id, reason).encode(packet_type, version, out);
}

impl Acks {
    pub(crate) const fn new() -> Self {
        Self {
            pubacks: None,
            first: 0,
            unacknowledged: 0,
            qos2: None,
        }
    }

    fn qos2(&mut self) -> &mut QoS2Acks {
        self.qos2.get_or_insert_default()
    }

    fn pubacks(&self) -> usize {
        self.pubacks.as_ref().map_or(0, |pubacks| pubacks.len())
    }

    /// How many are not written yet.
    pub(crate) fn len(&self) -> usize {
        let qos2 = self
            .qos2
            .as_ref()
            .map_or(0, |acks| acks.pubrecs.len() + acks.replies.len());
        self.pubacks() + qos2
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        match &mut self.pubacks {
            Some(pubacks) if !pubacks.is_empty() => pubacks.shrink_to_fit(),
            pubacks => *pubacks = None,
        }
    }

    fn count(&mut self, maximum: u16, sender: Role) -> Result<(), Error> {
        if self.unacknowledged >= i32::from(maximum) {
            return Err(Error::ReceiveMaximumExceeded {
                limit: maximum,
                sender,
            });
        }
        self.unacknowledged += 1;
        Ok(())
    }

    /// A message: its place in the order of those of its quality of service, or None if it is known already.
    pub(crate) fn receive(
        &mut self,
        inbound: &mut Inbound,
        qos: QoS,
        packet_id: Option<PacketId>,
        maximum: u16,
        sender: Role,
    ) -> Result<Option<u32>, Error> {
        let packet_id = || packet_id.ok_or(Error::PacketIdMissing);
        match qos {
            QoS::AtMostOnce => Ok(Some(0)),
            QoS::AtLeastOnce => self.receive_qos1(packet_id()?, maximum, sender).map(Some),
            QoS::ExactlyOnce => self.receive_qos2(inbound, packet_id()?, maximum, sender),
        }
    }

    /// A message of QoS 1: its place in the order.
    fn receive_qos1(
        &mut self,
        packet_id: PacketId,
        maximum: u16,
        sender: Role,
    ) -> Result<u32, Error> {
        self.count(maximum, sender)?;
        let place = self
            .first
            .wrapping_add(u32::try_from(self.pubacks()).unwrap_or(u32::MAX));
        self.pubacks.get_or_insert_default().push_back(PubAck {
            after: ChangeNumber::ZERO,
            packet_id,
            reason: None,
        });
        Ok(place)
    }

    /// A message of QoS 2: its place, or None if it is known already.
    fn receive_qos2(
        &mut self,
        inbound: &mut Inbound,
        packet_id: PacketId,
        maximum: u16,
        sender: Role,
    ) -> Result<Option<u32>, Error> {
        if let Some(known) = inbound.get_mut(packet_id) {
            if !known.counted {
                self.count(maximum, sender)?;
                known.counted = true;
            }
            // A rejected message has one PUBREC, after which the identifier is free.
            if known.fate != Fate::Rejected {
                self.qos2().pubrecs.push_back(PubRec::new(packet_id));
            }
            return Ok(None);
        }
        self.count(maximum, sender)?;
        let acks = self.qos2();
        let place = acks.next_place;
        acks.next_place = place.wrapping_add(1);
        acks.pubrecs.push_back(PubRec::new(packet_id));
        let reason = ReasonCode::SUCCESS;
        let after = ChangeNumber::ZERO;
        inbound.insert(
            packet_id,
            Received {
                after,
                place,
                fate: Fate::Open,
                reason,
                counted: true,
            },
        );
        Ok(Some(place))
    }

    /// The caller took the message; the number its acknowledgement waits for.
    pub(crate) fn accept(
        &mut self,
        inbound: &mut Inbound,
        journal: &mut Journal,
        token: Token,
        reason: ReasonCode,
        durability: Durability,
    ) -> Option<ChangeNumber> {
        let packet_id = token.packet_id?;
        let after = match token.qos {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => {
                let ack = self.open_puback(token)?;
                let after = match durability {
                    Durability::Now => ChangeNumber::ZERO,
                    Durability::Pending => journal.ticket(),
                };
                ack.after = after;
                ack.reason = Some(reason);
                after
            }
            QoS::ExactlyOnce => {
                let received = inbound.get_mut(packet_id)?;
                if received.fate != Fate::Open || received.place != token.place {
                    return None;
                }
                received.fate = Fate::Accepted;
                received.reason = reason;
                received.after = match (journal.persistence(), durability) {
                    (Persistence::Durable, _) => {
                        journal.record(Change::InboundReceived { packet_id })
                    }
                    (Persistence::Ephemeral, Durability::Pending) => journal.ticket(),
                    (Persistence::Ephemeral, Durability::Now) => ChangeNumber::ZERO,
                };
                received.after
            }
        };
        (after != ChangeNumber::ZERO).then_some(after)
    }

    /// The caller refused the message, towards a peer that understands it.
    pub(crate) fn reject(&mut self, inbound: &mut Inbound, token: Token, reason: ReasonCode) {
        let Some(packet_id) = token.packet_id else {
            return;
        };
        match token.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                if let Some(ack) = self.open_puback(token) {
                    ack.reason = Some(reason);
                }
            }
            QoS::ExactlyOnce => {
                if let Some(received) = inbound.get_mut(packet_id)
                    && received.fate == Fate::Open
                    && received.place == token.place
                {
                    received.fate = Fate::Rejected;
                    received.reason = reason;
                }
            }
        }
    }

    fn open_puback(&mut self, token: Token) -> Option<&mut PubAck> {
        let position = token.place.wrapping_sub(self.first) as usize;
        self.pubacks
            .as_mut()?
            .get_mut(position)
            .filter(|ack| ack.reason.is_none())
    }

    /// PUBREL: the identifier is free, and PUBCOMP follows when that is durable.
    pub(crate) fn handle_pubrel(
        &mut self,
        inbound: &mut Inbound,
        journal: &mut Journal,
        packet_id: PacketId,
    ) -> Result<(), Error> {
        let reason = match inbound.get_mut(packet_id).map(|received| received.fate) {
            Some(Fate::Accepted) => {
                if let Some(received) = inbound.remove(packet_id) {
                    self.keep_pubrecs(packet_id, &received);
                }
                inbound.last_removal = journal.record(Change::InboundReleased { packet_id });
                ReasonCode::SUCCESS
            }
            // PUBREL before PUBREC.
            Some(_) => {
                return Err(Error::UnexpectedAck {
                    packet_type: PacketType::PubRel,
                    packet_id,
                });
            }
            None => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        let after = inbound.last_removal;
        let packet_type = PacketType::PubComp;
        self.qos2().replies.push_back(Reply {
            after,
            packet_id,
            reason,
            packet_type,
        });
        Ok(())
    }

    /// The identifier was released before all of its PUBRECs were written: they are written all the same
    /// ([MQTT-4.3.3-8]), before PUBCOMP.
    fn keep_pubrecs(&mut self, packet_id: PacketId, received: &Received) {
        let acks = self.qos2();
        let unwritten = acks
            .pubrecs
            .iter_mut()
            .filter(|pubrec| pubrec.packet_id == packet_id && pubrec.released.is_none());
        for pubrec in unwritten {
            pubrec.released = Some((received.after, received.reason));
        }
    }

    /// Answers a PUBREC out of turn.
    pub(crate) fn reply_pubrel(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let packet_type = PacketType::PubRel;
        self.qos2().replies.push_back(Reply {
            after: ChangeNumber::ZERO,
            packet_id,
            reason,
            packet_type,
        });
    }

    /// Writes what may leave. True: more may, but the limit is reached.
    pub(crate) fn transmit(
        &mut self,
        inbound: &mut Inbound,
        writer: AckWriter<'_>,
        out: &mut impl Buffer,
    ) -> bool {
        let AckWriter {
            version,
            journal,
            limit,
            maximum,
        } = writer;
        while let Some(pubacks) = &mut self.pubacks
            && let Some(&PubAck {
                after,
                packet_id,
                reason: Some(reason),
            }) = pubacks.front()
        {
            if !journal.is_durable(after) {
                break;
            }
            if out.size() >= limit {
                return true;
            }
            write_ack(PacketType::PubAck, packet_id, reason, version, out.bytes());
            pubacks.pop_front();
            self.first = self.first.wrapping_add(1);
            self.unacknowledged -= 1;
        }
        let Some(acks) = &mut self.qos2 else {
            return false;
        };
        while let Some(&PubRec {
            packet_id,
            released,
        }) = acks.pubrecs.front()
        {
            let (after, reason, fate) = match (released, inbound.get_mut(packet_id)) {
                (Some((after, reason)), _) => (after, reason, Fate::Accepted),
                (None, Some(received)) => (received.after, received.reason, received.fate),
                (None, None) => {
                    acks.pubrecs.pop_front();
                    continue;
                }
            };
            if fate == Fate::Open || !journal.is_durable(after) {
                break;
            }
            if out.size() >= limit {
                return true;
            }
            write_ack(PacketType::PubRec, packet_id, reason, version, out.bytes());
            acks.pubrecs.pop_front();
            if fate == Fate::Rejected {
                inbound.remove(packet_id);
                self.unacknowledged -= 1;
            }
        }
        while let Some(&Reply {
            after,
            packet_id,
            reason,
            packet_type,
        }) = acks.replies.front()
        {
            if !journal.is_durable(after) {
                break;
            }
            if out.size() >= limit {
                return true;
            }
            write_ack(packet_type, packet_id, reason, version, out.bytes());
            acks.replies.pop_front();
            if packet_type == PacketType::PubComp {
                self.unacknowledged = (self.unacknowledged - 1).max(-maximum);
            }
        }
        false
    }
}
