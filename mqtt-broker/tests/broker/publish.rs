//! PUBLISH from one client to others: content, properties, order, versions.

use mqtt_broker::DropReason;
use mqtt_codec::{Packet, PacketType, PublishProperties, QoS, ReasonCode, UserProperty};

use crate::harness::{ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, id, message, name};

/// [MQTT-3.8.4-8] [MQTT3-3.8.4-6]: between any versions a message comes at the lower of both QoS.
#[tokio::test(start_paused = true)]
async fn messages_pass_between_versions_at_the_lower_qos() {
    for from in ALL {
        for to in ALL {
            let broker = broker();
            let mut sender = Peer::new(&broker, from, "sender").await;
            let mut receiver = Peer::new(&broker, to, "receiver").await;
            for granted in EVERY_QOS {
                receiver.subscribe("a/+", granted).await;
                for qos in EVERY_QOS {
                    sender.publish(&message("a/b", "text", qos)).await;
                    let received = receiver
                        .expect_message("a/b", "text", qos.min(granted))
                        .await;
                    let publish = received.publish();
                    assert!(!publish.retain && !publish.dup);
                }
            }
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]:
/// properties are forwarded unaltered and in order, to clients that read them.
#[tokio::test(start_paused = true)]
async fn properties_are_forwarded() {
    let pair = |name, value| UserProperty { name, value };
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        let mut old = Peer::new(&broker, V3_1_1, "old").await;
        receiver.subscribe("topic", qos).await;
        old.subscribe("topic", qos).await;
        let mut publish = message("topic", "payload", qos);
        publish.properties = PublishProperties {
            payload_format_utf8: Some(true),
            response_topic: Some(name("answer/here")),
            correlation_data: Some(&[0, 1, 255]),
            content_type: Some("text/plain"),
            user_properties: vec![pair("b", "1"), pair("a", "2"), pair("b", "1")],
            ..PublishProperties::default()
        };
        sender.publish(&publish).await;
        let received = receiver.expect_message("topic", "payload", qos).await;
        assert_eq!(received.publish().properties, publish.properties);
        old.expect_message("topic", "payload", qos).await;
    }
}

/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT3-4.6.0-6]: order per topic and QoS, in one write and in many.
#[tokio::test(start_paused = true)]
async fn order_is_kept() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("#", qos).await;
        let mut bytes = Vec::new();
        for number in 1..=100_u16 {
            let text = number.to_string();
            let mut publish = message(if number % 3 == 0 { "a" } else { "b" }, &text, qos);
            publish.packet_id = (qos != QoS::AtMostOnce).then(|| id(number));
            bytes.extend(Packet::Publish(publish).to_vec(V3_1_1).unwrap());
        }
        sender.send_raw(&bytes).await;
        for number in 1..=100_u16 {
            let topic = if number % 3 == 0 { "a" } else { "b" };
            receiver
                .expect_message(topic, &number.to_string(), qos)
                .await;
        }
    }
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1]: a message that nobody wants is acknowledged with 0x10 and counted.
#[tokio::test(start_paused = true)]
async fn nobody_subscribed() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for (qos, answer) in [
        (QoS::AtLeastOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubRec),
    ] {
        let number = sender
            .send_publish(&message("topic", "", qos))
            .await
            .unwrap();
        sender
            .expect_ack(answer, number, ReasonCode::NO_MATCHING_SUBSCRIBERS)
            .await;
    }
    sender.publish(&message("topic", "", QoS::AtMostOnce)).await;
    sender.expect_nothing().await;
    assert_eq!(broker.counters().dropped(DropReason::NoSubscription), 3);
}

/// A packet larger than any read buffer arrives whole, cut anywhere.
#[tokio::test(start_paused = true)]
async fn large_messages_pass() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::open_with(&broker, V5, 5_000);
        sender
            .send(&Packet::Connect(Box::new(crate::harness::hello(
                V5, "sender",
            ))))
            .await;
        sender.receive().await;
        let mut receivers = Vec::new();
        for number in 0..3 {
            let mut receiver = Peer::new(&broker, V5, &format!("receiver-{number}")).await;
            receiver.subscribe("large", qos).await;
            receivers.push(receiver);
        }
        let payload: String = (0..100_000)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        for _ in 0..3 {
            sender.publish(&message("large", &payload, qos)).await;
        }
        for receiver in &mut receivers {
            for _ in 0..3 {
                receiver.expect_message("large", &payload, qos).await;
            }
        }
    }
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-12]: an alias stands for its topic until it is set again.
#[tokio::test(start_paused = true)]
async fn topic_aliases_are_resolved() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver.subscribe("#", QoS::AtMostOnce).await;
    let publish = |topic: Option<&'static str>, alias: u16| {
        let mut publish = message("unused", "text", QoS::AtMostOnce);
        publish.topic = topic.map(name);
        publish.properties.topic_alias = core::num::NonZeroU16::new(alias);
        publish
    };
    sender.publish(&publish(Some("one"), 1)).await;
    sender.publish(&publish(Some("sixteen"), 16)).await;
    sender.publish(&publish(None, 1)).await;
    sender.publish(&publish(Some("changed"), 1)).await;
    sender.publish(&publish(None, 1)).await;
    sender.publish(&publish(None, 16)).await;
    for topic in ["one", "sixteen", "one", "changed", "changed", "sixteen"] {
        let received = receiver
            .expect_message(topic, "text", QoS::AtMostOnce)
            .await;
        assert_eq!(received.publish().properties, PublishProperties::default());
    }
    sender.publish(&publish(Some("beyond"), 17)).await;
    sender
        .expect_disconnect(ReasonCode::TOPIC_ALIAS_INVALID)
        .await;
}
