//! Decoding and encoding the packets of 3.1.1, by this codec and by others. Each decodes the same bytes
//! in the way that it offers to a program that reads them from a socket, and encodes what it has
//! decoded: what is measured per packet includes finding its end and what it allocates.

use std::hint::black_box;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
};
use mqtt_codec::{
    Ack, Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode, SubAck, Subscribe,
    SubscribeFilter, SubscribeProperties, TopicFilter, TopicName,
};
use mqtt_protocol_core::mqtt::packet::v3_1_1;
use ntex_codec::{Decoder as _, Encoder as _};
use ntex_mqtt::v3::codec as ntex;

const VERSION: ProtocolVersion = ProtocolVersion::V3_1_1;
/// Copies of the packet that are decoded in one measurement.
const COPIES: usize = 1000;
const LIMIT: u32 = 1 << 20;
const TOPIC: &str = "site/17/device/4711/temp";

/// The packets that are compared: name and bytes.
fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let publish = |qos, payload: &[u8]| {
        let mut publish = Publish::new(TopicName::new(TOPIC).expect("a topic"), payload);
        publish.qos = qos;
        publish.packet_id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        Packet::Publish(publish).to_vec(VERSION).expect("it fits")
    };
    let bytes = |packet: Packet<'_>| packet.to_vec(VERSION).expect("it fits");
    let mut connect = Connect::new(VERSION, "device-4711");
    connect.keep_alive = 60;
    connect.username = Some("device");
    connect.password = Some(b"secret");
    let filter = TopicFilter::new("site/+/device/#").expect("a filter");
    vec![
        ("PUBLISH 64 B", publish(QoS::AtMostOnce, &[b'.'; 64])),
        ("PUBLISH 64 B QoS 1", publish(QoS::AtLeastOnce, &[b'.'; 64])),
        ("PUBLISH 16 KiB", publish(QoS::AtMostOnce, &[b'.'; 16384])),
        (
            "PUBACK",
            bytes(Packet::PubAck(Ack::new(PacketId::MIN, ReasonCode::SUCCESS))),
        ),
        ("CONNECT", bytes(Packet::Connect(Box::new(connect)))),
        (
            "SUBSCRIBE",
            bytes(Packet::Subscribe(Subscribe {
                packet_id: PacketId::MIN,
                filters: vec![SubscribeFilter::new(filter, QoS::AtLeastOnce); 3],
                properties: SubscribeProperties::default(),
            })),
        ),
        (
            "SUBACK",
            bytes(Packet::SubAck(SubAck::new(
                PacketId::MIN,
                vec![ReasonCode::GRANTED_QOS_1; 3],
            ))),
        ),
        ("PINGREQ", bytes(Packet::PingReq)),
    ]
}

fn decode(c: &mut Criterion) {
    for (name, packet) in packets() {
        let copies = if packet.len() > 1000 { 50 } else { COPIES };
        let stream = packet.repeat(copies);
        let mut group = c.benchmark_group(format!("decode {name}"));
        group.throughput(Throughput::Elements(copies as u64));
        group.bench_function("ours", |b| {
            b.iter(|| {
                let mut rest = stream.as_slice();
                while let Ok(Some((packet, len))) = mqtt_codec::decode(rest, VERSION, LIMIT) {
                    black_box(&packet);
                    rest = &rest[len..];
                }
                assert!(rest.is_empty());
            });
        });
        group.bench_function("mqttrs", |b| {
            b.iter(|| {
                // It does not say where a packet ends.
                for frame in stream.chunks_exact(packet.len()) {
                    black_box(&mqttrs::decode_slice(frame).expect("it is a packet"));
                }
            });
        });
        group.bench_function("rumqttc", |b| {
            b.iter_batched_ref(
                || BytesMut::from(stream.as_slice()),
                |stream| {
                    while let Ok(packet) = rumqttc::Packet::read(stream, LIMIT as usize) {
                        black_box(&packet);
                    }
                    assert!(stream.is_empty());
                },
                BatchSize::LargeInput,
            );
        });
        let codec = ntex::Codec::new();
        group.bench_function("ntex-mqtt", |b| {
            b.iter_batched_ref(
                || ntex_bytes::BytesMut::from(stream.as_slice()),
                |stream| {
                    while let Ok(Some(packet)) = codec.decode(stream) {
                        black_box(&packet);
                    }
                    assert!(stream.is_empty());
                },
                BatchSize::LargeInput,
            );
        });
        decode_core(&mut group, &stream, &packet);
        group.finish();
    }
}

