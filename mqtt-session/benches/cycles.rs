//! A message from a client's session to a server's and all its acknowledgements, at each QoS, as bytes:
//! what both ends and the codec take together. `cargo bench -p ternmq-session`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{ConnAck, Connect, Packet, ProtocolVersion, Publish, QoS, ReasonCode, TopicName};
use mqtt_session::{
    ClientConfig, Connection, Durability, Outgoing, Persistence, ServerLimits, Session, Time,
    Transmission, Verdict,
};

/// Messages under way at once.
const BATCH: usize = 20;
const PAYLOAD: [u8; 64] = [b'.'; 64];
const TOPIC: &str = "site/17/device/4711/temp";
/// No packet is begun beyond this many bytes.
const LIMIT: usize = 64 * 1024;

#[derive(Debug, Clone)]
struct Message(QoS);

impl Message {
    fn view(&self) -> Publish<'_> {
        let mut view = Publish::new(TopicName::assume_valid(TOPIC), &PAYLOAD);
        view.qos = self.0;
        view
    }
}

impl Outgoing for Message {
    type Buffer = Vec<u8>;

    fn qos(&self) -> QoS {
        self.0
    }

    fn topic(&self) -> &str {
        TOPIC
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        how.publish_len(self.view()).expect("it fits")
    }

    fn encode(&self, how: &Transmission, out: &mut Vec<u8>) {
        how.write_publish(self.view(), out).expect("it fits");
    }
}

struct Pair {
    client: Connection<Message>,
    server: Connection<Message>,
    version: ProtocolVersion,
    now: Time,
    up: Vec<u8>,
    down: Vec<u8>,
    delivered: usize,
}

impl Pair {
    fn new(version: ProtocolVersion) -> Self {
        let now = Time::from_secs(1);
        let config = ClientConfig::new(version);
        let mut connect = Connect::new(version, "client");
        connect.properties = config.connect_properties();
        let mut client = Connection::client(Session::new(Persistence::Ephemeral), config, now);
        let server = Connection::server(
            Session::new(Persistence::Ephemeral),
            &ServerLimits::default(),
            &connect,
            now,
        );
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        server
            .negotiated()
            .fill_connack(&connect, &mut connack.properties);
        client
            .handle_connack(now, &connack)
            .expect("it is connected");
        Self {
            client,
            server,
            version,
            now,
            up: Vec::new(),
            down: Vec::new(),
            delivered: 0,
        }
    }

    /// A batch of messages until neither end has anything to say.
    fn cycle(&mut self, qos: QoS) {
        for _ in 0..BATCH {
            self.client.push(Message(qos));
        }
        loop {
            self.up.clear();
            let _ = self.client.poll_transmit(self.now, &mut self.up, LIMIT);
            self.delivered += handle(&mut self.server, self.now, self.version, &self.up);
            self.down.clear();
            let _ = self.server.poll_transmit(self.now, &mut self.down, LIMIT);
            handle(&mut self.client, self.now, self.version, &self.down);
            if self.up.is_empty() && self.down.is_empty() {
                return;
            }
            while let Some(event) = self.client.poll_event() {
                black_box(event);
            }
        }
    }
}

/// Handles packets; returns how many messages they brought.
fn handle(
    connection: &mut Connection<Message>,
    now: Time,
    version: ProtocolVersion,
    mut bytes: &[u8],
) -> usize {
    let mut messages = 0;
    connection.received(now);
    while let Ok(Some((packet, len))) = mqtt_codec::decode(bytes, version, u32::MAX) {
        bytes = &bytes[len..];
        match &packet {
            Packet::Publish(publish) => {
                let Ok(Verdict::Deliver(inbound)) = connection.handle_publish(now, publish) else {
                    panic!("a message that is refused");
                };
                let token = inbound.token;
                black_box(inbound.topic);
                connection.accept(token, Durability::Now);
                messages += 1;
            }
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => {
                let completed = connection.handle_ack(now, packet.packet_type(), ack);
                black_box(completed.expect("it fits"));
            }
            other => panic!("{other:?}"),
        }
    }
    messages
}

fn cycles(c: &mut Criterion) {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let mut group = c.benchmark_group(format!("cycle {version}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut pair = Pair::new(version);
            pair.cycle(qos);
            assert_eq!(pair.delivered, BATCH);
            group.bench_function(format!("QoS {}", qos as u8), |b| b.iter(|| pair.cycle(qos)));
        }
        group.finish();
    }
}

criterion_group!(benches, cycles);
criterion_main!(benches);
