//! QoS 1 and 2 as a client sees them: acknowledgements, duplicates, redelivery.

use mqtt_codec::{Ack, Packet, PacketType, QoS, ReasonCode};

use crate::harness::{ALL, Peer, V3_1_1, V5, broker, id, message};

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT3-4.3.3-2]: a QoS 2 PUBLISH repeated before its PUBREL is one
/// message, also on another connection; after PUBCOMP its identifier is that of a new one.
#[tokio::test(start_paused = true)]
async fn a_repeated_qos_2_publish_is_delivered_once() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("topic", QoS::ExactlyOnce).await;
        let (mut sender, _) = Peer::lasting(&broker, version, "sender").await;
        let mut publish = message("topic", "once", QoS::ExactlyOnce);
        publish.packet_id = Some(id(7));
        for dup in [false, true] {
            publish.dup = dup;
            sender.send_publish(&publish).await;
            sender
                .expect_ack(PacketType::PubRec, id(7), ReasonCode::SUCCESS)
                .await;
        }
        sender.abort().await;
        let (mut sender, _) = Peer::lasting(&broker, version, "sender").await;
        sender.send_publish(&publish).await;
        sender
            .expect_ack(PacketType::PubRec, id(7), ReasonCode::SUCCESS)
            .await;
        receiver
            .expect_message("topic", "once", QoS::ExactlyOnce)
            .await;
        receiver.expect_nothing().await;

        sender
            .send(&Packet::PubRel(Ack::new(id(7), ReasonCode::SUCCESS)))
            .await;
        sender
            .expect_ack(PacketType::PubComp, id(7), ReasonCode::SUCCESS)
            .await;
        publish.dup = false;
        publish.payload = b"twice";
        sender.send_publish(&publish).await;
        sender
            .expect_ack(PacketType::PubRec, id(7), ReasonCode::SUCCESS)
            .await;
        receiver
            .expect_message("topic", "twice", QoS::ExactlyOnce)
            .await;
    }
}

/// [MQTT-3.6.2-1]: PUBREL of an identifier that is not in use.
#[tokio::test(start_paused = true)]
async fn an_unknown_pubrel_is_answered() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.send(&Packet::PubRel(Ack::new(id(3), ReasonCode::SUCCESS)))
            .await;
        let reason = match version.has_reason_codes() {
            true => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            false => ReasonCode::SUCCESS,
        };
        peer.expect_ack(PacketType::PubComp, id(3), reason).await;
    }
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1]: what was not acknowledged comes again on
/// the next connection, in order, with DUP and its identifier, and before anything new.
#[tokio::test(start_paused = true)]
async fn unacknowledged_messages_come_again_in_order() {
    for version in ALL {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce];
        for (number, qos) in qos.into_iter().enumerate() {
            sender
                .publish(&message("topic", &number.to_string(), qos))
                .await;
        }
        let mut identifiers = Vec::new();
        for _ in 0..3 {
            let received = receiver.receive().await;
            assert!(!received.publish().dup);
            identifiers.push(received.publish().packet_id);
        }
        receiver.abort().await;
        sender
            .publish(&message("topic", "new", QoS::AtLeastOnce))
            .await;

        let (mut receiver, present) = Peer::lasting(&broker, version, "receiver").await;
        assert_eq!(present, version.has_session_present());
        let mut again = Vec::new();
        for (number, identifier) in identifiers.into_iter().enumerate() {
            let received = receiver.receive().await;
            let publish = received.publish();
            assert!(publish.dup);
            assert_eq!(publish.payload, number.to_string().as_bytes());
            assert_eq!(publish.packet_id, identifier);
            again.push(received);
        }
        let new = receiver.receive().await;
        assert_eq!(new.publish().payload, b"new");
        assert!(!new.publish().dup);
        for received in again.iter().chain([&new]) {
            receiver.acknowledge(&received.publish()).await;
        }
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.3.3-5] [MQTT-4.3.3-6]: after PUBREC only PUBREL comes again.
#[tokio::test(start_paused = true)]
async fn a_released_message_is_not_published_again() {
    for version in ALL {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("topic", "text", QoS::ExactlyOnce))
            .await;
        let number = receiver.receive().await.publish().packet_id.unwrap();
        receiver
            .send(&Packet::PubRec(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
        receiver
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        receiver
            .send(&Packet::PubComp(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.4.0-2] [MQTT-4.3.3-4]: a refusal ends a delivery.
#[tokio::test(start_paused = true)]
async fn a_refused_delivery_is_over() {
    for (qos, refusal) in [
        (QoS::AtLeastOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubRec),
    ] {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.subscribe("#", qos).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        sender.publish(&message("topic", "text", qos)).await;
        let number = receiver.receive().await.publish().packet_id.unwrap();
        let ack = Ack::new(number, ReasonCode::QUOTA_EXCEEDED);
        receiver
            .send(&match refusal {
                PacketType::PubAck => Packet::PubAck(ack),
                _ => Packet::PubRec(ack),
            })
            .await;
        receiver.expect_nothing().await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.expect_nothing().await;
    }
}
