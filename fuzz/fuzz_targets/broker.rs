//! A whole broker on in-memory streams and virtual time: several clients do what they like, in packets and
//! in any bytes. Whatever the broker sends must be packets, and afterwards it must serve a new client.
#![no_main]

use core::{
    num::{NonZeroU16, NonZeroU32},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use arbitrary::Arbitrary;
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::{Broker, Config};
use mqtt_codec::{
    Ack, Connect, Disconnect, Frame, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilter, SubscriptionIdentifier, TopicFilter, TopicName,
    Unsubscribe, Will,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

const CLIENTS: usize = 4;
const PIPE: usize = 2_048;
const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "/", "$x/y", "b"];
const FILTERS: [&str; 8] = [
    "#",
    "a/+",
    "a/#",
    "+/b",
    "/",
    "$share/g/a/#",
    "$share/g/+",
    "$x/+",
];
const NAMES: [&str; 3] = ["one", "two", ""];
const VERSIONS: [ProtocolVersion; 3] = [
    ProtocolVersion::V3_1,
    ProtocolVersion::V3_1_1,
    ProtocolVersion::V5,
];

#[derive(Debug, Arbitrary)]
enum Step {
    Connect {
        client: u8,
        version: u8,
        name: u8,
        clean: bool,
        will: Option<u8>,
        expiry: u8,
        limits: u8,
    },
    Publish {
        client: u8,
        topic: u8,
        qos: u8,
        retain: bool,
        id: u8,
        alias: u8,
        expiry: u8,
        size: u16,
    },
    Subscribe {
        client: u8,
        filters: [u8; 2],
        options: u8,
        identifier: u8,
    },
    Unsubscribe {
        client: u8,
        filter: u8,
    },
    Ack {
        client: u8,
        kind: u8,
        id: u8,
        reason: u8,
    },
    Ping {
        client: u8,
    },
    Raw {
        client: u8,
        bytes: Vec<u8>,
    },
    Disconnect {
        client: u8,
        reason: u8,
    },
    Drop {
        client: u8,
    },
    Read {
        client: u8,
    },
    Wait {
        seconds: u16,
    },
}

struct Peer {
    stream: DuplexStream,
    version: ProtocolVersion,
    received: BytesMut,
    closed: bool,
}

impl Peer {
    fn open(broker: &Broker, version: ProtocolVersion) -> Self {
        let (stream, other) = tokio::io::duplex(PIPE);
        broker.serve(other, "fuzz");
        Self {
            stream,
            version,
            received: BytesMut::new(),
            closed: false,
        }
    }

    /// Writes what the pipe takes now. What does not fit cuts a packet, as a failing network would.
    fn write(&mut self, bytes: &[u8]) {
        let mut context = Context::from_waker(Waker::noop());
        let mut rest = bytes;
        while !rest.is_empty() {
            match Pin::new(&mut self.stream).poll_write(&mut context, rest) {
                Poll::Ready(Ok(count)) if count > 0 => rest = &rest[count..],
                _ => return,
            }
        }
    }

    fn send(&mut self, packet: &Packet<'_>) {
        if let Ok(bytes) = packet.to_vec(self.version) {
            self.write(&bytes);
        }
    }

    /// Reads what is there and checks that it is packets that a server sends.
    fn read(&mut self) -> Vec<Frame> {
        let mut context = Context::from_waker(Waker::noop());
        let mut buffer = [0; 1_024];
        loop {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.stream).poll_read(&mut context, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    self.received.extend_from_slice(read.filled())
                }
                Poll::Ready(_) => {
                    self.closed = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        let mut frames = Vec::new();
        // A connection that ends may end within a packet: its pipe was full.
        while let Some(frame) =
            Frame::split_from(&mut self.received, self.version, u32::MAX).expect("not MQTT")
        {
            let packet = frame.packet(self.version).expect("a malformed packet");
            assert!(
                mqtt_session::Role::Server.may_send(packet.packet_type()),
                "{packet:?}"
            );
            frames.push(frame);
        }
        frames
    }
}

async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

fn pick<T: Copy, const N: usize>(choices: [T; N], number: u8) -> T {
    choices[usize::from(number) % N]
}

fn qos(number: u8) -> QoS {
    pick(
        [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce],
        number,
    )
}

fn config() -> Config {
    let mut config = Config::default();
    config.receive_maximum = NonZeroU16::new(3).expect("not 0");
    config.outbox_bytes = 1_500;
    config.queue_bytes = 3_000;
    config.control_bytes = 500;
    config.retained_messages = 4;
    config.subscription_bytes = 2_000;
    config.max_packet_size = 5_000;
    config
}

async fn run(steps: Vec<Step>) {
    let broker = Broker::new(config());
    let deadlines = tokio::spawn(broker.clone().run(Vec::new(), core::future::pending()));
    let mut peers: [Option<Peer>; CLIENTS] = Default::default();
    for step in steps {
        act(&broker, &mut peers, step).await;
        settle().await;
    }
    probe(&broker).await;
    assert!(!deadlines.is_finished(), "the broker's own task ended");
}

async fn act(broker: &Broker, peers: &mut [Option<Peer>; CLIENTS], step: Step) {
    let slot = |client: u8| usize::from(client) % CLIENTS;
    match step {
        Step::Connect {
            client,
            version,
            name,
            clean,
            will,
            expiry,
            limits,
        } => {
            let version = pick(VERSIONS, version);
            let mut connect = Connect::new(version, pick(NAMES, name));
            connect.clean_start = clean;
            connect.keep_alive = u16::from(limits);
            connect.properties.session_expiry_interval = Some(u32::from(expiry));
            connect.properties.receive_maximum = NonZeroU16::new(u16::from(limits % 4));
            connect.properties.maximum_packet_size = NonZeroU32::new(u32::from(limits) * 2);
            connect.properties.topic_alias_maximum = Some(u16::from(limits % 3));
            if let Some(number) = will {
                let mut will = Will::new(TopicName::assume_valid(pick(TOPICS, number)), b"will");
                will.qos = qos(number);
                will.retain = number & 8 != 0;
                will.properties.delay_interval = Some(u32::from(number));
                connect.will = Some(will);
            }
            let mut peer = Peer::open(broker, version);
            peer.send(&Packet::Connect(Box::new(connect)));
            peers[slot(client)] = Some(peer);
        }
        Step::Wait { seconds } => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
        Step::Drop { client } => peers[slot(client)] = None,
        Step::Read { client } => {
            if let Some(peer) = &mut peers[slot(client)] {
                for frame in peer.read() {
                    let Ok(Packet::Publish(publish)) = frame.packet(peer.version) else {
                        continue;
                    };
                    assert!(publish.topic.is_some() || publish.properties.topic_alias.is_some());
                }
            }
        }
        Step::Raw { client, bytes } => {
            peers[slot(client)]
                .get_or_insert_with(|| Peer::open(broker, ProtocolVersion::V5))
                .write(&bytes);
        }
        Step::Publish {
            client,
            topic,
            qos: level,
            retain,
            id,
            alias,
            expiry,
            size,
        } => {
            let Some(peer) = &mut peers[slot(client)] else {
                return;
            };
            let payload = vec![b'x'; usize::from(size) % 1_500];
            let mut publish = Publish::new(TopicName::assume_valid(pick(TOPICS, topic)), &payload);
            publish.qos = qos(level);
            publish.retain = retain;
            publish.packet_id =
                PacketId::new(u16::from(id)).filter(|_| publish.qos != QoS::AtMostOnce);
            publish.properties.topic_alias = NonZeroU16::new(u16::from(alias % 18));
            if alias & 0x80 != 0 {
                publish.topic = None;
            }
            publish.properties.message_expiry_interval =
                Some(u32::from(expiry)).filter(|seconds| *seconds > 0);
            peer.send(&Packet::Publish(publish));
        }
        Step::Subscribe {
            client,
            filters,
            options,
            identifier,
        } => {
            let Some(peer) = &mut peers[slot(client)] else {
                return;
            };
            let filters = filters.map(|filter| {
                let mut filter = SubscribeFilter::new(
                    TopicFilter::assume_valid(pick(FILTERS, filter)),
                    qos(options),
                );
                filter.options.no_local = options & 4 != 0 && filter.filter.shared().is_none();
                filter.options.retain_as_published = options & 8 != 0;
                let handlings = [
                    RetainHandling::Always,
                    RetainHandling::IfNew,
                    RetainHandling::Never,
                ];
                filter.options.retain_handling = pick(handlings, options >> 4);
                filter
            });
            let mut subscribe = Subscribe::new(PacketId::MIN, filters.to_vec());
            subscribe.properties.subscription_identifier =
                SubscriptionIdentifier::new(u32::from(identifier));
            peer.send(&Packet::Subscribe(subscribe));
        }
        Step::Unsubscribe { client, filter } => {
            let Some(peer) = &mut peers[slot(client)] else {
                return;
            };
            let filters = vec![TopicFilter::assume_valid(pick(FILTERS, filter))];
            peer.send(&Packet::Unsubscribe(Unsubscribe::new(
                PacketId::MIN,
                filters,
            )));
        }
        Step::Ack {
            client,
            kind,
            id,
            reason,
        } => {
            let Some(peer) = &mut peers[slot(client)] else {
                return;
            };
            let Some(id) = PacketId::new(u16::from(id % 8)) else {
                return;
            };
            let ack = Ack::new(id, ReasonCode(if reason > 200 { 0x80 } else { 0 }));
            peer.send(&match kind % 4 {
                0 => Packet::PubAck(ack),
                1 => Packet::PubRec(ack),
                2 => Packet::PubRel(Ack::new(id, ReasonCode::SUCCESS)),
                _ => Packet::PubComp(Ack::new(id, ReasonCode::SUCCESS)),
            });
        }
        Step::Ping { client } => {
            if let Some(peer) = &mut peers[slot(client)] {
                peer.send(&Packet::PingReq);
            }
        }
        Step::Disconnect { client, reason } => {
            if let Some(peer) = &mut peers[slot(client)] {
                peer.send(&Packet::Disconnect(Disconnect::new(ReasonCode(
                    if reason > 127 { 4 } else { 0 },
                ))));
            }
        }
    }
}

/// A client that nobody knows gets in, subscribes, and gets what it publishes.
async fn probe(broker: &Broker) {
    let version = ProtocolVersion::V3_1_1;
    let mut peer = Peer::open(broker, version);
    peer.send(&Packet::Connect(Box::new(Connect::new(version, "probe"))));
    let topic = TopicName::assume_valid("probe/topic");
    let filter = SubscribeFilter::new(TopicFilter::assume_valid("probe/topic"), QoS::AtMostOnce);
    peer.send(&Packet::Subscribe(Subscribe::new(
        PacketId::MIN,
        vec![filter],
    )));
    peer.send(&Packet::Publish(Publish::new(topic, b"probe")));
    settle().await;
    let received: Vec<_> = peer
        .read()
        .iter()
        .map(|frame| frame.header().packet_type)
        .collect();
    use mqtt_codec::PacketType::{ConnAck, Publish as Message, SubAck};
    assert_eq!(
        received,
        [ConnAck, SubAck, Message],
        "the broker does not serve a new client"
    );
}

fuzz_target!(|steps: Vec<Step>| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime without threads")
        .block_on(run(steps));
});
