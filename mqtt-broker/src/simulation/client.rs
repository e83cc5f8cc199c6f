//! A client: it publishes, or subscribes, through connections that fail, and keeps its side of the session for good.

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;
use mqtt_codec::{
    Ack, Connect, Disconnect, Frame, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    Subscribe, SubscribeFilter, TopicFilter, TopicName, Unsubscribe, Will,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep, sleep_until};

use super::link::Link;
use super::random::Random;
use super::world::World;
use crate::config::Durability;

/// Messages that a publisher has on their way at most.
const WINDOW: usize = 8;
const KEEP_ALIVE: u16 = 10;
/// How often a client that has nothing else to say asks for a sign of life.
const PING: Duration = Duration::from_secs(4);
/// A connection on which nothing came for so long is given up.
const SILENCE: Duration = Duration::from_secs(12);
/// By how many seconds a will waits that waits: longer than a client stays away while the broker is there.
const WILL_DELAY: u32 = 60;
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
}

/// How a conversation goes on.
enum Next {
    Goes,
    /// The client leaves.
    Leaves,
}

/// One connection.
struct Conversation {
    stream: DuplexStream,
    link: Arc<Link>,
    buffer: BytesMut,
    /// Answers that wait, in their order.
    answers: VecDeque<Packet<'static>>,
    /// QoS 1 and 2 messages of this connection that are not acknowledged to the end.
    open: BTreeSet<u16>,
    /// The SUBSCRIBE or UNSUBSCRIBE that waits for its answer.
    asked: Option<(PacketId, usize, bool)>,
    /// The message that is published if it ends without a farewell.
    will: Option<usize>,
    /// Something that was first sent on this connection was acknowledged, and so its will is durable: CONNACK of a
    /// session that goes on does not wait for that.
    is_will_kept: bool,
    /// DISCONNECT was sent, or some of it.
    is_farewell: bool,
    heard: Instant,
    said: Instant,
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
        let waits = version.has_properties() && random.once_in(2);
        let will_delay = has_will.then_some(if waits { WILL_DELAY } else { 0 });
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
                }
                None => sleep(Duration::from_millis(50)).await,
            }
            let calm = self.world.is_calm();
            let pause = if calm || self.random.once_in(2) {
                1..100
            } else {
                100..3_000
            };
            sleep(self.random.millis(pause)).await;
        }
    }

    async fn converse(&mut self, stream: DuplexStream, link: Arc<Link>) -> &'static str {
        let now = Instant::now();
        let mut talk = Conversation {
            stream,
            link,
            buffer: BytesMut::new(),
            answers: VecDeque::new(),
            open: BTreeSet::new(),
            asked: None,
            will: None,
            is_will_kept: false,
            is_farewell: false,
            heard: now,
            said: now,
        };
        // Now and then a subscriber begins anew, until it has got that. (In 3.1.1 the new session would not last.)
        self.renews |= self.established
            && self.role != Role::Publisher
            && self.version.has_properties()
            && !self.world.is_calm()
            && self.random.once_in(20);
        let clean = self.renews;
        if clean {
            self.world.model().void(self.index, false);
        }
        let name = self.name.clone();
        let mut connect = Connect::new(self.version, &name);
        connect.clean_start = clean;
        connect.keep_alive = KEEP_ALIVE;
        let will = self.will_delay.map(|delay| {
            let topic = format!("will/{}", self.index);
            let number = self.world.model().send_will(&topic, QoS::ExactlyOnce);
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
            if self.will_delay == Some(0) && talk.is_will_kept && !talk.is_farewell {
                self.world.model().acknowledge(number);
            }
        }
        why
    }

    /// The client is back: no will of an earlier connection that still waits is published.
    fn call_back_wills(&mut self, talk: &Conversation) {
        let earlier = core::mem::take(&mut self.waiting_wills);
        if self.will_delay == Some(0) {
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
        &self,
        number: usize,
        packet_id: Option<PacketId>,
        dup: bool,
        talk: &mut Conversation,
    ) -> bool {
        let (topic, qos, retain) = {
            let model = self.world.model();
            let message = model.message(number);
            (message.topic.clone(), message.qos, message.retain)
        };
        let payload = number.to_string();
        let name = TopicName::new(&topic).unwrap();
        let mut publish = Publish::new(name, payload.as_bytes());
        publish.qos = qos;
        publish.retain = retain;
        publish.dup = dup;
        publish.packet_id = packet_id;
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
            Role::Publisher if calm => true,
            Role::Publisher => self.publish_next(talk).await,
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
            3 => (format!("kept/{}", self.index), QoS::AtLeastOnce, true),
            _ => {
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][kind];
                (format!("t/{}/{kind}", self.index), qos, false)
            }
        };
        let number = self.world.model().send(&topic, qos, retain);
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
                talk.is_will_kept |= talk.will.is_some_and(|will| will < number);
                let mut model = self.world.model();
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
        if fresh && publish.retain {
            let mut model = self.world.model();
            model.deliver_retained(self.index, number, &topic);
        } else if fresh {
            let mut model = self.world.model();
            model.deliver(self.index, number, &topic, publish.qos);
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

impl Conversation {
    /// False where the connection breaks.
    async fn say(&mut self, version: ProtocolVersion, packet: &Packet<'_>) -> bool {
        self.said = Instant::now();
        let bytes = packet.to_vec(version).unwrap();
        let written = tokio::time::timeout(SILENCE, self.stream.write_all(&bytes)).await;
        matches!(written, Ok(Ok(())))
    }

    async fn hear(&mut self, version: ProtocolVersion, patience: Duration) -> Option<Frame> {
        tokio::time::timeout(patience, self.next(version))
            .await
            .ok()
            .flatten()
    }

    /// The next packet, or `None` at the end. Nothing is lost where this is dropped.
    async fn next(&mut self, version: ProtocolVersion) -> Option<Frame> {
        loop {
            // What is found behind the end may be from before the broker lost what it says.
            if self.link.is_cut() {
                return None;
            }
            match Frame::split_from(&mut self.buffer, version, u32::MAX) {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(_) => return None,
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}
