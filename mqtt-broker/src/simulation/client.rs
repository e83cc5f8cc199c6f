//! A client: it publishes, or subscribes, through connections that fail, and keeps its side of the session for good.

mod acts;
mod hears;
mod wills;

use core::num::NonZeroU16;
use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use mqtt_codec::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, TopicName, Will,
};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep};

use super::conversation::Conversation;
use super::groups;
use super::link::Link;
use super::random::Random;
use super::world::World;
use crate::config::Durability;

const KEEP_ALIVE: u16 = 10;
/// A connection on which nothing came for so long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(12);
/// By how many seconds a will waits that waits for long: longer than a client stays away while the broker is there.
const WILL_DELAY: u32 = 60;
/// By how many it waits that may come before its client is back: fewer than these.
const SHORT_DELAY: usize = 9;
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
    /// How often it connected.
    connections: u64,
    /// Messages that a publisher still sends when nothing fails any more.
    last_words: usize,
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
            0 if version.has_properties() => WILL_DELAY,
            1 | 2 if version.has_properties() => 1 + random.below(SHORT_DELAY - 1) as u32,
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
            connections: 0,
            last_words: random.below(12),
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
            let pause = if calm {
                1..100
            } else if self.has_short_delay() && self.random.once_in(2) {
                // Long enough for its will to come, though a broker ends meanwhile.
                6_000..18_000
            } else if self.random.once_in(2) {
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
        self.connections += 1;
        let mut talk = Conversation::new(stream, link, self.connections);
        let now = talk.begun;
        self.world.model().is_back(self.index);
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
            self.world.model().void(self.index, false);
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
        self.leave_will(&talk);
        why
    }

    /// It is in a group, and what its session leaves is for others.
    fn is_member(&self) -> bool {
        match &self.role {
            Role::Publisher => false,
            Role::Subscriber { filters } => filters.iter().any(|(it, _)| groups::is_shared(it)),
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

    fn note(&self, event: core::fmt::Arguments<'_>) {
        self.world
            .trace
            .note(format_args!("{} < {event}", self.index));
    }
}

fn success(packet_id: PacketId) -> Ack<'static> {
    Ack::new(packet_id, ReasonCode::SUCCESS)
}
