//! The QoS 1 and QoS 2 handshakes, step by step, on one connection and across several.

use mqtt_codec::{Packet, PacketType, Publish, QoS, ReasonCode};

use crate::harness::{ALL, Peer, V5, broker, hex, id, lasting, message};

fn numbered<'a>(payload: &'a str, qos: QoS, number: u16, dup: bool) -> Publish<'a> {
    let mut publish = message("topic", payload, qos);
    publish.packet_id = Some(id(number));
    publish.dup = dup;
    publish
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-2.2.1-5] [MQTT-3.3.4-1] [MQTT3-4.3.2-2]: PUBACK bears the identifier of the
/// PUBLISH; after it the same identifier is a new message, DUP or not.
#[tokio::test(start_paused = true)]
async fn a_qos_1_identifier_is_free_after_puback() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("topic", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (number, dup) in [
            (1, false),
            (1, false),
            (1, true),
            (65_535, true),
            (7, false),
        ] {
            sender
                .send(&Packet::Publish(numbered(
                    "text",
                    QoS::AtLeastOnce,
                    number,
                    dup,
                )))
                .await;
            sender
                .expect_ack(PacketType::PubAck, id(number), ReasonCode::SUCCESS)
                .await;
            receiver
                .expect_message("topic", "text", QoS::AtMostOnce)
                .await;
        }
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-2.2.1-5] [MQTT3-4.3.3-2]: until PUBREL a
/// repeated PUBLISH gets PUBREC again and is delivered once, with DUP or without; PUBREL gets PUBCOMP; after it
/// the identifier is that of a new message.
#[tokio::test(start_paused = true)]
async fn a_qos_2_message_is_delivered_once() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("topic", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for round in ["first", "second"] {
            for dup in [false, true, true, false] {
                sender
                    .send(&Packet::Publish(numbered(round, QoS::ExactlyOnce, 9, dup)))
                    .await;
                sender
                    .expect_ack(PacketType::PubRec, id(9), ReasonCode::SUCCESS)
                    .await;
            }
            receiver
                .expect_message("topic", round, QoS::AtMostOnce)
                .await;
            receiver.expect_nothing().await;
            sender
                .send_ack(PacketType::PubRel, id(9), ReasonCode::SUCCESS)
                .await;
            sender
                .expect_ack(PacketType::PubComp, id(9), ReasonCode::SUCCESS)
                .await;
        }
    }
}

/// [MQTT-4.3.3-10] [MQTT-3.2.2-3]: identifiers of QoS 2 outlive the connection with their session, and only with
/// it; PUBREL of a new connection is answered.
#[tokio::test(start_paused = true)]
async fn received_identifiers_belong_to_the_session() {
    for version in ALL {
        for clean_start in [false, true] {
            let broker = broker();
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            receiver.subscribe("topic", QoS::AtMostOnce).await;
            let (mut sender, _) = Peer::lasting(&broker, version, "sender").await;
            let publish = numbered("text", QoS::ExactlyOnce, 3, false);
            sender.send(&Packet::Publish(publish)).await;
            sender
                .expect_ack(PacketType::PubRec, id(3), ReasonCode::SUCCESS)
                .await;
            sender.abort().await;
            receiver
                .expect_message("topic", "text", QoS::AtMostOnce)
                .await;
            let mut connect = lasting(version, "sender");
            connect.clean_start = clean_start;
            let mut sender = Peer::accepted(&broker, &connect).await;
            let again = numbered("text", QoS::ExactlyOnce, 3, true);
            sender.send(&Packet::Publish(again)).await;
            sender
                .expect_ack(PacketType::PubRec, id(3), ReasonCode::SUCCESS)
                .await;
            if clean_start {
                receiver
                    .expect_message("topic", "text", QoS::AtMostOnce)
                    .await;
            }
            receiver.expect_nothing().await;
            sender
                .send_ack(PacketType::PubRel, id(3), ReasonCode::SUCCESS)
                .await;
            sender
                .expect_ack(PacketType::PubComp, id(3), ReasonCode::SUCCESS)
                .await;
        }
    }
}

