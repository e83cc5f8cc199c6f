//! Retained messages: stored, replaced, cleared, sent to new subscriptions.

use core::time::Duration;

use mqtt_broker::{Config, DropReason};
use mqtt_codec::{PacketType, QoS, ReasonCode, RetainHandling};
use tokio::time::sleep;

use crate::harness::{ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, broker_with, filter, message};

fn retained<'a>(topic: &'a str, payload: &'a str, qos: QoS) -> mqtt_codec::Publish<'a> {
    let mut publish = message(topic, payload, qos);
    publish.retain = true;
    publish
}

/// [MQTT-3.3.1-5] [MQTT3-3.3.1-5] [MQTT3-3.3.1-6] [MQTT3-3.3.1-8] [MQTT3-3.3.1-9]: the last message of a
/// topic is kept with its QoS; RETAIN is 1 when a subscription brings it, 0 when it is passed on.
#[tokio::test(start_paused = true)]
async fn the_last_message_is_kept() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut early = Peer::new(&broker, version, "early").await;
            early.subscribe("a/#", QoS::ExactlyOnce).await;
            sender.publish(&retained("a/b", "first", qos)).await;
            sender.publish(&retained("a/b", "last", qos)).await;
            assert!(
                !early
                    .expect_message("a/b", "first", qos)
                    .await
                    .publish()
                    .retain
            );
            assert!(
                !early
                    .expect_message("a/b", "last", qos)
                    .await
                    .publish()
                    .retain
            );

            let mut late = Peer::new(&broker, version, "late").await;
            late.subscribe("+/b", QoS::ExactlyOnce).await;
            assert!(
                late.expect_message("a/b", "last", qos)
                    .await
                    .publish()
                    .retain
            );
            // [MQTT3-3.8.4-3]: subscribing again sends it again.
            late.subscribe("+/b", QoS::AtMostOnce).await;
            assert!(
                late.expect_message("a/b", "last", QoS::AtMostOnce)
                    .await
                    .publish()
                    .retain
            );
            late.expect_nothing().await;
        }
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11] [MQTT3-3.3.1-12]: an empty
/// message is passed on and clears the topic; one without RETAIN changes nothing.
#[tokio::test(start_paused = true)]
async fn an_empty_message_clears_the_topic() {
    for version in ALL {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut early = Peer::new(&broker, version, "early").await;
        sender
            .publish(&retained("topic", "kept", QoS::AtLeastOnce))
            .await;
        sender
            .publish(&message("topic", "", QoS::AtLeastOnce))
            .await;
        early.subscribe("topic", QoS::AtMostOnce).await;
        early.expect_message("topic", "kept", QoS::AtMostOnce).await;
        sender
            .publish(&retained("topic", "", QoS::AtLeastOnce))
            .await;
        early.expect_message("topic", "", QoS::AtMostOnce).await;
        let mut late = Peer::new(&broker, version, "late").await;
        late.subscribe("#", QoS::AtMostOnce).await;
        late.expect_nothing().await;
    }
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]: Retain Handling.
#[tokio::test(start_paused = true)]
async fn retain_handling_decides() {
    for (handling, first, again) in [
        (RetainHandling::Always, true, true),
        (RetainHandling::IfNew, true, false),
        (RetainHandling::Never, false, false),
    ] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        sender
            .publish(&retained("topic", "kept", QoS::AtLeastOnce))
            .await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        for sent in [first, again] {
            let mut wanted = filter("topic", QoS::AtMostOnce);
            wanted.options.retain_handling = handling;
            receiver.subscribe_with(vec![wanted], Some(5)).await;
            if sent {
                let received = receiver
                    .expect_message("topic", "kept", QoS::AtMostOnce)
                    .await;
                let identifiers = received.publish().properties.subscription_identifiers;
                assert_eq!(
                    identifiers.iter().map(|id| id.get()).collect::<Vec<_>>(),
                    [5]
                );
            }
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT-3.3.1-12] [MQTT-3.3.1-13]: Retain As Published.
#[tokio::test(start_paused = true)]
async fn retain_as_published_keeps_the_flag() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        let mut wanted = filter("topic", qos);
        wanted.options.retain_as_published = true;
        receiver.subscribe_with(vec![wanted], None).await;
        sender.publish(&retained("topic", "with", qos)).await;
        sender.publish(&message("topic", "without", qos)).await;
        assert!(
            receiver
                .expect_message("topic", "with", qos)
                .await
                .publish()
                .retain
        );
        assert!(
            !receiver
                .expect_message("topic", "without", qos)
                .await
                .publish()
                .retain
        );
    }
}

/// A subscription that thousands of retained messages match gets all of them, at its own pace.
#[tokio::test(start_paused = true)]
async fn many_retained_messages_arrive() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
        let mut expected = std::collections::BTreeSet::new();
        for number in 0..2_000 {
            let topic = format!("many/{}/{number}", number % 7);
            sender.publish(&retained(&topic, "x", qos)).await;
            expected.insert(topic);
        }
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("many/#", qos).await;
        for _ in 0..2_000 {
            let received = receiver.receive().await;
            let publish = received.publish();
            assert!(expected.remove(publish.topic.unwrap().as_str()));
            receiver.acknowledge(&publish).await;
        }
        receiver.expect_nothing().await;
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: an expired message is not sent; what remains of the interval is.
#[tokio::test(start_paused = true)]
async fn retained_messages_expire() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut publish = retained("topic", "short-lived", qos);
        publish.properties.message_expiry_interval = Some(100);
        sender.publish(&publish).await;
        sleep(Duration::from_secs(40)).await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("topic", qos).await;
        let received = receiver.expect_message("topic", "short-lived", qos).await;
        assert_eq!(
            received.publish().properties.message_expiry_interval,
            Some(60)
        );
        sleep(Duration::from_secs(61)).await;
        receiver.subscribe("topic", qos).await;
        receiver.expect_nothing().await;
    }
}

/// Bounds of the store: what does not fit is not retained, is counted, and is still passed on.
#[tokio::test(start_paused = true)]
async fn the_store_is_bounded() {
    let mut config = Config::default();
    config.retained_messages = 2;
    config.retained_message_bytes = 1_000;
    let broker = broker_with(config);
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for topic in ["one", "two"] {
        sender
            .publish(&retained(topic, "kept", QoS::AtLeastOnce))
            .await;
    }
    let number = sender
        .send_publish(&retained("three", "beyond", QoS::AtLeastOnce))
        .await
        .unwrap();
    sender
        .expect_ack(PacketType::PubAck, number, ReasonCode::QUOTA_EXCEEDED)
        .await;
    // [MQTT3-3.3.1-7]: what cannot be kept still ends what was kept for its topic.
    let large = "x".repeat(1_000);
    sender
        .publish(&retained("one", &large, QoS::AtMostOnce))
        .await;
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver.subscribe("one", QoS::AtMostOnce).await;
    receiver.subscribe("three", QoS::AtMostOnce).await;
    receiver.expect_nothing().await;
    receiver.subscribe("two", QoS::AtMostOnce).await;
    receiver
        .expect_message("two", "kept", QoS::AtMostOnce)
        .await;
    assert_eq!(broker.counters().dropped(DropReason::RetainedFull), 1);
    assert_eq!(broker.counters().dropped(DropReason::RetainedTooLarge), 1);
    // Room that is given back can be used again.
    sender.publish(&retained("two", "", QoS::AtLeastOnce)).await;
    sender
        .publish(&retained("three", "fits", QoS::AtLeastOnce))
        .await;
}
