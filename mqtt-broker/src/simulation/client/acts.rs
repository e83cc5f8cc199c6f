//! What a client does by itself: it publishes, subscribes, leaves, and says what it owes as an answer.

use core::time::Duration;

use mqtt_codec::{
    Disconnect, Packet, PacketId, Publish, QoS, ReasonCode, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, Unsubscribe,
};
use tokio::time::Instant;

use super::{Client, Next, Outgoing, Role, SILENCE};
use crate::simulation::conversation::Conversation;
use crate::simulation::model::LONG;

/// Messages that a publisher has on their way at most.
const WINDOW: usize = 8;
/// How often a client that has nothing else to say asks for a sign of life.
const PING: Duration = Duration::from_secs(4);
/// Kinds of retained topics that each publisher has.
const KEPT: usize = 6;

impl Client {
    /// What a client does by itself; `None` where the connection breaks.
    pub(super) async fn act(&mut self, talk: &mut Conversation) -> Option<Next> {
        let now = Instant::now();
        if now - talk.heard > SILENCE {
            return Some(Next::Leaves);
        }
        if now - talk.said > PING {
            talk.pings.push_back(talk.next_said());
            if !talk.say(self.version, &Packet::PingReq).await {
                return None;
            }
        }
        while let Some(answer) = talk.answers.pop_front() {
            let said = talk.next_said();
            if !talk.say(self.version, &answer).await {
                talk.answers.push_front(answer);
                return None;
            }
            talk.note_answer(&answer, said);
        }
        let calm = self.world.is_calm();
        if !calm && self.random.once_in(60) {
            if self.random.once_in(2) {
                talk.is_farewell = true;
                let bye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
                talk.say(self.version, &Packet::Disconnect(bye)).await;
            }
            return Some(Next::Leaves);
        }
        let done = match &self.role {
            Role::Publisher if calm && self.last_words == 0 => return self.depart(talk).await,
            Role::Publisher => {
                self.last_words -= usize::from(calm);
                self.publish_next(talk).await
            }
            Role::Subscriber { .. } => self.subscribe_next(calm, talk).await,
        };
        done.then_some(Next::Goes)
    }

    async fn publish_next(&mut self, talk: &mut Conversation) -> bool {
        if self.outgoing.len() >= WINDOW {
            return true;
        }
        let kind = self.random.below(4);
        let (topic, qos, retain) = match kind {
            3 => {
                let topic = format!("kept/{}/{}", self.index, self.random.below(KEPT));
                (topic, QoS::AtLeastOnce, true)
            }
            _ => {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][kind];
                (format!("t/{}/{kind}", self.index), qos, false)
            }
        };
        let expiry = match self.random.below(16) {
            _ if !self.version.has_properties() => None,
            0 | 1 => Some(LONG + self.random.below(1_000) as u32),
            2 => Some(1 + self.random.below(7) as u32),
            3 if !retain => Some(1 + self.random.below(7) as u32),
            _ => None,
        };
        self.publish_new(&topic, qos, retain, expiry, talk).await
    }

    pub(super) async fn publish_new(
        &mut self,
        topic: &str,
        qos: QoS,
        retain: bool,
        expiry: Option<u32>,
        talk: &mut Conversation,
    ) -> bool {
        let number = self.world.model().send(topic, qos, retain, expiry);
        let mut packet_id = None;
        if qos != QoS::AtMostOnce {
            let free = self.free_id();
            packet_id = Some(free);
            self.outgoing.push_back(Outgoing {
                packet_id: free,
                number,
                received: false,
            });
        }
        self.publish(number, packet_id, false, talk).await
    }

    pub(super) async fn publish(
        &mut self,
        number: usize,
        packet_id: Option<PacketId>,
        dup: bool,
        talk: &mut Conversation,
    ) -> bool {
        let (topic, qos, retain, expiry) = {
            let mut model = self.world.model();
            model.messages[number].times += 1;
            let message = model.message(number);
            let topic = message.topic.clone();
            (topic, message.qos, message.retain, message.expiry)
        };
        let index = self.index;
        self.world.trace.note(format_args!(
            "{index} > PUBLISH {number} {topic} {qos:?} {packet_id:?} {expiry:?}"
        ));
        let payload = number.to_string();
        let name = TopicName::new(&topic).unwrap();
        let mut publish = Publish::new(name, payload.as_bytes());
        publish.qos = qos;
        publish.retain = retain;
        publish.dup = dup;
        publish.packet_id = packet_id;
        publish.properties.message_expiry_interval = expiry;
        if expiry.is_some() && qos == QoS::AtMostOnce {
            talk.unproven.push(number);
        }
        talk.say(self.version, &Packet::Publish(publish)).await
    }

    /// An identifier that is not in use. A small range, so that each is used again soon.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id % 20 + 1;
            let id = PacketId::new(self.last_id).unwrap();
            if self.outgoing.iter().all(|it| it.packet_id != id) {
                return id;
            }
        }
    }

    async fn subscribe_next(&mut self, calm: bool, talk: &mut Conversation) -> bool {
        let Role::Subscriber { filters } = &self.role else {
            return true;
        };
        if talk.asked.is_some() {
            return true;
        }
        let missing = (0..filters.len()).find(|it| !self.subscribed.contains(it));
        let id = PacketId::new(30_000).unwrap();
        let (index, subscribes) = match missing {
            Some(index) => (index, true),
            None if !calm && self.random.once_in(150) => (self.random.below(filters.len()), false),
            None => return true,
        };
        let (filter, qos) = filters[index].clone();
        talk.asked = Some((id, index, subscribes));
        talk.asked_as = talk.next_said();
        let parsed = TopicFilter::new(&filter).unwrap();
        let packet = if subscribes {
            self.world.model().asks(self.index, &filter);
            Packet::Subscribe(Subscribe::new(id, vec![SubscribeFilter::new(parsed, qos)]))
        } else {
            self.world.model().unsubscribe(self.index, &filter);
            self.subscribed.remove(&index);
            Packet::Unsubscribe(Unsubscribe::new(id, vec![parsed]))
        };
        talk.say(self.version, &packet).await
    }
}