/// mqtt-protocol-core parses bodies, a PUBLISH from memory that it shares.
fn decode_core(group: &mut BenchmarkGroup<'_, WallTime>, stream: &[u8], packet: &[u8]) {
    let header = header_len(packet);
    let first = packet[0];
    group.bench_function("mqtt-protocol-core", |b| {
        b.iter(|| {
            for frame in stream.chunks_exact(packet.len()) {
                let body = &frame[header..];
                match first >> 4 {
                    3 => {
                        let body: Arc<[u8]> = Arc::from(body);
                        black_box(&v3_1_1::Publish::parse(first & 15, body).expect("PUBLISH"));
                    }
                    4 => drop(black_box(v3_1_1::Puback::parse(body).expect("PUBACK"))),
                    1 => drop(black_box(v3_1_1::Connect::parse(body).expect("CONNECT"))),
                    8 => drop(black_box(
                        v3_1_1::Subscribe::parse(body).expect("SUBSCRIBE"),
                    )),
                    9 => drop(black_box(v3_1_1::Suback::parse(body).expect("SUBACK"))),
                    _ => drop(black_box(v3_1_1::Pingreq::parse(body).expect("PINGREQ"))),
                }
            }
        });
    });
}

/// Bytes of the fixed header.
fn header_len(packet: &[u8]) -> usize {
    1 + packet[1..].iter().take_while(|byte| **byte > 127).count() + 1
}

fn encode(c: &mut Criterion) {
    for (name, packet) in packets() {
        let mut group = c.benchmark_group(format!("encode {name}"));
        group.throughput(Throughput::Elements(1));
        let (ours, _) = mqtt_codec::decode(&packet, VERSION, LIMIT)
            .expect("a packet")
            .expect("a whole one");
        let mut out = Vec::with_capacity(packet.len());
        group.bench_function("ours", |b| {
            b.iter(|| {
                out.clear();
                black_box(&ours).encode(VERSION, &mut out).expect("it fits");
                black_box(&out);
            });
        });
        let theirs = mqttrs::decode_slice(&packet)
            .expect("a packet")
            .expect("whole");
        let mut slice = vec![0; packet.len()];
        group.bench_function("mqttrs", |b| {
            b.iter(|| {
                mqttrs::encode_slice(black_box(&theirs), &mut slice).expect("it fits");
                black_box(&slice);
            });
        });
        let theirs = rumqttc::Packet::read(&mut BytesMut::from(packet.as_slice()), LIMIT as usize)
            .expect("a packet");
        let mut out = BytesMut::with_capacity(packet.len());
        group.bench_function("rumqttc", |b| {
            b.iter(|| {
                out.clear();
                black_box(&theirs)
                    .write(&mut out, LIMIT as usize)
                    .expect("it fits");
                black_box(&out);
            });
        });
        group.bench_function("ntex-mqtt", |b| {
            let codec = ntex::Codec::new();
            let mut stream = ntex_bytes::BytesMut::from(packet.as_slice());
            let theirs = match codec.decode(&mut stream).expect("a packet") {
                Some(ntex::Decoded::Packet(packet, _)) => ntex::Encoded::Packet(packet),
                Some(ntex::Decoded::Publish(publish, payload, _)) => {
                    ntex::Encoded::Publish(publish, Some(payload))
                }
                other => panic!("not a whole packet: {other:?}"),
            };
            let mut out = ntex_bytes::BytePages::default();
            b.iter(|| {
                // It takes the packet, whose parts are shared.
                codec
                    .encodev(black_box(&theirs).clone(), &mut out)
                    .expect("it fits");
                black_box(&out);
                out.clear();
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = decode, encode
}
criterion_main!(benches);
