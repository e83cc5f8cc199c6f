//! Decoding and encoding, one packet at a time.
//!
//! `cargo bench -p ternmq-codec --bench packets`; a filter such as `publish` picks some of them.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mqtt_codec::{
    Ack, ConnAck, Connect, Disconnect, Packet, PacketId, ProtocolVersion, Publish, QoS, ReasonCode,
    SubAck, Subscribe, SubscribeFilter, SubscriptionIdentifier, TopicFilter, TopicName, UnsubAck,
    Unsubscribe, UserProperty, decode,
};

const TOPIC: &str = "sensors/house/kitchen/temperature";
const PAYLOAD: [u8; 64] = [0x5A; 64];

/// The packets, each with the name of its measurement.
fn packets() -> Vec<(&'static str, ProtocolVersion, Packet<'static>)> {
    let v3 = ProtocolVersion::V3_1_1;
    let v5 = ProtocolVersion::V5;
    let id = PacketId::MAX;
    let topic = TopicName::assume_valid(TOPIC);
    let filter = TopicFilter::assume_valid("sensors/+/kitchen/#");
    let publish = Publish::new(topic, &PAYLOAD);
    let acknowledged = Publish {
        qos: QoS::AtLeastOnce,
        packet_id: Some(id),
        ..publish.clone()
    };
    let mut rich = acknowledged.clone();
    rich.properties.message_expiry_interval = Some(60);
    rich.properties.content_type = Some("text/plain");
    rich.properties.response_topic = Some(topic);
    rich.properties.correlation_data = Some(b"12345678");
    let mut listed = acknowledged.clone();
    listed
        .properties
        .subscription_identifiers
        .extend(SubscriptionIdentifier::new(300));
    listed.properties.user_properties = vec![UserProperty {
        name: "unit",
        value: "celsius",
    }];
    let mut connect = Connect::new(v5, "sensor-0001");
    connect.username = Some("user");
    connect.password = Some(b"password");
    connect.properties.session_expiry_interval = Some(3600);
    vec![
        ("publish_qos0_64_v3", v3, Packet::Publish(publish.clone())),
        ("publish_qos0_64_v5", v5, Packet::Publish(publish)),
        (
            "publish_qos1_64_v3",
            v3,
            Packet::Publish(acknowledged.clone()),
        ),
        ("publish_qos1_64_v5", v5, Packet::Publish(acknowledged)),
        ("publish_scalars_64_v5", v5, Packet::Publish(rich)),
        ("publish_lists_64_v5", v5, Packet::Publish(listed)),
        ("connect_v5", v5, Packet::Connect(connect.into())),
        (
            "connack_v5",
            v5,
            Packet::ConnAck(ConnAck::new(ReasonCode::SUCCESS).into()),
        ),
        (
            "puback_v3",
            v3,
            Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS)),
        ),
        (
            "puback_v5",
            v5,
            Packet::PubAck(Ack::new(id, ReasonCode::NO_MATCHING_SUBSCRIBERS)),
        ),
        (
            "subscribe_v5",
            v5,
            Packet::Subscribe(Subscribe::new(
                id,
                vec![SubscribeFilter::new(filter, QoS::AtLeastOnce)],
            )),
        ),
        (
            "suback_v5",
            v5,
            Packet::SubAck(SubAck::new(id, vec![ReasonCode::GRANTED_QOS_1])),
        ),
        (
            "unsubscribe_v5",
            v5,
            Packet::Unsubscribe(Unsubscribe::new(id, vec![filter])),
        ),
        (
            "unsuback_v5",
            v5,
            Packet::UnsubAck(UnsubAck::new(id, vec![ReasonCode::SUCCESS])),
        ),
        ("pingreq", v5, Packet::PingReq),
        (
            "disconnect_v5",
            v5,
            Packet::Disconnect(Disconnect::new(ReasonCode::SERVER_BUSY)),
        ),
    ]
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, version, packet) in packets() {
        let bytes = packet.to_vec(version).expect("a packet of the version");
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| decode(black_box(&bytes), black_box(version), 1 << 20).is_ok());
        });
        if let Packet::Publish(_) = packet {
            let body = &bytes[2..];
            group.bench_function(format!("{name}_body"), |bencher| {
                bencher.iter(|| {
                    let flags = black_box(bytes[0] & 0x0F);
                    Publish::decode(flags, black_box(body), black_box(version)).is_ok()
                });
            });
        }
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for (name, version, packet) in packets() {
        let len = packet
            .encoded_len(version)
            .expect("a packet of the version");
        group.throughput(Throughput::Bytes(len as u64));
        let mut out = Vec::with_capacity(len);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&packet)
                    .encode(black_box(version), &mut out)
                    .is_ok()
            });
        });
    }
    group.finish();
}

fn matching(criterion: &mut Criterion) {
    let topic = TopicName::assume_valid(TOPIC);
    let filter = TopicFilter::assume_valid("sensors/+/kitchen/#");
    criterion.bench_function("filter_matches", |bencher| {
        bencher.iter(|| black_box(filter).matches(black_box(topic)));
    });
}

criterion_group!(benches, decoding, encoding, matching);
criterion_main!(benches);
