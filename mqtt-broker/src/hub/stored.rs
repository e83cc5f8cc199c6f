//! The stored part of a session: its changes, as the store is told of them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use foldhash::fast::RandomState;
use mqtt_codec::{PacketId, QoS};
use mqtt_session::Change;

use crate::delivery::Delivery;
use crate::message::Message;
use crate::store::{BodyNumber, Entry, Key, Op, SessionNumber, Store};

/// What is known of the stored messages of a session, besides the session itself.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) number: SessionNumber,
    /// The messages in flight whose entries are stored, by identifier.
    in_flight: HashMap<PacketId, (Key, QoS), RandomState>,
    /// Where the bodies are that other sessions share.
    bodies: HashMap<Key, BodyNumber, RandomState>,
}

impl Stored {
    pub(crate) fn new(number: SessionNumber) -> Self {
        Self {
            number,
            in_flight: HashMap::default(),
            bodies: HashMap::default(),
        }
    }

    /// Takes note of a message that joins the session's queue.
    pub(crate) fn note(&mut self, delivery: &Delivery) {
        if let Some(body) = delivery.body {
            self.bodies.insert(delivery.key, body);
        }
    }

    /// Forgets a message that left the queue for somebody else's.
    pub(crate) fn forget(&mut self, delivery: &Delivery) {
        if delivery.body.is_some() {
            self.bodies.remove(&delivery.key);
        }
    }

    /// Takes note of a QoS 2 message that was in flight when it was read back.
    pub(crate) fn restore_sent(&mut self, packet_id: PacketId, key: Key) {
        self.in_flight.insert(packet_id, (key, QoS::ExactlyOnce));
    }

    /// The entry of a message goes.
    pub(crate) fn remove(&mut self, key: Key) -> Op {
        Op::Dequeued(self.number, key, self.bodies.remove(&key))
    }

    /// Adds what a change of the session means for the store.
    pub(crate) fn change(&mut self, change: Change, ops: &mut Vec<Op>) {
        let number = self.number;
        match change {
            Change::Sent {
                packet_id,
                qos,
                key,
            } => {
                self.in_flight.insert(packet_id, (key, qos));
                // At QoS 1 the message may come again under another identifier.
                if qos == QoS::ExactlyOnce {
                    ops.push(Op::Sent(number, packet_id, key));
                }
            }
            Change::Dropped { key } => ops.push(self.remove(key)),
            Change::PubRecReceived { packet_id } => {
                ops.push(Op::Released(number, packet_id));
                if let Some((key, _)) = self.in_flight.remove(&packet_id) {
                    ops.push(self.remove(key));
                }
            }
            Change::Completed { packet_id } => {
                let sent = self.in_flight.remove(&packet_id);
                if let Some((key, _)) = sent {
                    ops.push(self.remove(key));
                }
                if sent.is_none_or(|(_, qos)| qos == QoS::ExactlyOnce) {
                    ops.push(Op::Completed(number, packet_id));
                }
            }
            Change::InboundReceived { packet_id } => ops.push(Op::Received(number, packet_id)),
            Change::InboundReleased { packet_id } => ops.push(Op::Forgotten(number, packet_id)),
            // Not known to this version of the session.
            _ => {}
        }
    }
}

/// The entry of a message that joins the queue of a stored session.
pub(crate) fn queued(
    store: &Store,
    number: SessionNumber,
    message: &Arc<Message>,
    delivery: &Delivery,
) -> Op {
    let expires_at = message.expires_at;
    let group = delivery.group.as_ref().and_then(Weak::upgrade);
    let entry = Entry {
        message: Arc::clone(message),
        expires_at: expires_at.map(|time| store.clock().wall(time)),
        body: delivery.body,
        qos: delivery.qos,
        retain: delivery.retain,
        identifiers: delivery.identifiers.clone(),
        group: group.map(|group| Arc::clone(group.filter())),
    };
    Op::Queued(number, delivery.key, Box::new(entry))
}
