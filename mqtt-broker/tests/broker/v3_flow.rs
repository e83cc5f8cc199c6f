//! The flows of QoS 0, 1 and 2 in MQTT 3.1 and 3.1.1, retained messages, and order.

use mqtt_broker::Config;
use mqtt_codec::{Ack, Packet, PacketId, PacketType, QoS, ReasonCode};

use crate::harness::{EVERY_QOS, Peer, V3, broker, broker_with, id, lasting, message};
use crate::v3_wire::{packet, publish};

fn ack(number: PacketId) -> Ack<'static> {
    Ack::new(number, ReasonCode::SUCCESS)
}

/// [MQTT3-3.3.4-1] [MQTT3-4.3.1-1] [MQTT3-4.3.2-2] [MQTT3-4.3.3-2]: nothing, PUBACK or PUBREC by the QoS,
/// whether somebody is subscribed or not, and the message is delivered once.
#[tokio::test(start_paused = true)]
async fn publish_is_answered_by_its_qos() {
    for version in V3 {
        for subscribed in [false, true] {
            let broker = broker();
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            if subscribed {
                receiver.subscribe("a", QoS::ExactlyOnce).await;
            }
            let mut sender = Peer::new(&broker, version, "sender").await;
            sender.send_raw(&publish(0x30, b"a", b"", b"0")).await;
            sender.expect_nothing().await;
            sender.send_raw(&publish(0x32, b"a", b"\0\x09", b"1")).await;
            assert_eq!(sender.receive().await.bytes(), b"\x40\x02\0\x09");
            sender.send_raw(&publish(0x34, b"a", b"\0\x0a", b"2")).await;
            assert_eq!(sender.receive().await.bytes(), b"\x50\x02\0\x0a");
            sender.send_raw(b"\x62\x02\0\x0a").await;
            assert_eq!(sender.receive().await.bytes(), b"\x70\x02\0\x0a");
            sender.expect_nothing().await;
            if subscribed {
                for (payload, qos) in ["0", "1", "2"].into_iter().zip(EVERY_QOS) {
                    receiver.expect_message("a", payload, qos).await;
                }
            }
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT3-4.3.2-2]: after PUBACK the same identifier is a new message, whatever its DUP flag.
#[tokio::test(start_paused = true)]
async fn an_acknowledged_identifier_is_free() {
    for version in V3 {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("a", QoS::AtLeastOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (first, text) in [(0x32, "1"), (0x3a, "2"), (0x3a, "2")] {
            sender
                .send_raw(&publish(first, b"a", b"\0\x05", text.as_bytes()))
                .await;
            assert_eq!(sender.receive().await.bytes(), b"\x40\x02\0\x05");
            receiver.expect_message("a", text, QoS::AtLeastOnce).await;
        }
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-4.3.3-2]: until PUBREL a repeated PUBLISH is acknowledged and not delivered, with and without DUP,
/// whatever its content; a repeated PUBREL is answered; after PUBCOMP the identifier is a new message.
#[tokio::test(start_paused = true)]
async fn exactly_once_from_the_client() {
    for version in V3 {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for round in ["1", "2"] {
            for first in [0x34, 0x3c, 0x34, 0x3c] {
                sender
                    .send_raw(&publish(first, b"a", b"\x80\x01", round.as_bytes()))
                    .await;
                assert_eq!(sender.receive().await.bytes(), b"\x50\x02\x80\x01");
            }
            for _ in 0..2 {
                sender.send_raw(b"\x62\x02\x80\x01").await;
                assert_eq!(sender.receive().await.bytes(), b"\x70\x02\x80\x01");
            }
            receiver.expect_message("a", round, QoS::ExactlyOnce).await;
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT3-2.3.1-4] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]: identifiers of the broker's own messages are not 0, and
/// none is used for two messages at a time, in whatever order they are acknowledged.
#[tokio::test(start_paused = true)]
async fn identifiers_of_the_broker_are_unused_ones() {
    for version in V3 {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            receiver.subscribe("#", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut open: Vec<PacketId> = Vec::new();
            for number in 0..300 {
                sender.publish(&message("a", "x", qos)).await;
                let received = receiver.receive().await;
                let publish = received.publish();
                assert!(!publish.dup);
                let identifier = publish.packet_id.unwrap();
                assert!(!open.contains(&identifier), "{identifier:?}");
                open.push(identifier);
                if open.len() > 20 {
                    let done = open.swap_remove(number * 7 % open.len());
                    if qos == QoS::AtLeastOnce {
                        receiver.send(&Packet::PubAck(ack(done))).await;
                        continue;
                    }
                    // Until PUBCOMP it is in use.
                    receiver.send(&Packet::PubRec(ack(done))).await;
                    receiver
                        .expect_ack(PacketType::PubRel, done, ReasonCode::SUCCESS)
                        .await;
                    sender.publish(&message("a", "y", qos)).await;
                    let between = receiver.receive().await.publish().packet_id.unwrap();
                    assert_ne!(between, done);
                    assert!(!open.contains(&between));
                    receiver.send(&Packet::PubComp(ack(done))).await;
                    receiver.send(&Packet::PubRec(ack(between))).await;
                    receiver
                        .expect_ack(PacketType::PubRel, between, ReasonCode::SUCCESS)
                        .await;
                    receiver.send(&Packet::PubComp(ack(between))).await;
                }
            }
        }
    }
}

/// [MQTT3-4.3.3-1]: PUBREL after PUBREC, with its identifier; PUBREC again brings PUBREL and not PUBLISH.
#[tokio::test(start_paused = true)]
async fn pubrec_is_answered_by_pubrel() {
    for version in V3 {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "x", QoS::ExactlyOnce)).await;
        let number = receiver.receive().await.publish().packet_id.unwrap();
        for _ in 0..2 {
            receiver.send(&Packet::PubRec(ack(number))).await;
            receiver
                .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
                .await;
        }
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        receiver.send(&Packet::PubComp(ack(number))).await;
        receiver.expect_nothing().await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-4.3.2-1]: a message stays unacknowledged until its own PUBACK; no other packet ends it.
#[tokio::test(start_paused = true)]
async fn only_its_own_puback_ends_a_message() {
    for version in V3 {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::AtLeastOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "1", QoS::AtLeastOnce)).await;
        sender.publish(&message("a", "2", QoS::AtLeastOnce)).await;
        let first = receiver.receive().await.publish().packet_id.unwrap();
        let second = receiver.receive().await.publish().packet_id.unwrap();
        receiver.send(&Packet::PubAck(ack(second))).await;
        receiver.expect_nothing().await;
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        let again = receiver.expect_message("a", "1", QoS::AtLeastOnce).await;
        assert_eq!(again.publish().packet_id, Some(first));
        assert!(again.publish().dup);
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-3.3.1-3] [MQTT3-3.3.1-2]: DUP of what came says nothing about what goes out.
#[tokio::test(start_paused = true)]
async fn dup_is_not_forwarded() {
    for version in V3 {
        for granted in EVERY_QOS {
            let broker = broker();
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            receiver.subscribe("a", granted).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for (qos, retain) in [
                (QoS::AtLeastOnce, false),
                (QoS::ExactlyOnce, false),
                (QoS::AtLeastOnce, true),
            ] {
                let mut publish = message("a", "x", qos);
                publish.dup = true;
                publish.retain = retain;
                sender.publish(&publish).await;
                let received = receiver.expect_message("a", "x", qos.min(granted)).await;
                assert!(!received.publish().dup);
            }
            // The retained one neither.
            receiver.subscribe("a", granted).await;
            let received = receiver
                .expect_message("a", "x", granted.min(QoS::AtLeastOnce))
                .await;
            assert!(!received.publish().dup);
        }
    }
}

/// [MQTT3-3.8.4-6] [MQTT3-3.3.5-1]: the lower of both QoS; with overlapping filters that of the highest one,
/// and at least one copy.
#[tokio::test(start_paused = true)]
async fn the_granted_qos_is_the_highest_possible() {
    for version in V3 {
        for published in EVERY_QOS {
            for granted in EVERY_QOS {
                let broker = broker();
                let mut receiver = Peer::new(&broker, version, "receiver").await;
                receiver.subscribe("a/b", granted).await;
                let mut sender = Peer::new(&broker, version, "sender").await;
                sender.publish(&message("a/b", "x", published)).await;
                receiver
                    .expect_message("a/b", "x", published.min(granted))
                    .await;
                receiver.expect_nothing().await;

                let mut overlapping = Peer::new(&broker, version, "overlapping").await;
                for (filter, qos) in [
                    ("a/#", QoS::AtMostOnce),
                    ("+/b", granted),
                    ("#", QoS::AtMostOnce),
                ] {
                    overlapping.subscribe(filter, qos).await;
                }
                sender.publish(&message("a/b", "y", published)).await;
                overlapping
                    .expect_message("a/b", "y", published.min(granted))
                    .await;
                overlapping.expect_nothing().await;
            }
        }
    }
}

/// [MQTT3-3.3.5-2]: what the broker is told not to take gets a positive answer or the end of the connection,
/// and is not passed on.
#[tokio::test(start_paused = true)]
async fn a_publish_that_is_not_allowed() {
    for version in V3 {
        for (first, id) in [(0x34, &b"\0\x01"[..]), (0x33, b"\0\x01"), (0x31, b"")] {
            let mut config = Config::default();
            config.maximum_qos = QoS::AtLeastOnce;
            config.retain_available = false;
            let broker = broker_with(config);
            let mut watcher = Peer::new(&broker, version, "watcher").await;
            watcher.subscribe("#", QoS::AtLeastOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            sender.send_raw(&publish(first, b"a", id, b"x")).await;
            assert_eq!(sender.rest().await, b"");
            watcher.expect_nothing().await;
        }
    }
}

/// [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]: PUBACKs and PUBRECs in the order of their PUBLISHes, in one write or many.
#[tokio::test(start_paused = true)]
async fn acknowledgements_keep_the_order() {
    for version in V3 {
        for (first, answer) in [(0x32, 0x40), (0x34, 0x50)] {
            for together in [false, true] {
                let broker = broker();
                let mut receiver = Peer::new(&broker, version, "receiver").await;
                receiver.subscribe("some/#", QoS::ExactlyOnce).await;
                let mut sender = Peer::new(&broker, version, "sender").await;
                // Identifiers that neither rise nor fall.
                let identifiers: Vec<u16> = (1..=200).map(|n: u16| n * 31 % 211).collect();
                let mut batch = Vec::new();
                for number in &identifiers {
                    let topic = if number % 2 == 0 { "some/a" } else { "none" };
                    let bytes = publish(first, topic.as_bytes(), &number.to_be_bytes(), b"x");
                    if together {
                        batch.extend(bytes);
                    } else {
                        sender.send_raw(&bytes).await;
                    }
                }
                sender.send_raw(&batch).await;
                for number in &identifiers {
                    assert_eq!(
                        sender.receive().await.bytes(),
                        packet(answer, &[&number.to_be_bytes()])
                    );
                }
            }
        }
    }
}

/// [MQTT3-4.3.3-2] [MQTT3-3.3.4-1]: no limit was announced, so none is broken by any number of messages that
/// are not released yet, and a repeated one of them is still known.
#[tokio::test(start_paused = true)]
async fn every_identifier_may_be_open_at_once() {
    for version in V3 {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("a", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for round in 0..2 {
            for number in 1..=u16::MAX {
                let first = if round == 0 { 0x34 } else { 0x3c };
                let id = number.to_be_bytes();
                sender.send_raw(&publish(first, b"a", &id, b"x")).await;
                if number % 1_000 == 0 || number == u16::MAX {
                    let batch = (number - 1) % 1_000 + 1;
                    for answered in number - batch + 1..=number {
                        let expected = packet(0x50, &[&answered.to_be_bytes()]);
                        assert_eq!(sender.receive().await.bytes(), expected);
                    }
                    for _ in (round == 0).then_some(0..batch).into_iter().flatten() {
                        receiver.expect_message("a", "x", QoS::AtMostOnce).await;
                    }
                }
            }
        }
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-4.6.0-4]: PUBRELs in the order of the PUBRECs, which need not be that of the messages.
#[tokio::test(start_paused = true)]
async fn pubrels_keep_the_order_of_the_pubrecs() {
    for version in V3 {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut numbers = Vec::new();
        for _ in 0..50 {
            sender.publish(&message("a", "x", QoS::ExactlyOnce)).await;
            numbers.push(receiver.receive().await.publish().packet_id.unwrap());
        }
        numbers.rotate_left(20);
        numbers.swap(3, 40);
        let mut bytes = Vec::new();
        for number in &numbers {
            bytes.extend(Packet::PubRec(ack(*number)).to_vec(version).unwrap());
        }
        receiver.send_raw(&bytes).await;
        for number in &numbers {
            receiver
                .expect_ack(PacketType::PubRel, *number, ReasonCode::SUCCESS)
                .await;
        }
        // And once more in the same order on the next connection.
        receiver.abort().await;
        let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
        for number in &numbers {
            receiver
                .expect_ack(PacketType::PubRel, *number, ReasonCode::SUCCESS)
                .await;
        }
    }
}

/// [MQTT3-4.6.0-5] [MQTT3-4.6.0-6] [MQTT3-4.6.0-1]: every topic keeps the order of its messages at each QoS,
/// through a connection that breaks half-way.
#[tokio::test(start_paused = true)]
async fn every_topic_is_ordered() {
    const TOPICS: [&str; 4] = ["a", "a/b", "c", "$own/topic"];
    for version in V3 {
        for qos in EVERY_QOS {
            let broker = broker();
            let (mut receiver, _) = Peer::lasting(&broker, version, "receiver").await;
            receiver.subscribe("#", qos).await;
            receiver.subscribe("$own/#", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut bytes = Vec::new();
            for number in 1..=80_u16 {
                let topic = TOPICS[usize::from(number * number) % TOPICS.len()];
                let text = number.to_string();
                let mut publish = message(topic, &text, qos);
                publish.packet_id = (qos != QoS::AtMostOnce).then(|| id(number));
                bytes.extend(Packet::Publish(publish).to_vec(version).unwrap());
            }
            sender.send_raw(&bytes).await;
            let mut seen = std::collections::BTreeMap::<String, Vec<u16>>::new();
            let mut note = |received: &crate::harness::Received| {
                let publish = received.publish();
                let topic = publish.topic.unwrap().as_str().to_owned();
                let text = core::str::from_utf8(publish.payload).unwrap();
                seen.entry(topic).or_default().push(text.parse().unwrap());
            };
            let before_break = if qos == QoS::AtMostOnce { 80 } else { 40 };
            for number in 0..before_break {
                let received = receiver.receive().await;
                if number < 20 || qos == QoS::AtMostOnce {
                    note(&received);
                    receiver.acknowledge(&received.publish()).await;
                }
            }
            if qos != QoS::AtMostOnce {
                receiver.abort().await;
                (receiver, _) = Peer::resumed(&broker, &lasting(version, "receiver")).await;
                for _ in 20..80 {
                    let received = receiver.receive().await;
                    note(&received);
                    receiver.acknowledge(&received.publish()).await;
                }
            }
            receiver.expect_nothing().await;
            assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 80);
            for (topic, numbers) in seen {
                assert!(numbers.is_sorted(), "{topic}: {numbers:?}");
            }
        }
    }
}

/// [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-7] [MQTT3-3.3.1-8] [MQTT3-3.3.1-9]: the last retained message
/// of each topic, whatever QoS the last two have, for each new subscription that matches.
#[tokio::test(start_paused = true)]
async fn the_last_retained_message_of_each_topic_is_sent() {
    for version in V3 {
        for (before, last) in EVERY_QOS
            .into_iter()
            .flat_map(|before| EVERY_QOS.map(|last| (before, last)))
        {
            let broker = broker();
            let mut early = Peer::new(&broker, version, "early").await;
            early.subscribe("#", QoS::AtMostOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for topic in ["a", "a/b", "b"] {
                for (text, qos) in [("before", before), ("last", last)] {
                    let mut publish = message(topic, text, qos);
                    publish.retain = true;
                    sender.publish(&publish).await;
                    let received = early.expect_message(topic, text, QoS::AtMostOnce).await;
                    assert!(!received.publish().retain);
                }
            }
            for (filter, wanted) in [
                ("a", &["a"][..]),
                ("a/#", &["a", "a/b"]),
                ("+", &["a", "b"]),
                ("+/b", &["a/b"]),
                ("c/#", &[]),
            ] {
                let mut late = Peer::new(&broker, version, "late").await;
                late.subscribe(filter, QoS::ExactlyOnce).await;
                let mut topics = Vec::new();
                for _ in wanted {
                    let received = late.receive().await;
                    let publish = received.publish();
                    assert!(publish.retain && !publish.dup);
                    assert_eq!(publish.payload, b"last");
                    assert_eq!(publish.qos, last);
                    topics.push(publish.topic.unwrap().as_str().to_owned());
                    late.acknowledge(&publish).await;
                }
                topics.sort();
                assert_eq!(topics, wanted);
                late.expect_nothing().await;
            }
        }
    }
}

/// [MQTT3-3.3.1-10] [MQTT3-3.3.1-11] [MQTT3-3.3.1-12]: an empty retained message goes to subscribers as any
/// other, clears its topic alone and is not kept; messages without RETAIN, empty ones too, change nothing.
#[tokio::test(start_paused = true)]
async fn retained_messages_are_cleared() {
    for version in V3 {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut early = Peer::new(&broker, version, "early").await;
            early.subscribe("#", QoS::ExactlyOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            for (topic, text, retain) in [
                ("a", "kept", true),
                ("a/b", "kept", true),
                ("a", "passing", false),
                ("a", "", false),
                ("a/b", "", true),
                ("a/b", "", true),
                ("never", "", true),
            ] {
                let mut publish = message(topic, text, qos);
                publish.retain = retain;
                sender.publish(&publish).await;
                let received = early.expect_message(topic, text, qos).await;
                assert!(!received.publish().retain);
            }
            let mut late = Peer::new(&broker, version, "late").await;
            late.subscribe("#", QoS::AtMostOnce).await;
            late.expect_message("a", "kept", QoS::AtMostOnce).await;
            late.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.1.2-7]: retained messages outlive the session of their sender, clean or not.
#[tokio::test(start_paused = true)]
async fn retained_messages_outlive_their_sender() {
    for version in V3 {
        for clean in [false, true] {
            let broker = broker();
            let mut connect = lasting(version, "sender");
            connect.clean_start = clean;
            let mut sender = Peer::accepted(&broker, &connect).await;
            let mut publish = message("a", "kept", QoS::AtLeastOnce);
            publish.retain = true;
            sender.publish(&publish).await;
            sender.disconnect().await;
            // The end of the session, at the latest.
            connect.clean_start = true;
            Peer::accepted(&broker, &connect).await.disconnect().await;
            let mut late = Peer::new(&broker, version, "late").await;
            late.subscribe("a", QoS::AtLeastOnce).await;
            late.expect_message("a", "kept", QoS::AtLeastOnce).await;
        }
    }
}
