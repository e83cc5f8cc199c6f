//! Flow control: Receive Maximum both ways, packet identifiers, and what they do not hold back.

use core::num::NonZeroU16;
use std::collections::HashSet;

use mqtt_broker::Config;
use mqtt_codec::{Connect, Packet, PacketId, PacketType, QoS, ReasonCode};

use crate::harness::{
    ALL, Peer, Received, V5, advance, broker, broker_with, hello, id, lasting, message,
};

fn with_receive_maximum(mut connect: Connect<'_>, maximum: u16) -> Connect<'_> {
    connect.properties.receive_maximum = NonZeroU16::new(maximum);
    connect
}

/// Two QoS levels that use identifiers.
const ACKNOWLEDGED: [QoS; 2] = [QoS::AtLeastOnce, QoS::ExactlyOnce];

/// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-3.3.4-10] [MQTT-4.9.0-3]: the broker never has more
/// unacknowledged than the client's Receive Maximum; each acknowledgement lets one more through; QoS 0 and
/// other packets are not held back.
#[tokio::test(start_paused = true)]
async fn the_receive_maximum_of_a_client_is_kept() {
    for maximum in [1_u16, 2, 5] {
        for qos in ACKNOWLEDGED {
            let broker = broker();
            let mut receiver = Peer::accepted(
                &broker,
                &with_receive_maximum(hello(V5, "receiver"), maximum),
            )
            .await;
            receiver.subscribe("#", QoS::ExactlyOnce).await;
            let mut sender = Peer::new(&broker, V5, "sender").await;
            for number in 0..12 {
                sender
                    .publish(&message("topic", &number.to_string(), qos))
                    .await;
            }
            let mut open: Vec<Received> = Vec::new();
            for number in 0..maximum {
                open.push(
                    receiver
                        .expect_publish("topic", &number.to_string(), qos)
                        .await,
                );
            }
            // The quota is used up: nothing at QoS 1 and 2, everything else goes on.
            receiver.expect_nothing().await;
            receiver.subscribe("other", QoS::AtMostOnce).await;
            receiver.unsubscribe("other").await;
            sender
                .publish(&message("topic", "at most once", QoS::AtMostOnce))
                .await;
            receiver
                .expect_message("topic", "at most once", QoS::AtMostOnce)
                .await;
            receiver
                .publish(&message("$own", "from the receiver", QoS::ExactlyOnce))
                .await;
            for number in maximum..12 {
                let first = open.remove(0);
                receiver.acknowledge(&first.publish()).await;
                open.push(
                    receiver
                        .expect_publish("topic", &number.to_string(), qos)
                        .await,
                );
                receiver.expect_nothing().await;
            }
        }
    }
}

/// [MQTT-4.9.0-2]: of QoS 2 only PUBCOMP, or PUBREC with an error, gives quota back; PUBREC does not.
#[tokio::test(start_paused = true)]
async fn pubrec_gives_no_quota_back() {
    let broker = broker();
    let mut receiver =
        Peer::accepted(&broker, &with_receive_maximum(hello(V5, "receiver"), 1)).await;
    receiver.subscribe("#", QoS::ExactlyOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for text in ["1", "2", "3"] {
        sender
            .publish(&message("topic", text, QoS::ExactlyOnce))
            .await;
    }
    let number = receiver
        .expect_publish("topic", "1", QoS::ExactlyOnce)
        .await
        .publish()
        .packet_id
        .unwrap();
    receiver
        .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
        .await;
    receiver
        .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
        .await;
    receiver.expect_nothing().await;
    receiver
        .send_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
        .await;
    let number = receiver
        .expect_publish("topic", "2", QoS::ExactlyOnce)
        .await
        .publish()
        .packet_id
        .unwrap();
    receiver
        .send_ack(PacketType::PubRec, number, ReasonCode::QUOTA_EXCEEDED)
        .await;
    receiver
        .expect_message("topic", "3", QoS::ExactlyOnce)
        .await;
    receiver.expect_nothing().await;
}

/// [MQTT-3.3.4-9] [MQTT-4.4.0-1]: the quota holds for what is sent again, and a smaller one of a new
/// connection too.
#[tokio::test(start_paused = true)]
async fn the_quota_holds_for_redelivery() {
    let broker = broker();
    let mut receiver =
        Peer::accepted(&broker, &with_receive_maximum(lasting(V5, "receiver"), 10)).await;
    receiver.subscribe("#", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 0..10 {
        sender
            .publish(&message("topic", &number.to_string(), QoS::AtLeastOnce))
            .await;
    }
    for number in 0..10 {
        receiver
            .expect_publish("topic", &number.to_string(), QoS::AtLeastOnce)
            .await;
    }
    receiver.abort().await;
    let mut receiver =
        Peer::accepted(&broker, &with_receive_maximum(lasting(V5, "receiver"), 3)).await;
    let mut open = Vec::new();
    for number in 0..3 {
        let received = receiver
            .expect_publish("topic", &number.to_string(), QoS::AtLeastOnce)
            .await;
        assert!(received.publish().dup);
        open.push(received);
    }
    receiver.expect_nothing().await;
    for number in 3..10 {
        let first = open.remove(0);
        receiver.acknowledge(&first.publish()).await;
        let received = receiver
            .expect_publish("topic", &number.to_string(), QoS::AtLeastOnce)
            .await;
        assert!(received.publish().dup);
        open.push(received);
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.13.1-1] and section 3.3.4: more unacknowledged PUBLISH than the broker's Receive Maximum ends the
/// connection with 0x93; exactly as many do not, and QoS 1 gives its place back at once.
#[tokio::test(start_paused = true)]
async fn more_than_the_receive_maximum_is_refused() {
    let mut config = Config::default();
    config.receive_maximum = NonZeroU16::new(3).unwrap();
    let broker = broker_with(config);
    let (mut peer, received) = Peer::connect(&broker, &hello(V5, "client")).await;
    assert_eq!(
        received.connack().properties.receive_maximum,
        NonZeroU16::new(3)
    );
    for _ in 0..10 {
        peer.publish(&message("topic", "", QoS::AtLeastOnce)).await;
    }
    let publish = |number: u16| {
        let mut publish = message("topic", "", QoS::ExactlyOnce);
        publish.packet_id = Some(id(number));
        Packet::Publish(publish)
    };
    for number in 101..=103 {
        peer.send(&publish(number)).await;
        peer.expect_ack(
            PacketType::PubRec,
            id(number),
            ReasonCode::NO_MATCHING_SUBSCRIBERS,
        )
        .await;
    }
    // A repetition of one of them is not one more.
    peer.send(&publish(101)).await;
    peer.expect_ack(
        PacketType::PubRec,
        id(101),
        ReasonCode::NO_MATCHING_SUBSCRIBERS,
    )
    .await;
    // QoS 0 is not counted.
    peer.publish(&message("topic", "", QoS::AtMostOnce)).await;
    peer.send_ack(PacketType::PubRel, id(102), ReasonCode::SUCCESS)
        .await;
    peer.expect_ack(PacketType::PubComp, id(102), ReasonCode::SUCCESS)
        .await;
    peer.send(&publish(104)).await;
    peer.expect_ack(
        PacketType::PubRec,
        id(104),
        ReasonCode::NO_MATCHING_SUBSCRIBERS,
    )
    .await;
    peer.send(&publish(105)).await;
    peer.expect_disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)
        .await;
}

/// The same with the default of 1,024, all in one write.
#[tokio::test(start_paused = true)]
async fn the_default_receive_maximum_is_kept_exactly() {
    for (count, closes) in [(1_024_u16, false), (1_025, true)] {
        let broker = broker();
        let mut peer = Peer::new(&broker, V5, "client").await;
        let mut bytes = Vec::new();
        for number in 1..=count {
            let mut publish = message("topic", "", QoS::ExactlyOnce);
            publish.packet_id = Some(id(number));
            Packet::Publish(publish).encode(V5, &mut bytes).unwrap();
        }
        peer.send_raw(&bytes).await;
        if closes {
            loop {
                match peer.receive().await.packet() {
                    Packet::PubRec(_) => {}
                    Packet::Disconnect(disconnect) => {
                        assert_eq!(disconnect.reason_code, ReasonCode::RECEIVE_MAXIMUM_EXCEEDED);
                        break;
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
            peer.expect_closed().await;
        } else {
            for number in 1..=count {
                peer.expect_ack(
                    PacketType::PubRec,
                    id(number),
                    ReasonCode::NO_MATCHING_SUBSCRIBERS,
                )
                .await;
            }
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-4.3.1-1] [MQTT-2.2.1-2]
/// [MQTT-3.3.1-2] [MQTT3-2.3.1-4] [MQTT3-2.3.1-5] [MQTT3-4.3.1-1] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]: each new
/// message of QoS 1 and 2 has an identifier that is not zero and not in use, and DUP 0; QoS 0 has neither.
#[tokio::test(start_paused = true)]
async fn identifiers_in_flight_are_unique() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut in_use: HashSet<PacketId> = HashSet::new();
        for number in 0..60_u32 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number as usize % 3];
            sender
                .publish(&message("topic", &number.to_string(), qos))
                .await;
            let received = receiver
                .expect_publish("topic", &number.to_string(), qos)
                .await;
            let publish = received.publish();
            assert!(!publish.dup);
            assert_eq!(publish.packet_id.is_some(), qos != QoS::AtMostOnce);
            if qos == QoS::AtMostOnce {
                assert_eq!(received.bytes()[0], 0x30);
            }
            // Every second one is never acknowledged.
            if number % 2 == 0 {
                receiver.acknowledge(&publish).await;
            } else if let Some(packet_id) = publish.packet_id {
                assert!(in_use.insert(packet_id), "{packet_id:?} is in use");
            }
            if let Some(packet_id) = publish.packet_id {
                assert!(number % 2 == 1 || !in_use.contains(&packet_id));
            }
        }
    }
}

/// [MQTT-2.2.1-4]: identifiers wrap around past 65,535 without meeting one that is still in use.
#[tokio::test(start_paused = true)]
async fn identifiers_wrap_around() {
    let broker = broker();
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver.subscribe("#", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender
        .publish(&message("topic", "held", QoS::AtLeastOnce))
        .await;
    let held = receiver
        .expect_publish("topic", "held", QoS::AtLeastOnce)
        .await
        .publish()
        .packet_id
        .unwrap();
    let mut bytes = Vec::new();
    let mut seen = 0_u32;
    for round in 0..70 {
        bytes.clear();
        for number in 0..1_000_u16 {
            let mut publish = message("topic", "x", QoS::AtLeastOnce);
            publish.packet_id = Some(id(number + 1));
            Packet::Publish(publish).encode(V5, &mut bytes).unwrap();
        }
        sender.send_raw(&bytes).await;
        for _ in 0..1_000 {
            let received = receiver.receive().await;
            let publish = received.publish();
            assert_ne!(publish.packet_id, Some(held), "round {round}");
            receiver.acknowledge(&publish).await;
            seen += 1;
        }
        for number in 0..1_000_u16 {
            sender
                .expect_ack(PacketType::PubAck, id(number + 1), ReasonCode::SUCCESS)
                .await;
        }
    }
    assert_eq!(seen, 70_000);
    receiver
        .send_ack(PacketType::PubAck, held, ReasonCode::SUCCESS)
        .await;
    receiver.expect_nothing().await;
}

/// [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.4.0-1] [MQTT3-4.4.0-1]: without acknowledgement nothing
/// is sent again on the same connection, however long it lasts.
#[tokio::test(start_paused = true)]
async fn nothing_is_repeated_on_one_connection() {
    for version in ALL {
        for qos in ACKNOWLEDGED {
            let broker = broker();
            let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
            receiver.subscribe("#", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            sender.publish(&message("topic", "text", qos)).await;
            let received = receiver.expect_publish("topic", "text", qos).await;
            for _ in 0..5 {
                advance(1_000).await;
                receiver.expect_nothing().await;
            }
            if qos == QoS::ExactlyOnce {
                let number = received.publish().packet_id.unwrap();
                receiver
                    .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
                    .await;
                receiver
                    .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
                    .await;
                advance(5_000).await;
                receiver.expect_nothing().await;
            }
        }
    }
}
