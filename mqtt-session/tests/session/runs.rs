//! Handles that stand for several messages: what is sent is the same as if each message had a handle of its own.

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_codec::{Ack, Packet, PacketType, ProtocolVersion, QoS, ReasonCode};
use mqtt_session::{Connection, Event, Outgoing, Persistence, ServerLimits, Session, Transmission};
use proptest::prelude::*;

use crate::end::{NOW, V3, V5, connect};
use crate::message::Message;

/// Messages of one quality of service, which leave one after the other.
#[derive(Debug, Clone)]
struct Run(Vec<Message>);

impl Run {
    fn first(&self) -> &Message {
        &self.0[0]
    }
}

impl Outgoing for Run {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.first().qos()
    }

    fn topic(&self) -> &str {
        self.first().topic()
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        self.first().encoded_len(how)
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        self.first().encode(how, out);
    }

    fn size(&self) -> usize {
        self.0.iter().map(Message::size).sum()
    }

    fn key(&self) -> u64 {
        self.first().key
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn split_first(&mut self) -> Option<Self> {
        Some(Self(vec![self.0.remove(0)]))
    }

    fn encode_first(&mut self, how: &Transmission, out: &mut Vec<u8>) -> bool {
        self.0.remove(0).encode(how, out);
        true
    }
}

/// What the session is and what the peer says in its CONNECT.
#[derive(Debug, Clone, Copy)]
struct Setting {
    version: ProtocolVersion,
    persistence: Persistence,
    /// The session outlives the connection.
    lasts: bool,
    receive_maximum: u16,
    maximum_packet_size: Option<u32>,
    topic_alias_maximum: u16,
}

impl Setting {
    fn connection(self) -> Connection<Run> {
        let mut limits = ServerLimits::default();
        let maximum = NonZeroU16::new(self.receive_maximum).unwrap();
        limits.send_maximum_v3 = maximum;
        let mut connect = connect(self.version);
        connect.clean_start = !self.lasts;
        if self.version.has_properties() {
            let properties = &mut connect.properties;
            properties.session_expiry_interval = self.lasts.then_some(u32::MAX);
            properties.receive_maximum = Some(maximum);
            properties.maximum_packet_size = self.maximum_packet_size.and_then(NonZeroU32::new);
            properties.topic_alias_maximum = Some(self.topic_alias_maximum);
        }
        Connection::server(Session::new(self.persistence), &limits, &connect, NOW)
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Messages with so many bytes of padding each.
    Push(QoS, Vec<usize>),
    /// A buffer of so many bytes is filled.
    Transmit(usize),
    /// The peer acknowledges one of the packets that it has not acknowledged yet.
    Acknowledge(prop::sample::Index),
    Durable,
}

fn step() -> impl Strategy<Value = Step> {
    let above_zero = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        (above_zero, prop::collection::vec(0..40_usize, 1..6)).prop_map(|(q, p)| Step::Push(q, p)),
        (0..30_usize).prop_map(|padding| Step::Push(QoS::AtMostOnce, vec![padding])),
        (0..200_usize).prop_map(Step::Transmit),
        any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        Just(Step::Durable),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    (
        prop_oneof![Just(V3), Just(V5)],
        prop_oneof![
            3 => Just((Persistence::Ephemeral, false)),
            1 => Just((Persistence::Ephemeral, true)),
            1 => Just((Persistence::Durable, true)),
        ],
        1..8_u16,
        prop::option::of(30..60_u32),
        prop_oneof![3 => Just(0), 1 => Just(1_u16)],
    )
        .prop_map(
            |(version, (persistence, lasts), receive_maximum, maximum_packet_size, alias)| {
                Setting {
                    version,
                    persistence,
                    lasts,
                    receive_maximum,
                    maximum_packet_size,
                    topic_alias_maximum: alias,
                }
            },
        )
}

/// Two connections that get the same messages, in runs and one by one.
struct Pair {
    version: ProtocolVersion,
    both: [Connection<Run>; 2],
    /// What the peer may acknowledge, as it is with the peer.
    open: Vec<(PacketType, mqtt_codec::PacketId)>,
}

impl Pair {
    fn transmit(&mut self, limit: usize) {
        let [runs, singles] = self.both.each_mut().map(|connection| {
            let mut out = Vec::new();
            let more = connection.poll_transmit(NOW, &mut out, limit);
            (out, more)
        });
        assert_eq!(runs, singles);
        let mut rest = runs.0.as_slice();
        while let Some((packet, len)) = mqtt_codec::decode(rest, self.version, u32::MAX).unwrap() {
            match packet {
                Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => self.open.push((PacketType::PubAck, id)),
                    (QoS::ExactlyOnce, Some(id)) => self.open.push((PacketType::PubRec, id)),
                    _ => {}
                },
                Packet::PubRel(ack) => self.open.push((PacketType::PubComp, ack.packet_id)),
                other => panic!("nobody asked for {other:?}"),
            }
            rest = &rest[len..];
        }
    }

