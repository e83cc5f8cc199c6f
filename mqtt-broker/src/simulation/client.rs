//! A client: it publishes, or subscribes, through connections that fail, and keeps its side of the session for good.

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use mqtt_codec::{
    Ack, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    Subscribe, SubscribeFilter, TopicFilter, TopicName, Unsubscribe, Will,
};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, sleep_until};

use super::conversation::Conversation;
use super::expiry::Arrival;
use super::groups;
use super::link::Link;
use super::model::LONG;
use super::random::Random;
use super::world::World;
use crate::config::Durability;

/// Messages that a publisher has on their way at most.
const WINDOW: usize = 8;
const KEEP_ALIVE: u16 = 10;
/// How often a client that has nothing else to say asks for a sign of life.
const PING: Duration = Duration::from_secs(4);
/// A connection on which nothing came for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(12);
/// By how many seconds a will waits that waits for long: longer than a client stays away while the broker is there.
const WILL_DELAY: u32 = 60;
/// By how many it waits that may come before its client is back: fewer than these.
const SHORT_DELAY: usize = 9;
/// So much later than it is due a will comes at most where nothing fails but the broker once.
const LATE: Duration = Duration::from_secs(10);
/// Kinds of retained topics that each publisher has.
const KEPT: usize = 6;
/// A client that is back so soon is back in time, however late the broker heard of its end.
const SOON: Duration = Duration::from_secs(30);
/// Longer than any run.
const EXPIRY: u32 = 100_000;

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To topics of its own.
    Publisher,
    /// With filters that come and go.
    Subscriber { filters: Vec<(String, QoS)> },
}

/// A message on its way to the broker.
struct Outgoing {
    packet_id: PacketId,
    number: usize,
    /// PUBREC has come.
    received: bool,
}

pub(super) struct Client {
    world: Arc<World>,
    pub(super) index: usize,
    name: String,
    version: ProtocolVersion,
    pub(super) level: Durability,
    role: Role,
    random: Random,
    /// In the order of sending; QoS 0 is not among them.
    outgoing: VecDeque<Outgoing>,
    /// Identifiers of QoS 2 messages that wait for PUBREL.
    incoming: BTreeSet<u16>,
    last_id: u16,
    /// The session is there, as far as the client knows.
    established: bool,
    /// Filters whose SUBACK came.
    subscribed: BTreeSet<usize>,
    receive_maximum: u16,
    /// It wants a new session, and may have got it already.
    renews: bool,
    /// Seconds by which its will waits, where it has one.
    will_delay: Option<u32>,
    /// Wills of connections that may wait, and when each was last known to have none yet.
    waiting_wills: Vec<(usize, Instant)>,
    /// It has left for good.
    is_gone: bool,
}

/// How a conversation goes on.
enum Next {
    Goes,
    /// The client leaves.
    Leaves,
}

impl Client {
    pub(super) fn new(
        world: &Arc<World>,
        index: usize,
        level: Durability,
        role: Role,
        mut random: Random,
    ) -> Self {
        let version = *random.pick(&[ProtocolVersion::V3_1_1, ProtocolVersion::V5]);
        // What a lesser level promises of wills is not looked at.
        let has_will = role == Role::Publisher && level == Durability::Disk;
        let delay = match random.below(4) {
            0 | 1 if version.has_properties() => WILL_DELAY,
            2 if version.has_properties() => 1 + random.below(SHORT_DELAY - 1) as u32,
            _ => 0,
        };
        let will_delay = has_will.then_some(delay);
        world.model().departing += usize::from(has_will);
        Self {
            world: Arc::clone(world),
            index,
            name: format!("client-{index}"),
            version,
            level,
            role,
            outgoing: VecDeque::new(),
            incoming: BTreeSet::new(),
            last_id: 0,
            established: false,
            subscribed: BTreeSet::new(),
            receive_maximum: 1 + random.below(6) as u16,
            renews: false,
            will_delay,
            waiting_wills: Vec::new(),
            is_gone: false,
            random,
        }
    }

    /// Connects again and again, until the run is over.
    pub(super) async fn run(mut self) {
        loop {
            match self.world.connect(self.level, &mut self.random) {
                Some((stream, link)) => {
                    let why = self.converse(stream, link).await;
                    let index = self.index;
                    self.world.trace.note(format_args!("{index} left: {why}"));
                    if self.is_gone {
                        return;
                    }
                }
                None => sleep(Duration::from_millis(50)).await,
            }
            let calm = self.world.is_calm();
            let pause = if calm || self.random.once_in(2) {
                1..100
            } else if self.is_member() && self.random.once_in(2) {
                3_000..9_000
            } else {
                100..3_000
            };
            sleep(self.random.millis(pause)).await;
        }
    }