/// [MQTT-4.3.3-9]: a PUBREC with an error frees the identifier: the same one is a new message.
#[tokio::test(start_paused = true)]
async fn a_refused_qos_2_identifier_is_free() {
    let mut config = mqtt_broker::Config::default();
    config.queue_bytes = 500;
    let broker = crate::harness::broker_with(config);
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::ExactlyOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let text = "x".repeat(1_000);
    for _ in 0..2 {
        // Refused: no session has room.
        sender
            .send(&Packet::Publish(numbered(
                &text,
                QoS::ExactlyOnce,
                4,
                false,
            )))
            .await;
        sender
            .expect_ack(PacketType::PubRec, id(4), ReasonCode::QUOTA_EXCEEDED)
            .await;
    }
    sender
        .send(&Packet::Publish(numbered(
            "fits",
            QoS::ExactlyOnce,
            4,
            false,
        )))
        .await;
    sender
        .expect_ack(PacketType::PubRec, id(4), ReasonCode::SUCCESS)
        .await;
    sender
        .send_ack(PacketType::PubRel, id(4), ReasonCode::SUCCESS)
        .await;
    sender
        .expect_ack(PacketType::PubComp, id(4), ReasonCode::SUCCESS)
        .await;
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver
        .expect_message("topic", "fits", QoS::ExactlyOnce)
        .await;
    receiver.expect_nothing().await;
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]: the codes that the broker's acknowledgements bear:
/// success, no matching subscribers, quota exceeded, identifier not found.
#[tokio::test(start_paused = true)]
async fn acknowledgements_bear_listed_codes() {
    let mut config = mqtt_broker::Config::default();
    config.queue_bytes = 500;
    let broker = crate::harness::broker_with(config);
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::ExactlyOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let text = "x".repeat(1_000);
    for (topic, text, expected) in [
        ("topic", &text[..1], ReasonCode::SUCCESS),
        ("topic", &text, ReasonCode::QUOTA_EXCEEDED),
        ("other", &text, ReasonCode::NO_MATCHING_SUBSCRIBERS),
    ] {
        for (qos, packet_type) in [
            (QoS::AtLeastOnce, PacketType::PubAck),
            (QoS::ExactlyOnce, PacketType::PubRec),
        ] {
            let number = sender
                .send_publish(&message(topic, text, qos))
                .await
                .unwrap();
            sender.expect_ack(packet_type, number, expected).await;
            assert!(expected.is_allowed_in(packet_type));
        }
    }
    sender
        .send_ack(PacketType::PubRel, id(500), ReasonCode::SUCCESS)
        .await;
    sender
        .expect_ack(
            PacketType::PubComp,
            id(500),
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        )
        .await;
    sender
        .send_ack(PacketType::PubRec, id(501), ReasonCode::SUCCESS)
        .await;
    sender
        .expect_ack(
            PacketType::PubRel,
            id(501),
            ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        )
        .await;
    sender.expect_nothing().await;
}

