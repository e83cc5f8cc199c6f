//! The sender's part of a session: the queue, and what is in flight until its last acknowledgement.
//!
//! ```text
//!            push            identifier, Change::Sent          PUBREC < 0x80
//!   caller --------> queue -----------------------> published ---------------> released
//!                      |                              |  QoS 1: PUBACK            | PUBCOMP
//!                      | QoS 0: written               |  QoS 2: PUBREC >= 0x80    |
//!                      v                              v                           v
//!                     done                        completed                   completed
//! ```

#[cfg(test)]
mod tests;

use mqtt_codec::{PacketId, PacketType, QoS, ReasonCode};

use crate::{
    Change, ChangeNumber, Completed, Error, InFlightState, Outgoing,
    change::Journal,
    packet_ids::{PacketIdMap, next_free},
    queue::Queue,
    ring::Ring,
};

/// A message whose PUBLISH is not acknowledged yet.
#[derive(Debug, Clone)]
pub(crate) struct Published<H> {
    /// None: sent, and not kept. What is not sent is kept.
    pub(crate) handle: Option<H>,
    /// It leaves when this is durable.
    pub(crate) after: ChangeNumber,
    pub(crate) packet_id: PacketId,
    pub(crate) qos: QoS,
    /// It may have been sent, on this or an earlier connection.
    pub(crate) sent: bool,
}

impl<H> Published<H> {
    pub(crate) const fn state(&self) -> InFlightState {
        if self.sent {
            InFlightState::Published
        } else {
            InFlightState::Assigned
        }
    }
}

/// A QoS 2 message that the peer owns: PUBREL is sent or to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Released<H> {
    pub(crate) handle: Option<H>,
    /// PUBREL leaves when this is durable.
    pub(crate) after: ChangeNumber,
    pub(crate) packet_id: PacketId,
}

/// What an identifier in use stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    Published(u32),
    Released(u32),
    /// A SUBSCRIBE or UNSUBSCRIBE of the caller, until the connection ends.
    Request,
}

/// What the sender asks the connection to write in answer to an acknowledgement.
pub(crate) struct Answer {
    pub(crate) pubrel: PacketId,
    pub(crate) reason: ReasonCode,
}

/// How far an acknowledgement brought a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// PUBREL follows.
    GoesOn,
    /// Its identifier is free.
    Ended,
}

#[derive(Debug, Clone)]
pub(crate) struct Outbound<H> {
    pub(crate) queue: Queue<H>,
    /// In the order they are sent.
    pub(crate) published: Ring<Published<H>>,
    /// In the order of their PUBRECs.
    pub(crate) released: Ring<Released<H>>,
    /// What the messages in flight that are kept cost.
    pub(crate) in_flight_size: usize,
    pub(crate) ids: PacketIdMap<Use>,
    pub(crate) last_id: u16,
    /// Acknowledgements for identifiers that are not in use.
    pub(crate) unknown_acks: u32,
    /// The first of `published` that is not sent on this connection.
    pub(crate) next_publish: u32,
    /// The first of `released` whose PUBREL is not sent on this connection.
    pub(crate) next_release: u32,
    /// How many of `published` are sent on this connection.
    pub(crate) unacknowledged: u32,
}

/// Whether `number` comes before `cursor` in a ring.
const fn is_before(number: u32, cursor: u32) -> bool {
    cursor.wrapping_sub(number).cast_signed() > 0
}

/// Takes the handle of a message in flight, which costs nothing there any more.
#[inline]
fn take_handle<H: Outgoing>(handle: &mut Option<H>, in_flight_size: &mut usize) -> Option<H> {
    // Most are not kept: nothing is moved then.
    let size = handle.as_ref()?.size();
    *in_flight_size = in_flight_size.saturating_sub(size);
    handle.take()
}

impl<H: Outgoing> Outbound<H> {
    pub(crate) const fn new() -> Self {
        Self {
            queue: Queue::new(),
            published: Ring::new(),
            released: Ring::new(),
            in_flight_size: 0,
            ids: PacketIdMap::new(),
            last_id: 0,
            unknown_acks: 0,
            next_publish: 0,
            next_release: 0,
            unacknowledged: 0,
        }
    }

    /// A connection begins: all that is in flight is to be sent again.
    pub(crate) const fn begin(&mut self) {
        self.next_publish = self.published.first();
        self.next_release = self.released.first();
        self.unacknowledged = 0;
    }

    /// A connection ends: the caller's requests end with it.
    pub(crate) fn end(&mut self) {
        if self.ids.len() > self.in_flight_len() {
            self.ids.retain(|_, used| !matches!(used, Use::Request));
        }
    }

    pub(crate) const fn in_flight_len(&self) -> usize {
        self.published.len() + self.released.len()
    }

    /// Whether all that has an identifier is sent on this connection, so that what follows keeps order.
    pub(crate) fn is_caught_up(&self) -> bool {
        self.next_publish == self.published.end()
    }