    fn drops(&mut self) -> [Vec<u64>; 2] {
        self.both.each_mut().map(|connection| {
            core::iter::from_fn(|| connection.poll_event())
                .flat_map(|event| match event {
                    Event::Dropped(run, _) => run.0,
                    other => panic!("nobody asked for {other:?}"),
                })
                .map(|message| message.key)
                .collect()
        })
    }

    fn check(&mut self) {
        let drops = self.drops();
        assert_eq!(drops[0], drops[1]);
        let [runs, singles] = self.both.each_ref().map(|connection| {
            let session = connection.session();
            let queued = session.queued().flat_map(|run| &run.0);
            let keys: Vec<u64> = queued.map(|message| message.key).collect();
            (
                keys,
                session.queue_len(),
                session.queue_size(),
                session.in_flight_len(),
                session.held_size(),
            )
        });
        assert_eq!(runs, singles);
        assert_eq!(runs.0.len(), runs.1);
    }
}

proptest! {
    /// The same bytes leave, the same is in flight and waits, whatever the session keeps and the peer limits.
    #[test]
    fn runs_leave_as_their_messages_would(
        setting in setting(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut pair = Pair {
            version: setting.version,
            both: [setting.connection(), setting.connection()],
            open: Vec::new(),
        };
        let mut key = 0;
        for step in steps {
            match step {
                Step::Push(qos, paddings) => {
                    let messages: Vec<Message> = paddings
                        .into_iter()
                        .map(|padding| {
                            key += 1;
                            Message { padding, ..Message::new(key, qos) }
                        })
                        .collect();
                    for message in &messages {
                        pair.both[1].push(Run(vec![message.clone()]));
                    }
                    pair.both[0].push(Run(messages));
                }
                Step::Transmit(limit) => pair.transmit(limit),
                Step::Acknowledge(index) => {
                    if !pair.open.is_empty() {
                        let (packet_type, id) = pair.open.remove(index.index(pair.open.len()));
                        let ack = Ack::new(id, ReasonCode::SUCCESS);
                        for connection in &mut pair.both {
                            connection.handle_ack(NOW, packet_type, &ack).unwrap();
                        }
                    }
                }
                Step::Durable => {
                    let [runs, singles] = pair.both.each_mut().map(|connection| {
                        let changes: Vec<_> = core::iter::from_fn(|| connection.poll_change()).collect();
                        if let Some((number, _)) = changes.last() {
                            connection.durable(*number);
                        }
                        changes
                    });
                    prop_assert_eq!(runs, singles);
                }
            }
            pair.check();
        }
        let undelivered = pair.both.map(|connection| {
            let handles = connection.into_session().into_undelivered();
            handles.into_iter().flat_map(|run| run.0).map(|message| message.key).collect::<Vec<_>>()
        });
        prop_assert_eq!(&undelivered[0], &undelivered[1]);
    }
}
