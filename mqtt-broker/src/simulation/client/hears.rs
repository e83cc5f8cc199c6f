//! What a client hears, what it answers, and what the model is told of it.

use mqtt_codec::{Packet, Publish, QoS};
use tokio::time::{Instant, sleep_until};

use super::{Client, Next, Role, success};
use crate::config::Durability;
use crate::simulation::conversation::Conversation;
use crate::simulation::expiry::Arrival;

impl Client {
    /// Hears and says until the connection ends; tells why.
    pub(super) async fn talk(&mut self, talk: &mut Conversation) -> &'static str {
        let mut act = Instant::now() + self.random.millis(0..50);
        loop {
            let version = self.version;
            let frame = tokio::select! {
                biased;
                frame = talk.next(version) => match frame {
                    Some(frame) => frame,
                    None => return "closed",
                },
                () = sleep_until(act) => {
                    let pause = if self.role == Role::Publisher { 5..300 } else { 1..120 };
                    act = Instant::now() + self.random.millis(pause);
                    match self.act(talk).await {
                        Some(Next::Goes) => continue,
                        Some(Next::Leaves) => return "left",
                        None => return "broken",
                    }
                }
            };
            talk.heard = Instant::now();
            let text = match frame.packet(version) {
                Ok(packet) => self.handle(&packet, talk).err(),
                Err(error) => Some(format!("sent what is no packet: {error}")),
            };
            if let Some(text) = text {
                self.world
                    .model()
                    .fail(format!("client {}: the broker {text}", self.index));
                return "failed";
            }
        }
    }

    /// What the broker may not send is an error, in words that follow "the broker".
    fn handle(&mut self, packet: &Packet<'_>, talk: &mut Conversation) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => return self.receive(publish, talk),
            Packet::PubRel(ack) => {
                let known = self.incoming.remove(&ack.packet_id.get());
                if let Some(said) = talk.released_by.remove(&ack.packet_id.get()) {
                    self.settle(talk, said, true);
                }
                self.note(format_args!("PUBREL {}, {known}", ack.packet_id));
                talk.answers
                    .push_back(Packet::PubComp(success(ack.packet_id)));
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                self.note(format_args!("{:?} {}", packet.packet_type(), ack.packet_id));
                let wanted = match packet {
                    Packet::PubAck(_) => QoS::AtLeastOnce,
                    _ => QoS::ExactlyOnce,
                };
                let place = self
                    .outgoing
                    .iter()
                    .position(|it| it.packet_id == ack.packet_id);
                let place = place
                    .ok_or_else(|| format!("acknowledged {}, which is free", ack.packet_id))?;
                if ack.reason_code.is_error() {
                    return Err(format!("refused a message: {}", ack.reason_code));
                }
                let number = self.outgoing[place].number;
                let mut model = self.world.model();
                talk.prove_before(number, &mut model);
                let message = model.message(number);
                if message.retain || message.qos == QoS::ExactlyOnce {
                    talk.is_will_kept |= talk.will.is_some_and(|will| will < number);
                }
                if model.message(number).qos != wanted {
                    return Err(format!("answered {} of another QoS", ack.packet_id));
                }
                model.acknowledge(number);
                if wanted == QoS::AtLeastOnce {
                    self.outgoing.remove(place);
                } else {
                    self.outgoing[place].received = true;
                    talk.answers
                        .push_back(Packet::PubRel(success(ack.packet_id)));
                }
            }
            Packet::PubComp(ack) => {
                self.note(format_args!("PUBCOMP {}", ack.packet_id));
                let place = self
                    .outgoing
                    .iter()
                    .position(|it| it.packet_id == ack.packet_id);
                let place = place.filter(|place| self.outgoing[*place].received);
                let place = place.ok_or_else(|| {
                    format!("completed {}, which waits for nothing", ack.packet_id)
                })?;
                self.outgoing.remove(place);
            }
            Packet::SubAck(suback) => {
                let (id, index, subscribes) = talk
                    .asked
                    .take()
                    .ok_or("sent a SUBACK that nobody waits for")?;
                if id != suback.packet_id
                    || !subscribes
                    || suback.reason_codes.iter().any(|it| it.is_error())
                {
                    return Err(format!("answered SUBSCRIBE with {suback:?}"));
                }
                self.note(format_args!("SUBACK {index}"));
                self.settle(talk, talk.asked_as, true);
                self.subscribed.insert(index);
                if let Role::Subscriber { filters } = &self.role {
                    let (filter, qos) = &filters[index];
                    self.world.model().subscribe(self.index, filter, *qos);
                }
            }
            Packet::UnsubAck(unsuback) => {
                let (id, _, subscribes) = talk
                    .asked
                    .take()
                    .ok_or("sent an UNSUBACK that nobody waits for")?;
                if id != unsuback.packet_id || subscribes {
                    return Err(format!("answered UNSUBSCRIBE with {unsuback:?}"));
                }
                self.note(format_args!("UNSUBACK"));
            }
            Packet::PingResp => {
                if let Some(said) = talk.pings.pop_front() {
                    self.settle(talk, said, false);
                }
            }
            Packet::Disconnect(disconnect) => {
                self.note(format_args!("DISCONNECT {}", disconnect.reason_code));
            }
            other => return Err(format!("sent {other:?}")),
        }
        Ok(())
    }

    fn receive(&mut self, publish: &Publish<'_>, talk: &mut Conversation) -> Result<(), String> {
        let topic = publish.topic.ok_or("sent no topic")?.as_str().to_owned();
        let number = core::str::from_utf8(publish.payload)
            .ok()
            .and_then(|it| it.parse().ok());
        let number: usize = number.ok_or("sent a payload that nobody sent")?;
        let mut fresh = true;
        if let Some(id) = publish.packet_id {
            if !talk.open.insert(id.get()) {
                return Err(format!("used {id} for two messages"));
            }
            if self.version.has_properties() && talk.open.len() > usize::from(self.receive_maximum)
            {
                return Err(format!("sent more than {} messages", self.receive_maximum));
            }
            let answer = if publish.qos == QoS::ExactlyOnce {
                fresh = self.incoming.insert(id.get());
                Packet::PubRec(success(id))
            } else {
                talk.once.insert(id.get(), number);
                Packet::PubAck(success(id))
            };
            talk.answers.push_back(answer);
        }
        self.note(format_args!(
            "PUBLISH {number} {:?} {:?} {fresh}",
            publish.qos, publish.packet_id
        ));
        if fresh {
            let mut model = self.world.model();
            let arrival = Arrival {
                left: publish.properties.message_expiry_interval,
                has_properties: self.version.has_properties(),
                dup: publish.dup,
                sent_after: talk.sent_after(talk.heard),
            };
            model.check_expiry(self.index, number, arrival);
            if publish.retain {
                model.deliver_retained(self.index, number, &topic);
            } else {
                model.deliver_to_group(self.index, number, publish.qos);
                model.check_repeats(self.index, number, publish.qos, talk.number);
                model.check_wills(self.index, number, publish.qos);
                model.deliver(self.index, number, &topic, publish.qos);
            }
        }
        Ok(())
    }

    /// The broker has answered what was said as this packet, and has what was said before; what it answers when it is
    /// stored is stored, as far as the session is on the disk.
    fn settle(&self, talk: &mut Conversation, said: u64, when_stored: bool) {
        let is_stored = when_stored && self.level == Durability::Disk;
        let proven = talk.proven(said).into_iter();
        let mut model = self.world.model();
        model.settle_acknowledged(self.index, proven, is_stored);
    }
}