    /// Whether something waits to be sent: for room, for the store, or for nothing.
    pub(crate) fn has_output(&self) -> bool {
        self.queue.len() > 0 || !self.is_caught_up() || self.next_release != self.released.end()
    }

    /// An identifier for a request of the caller.
    pub(crate) fn allocate(&mut self) -> Option<PacketId> {
        let id = next_free(&self.ids, self.last_id)?;
        self.last_id = id.get();
        self.ids.insert(id, Use::Request);
        Some(id)
    }

    pub(crate) fn release_request(&mut self, id: PacketId) -> bool {
        let is_request = matches!(self.ids.get(id), Some(Use::Request));
        if is_request {
            self.ids.remove(id);
        }
        is_request
    }

    /// Gives a message from the queue an identifier. The caller has seen that one is free.
    pub(crate) fn assign(&mut self, handle: H, journal: &mut Journal) -> Option<PacketId> {
        let packet_id = next_free(&self.ids, self.last_id)?;
        self.last_id = packet_id.get();
        let qos = handle.qos();
        let number = journal.record(Change::Sent {
            packet_id,
            qos,
            key: handle.key(),
        });
        let after = if qos == QoS::ExactlyOnce {
            number
        } else {
            ChangeNumber::ZERO
        };
        self.publish(Published {
            handle: Some(handle),
            after,
            packet_id,
            qos,
            sent: false,
        });
        Some(packet_id)
    }

    /// Takes note of a message that was sent under the identifier `packet_id`, which is free, and is not kept.
    /// All before it are sent.
    pub(crate) fn sent(&mut self, packet_id: PacketId, qos: QoS) {
        self.last_id = packet_id.get();
        let number = self.published.push(Published {
            handle: None,
            after: ChangeNumber::ZERO,
            packet_id,
            qos,
            sent: true,
        });
        self.ids.insert(packet_id, Use::Published(number));
        self.next_publish = number.wrapping_add(1);
        self.unacknowledged += 1;
    }

    /// The identifier that the next message gets, if the send quota lets it have one.
    pub(crate) fn next_id(&self, send_maximum: u32) -> Option<PacketId> {
        if self.in_flight_len() >= send_maximum as usize || !self.has_identifier() {
            return None;
        }
        next_free(&self.ids, self.last_id)
    }

    /// Whether an identifier is free.
    pub(crate) const fn has_identifier(&self) -> bool {
        self.ids.len() < u16::MAX as usize
    }

    pub(crate) fn publish(&mut self, message: Published<H>) {
        let packet_id = message.packet_id;
        self.in_flight_size = self
            .in_flight_size
            .saturating_add(message.handle.as_ref().map_or(0, H::size));
        let number = self.published.push(message);
        self.ids.insert(packet_id, Use::Published(number));
    }

    pub(crate) fn release(&mut self, message: Released<H>) {
        let packet_id = message.packet_id;
        self.in_flight_size = self
            .in_flight_size
            .saturating_add(message.handle.as_ref().map_or(0, H::size));
        let number = self.released.push(message);
        self.ids.insert(packet_id, Use::Released(number));
    }

    /// Takes a message out; its handle, if it is kept.
    pub(crate) fn unpublish(&mut self, number: u32) -> Option<H> {
        let message = self.published.get_mut(number)?;
        let handle = take_handle(&mut message.handle, &mut self.in_flight_size);
        self.forget_published(number);
        handle
    }

    /// Takes a message out whose handle was taken, or never kept.
    #[inline]
    fn forget_published(&mut self, number: u32) {
        self.published.remove(number);
        if is_before(number, self.next_publish) {
            self.unacknowledged = self.unacknowledged.saturating_sub(1);
        }
        if self.published.is_sparse() {
            self.compact_published();
        }
    }

    /// The same of a message whose PUBREC came.
    pub(crate) fn unrelease(&mut self, number: u32) -> Option<H> {
        let message = self.released.get_mut(number)?;
        let handle = take_handle(&mut message.handle, &mut self.in_flight_size);
        self.forget_released(number);
        handle
    }

    #[inline]
    fn forget_released(&mut self, number: u32) {
        self.released.remove(number);
        if self.released.is_sparse() {
            self.compact_released();
        }
    }

    #[cold]
    fn compact_published(&mut self) {
        let before = |(n, _): &(u32, _)| is_before(*n, self.next_publish);
        let sent = self.published.iter().filter(before).count();
        self.published.compact();
        self.next_publish = self
            .published
            .first()
            .wrapping_add(u32::try_from(sent).unwrap_or(u32::MAX));
        for (number, message) in self.published.iter() {
            self.ids.insert(message.packet_id, Use::Published(number));
        }
    }