    async fn converse(&mut self, stream: DuplexStream, link: Arc<Link>) -> &'static str {
        let mut talk = Conversation::new(stream, link);
        let now = talk.begun;
        // Now and then a subscriber begins anew, until it has got that. (In 3.1.1 the new session would not last.)
        let begins_anew = self.established
            && !self.renews
            && self.role != Role::Publisher
            && self.version.has_properties()
            && !self.world.is_calm()
            && self.random.once_in(if self.is_member() { 4 } else { 20 });
        if begins_anew {
            self.renews = true;
            self.world.model().excuse(self.index, self.receive_maximum);
        }
        let clean = self.renews;
        if clean {
            let mut model = self.world.model();
            model.void(self.index, false);
            model.unsettle();
        }
        let name = self.name.clone();
        let mut connect = Connect::new(self.version, &name);
        connect.clean_start = clean;
        connect.keep_alive = KEEP_ALIVE;
        let will = self.will_delay.map(|delay| {
            let topic = format!("will/{}", self.index);
            let number = {
                let mut model = self.world.model();
                let number = model.send_will(&topic, QoS::ExactlyOnce);
                model.due_from(number, now + Duration::from_secs(delay.into()));
                number
            };
            self.waiting_wills.push((number, now));
            talk.will = Some(number);
            (topic, number.to_string(), delay)
        });
        connect.will = will.as_ref().map(|(topic, payload, delay)| {
            let mut will = Will::new(TopicName::assume_valid(topic), payload.as_bytes());
            will.qos = QoS::ExactlyOnce;
            will.properties.delay_interval = Some(*delay).filter(|delay| *delay > 0);
            will
        });
        if self.version.has_properties() {
            connect.properties.session_expiry_interval = Some(EXPIRY);
            connect.properties.receive_maximum = NonZeroU16::new(self.receive_maximum);
        }
        if !talk
            .say(self.version, &Packet::Connect(Box::new(connect)))
            .await
        {
            return "no CONNECT was taken";
        }
        let Some(frame) = talk.hear(self.version, SILENCE).await else {
            return "no CONNACK";
        };
        let present = match frame.packet(self.version) {
            Ok(Packet::ConnAck(connack)) if connack.reason_code == ReasonCode::SUCCESS => {
                connack.session_present
            }
            Ok(Packet::ConnAck(_)) => return "refused",
            other => {
                let text = format!("client {}: {other:?} in place of CONNACK", self.index);
                self.world.model().fail(text);
                return "no CONNACK";
            }
        };
        self.world
            .trace
            .note(format_args!("{} connected, session {present}", self.index));
        self.call_back_wills(&talk);
        let why = match self.begin(present, clean, &mut talk).await {
            true => self.talk(&mut talk).await,
            false => "broken",
        };
        if let Some(number) = talk.will {
            // What waits for the end of this connection begins to wait no earlier.
            self.waiting_wills.push((number, talk.heard));
            let delay = Duration::from_secs(self.will_delay.unwrap_or_default().into());
            let ended = talk.sent_after(talk.heard);
            if !self.is_gone {
                self.world.model().due_from(number, ended + delay);
            }
            if self.will_delay == Some(0) && talk.is_will_kept && !talk.is_farewell {
                self.world.model().acknowledge(number);
            }
        }
        why
    }

    /// It is in a group, and what its session leaves is for others.
    fn is_member(&self) -> bool {
        match &self.role {
            Role::Publisher => false,
            Role::Subscriber { filters } => filters.iter().any(|(it, _)| groups::is_shared(it)),
        }
    }

    /// The client is back: no will of an earlier connection that still waits is published.
    fn call_back_wills(&mut self, talk: &Conversation) {
        let earlier = core::mem::take(&mut self.waiting_wills);
        if self.will_delay < Some(WILL_DELAY) {
            return;
        }
        let now = Instant::now();
        let mut model = self.world.model();
        for (number, since) in earlier {
            if Some(number) != talk.will && now - since < SOON {
                model.call_back(number);
            }
        }
    }

    /// Goes on with the session that the broker has, or with none.
    async fn begin(&mut self, present: bool, clean: bool, talk: &mut Conversation) -> bool {
        let may_forget = self.world.may_have_forgotten(self.index) || clean;
        if self.established && !present && !may_forget {
            let text = format!("client {}: its session is not there", self.index);
            self.world.model().fail(text);
        }
        if present && clean {
            let text = format!(
                "client {}: a session is there that was discarded",
                self.index
            );
            self.world.model().fail(text);
        }
        if !present || may_forget {
            // What was on its way, nobody may know any more.
            self.outgoing.clear();
            self.incoming.clear();
            self.subscribed.clear();
        }
        self.established = true;
        self.renews = false;
        for index in 0..self.outgoing.len() {
            let Outgoing {
                packet_id,
                number,
                received,
            } = self.outgoing[index];
            let sent = if received {
                talk.say(
                    self.version,
                    &Packet::PubRel(Ack::new(packet_id, ReasonCode::SUCCESS)),
                )
                .await
            } else {
                self.publish(number, Some(packet_id), true, talk).await
            };
            if !sent {
                return false;
            }
        }
        true
    }

    async fn publish(
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

    /// Hears and says until the connection ends; tells why.
    async fn talk(&mut self, talk: &mut Conversation) -> &'static str {
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

    /// What a client does by itself; `None` where the connection breaks.
    async fn act(&mut self, talk: &mut Conversation) -> Option<Next> {
        let now = Instant::now();
        if now - talk.heard > SILENCE {
            return Some(Next::Leaves);
        }
        if now - talk.said > PING && !talk.say(self.version, &Packet::PingReq).await {
            return None;
        }
        while let Some(answer) = talk.answers.pop_front() {
            if !talk.say(self.version, &answer).await {
                talk.answers.push_front(answer);
                return None;
            }
            if let Packet::PubAck(ack) | Packet::PubComp(ack) = answer {
                talk.open.remove(&ack.packet_id.get());
            }
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
            Role::Publisher if calm => return self.depart(talk).await,
            Role::Publisher => self.publish_next(talk).await,
            Role::Subscriber { .. } => self.subscribe_next(calm, talk).await,
        };
        done.then_some(Next::Goes)
    }

    /// In the end a client with a will leaves for good, when it is known that the will is stored: then it must come when
    /// it is due.
    async fn depart(&mut self, talk: &mut Conversation) -> Option<Next> {
        let (Some(number), Some(delay)) = (talk.will, self.will_delay) else {
            return Some(Next::Goes);
        };
        if !self.world.departs() || !self.outgoing.is_empty() {
            return Some(Next::Goes);
        }
        if !talk.is_will_kept {
            let topic = format!("t/{}/2", self.index);
            let said = self.publish_new(&topic, QoS::ExactlyOnce, false, None, talk);
            return said.await.then_some(Next::Goes);
        }
        talk.is_farewell = true;
        self.is_gone = true;
        // Before it is said: the broker may hear it at once.
        let now = Instant::now();
        let mut due = Some(delay);
        let mut bye = None;
        if self.random.once_in(4) {
            due = None;
            bye = Some(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
        } else if delay >= WILL_DELAY {
            // The session ends before, and the will comes with its end (section 3.1.3.2.2).
            let ends = 1 + self.random.below(SHORT_DELAY - 1) as u32;
            let mut words = Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL);
            words.properties.session_expiry_interval = Some(ends);
            due = Some(ends);
            bye = Some(words);
        }
        {
            let mut model = self.world.model();
            model.departing -= 1;
            match due {
                None => model.call_back(number),
                Some(seconds) => {
                    let due = now + Duration::from_secs(seconds.into());
                    model.due_from(number, due);
                    model.due_until(number, due + LATE);
                }
            }
        }
        if let Some(bye) = bye {
            talk.say(self.version, &Packet::Disconnect(bye)).await;
        }
        Some(Next::Leaves)
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

    async fn publish_new(
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

    /// What the broker may not send is an error, in words that follow "the broker".
    fn handle(&mut self, packet: &Packet<'_>, talk: &mut Conversation) -> Result<(), String> {
        match packet {
            Packet::Publish(publish) => return self.receive(publish, talk),
            Packet::PubRel(ack) => {
                let known = self.incoming.remove(&ack.packet_id.get());
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
                self.subscribed.insert(index);
                self.world.subscribed.notify_waiters();
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
            Packet::PingResp => {}
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
                model.deliver(self.index, number, &topic, publish.qos);
            }
        }
        Ok(())
    }

    fn note(&self, event: core::fmt::Arguments<'_>) {
        self.world
            .trace
            .note(format_args!("{} < {event}", self.index));
    }
}

fn success(packet_id: PacketId) -> Ack<'static> {
    Ack::new(packet_id, ReasonCode::SUCCESS)
}
