//! What an end has promised and seen, kept apart from the machine: the properties of one end.

use std::collections::{BTreeMap, VecDeque};

use mqtt_codec::{Packet, PacketType, Publish, QoS};

use super::setup::Setup;
use crate::message::key_of;

/// The key of a message of the model.
pub(super) fn key(publish: &Publish<'_>) -> u8 {
    u8::try_from(key_of(publish.payload)).expect("a key of the model")
}

/// What is known of one end, over its crashes too.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// The identifiers in flight from this end and the messages they stand for.
    pub(super) in_flight: BTreeMap<u16, u8>,
    /// Those whose PUBLISH went over this connection.
    unacknowledged: Vec<u16>,
    /// One bit a key: the peer has said that it took the message.
    pub(super) acknowledged: u8,
    /// The QoS 2 identifiers of the peer and the message last delivered under each.
    received: BTreeMap<u16, u8>,
    /// The highest key delivered on this connection, of each quality of service.
    delivered: [u8; 3],
    /// The identifiers of QoS 1 and of QoS 2 messages that came on this connection and are not answered.
    unanswered: [VecDeque<u16>; 2],
}

impl Watch {
    /// A packet that this end writes.
    pub(super) fn sends(&mut self, packet: &Packet<'_>, window: usize) -> Result<(), String> {
        let publish = match packet {
            Packet::Publish(publish) => publish,
            Packet::PubAck(ack) => return self.answers(0, ack.packet_id.get()),
            Packet::PubRec(ack) => return self.answers(1, ack.packet_id.get()),
            _ => return Ok(()),
        };
        let Some(id) = publish.packet_id.map(mqtt_codec::PacketId::get) else {
            return Ok(());
        };
        let key = key(publish);
        let known = self.in_flight.insert(id, key);
        if let Some(known) = known.filter(|known| *known != key) {
            return Err(format!("identifier {id} is in flight for #{known}"));
        }
        if known.is_some() && !publish.dup {
            return Err(format!("#{key} is sent again without DUP"));
        }
        if self.unacknowledged.contains(&id) {
            return Err(format!("#{key} is sent twice on one connection"));
        }
        self.unacknowledged.push(id);
        if self.unacknowledged.len() > window {
            return Err(format!("beyond the Receive Maximum of {window}"));
        }
        Ok(())
    }

    /// A PUBACK or PUBREC that this end writes: one for each PUBLISH, in their order.
    fn answers(&mut self, which: usize, id: u16) -> Result<(), String> {
        match self.unanswered[which].pop_front() {
            Some(first) if first == id => Ok(()),
            first => Err(format!(
                "identifier {id} is acknowledged, but {first:?} is next"
            )),
        }
    }

    /// A PUBLISH that this end reads, new or not.
    pub(super) fn meets(&mut self, publish: &Publish<'_>) {
        if let Some(id) = publish.packet_id {
            self.unanswered[publish.qos as usize - 1].push_back(id.get());
        }
    }

    /// An acknowledgement that this end reads.
    pub(super) fn reads(&mut self, packet_type: PacketType, id: u16) {
        if packet_type == PacketType::PubRel {
            return;
        }
        if let Some(key) = self.in_flight.get(&id) {
            self.acknowledged |= 1 << key;
        }
        if packet_type != PacketType::PubRec {
            self.in_flight.remove(&id);
            self.unacknowledged.retain(|other| *other != id);
        }
    }

    /// A message that the machine says is new.
    pub(super) fn delivers(&mut self, publish: &Publish<'_>) -> Result<(), String> {
        let key = key(publish);
        let last = &mut self.delivered[publish.qos as usize];
        if *last >= key {
            return Err(format!("#{key} comes after #{last} on one connection"));
        }
        *last = key;
        if publish.qos == QoS::ExactlyOnce {
            let id = publish.packet_id.expect("an identifier").get();
            self.received.insert(id, key);
        }
        Ok(())
    }

    /// A message that the machine says it has had.
    pub(super) fn repeats(&self, publish: &Publish<'_>) -> Result<(), String> {
        let key = key(publish);
        let id = publish.packet_id.expect("an identifier").get();
        match self.received.get(&id) {
            Some(known) if *known == key => Ok(()),
            Some(known) => Err(format!("#{key} is taken for a duplicate of #{known}")),
            None => Err(format!("#{key} is taken for a duplicate of nothing")),
        }
    }

    /// The connection ends.
    pub(super) fn ends(&mut self) {
        self.unacknowledged.clear();
        self.delivered = [0; 3];
        self.unanswered = [VecDeque::new(), VecDeque::new()];
    }

    /// What is taken, in order: once at QoS 0 and 2, and for the first time in the order sent.
    pub(super) fn takes(
        &self,
        setup: &Setup,
        sender: usize,
        taken: impl Iterator<Item = u8>,
    ) -> Result<(), String> {
        let mut last = [0; 3];
        let mut seen = 0_u8;
        for key in taken {
            let qos = setup.qos_of(sender, key);
            let is_known = seen & (1 << key) != 0;
            if is_known && qos != QoS::AtLeastOnce {
                return Err(format!("#{key} is taken twice at QoS {}", qos as u8));
            }
            let last = &mut last[qos as usize];
            if !is_known && *last >= key && !setup.takes_in_any_order {
                return Err(format!("#{key} is taken after #{last}"));
            }
            seen |= 1 << key;
            *last = key.max(*last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use mqtt_codec::{PacketId, TopicName};

    use super::*;

    fn send(watch: &mut Watch, key: u64, id: u16, dup: bool) -> Result<(), String> {
        let payload = key.to_be_bytes();
        let mut publish = Publish::new(TopicName::new("a/topic").unwrap(), &payload);
        publish.qos = QoS::AtLeastOnce;
        publish.packet_id = PacketId::new(id);
        publish.dup = dup;
        watch.sends(&Packet::Publish(publish), 2)
    }

    #[test]
    fn an_identifier_is_not_used_twice() {
        let mut watch = Watch::default();
        send(&mut watch, 1, 1, false).unwrap();
        assert!(send(&mut watch, 1, 1, true).is_err(), "on one connection");
        watch.ends();
        assert!(send(&mut watch, 1, 1, false).is_err(), "without DUP");
        assert!(send(&mut watch, 2, 1, true).is_err(), "for another message");
        let mut watch = Watch::default();
        send(&mut watch, 1, 1, false).unwrap();
        watch.reads(PacketType::PubAck, 1);
        send(&mut watch, 2, 1, false).unwrap();
    }

    #[test]
    fn acknowledgements_keep_the_order_of_the_messages() {
        let mut watch = Watch::default();
        watch.unanswered[0].extend([3, 5]);
        assert!(watch.clone().answers(0, 5).is_err());
        watch.answers(0, 3).unwrap();
        watch.answers(0, 5).unwrap();
        assert!(watch.answers(0, 5).is_err());
    }
}