    #[cold]
    fn compact_released(&mut self) {
        let before = |(n, _): &(u32, _)| is_before(*n, self.next_release);
        let sent = self.released.iter().filter(before).count();
        self.released.compact();
        self.next_release = self
            .released
            .first()
            .wrapping_add(u32::try_from(sent).unwrap_or(u32::MAX));
        for (number, message) in self.released.iter() {
            self.ids.insert(message.packet_id, Use::Released(number));
        }
    }

    /// The end of a message: its identifier is free.
    fn complete(&mut self, packet_id: PacketId, journal: &mut Journal) {
        self.ids.remove(packet_id);
        journal.record(Change::Completed { packet_id });
    }

    /// Ends a message that cannot be sent again. The peer may hold the identifier of a QoS 2 message,
    /// so that is released in the regular way, never just forgotten.
    pub(crate) fn abandon(&mut self, number: u32, journal: &mut Journal) -> Option<H> {
        let message = self.published.get(number)?;
        let (packet_id, qos, sent) = (message.packet_id, message.qos, message.sent);
        let handle = self.unpublish(number);
        if qos == QoS::ExactlyOnce && sent {
            let after = journal.record(Change::PubRecReceived { packet_id });
            self.release(Released {
                handle: None,
                after,
                packet_id,
            });
        } else {
            self.complete(packet_id, journal);
        }
        handle
    }

    /// Goes on with a message of which nothing is kept but its identifier, as with most that a server sends, after an
    /// acknowledgement without an error. What then is known of it: whether it came to its end. `None`: it is another
    /// message, or the acknowledgement does not fit, and nothing was done.
    #[inline]
    pub(crate) fn advance_unkept(
        &mut self,
        packet_type: PacketType,
        packet_id: PacketId,
        journal: &mut Journal,
    ) -> Option<Progress> {
        match (packet_type, self.ids.get(packet_id)?) {
            (PacketType::PubAck | PacketType::PubRec, Use::Published(number)) => {
                let message = self.published.get(number)?;
                let answers = match message.qos {
                    QoS::ExactlyOnce => PacketType::PubRec,
                    _ => PacketType::PubAck,
                };
                if message.handle.is_some() || packet_type != answers {
                    return None;
                }
                self.forget_published(number);
                if packet_type == PacketType::PubRec {
                    let after = journal.record(Change::PubRecReceived { packet_id });
                    self.release(Released {
                        handle: None,
                        after,
                        packet_id,
                    });
                    return Some(Progress::GoesOn);
                }
            }
            (PacketType::PubComp, Use::Released(number)) => {
                if self.released.get(number)?.handle.is_some() {
                    return None;
                }
                self.forget_released(number);
            }
            _ => return None,
        }
        self.complete(packet_id, journal);
        Some(Progress::Ended)
    }

    pub(crate) fn handle_ack(
        &mut self,
        packet_type: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        journal: &mut Journal,
    ) -> Result<(Option<Completed<H>>, Option<Answer>), Error> {
        let unexpected = Error::UnexpectedAck {
            packet_type,
            packet_id,
        };
        let Some(used) = self.ids.get(packet_id) else {
            self.unknown_acks = self.unknown_acks.saturating_add(1);
            let answer = (packet_type == PacketType::PubRec).then_some(Answer {
                pubrel: packet_id,
                reason: ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            });
            return Ok((None, answer));
        };
        let handle = match (packet_type, used) {
            (PacketType::PubAck | PacketType::PubRec, Use::Published(number)) => {
                let qos = if packet_type == PacketType::PubAck {
                    QoS::AtLeastOnce
                } else {
                    QoS::ExactlyOnce
                };
                if !self
                    .published
                    .get(number)
                    .is_some_and(|message| message.qos == qos && message.sent)
                {
                    return Err(unexpected);
                }
                let handle = self.unpublish(number);
                if qos == QoS::ExactlyOnce && !reason.is_error() {
                    let after = journal.record(Change::PubRecReceived { packet_id });
                    self.release(Released {
                        handle,
                        after,
                        packet_id,
                    });
                    return Ok((None, None));
                }
                handle
            }
            // The peer repeats its PUBREC, as MQTT 3.1 lets it: PUBREL again, unless it is still to come.
            (PacketType::PubRec, Use::Released(number)) if !reason.is_error() => {
                let answer = is_before(number, self.next_release).then_some(Answer {
                    pubrel: packet_id,
                    reason: ReasonCode::SUCCESS,
                });
                return Ok((None, answer));
            }
            (PacketType::PubRec | PacketType::PubComp, Use::Released(number)) => {
                self.unrelease(number)
            }
            _ => return Err(unexpected),
        };
        self.complete(packet_id, journal);
        Ok((
            Some(Completed {
                handle,
                packet_id,
                reason,
            }),
            None,
        ))
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        self.queue.shrink();
        self.published.shrink();
        self.released.shrink();
        self.ids.shrink();
    }
}
