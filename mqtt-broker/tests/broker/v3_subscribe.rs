//! SUBSCRIBE and UNSUBSCRIBE of MQTT 3.1 and 3.1.1.

use mqtt_broker::Config;
use mqtt_codec::{Ack, Packet, PacketType, QoS, ReasonCode};

use crate::harness::{EVERY_QOS, Peer, V3, broker, broker_with, filter, message};
use crate::v3_wire::{field, packet};

/// SUBSCRIBE of several filters.
fn subscribe_all(identifier: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let payload: Vec<u8> = filters
        .iter()
        .flat_map(|(filter, options)| [&field(filter.as_bytes())[..], &[*options]].concat())
        .collect();
    packet(0x82, &[&identifier.to_be_bytes(), &payload])
}

/// UNSUBSCRIBE of several filters.
fn unsubscribe_all(identifier: u16, filters: &[&str]) -> Vec<u8> {
    let payload: Vec<u8> = filters
        .iter()
        .flat_map(|filter| field(filter.as_bytes()))
        .collect();
    packet(0xa2, &[&identifier.to_be_bytes(), &payload])
}

/// [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2]: one SUBACK
/// with one code for each filter, in their order; a filter that comes twice is as if subscribed twice.
#[tokio::test(start_paused = true)]
async fn several_filters_get_one_suback() {
    for version in V3 {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let filters = [("c", 2), ("a", 2), ("b/#", 1), ("+", 0), ("a", 1)];
        peer.send_raw(&subscribe_all(0x0a0b, &filters)).await;
        assert_eq!(
            peer.receive().await.bytes(),
            packet(0x90, &[&[0x0a, 0x0b, 2, 2, 1, 0, 1]])
        );
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (topic, qos) in [
            ("a", QoS::AtLeastOnce),
            ("b", QoS::AtLeastOnce),
            ("b/x", QoS::AtLeastOnce),
            ("c", QoS::ExactlyOnce),
            ("d", QoS::AtMostOnce),
        ] {
            sender.publish(&message(topic, "x", QoS::ExactlyOnce)).await;
            peer.expect_message(topic, "x", qos).await;
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.8.4-5] [MQTT3-3.9.3-2]: a hundred filters in one packet.
#[tokio::test(start_paused = true)]
async fn many_filters_get_as_many_codes() {
    for version in V3 {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let names: Vec<String> = (0..100).map(|number| format!("topic/{number}")).collect();
        let filters: Vec<(&str, u8)> = names
            .iter()
            .enumerate()
            .map(|(number, name)| (name.as_str(), (number % 3) as u8))
            .collect();
        peer.send_raw(&subscribe_all(1, &filters)).await;
        let codes: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
        assert_eq!(
            peer.receive().await.bytes(),
            packet(0x90, &[b"\0\x01", &codes])
        );
    }
}

/// [MQTT3-3.8.3-2] [MQTT3-3.8.4-5] [MQTT3-3.9.3-2]: what is switched off gets 0x80, its neighbours do not, and
/// the connection goes on.
#[tokio::test(start_paused = true)]
async fn refused_filters_get_0x80() {
    for version in V3 {
        let mut config = Config::default();
        config.wildcard_subscription_available = false;
        config.shared_subscription_available = false;
        config.maximum_qos = QoS::AtLeastOnce;
        let broker = broker_with(config);
        let mut peer = Peer::new(&broker, version, "client").await;
        let filters = [("a", 2), ("a/+", 0), ("#", 1), ("$share/g/a", 1), ("b", 0)];
        peer.send_raw(&subscribe_all(7, &filters)).await;
        assert_eq!(
            peer.receive().await.bytes(),
            packet(0x90, &[&[0, 7, 1, 0x80, 0x80, 0x80, 0]])
        );
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a/x", "x", QoS::AtLeastOnce)).await;
        sender.publish(&message("a", "y", QoS::AtLeastOnce)).await;
        peer.expect_message("a", "y", QoS::AtLeastOnce).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.8.4-5] [MQTT3-3.9.3-2]: so does a filter for which the session has no room.
#[tokio::test(start_paused = true)]
async fn subscriptions_without_room_get_0x80() {
    for version in V3 {
        let mut config = Config::default();
        config.subscription_bytes = 1_000;
        let broker = broker_with(config);
        let mut peer = Peer::new(&broker, version, "client").await;
        let large = "x".repeat(1_000);
        peer.send_raw(&subscribe_all(7, &[("a", 1), (&large, 0), ("b", 2)]))
            .await;
        assert_eq!(
            peer.receive().await.bytes(),
            packet(0x90, &[&[0, 7, 1, 0x80, 2]])
        );
    }
}

/// [MQTT3-3.8.4-3] [MQTT3-3.3.1-8]: the same filter again replaces the subscription, at its new QoS, and sends
/// retained messages again.
#[tokio::test(start_paused = true)]
async fn the_same_filter_replaces() {
    for version in V3 {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut kept = message("a/kept", "kept", QoS::ExactlyOnce);
        kept.retain = true;
        sender.publish(&kept).await;
        let mut peer = Peer::new(&broker, version, "client").await;
        for qos in [
            QoS::ExactlyOnce,
            QoS::AtMostOnce,
            QoS::AtLeastOnce,
            QoS::AtLeastOnce,
        ] {
            peer.subscribe("a/#", qos).await;
            let received = peer.expect_message("a/kept", "kept", qos).await;
            assert!(received.publish().retain);
            sender.publish(&message("a/b", "x", QoS::ExactlyOnce)).await;
            let received = peer.expect_message("a/b", "x", qos).await;
            assert!(!received.publish().retain);
            peer.expect_nothing().await;
        }
        // One UNSUBSCRIBE ends it: there was never more than one.
        peer.unsubscribe("a/#").await;
        sender.publish(&message("a/b", "x", QoS::ExactlyOnce)).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.8.4-3]: the flow goes on meanwhile: no message is lost and none comes twice.
#[tokio::test(start_paused = true)]
async fn a_replaced_subscription_loses_nothing() {
    for version in V3 {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut peer = Peer::new(&broker, version, "client").await;
            peer.subscribe("a/#", qos).await;
            let mut expected = 0;
            let mut subacks = 0;
            for number in 0..200 {
                sender
                    .send_publish(&message("a/b", &number.to_string(), qos))
                    .await;
                if number % 10 == 0 {
                    peer.send_raw(&subscribe_all(number + 2, &[("a/#", qos as u8)]))
                        .await;
                }
            }
            while expected < 200 || subacks < 20 {
                let received = peer.receive().await;
                match received.packet() {
                    Packet::SubAck(_) => subacks += 1,
                    Packet::Publish(publish) => {
                        assert_eq!(publish.payload, expected.to_string().as_bytes());
                        expected += 1;
                        peer.acknowledge(&publish).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.10.4-1]: only the filter with the same characters goes.
#[tokio::test(start_paused = true)]
async fn unsubscribe_compares_characters() {
    for version in V3 {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        peer.subscribe("a/+", QoS::AtMostOnce).await;
        for other in ["a/b", "A/+", "a/+/", "/a/+", "a/#", "#", "+/+", "a/"] {
            peer.unsubscribe(other).await;
            sender
                .publish(&message("a/b", other, QoS::AtMostOnce))
                .await;
            peer.expect_message("a/b", other, QoS::AtMostOnce).await;
        }
        peer.unsubscribe("a/+").await;
        sender.publish(&message("a/b", "x", QoS::AtMostOnce)).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.10.4-4] [MQTT3-3.10.4-5] [MQTT3-3.10.4-6] [MQTT3-3.10.4-2]: one UNSUBACK with the identifier for
/// several filters, known or not; each of them goes.
#[tokio::test(start_paused = true)]
async fn several_filters_get_one_unsuback() {
    for version in V3 {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let filters = [("a", 1), ("b/#", 1), ("c", 1)];
        peer.send_raw(&subscribe_all(1, &filters)).await;
        assert_eq!(
            peer.receive().await.bytes(),
            packet(0x90, &[&[0, 1, 1, 1, 1]])
        );
        for (number, filters) in [
            (0x0102_u16, &["unknown"][..]),
            (0xfffe, &["b/#", "unknown", "a", "a"]),
        ] {
            peer.send_raw(&unsubscribe_all(number, filters)).await;
            assert_eq!(
                peer.receive().await.bytes(),
                packet(0xb0, &[&number.to_be_bytes()])
            );
        }
        let mut sender = Peer::new(&broker, version, "sender").await;
        for topic in ["a", "b", "b/x", "c"] {
            sender.publish(&message(topic, "x", QoS::AtLeastOnce)).await;
        }
        peer.expect_message("c", "x", QoS::AtLeastOnce).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.10.4-2] [MQTT3-3.10.4-3]: nothing new after UNSUBACK, and deliveries that have begun are completed,
/// also on the next connection.
#[tokio::test(start_paused = true)]
async fn started_deliveries_are_completed() {
    for version in V3 {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("a", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "1", QoS::AtLeastOnce)).await;
        sender.publish(&message("a", "2", QoS::ExactlyOnce)).await;
        sender.publish(&message("a", "3", QoS::ExactlyOnce)).await;
        let mut numbers = Vec::new();
        for _ in 0..3 {
            numbers.push(peer.receive().await.publish().packet_id.unwrap());
        }
        peer.unsubscribe("a").await;
        sender.publish(&message("a", "4", QoS::AtLeastOnce)).await;
        peer.expect_nothing().await;
        // The second one goes its way at once, the others after a break.
        peer.send(&Packet::PubRec(Ack::new(numbers[1], ReasonCode::SUCCESS)))
            .await;
        peer.expect_ack(PacketType::PubRel, numbers[1], ReasonCode::SUCCESS)
            .await;
        peer.send(&Packet::PubComp(Ack::new(numbers[1], ReasonCode::SUCCESS)))
            .await;
        peer.expect_nothing().await;
        peer.abort().await;
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        for (number, text, qos) in [
            (numbers[0], "1", QoS::AtLeastOnce),
            (numbers[2], "3", QoS::ExactlyOnce),
        ] {
            let received = peer.expect_message("a", text, qos).await;
            assert_eq!(received.publish().packet_id, Some(number));
            assert!(received.publish().dup);
        }
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.3.1-6]: several new filters in one SUBSCRIBE each bring the retained messages they match.
#[tokio::test(start_paused = true)]
async fn each_new_filter_brings_retained_messages() {
    for version in V3 {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        for topic in ["a", "b"] {
            let mut kept = message(topic, "kept", QoS::AtLeastOnce);
            kept.retain = true;
            sender.publish(&kept).await;
        }
        let mut peer = Peer::new(&broker, version, "client").await;
        let filters = vec![
            filter("b", QoS::AtMostOnce),
            filter("none", QoS::AtMostOnce),
            filter("a", QoS::AtLeastOnce),
        ];
        peer.subscribe_with(filters, None).await;
        peer.expect_message("b", "kept", QoS::AtMostOnce).await;
        peer.expect_message("a", "kept", QoS::AtLeastOnce).await;
        peer.expect_nothing().await;
    }
}
