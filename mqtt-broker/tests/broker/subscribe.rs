//! SUBSCRIBE and UNSUBSCRIBE: options, overlaps, answers.

use mqtt_broker::Config;
use mqtt_codec::{Packet, QoS, ReasonCode, Subscribe, SubscriptionIdentifier};

use crate::harness::{ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, broker_with, filter, message};

/// [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.9.3-1] [MQTT3-3.8.4-5] [MQTT3-3.9.3-1]: one code a filter, in order.
#[tokio::test(start_paused = true)]
async fn one_code_a_filter() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let filters = vec![
            filter("c", QoS::ExactlyOnce),
            filter("a", QoS::AtMostOnce),
            filter("b", QoS::AtLeastOnce),
            filter("a", QoS::AtLeastOnce),
        ];
        let codes = peer.subscribe_with(filters, None).await;
        assert_eq!(
            codes.iter().map(|code| code.0).collect::<Vec<_>>(),
            [2, 0, 1, 1]
        );
    }
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT3-3.3.5-1]: overlapping subscriptions bring one copy,
/// with the highest QoS and every identifier.
#[tokio::test(start_paused = true)]
async fn overlapping_subscriptions_bring_one_copy() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver
            .subscribe_with(vec![filter("a/#", QoS::AtMostOnce)], Some(1))
            .await;
        receiver
            .subscribe_with(vec![filter("a/+", QoS::AtLeastOnce)], Some(200_000))
            .await;
        receiver
            .subscribe_with(vec![filter("+/b", QoS::ExactlyOnce)], None)
            .await;
        sender.publish(&message("a/b", "text", qos)).await;
        let received = receiver.expect_message("a/b", "text", qos).await;
        assert_eq!(received.identifiers(), [1, 200_000]);
        receiver.expect_nothing().await;
    }
}

/// [MQTT-3.8.4-3]: an identical filter replaces the subscription, its identifier included.
#[tokio::test(start_paused = true)]
async fn a_subscription_is_replaced() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver
        .subscribe_with(vec![filter("topic", QoS::ExactlyOnce)], Some(1))
        .await;
    receiver
        .subscribe_with(vec![filter("topic", QoS::AtMostOnce)], Some(2))
        .await;
    sender
        .publish(&message("topic", "text", QoS::ExactlyOnce))
        .await;
    let received = receiver
        .expect_message("topic", "text", QoS::AtMostOnce)
        .await;
    assert_eq!(received.identifiers(), [2]);
    receiver.expect_nothing().await;
}

/// [MQTT-3.8.3-3]: No Local, for this subscription and not for others of the same client.
#[tokio::test(start_paused = true)]
async fn no_local_keeps_own_messages_away() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut peer = Peer::new(&broker, V5, "client").await;
        let mut other = Peer::new(&broker, V5, "other").await;
        let mut wanted = filter("topic", QoS::ExactlyOnce);
        wanted.options.no_local = true;
        peer.subscribe_with(vec![wanted], None).await;
        peer.publish(&message("topic", "own", qos)).await;
        peer.expect_nothing().await;
        other.publish(&message("topic", "other", qos)).await;
        peer.expect_message("topic", "other", qos).await;

        peer.subscribe("#", QoS::AtMostOnce).await;
        peer.send_publish(&message("topic", "own", QoS::AtMostOnce))
            .await;
        peer.expect_message("topic", "own", QoS::AtMostOnce).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.11.3-1] [MQTT3-3.10.4-1]
/// [MQTT3-3.10.4-5]: exactly the named filter goes, and the answer says whether it was there.
#[tokio::test(start_paused = true)]
async fn unsubscribe_removes_the_named_filter() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        peer.subscribe("a/+", QoS::AtLeastOnce).await;
        let codes = |wanted: &[ReasonCode]| {
            if version.has_reason_codes() {
                wanted.to_vec()
            } else {
                Vec::new()
            }
        };
        assert_eq!(
            peer.unsubscribe("a/b").await,
            codes(&[ReasonCode::NO_SUBSCRIPTION_EXISTED])
        );
        sender
            .publish(&message("a/b", "before", QoS::AtLeastOnce))
            .await;
        peer.expect_message("a/b", "before", QoS::AtLeastOnce).await;
        assert_eq!(peer.unsubscribe("a/+").await, codes(&[ReasonCode::SUCCESS]));
        sender
            .publish(&message("a/b", "after", QoS::AtLeastOnce))
            .await;
        peer.expect_nothing().await;
    }
}

