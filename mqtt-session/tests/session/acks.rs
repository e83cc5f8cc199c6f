//! An acknowledgement in its shortest form, which goes a way of its own, does what any other does.

use mqtt_codec::{ConnAck, PacketType, PlainAck, QoS, ReasonCode};
use mqtt_session::{ClientConfig, Persistence, ServerLimits, Session};
use proptest::prelude::*;

use crate::end::{End, VERSIONS, connect, id};

#[derive(Debug, Clone)]
enum Step {
    Push(QoS),
    Write,
    /// The peer acknowledges.
    Acknowledge(PacketType, u16),
    /// The peer publishes at QoS 2, for its PUBRELs.
    Receive(u16),
    Durable,
}

fn step() -> impl Strategy<Value = Step> {
    let types = [
        PacketType::PubAck,
        PacketType::PubRec,
        PacketType::PubRel,
        PacketType::PubComp,
    ];
    prop_oneof![
        3 => prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)].prop_map(Step::Push),
        2 => Just(Step::Write),
        6 => (prop::sample::select(types.to_vec()), 1..6_u16)
            .prop_map(|(packet_type, id)| Step::Acknowledge(packet_type, id)),
        1 => (1..6_u16).prop_map(Step::Receive),
        1 => Just(Step::Durable),
    ]
}

/// An end of a session that is kept, or that ends with its connection.
fn end(version: usize, is_server: bool, persistence: Persistence, lasts: bool) -> End {
    let version = VERSIONS[version];
    let interval = u32::MAX * u32::from(lasts);
    if is_server {
        let mut connect = connect(version);
        connect.clean_start = !lasts;
        if version.has_properties() {
            connect.properties.session_expiry_interval = Some(interval);
        }
        return End::server(
            Session::new(persistence),
            &ServerLimits::default(),
            &connect,
        );
    }
    let mut config = ClientConfig::new(version);
    config.clean_start = !lasts;
    config.session_expiry_interval = interval;
    End::client(
        Session::new(persistence),
        config,
        &ConnAck::new(ReasonCode::SUCCESS),
    )
}

proptest! {
    /// What comes of it, what is written, what is stored and what is held are the same, whether it fits or not.
    #[test]
    fn both_ways_are_one(
        version in 0..VERSIONS.len(),
        is_server in any::<bool>(),
        is_durable in any::<bool>(),
        lasts in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let persistence = if is_durable { Persistence::Durable } else { Persistence::Ephemeral };
        let mut plain = end(version, is_server, persistence, lasts);
        let mut whole = end(version, is_server, persistence, lasts);
        for (key, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(qos) => {
                    plain.push(key as u64, qos);
                    whole.push(key as u64, qos);
                }
                Step::Write => prop_assert_eq!(plain.written(), whole.written()),
                Step::Acknowledge(packet_type, packet_id) => {
                    let ack = PlainAck::new(packet_type, id(packet_id)).expect("an acknowledgement");
                    let one = plain.connection.handle_plain_ack(plain.now, ack);
                    prop_assert_eq!(one, whole.ack(packet_type, packet_id));
                }
                Step::Receive(packet_id) => {
                    let taken = [&mut plain, &mut whole].map(|end| {
                        let token = end.publish(packet_id, QoS::ExactlyOnce);
                        token.map(|token| token.map(|it| end.connection.accept(it, mqtt_session::Durability::Now)))
                    });
                    prop_assert_eq!(&taken[0], &taken[1]);
                }
                Step::Durable => {
                    prop_assert_eq!(plain.changes(), whole.changes());
                    plain.sync();
                    whole.sync();
                }
            }
            let held = |end: &End| {
                let session = end.connection.session();
                (session.in_flight_len(), session.held_size(), session.received_len(), session.unknown_acks())
            };
            prop_assert_eq!(held(&plain), held(&whole));
        }
    }
}
