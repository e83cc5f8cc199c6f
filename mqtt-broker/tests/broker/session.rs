//! Sessions: what they keep, how long they last, what a clean start does.

use core::time::Duration;

use mqtt_broker::DropReason;
use mqtt_codec::{Disconnect, Packet, QoS, ReasonCode};
use tokio::time::sleep;

use crate::harness::{ALL, Peer, V3_1_1, V5, broker, hello, lasting, message, settle};

/// [MQTT-3.1.2-5] [MQTT-4.1.0-1] [MQTT-4.5.0-1] [MQTT3-3.1.2-4] [MQTT3-3.1.2-5] [MQTT3-3.2.2-2]: subscriptions
/// and messages at QoS 1 and 2 wait for the client, in order.
#[tokio::test(start_paused = true)]
async fn a_session_resumes_with_what_it_missed() {
    for version in ALL {
        let broker = broker();
        let (mut receiver, present) = Peer::lasting(&broker, version, "receiver").await;
        assert!(!present);
        receiver.subscribe("a/#", QoS::ExactlyOnce).await;
        receiver.disconnect().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (number, qos) in [QoS::AtLeastOnce, QoS::AtMostOnce, QoS::ExactlyOnce]
            .into_iter()
            .enumerate()
        {
            sender
                .publish(&message("a/b", &number.to_string(), qos))
                .await;
        }
        sender.expect_nothing().await;
        let (mut receiver, present) = Peer::lasting(&broker, version, "receiver").await;
        assert_eq!(present, version.has_session_present());
        receiver.expect_message("a/b", "0", QoS::AtLeastOnce).await;
        receiver.expect_message("a/b", "2", QoS::ExactlyOnce).await;
        sender.publish(&message("a/b", "3", QoS::AtMostOnce)).await;
        receiver.expect_message("a/b", "3", QoS::AtMostOnce).await;
        assert_eq!(broker.counters().dropped(DropReason::Offline), 1);
        assert_eq!(
            broker.client_dropped("receiver", DropReason::Offline),
            Some(1)
        );
    }
}

/// [MQTT-3.1.2-4] [MQTT3-3.1.2-6] [MQTT3-3.1.2-7]: a clean start discards the session, not retained messages.
#[tokio::test(start_paused = true)]
async fn a_clean_start_discards() {
    for version in ALL {
        let broker = broker();
        let (mut first, _) = Peer::lasting(&broker, version, "client").await;
        first.subscribe("topic", QoS::AtLeastOnce).await;
        first.disconnect().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut publish = message("topic", "text", QoS::AtLeastOnce);
        publish.retain = true;
        sender.publish(&publish).await;
        let mut connect = lasting(version, "client");
        connect.clean_start = true;
        let (mut second, present) = Peer::resumed(&broker, &connect).await;
        assert!(!present, "[MQTT-3.2.2-2]");
        sender
            .publish(&message("topic", "more", QoS::AtLeastOnce))
            .await;
        second.expect_nothing().await;
        second.subscribe("topic", QoS::AtMostOnce).await;
        second
            .expect_message("topic", "text", QoS::AtMostOnce)
            .await;
        assert_eq!(broker.counters().dropped(DropReason::SessionEnded), 1);
    }
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-2]: the session ends when its expiry interval has passed.
#[tokio::test(start_paused = true)]
async fn a_session_expires() {
    for (seconds, present) in [(99, true), (101, false)] {
        let broker = broker();
        let mut connect = lasting(V5, "client");
        connect.properties.session_expiry_interval = Some(100);
        let peer = Peer::accepted(&broker, &connect).await;
        peer.abort().await;
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(Peer::resumed(&broker, &connect).await.1, present);
    }
}

/// Section 3.1.2.11.2: no interval, or 0, ends the session with its connection.
#[tokio::test(start_paused = true)]
async fn a_session_without_interval_ends_with_its_connection() {
    let broker = broker();
    let mut connect = hello(V5, "client");
    connect.clean_start = false;
    let mut peer = Peer::accepted(&broker, &connect).await;
    peer.subscribe("topic", QoS::AtLeastOnce).await;
    peer.abort().await;
    assert!(!Peer::resumed(&broker, &connect).await.1);
}

/// Section 3.14.2.2.2: DISCONNECT may change the interval, but not from 0.
#[tokio::test(start_paused = true)]
async fn disconnect_changes_the_interval() {
    let bye = |seconds| {
        let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        disconnect.properties.session_expiry_interval = Some(seconds);
        Packet::Disconnect(disconnect)
    };
    let broker = broker();
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    peer.send(&bye(0)).await;
    peer.expect_closed().await;
    settle().await;
    let (mut peer, present) = Peer::lasting(&broker, V5, "client").await;
    assert!(!present);
    peer.send(&bye(10)).await;
    peer.expect_closed().await;
    sleep(Duration::from_secs(11)).await;
    assert!(!Peer::lasting(&broker, V5, "client").await.1);

    let mut peer = Peer::new(&broker, V5, "other").await;
    peer.send(&bye(10)).await;
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
}

/// A session may be resumed in another version of the protocol.
#[tokio::test(start_paused = true)]
async fn a_session_changes_its_version() {
    let broker = broker();
    let (mut peer, _) = Peer::lasting(&broker, V3_1_1, "client").await;
    peer.subscribe("topic", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    sender
        .publish(&message("topic", "old", QoS::AtMostOnce))
        .await;
    peer.expect_message("topic", "old", QoS::AtMostOnce).await;
    peer.disconnect().await;
    let (mut peer, present) = Peer::lasting(&broker, V5, "client").await;
    assert!(present);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        sender.publish(&message("topic", "new", qos)).await;
        peer.expect_message("topic", "new", qos).await;
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: what expires while it waits is not sent.
#[tokio::test(start_paused = true)]
async fn waiting_messages_expire() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("#", QoS::ExactlyOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for (topic, seconds) in [("short", 10), ("long", 100)] {
        let mut publish = message(topic, "text", QoS::ExactlyOnce);
        publish.properties.message_expiry_interval = Some(seconds);
        sender.publish(&publish).await;
    }
    sleep(Duration::from_secs(30)).await;
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    let received = receiver
        .expect_message("long", "text", QoS::ExactlyOnce)
        .await;
    assert_eq!(
        received.publish().properties.message_expiry_interval,
        Some(70)
    );
    receiver.expect_nothing().await;
    assert_eq!(
        broker.client_dropped("receiver", DropReason::Expired),
        Some(1)
    );
}