/// [MQTT-4.7.2-1] [MQTT3-4.7.2-1]: wildcards at the start do not match topics that begin with `$`.
#[tokio::test(start_paused = true)]
async fn dollar_topics_are_hidden_from_wildcards() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    let mut all = Peer::new(&broker, V3_1_1, "all").await;
    all.subscribe("#", QoS::AtMostOnce).await;
    all.subscribe("+/x", QoS::AtMostOnce).await;
    let mut named = Peer::new(&broker, V3_1_1, "named").await;
    named.subscribe("$own/+", QoS::AtMostOnce).await;
    sender
        .publish(&message("$own/x", "text", QoS::AtMostOnce))
        .await;
    named
        .expect_message("$own/x", "text", QoS::AtMostOnce)
        .await;
    all.expect_nothing().await;
}

/// Section 3.2.2.3: what is switched off is announced.
#[tokio::test(start_paused = true)]
async fn features_can_be_switched_off() {
    let mut config = Config::default();
    config.wildcard_subscription_available = false;
    config.shared_subscription_available = false;
    config.subscription_identifiers_available = false;
    config.maximum_qos = QoS::AtLeastOnce;
    config.retain_available = false;
    let broker = broker_with(config);
    let (mut peer, connack) = Peer::connect(&broker, &crate::harness::hello(V5, "client")).await;
    let Packet::ConnAck(connack) = connack.packet() else {
        panic!("no CONNACK")
    };
    let properties = &connack.properties;
    assert_eq!(properties.wildcard_subscription_available, Some(false));
    assert_eq!(properties.shared_subscription_available, Some(false));
    assert_eq!(properties.subscription_identifiers_available, Some(false));
    assert_eq!(properties.maximum_qos, Some(QoS::AtLeastOnce));
    assert_eq!(properties.retain_available, Some(false));
    let codes = peer
        .subscribe_with(vec![filter("a", QoS::ExactlyOnce)], None)
        .await;
    assert_eq!(codes, [ReasonCode::GRANTED_QOS_1]);
    peer.send_publish(&message("a", "text", QoS::ExactlyOnce))
        .await;
    peer.expect_disconnect(ReasonCode::QOS_NOT_SUPPORTED).await;
}

/// Sections 3.2.2.3.11 to 3.2.2.3.13: who subscribes to what CONNACK excluded is disconnected with the reason of
/// it, and nothing of the packet is carried out; clients of 3.1.1, which were not told, get 0x80 for that filter.
#[tokio::test(start_paused = true)]
async fn what_is_switched_off_cannot_be_subscribed_to() {
    let mut config = Config::default();
    config.wildcard_subscription_available = false;
    config.shared_subscription_available = false;
    config.subscription_identifiers_available = false;
    let broker = broker_with(config);
    let (mut watched, _) = Peer::lasting(&broker, V5, "client").await;
    for (text, identifier, reason) in [
        (
            "a/+",
            None,
            ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
        ("#", None, ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
        (
            "$share/g/a",
            None,
            ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        ),
        (
            "a",
            Some(1),
            ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
        ),
    ] {
        let number = watched.fresh_id();
        let filters = vec![
            filter("first", QoS::AtMostOnce),
            filter(text, QoS::AtMostOnce),
        ];
        let mut subscribe = Subscribe::new(number, filters);
        subscribe.properties.subscription_identifier =
            identifier.and_then(SubscriptionIdentifier::new);
        watched.send(&Packet::Subscribe(subscribe)).await;
        watched.expect_disconnect(reason).await;
        (watched, _) = Peer::lasting(&broker, V5, "client").await;
        watched
            .send_publish(&message("first", "", QoS::AtMostOnce))
            .await;
        watched.expect_nothing().await;
    }
    let mut old = Peer::new(&broker, V3_1_1, "old").await;
    let filters = vec![
        filter("a/+", QoS::AtMostOnce),
        filter("a", QoS::AtLeastOnce),
        filter("$share/g/a", QoS::AtMostOnce),
    ];
    let codes = old.subscribe_with(filters, None).await;
    assert_eq!(
        codes.iter().map(|code| code.0).collect::<Vec<_>>(),
        [0x80, 1, 0x80]
    );
}