/// [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-2.2.1-5] [MQTT3-4.3.3-1]: the broker as a sender of QoS 2:
/// PUBREC gets PUBREL of the same identifier, a repeated PUBREC too, and PUBCOMP ends it.
#[tokio::test(start_paused = true)]
async fn the_broker_releases_what_was_received() {
    for version in ALL {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("topic", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut numbers = Vec::new();
        for text in ["1", "2", "3"] {
            sender
                .publish(&message("topic", text, QoS::ExactlyOnce))
                .await;
            let received = receiver
                .expect_publish("topic", text, QoS::ExactlyOnce)
                .await;
            assert!(!received.publish().dup);
            numbers.push(received.publish().packet_id.unwrap());
        }
        // In the order of the PUBRECs; then one for each that is repeated.
        for indexes in [&[1, 0, 2][..], &[0], &[1]] {
            for index in indexes {
                receiver
                    .send_ack(PacketType::PubRec, numbers[*index], ReasonCode::SUCCESS)
                    .await;
            }
            for index in indexes {
                receiver
                    .expect_ack(PacketType::PubRel, numbers[*index], ReasonCode::SUCCESS)
                    .await;
            }
        }
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        for index in [1, 0, 2] {
            receiver
                .expect_ack(PacketType::PubRel, numbers[index], ReasonCode::SUCCESS)
                .await;
        }
        for number in numbers {
            receiver
                .send_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
                .await;
        }
        receiver.expect_nothing().await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.3.2-3] [MQTT-4.3.3-3]: on resume all that is
/// unacknowledged comes again with DUP, its identifier and its content, again and again; what the publisher set
/// as DUP is not passed on.
#[tokio::test(start_paused = true)]
async fn dup_is_of_this_delivery_only() {
    for version in ALL {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
            receiver.subscribe("topic", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for (number, dup) in [(1, false), (2, true)] {
                let text = number.to_string();
                sender.publish(&numbered(&text, qos, number, dup)).await;
            }
            let mut identifiers = Vec::new();
            for round in 0..3 {
                for (index, text) in ["1", "2"].into_iter().enumerate() {
                    let received = receiver.expect_publish("topic", text, qos).await;
                    let publish = received.publish();
                    assert_eq!(publish.dup, round > 0);
                    if round == 0 {
                        identifiers.push(publish.packet_id);
                    }
                    assert_eq!(publish.packet_id, identifiers[index]);
                }
                receiver.expect_nothing().await;
                receiver.abort().await;
                (receiver, _) = Peer::lasting(&broker, version, "receiver").await;
            }
        }
    }
}

/// [MQTT-4.4.0-1] [MQTT-3.1.2-4]: nothing is sent again to a new session, nor to one that has expired.
#[tokio::test(start_paused = true)]
async fn a_new_session_gets_nothing_again() {
    for version in ALL {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("topic", QoS::AtLeastOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("topic", "text", QoS::AtLeastOnce))
            .await;
        receiver
            .expect_publish("topic", "text", QoS::AtLeastOnce)
            .await;
        receiver.abort().await;
        Peer::new(&broker, version, "receiver")
            .await
            .disconnect()
            .await;
        let (mut receiver, present) = Peer::lasting(&broker, version, "receiver").await;
        assert!(!present);
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.4.0-2] [MQTT-4.3.3-4]: an error in PUBACK or PUBREC ends the delivery: no PUBREL, nothing again, and the
/// next message comes.
#[tokio::test(start_paused = true)]
async fn an_error_ends_a_delivery() {
    for reason in [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] {
        for (qos, packet_type) in [
            (QoS::AtLeastOnce, PacketType::PubAck),
            (QoS::ExactlyOnce, PacketType::PubRec),
        ] {
            let broker = broker();
            let mut connect = lasting(V5, "receiver");
            connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
            let mut receiver = Peer::accepted(&broker, &connect).await;
            receiver.subscribe("topic", qos).await;
            let mut sender = Peer::new(&broker, V5, "sender").await;
            sender.publish(&message("topic", "bad", qos)).await;
            sender.publish(&message("topic", "good", qos)).await;
            let received = receiver.expect_publish("topic", "bad", qos).await;
            let number = received.publish().packet_id.unwrap();
            receiver
                .send_ack(packet_type, number, ReasonCode(reason))
                .await;
            receiver.expect_message("topic", "good", qos).await;
            receiver.abort().await;
            let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT-2.2.1-5]: an acknowledgement of the wrong kind is a Protocol Error, and the delivery is not lost by it.
#[tokio::test(start_paused = true)]
async fn acknowledgements_of_the_wrong_kind() {
    for (qos, wrong) in [
        (QoS::AtLeastOnce, PacketType::PubRec),
        (QoS::AtLeastOnce, PacketType::PubComp),
        (QoS::ExactlyOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubComp),
    ] {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.subscribe("topic", qos).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        sender.publish(&message("topic", "text", qos)).await;
        let received = receiver.expect_publish("topic", "text", qos).await;
        let number = received.publish().packet_id.unwrap();
        receiver.send_ack(wrong, number, ReasonCode::SUCCESS).await;
        receiver.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.expect_message("topic", "text", qos).await;
    }
}

/// [MQTT-4.3.3-4] [MQTT-3.4.2-1]: acknowledgements in every form that 5.0 allows: without reason code, with it,
/// with an empty property section, with properties.
#[tokio::test(start_paused = true)]
async fn every_form_of_an_acknowledgement_is_read() {
    for tail in [
        "",
        "00",
        "00 00",
        "10 00",
        "00 0B 1F 0001 78 26 0001 61 0001 62",
    ] {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.subscribe("topic", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let packet = |first: &str, number: u16, tail: &str| {
            let body = hex(&format!("{number:04X} {tail}"));
            let mut packet = hex(first);
            packet.push(u8::try_from(body.len()).unwrap());
            packet.extend(body);
            packet
        };
        sender
            .publish(&message("topic", "1", QoS::AtLeastOnce))
            .await;
        let received = receiver
            .expect_publish("topic", "1", QoS::AtLeastOnce)
            .await;
        let number = received.publish().packet_id.unwrap().get();
        receiver.send_raw(&packet("40", number, tail)).await;
        sender
            .publish(&message("topic", "2", QoS::ExactlyOnce))
            .await;
        let received = receiver
            .expect_publish("topic", "2", QoS::ExactlyOnce)
            .await;
        let number = received.publish().packet_id.unwrap().get();
        receiver.send_raw(&packet("50", number, tail)).await;
        receiver
            .expect_ack(PacketType::PubRel, id(number), ReasonCode::SUCCESS)
            .await;
        // PUBCOMP and PUBREL have no code 0x10.
        let tail = tail.replace("10", "00");
        receiver.send_raw(&packet("70", number, &tail)).await;
        receiver.expect_nothing().await;
        let number = sender
            .send_publish(&message("topic", "3", QoS::ExactlyOnce))
            .await
            .unwrap();
        sender
            .expect_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
            .await;
        sender.send_raw(&packet("62", number.get(), &tail)).await;
        sender
            .expect_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
            .await;
        receiver
            .expect_message("topic", "3", QoS::ExactlyOnce)
            .await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.5.0-1]: messages of one publisher to one topic and QoS arrive in the order
/// they were sent, at every QoS, live and after a break; each accepted message is in the session of each subscriber.
#[tokio::test(start_paused = true)]
async fn order_survives_a_break() {
    for version in ALL {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let mut receivers = Vec::new();
            for name in ["a", "b"] {
                let (mut receiver, _) = Peer::lasting(&broker, version, name).await;
                receiver.subscribe("topic/+", qos).await;
                receivers.push((name, receiver));
            }
            let mut sender = Peer::new(&broker, version, "sender").await;
            let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
            for text in &texts[..10] {
                sender.publish(&message("topic/x", text, qos)).await;
            }
            for (_, receiver) in &mut receivers {
                for text in &texts[..5] {
                    receiver.expect_message("topic/x", text, qos).await;
                }
            }
            for (name, receiver) in receivers {
                receiver.abort().await;
                sender
                    .publish(&message("topic/y", name, QoS::AtMostOnce))
                    .await;
            }
            for text in &texts[10..] {
                sender.publish(&message("topic/x", text, qos)).await;
            }
            for name in ["a", "b"] {
                let (mut receiver, _) = Peer::lasting(&broker, version, name).await;
                for text in &texts[5..] {
                    receiver.expect_message("topic/x", text, qos).await;
                }
                receiver.expect_nothing().await;
            }
        }
    }
}

/// [MQTT-3.12.4-1] [MQTT3-3.12.4-1]: each PINGREQ gets one PINGRESP, without a body.
#[tokio::test(start_paused = true)]
async fn every_ping_is_answered() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.send_raw(&hex("C000 C000 C000")).await;
        for _ in 0..3 {
            assert_eq!(peer.receive().await.bytes(), hex("D000"));
        }
        peer.expect_nothing().await;
    }
}
