//! Wills: when they are published, and when not.

use core::time::Duration;

use mqtt_codec::{Connect, Disconnect, Packet, QoS, ReasonCode, Will};
use tokio::time::{Instant, sleep};

use crate::harness::{ALL, Peer, V3_1_1, V5, broker, hello, lasting, message, name};

fn with_will(mut connect: Connect<'_>, delay: Option<u32>) -> Connect<'_> {
    let mut will = Will::new(name("will"), b"dead");
    will.qos = QoS::AtLeastOnce;
    will.properties.delay_interval = delay.filter(|_| connect.version.has_properties());
    connect.will = Some(will);
    connect
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-14] [MQTT3-3.1.2-8] [MQTT3-3.1.2-16]: published when the connection breaks.
#[tokio::test(start_paused = true)]
async fn a_broken_connection_publishes_the_will() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("will", QoS::ExactlyOnce).await;
        let peer = Peer::accepted(&broker, &with_will(hello(version, "client"), None)).await;
        peer.abort().await;
        let received = watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;
        assert!(!received.publish().retain);
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT3-3.14.4-3] [MQTT3-3.1.2-10]: DISCONNECT takes it back.
#[tokio::test(start_paused = true)]
async fn a_farewell_discards_the_will() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("will", QoS::ExactlyOnce).await;
        let peer = Peer::accepted(&broker, &with_will(hello(version, "client"), None)).await;
        peer.disconnect().await;
        watcher.expect_nothing().await;
    }
}

/// Section 3.14.2.1: DISCONNECT 0x04 asks for the will.
#[tokio::test(start_paused = true)]
async fn disconnect_with_will_publishes_it() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::ExactlyOnce).await;
    let mut peer = Peer::accepted(&broker, &with_will(hello(V5, "client"), None)).await;
    peer.send(&Packet::Disconnect(Disconnect::new(
        ReasonCode::DISCONNECT_WITH_WILL,
    )))
    .await;
    peer.expect_closed().await;
    watcher
        .expect_message("will", "dead", QoS::AtLeastOnce)
        .await;
}

/// Keep alive, protocol errors and takeover end a connection without a farewell.
#[tokio::test(start_paused = true)]
async fn every_other_end_publishes_the_will() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("will", QoS::ExactlyOnce).await;

        let mut connect = with_will(hello(version, "client"), None);
        connect.keep_alive = 10;
        let mut silent = Peer::accepted(&broker, &connect).await;
        silent
            .expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT)
            .await;
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;

        let mut rude = Peer::accepted(&broker, &connect).await;
        rude.send_raw(&[0x00, 0x00]).await;
        rude.expect_disconnect(ReasonCode::MALFORMED_PACKET).await;
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;

        let mut old = Peer::accepted(&broker, &connect).await;
        let new = Peer::accepted(&broker, &connect).await;
        old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER).await;
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;
        new.disconnect().await;
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.1.2-15] [MQTT3-3.1.2-17]: Will Retain.
#[tokio::test(start_paused = true)]
async fn a_will_may_be_retained() {
    for version in ALL {
        let broker = broker();
        let mut connect = with_will(hello(version, "client"), None);
        connect.will.as_mut().unwrap().retain = true;
        Peer::accepted(&broker, &connect).await.abort().await;
        let mut late = Peer::new(&broker, version, "late").await;
        late.subscribe("will", QoS::AtMostOnce).await;
        assert!(
            late.expect_message("will", "dead", QoS::AtMostOnce)
                .await
                .publish()
                .retain
        );
    }
}

/// [MQTT-3.1.3-9]: a delayed will waits, and a client that comes back in time cancels it.
#[tokio::test(start_paused = true)]
async fn a_delayed_will_waits() {
    for back_in_time in [false, true] {
        let broker = broker();
        let mut watcher = Peer::new(&broker, V3_1_1, "watcher").await;
        watcher.subscribe("will", QoS::ExactlyOnce).await;
        let connect = with_will(lasting(V5, "client"), Some(60));
        Peer::accepted(&broker, &connect).await.abort().await;
        let started = Instant::now();
        if back_in_time {
            sleep(Duration::from_secs(59)).await;
            let (mut peer, present) = Peer::resumed(&broker, &connect).await;
            assert!(present);
            sleep(Duration::from_secs(59)).await;
            peer.expect_nothing().await;
            watcher.expect_nothing().await;
        } else {
            watcher
                .expect_message("will", "dead", QoS::AtLeastOnce)
                .await;
            assert_eq!(started.elapsed().as_secs(), 60);
        }
    }
}

/// Section 3.1.3.2.2: the end of the session publishes a delayed will, be it by time or by a clean start.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_publishes_a_delayed_will() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::ExactlyOnce).await;
    let mut connect = with_will(lasting(V5, "client"), Some(1_000));
    connect.properties.session_expiry_interval = Some(30);
    Peer::accepted(&broker, &connect).await.abort().await;
    let started = Instant::now();
    watcher
        .expect_message("will", "dead", QoS::AtLeastOnce)
        .await;
    assert_eq!(started.elapsed().as_secs(), 30);

    Peer::accepted(&broker, &connect).await.abort().await;
    watcher.expect_nothing().await;
    let mut clean = lasting(V5, "client");
    clean.clean_start = true;
    Peer::accepted(&broker, &clean).await.disconnect().await;
    watcher
        .expect_message("will", "dead", QoS::AtLeastOnce)
        .await;
}

/// [MQTT-3.1.3-10]: properties of the will are those of its PUBLISH.
#[tokio::test(start_paused = true)]
async fn will_properties_are_published() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::ExactlyOnce).await;
    let mut connect = with_will(hello(V5, "client"), None);
    let properties = &mut connect.will.as_mut().unwrap().properties;
    properties.content_type = Some("text/plain");
    properties.response_topic = Some(name("answer"));
    properties.correlation_data = Some(b"correlation");
    properties.payload_format_utf8 = Some(true);
    properties.message_expiry_interval = Some(1_000);
    for (name, value) in [("b", "1"), ("a", "2")] {
        properties
            .user_properties
            .push(mqtt_codec::UserProperty { name, value });
    }
    let expected = properties.clone();
    Peer::accepted(&broker, &connect).await.abort().await;
    let received = watcher
        .expect_message("will", "dead", QoS::AtLeastOnce)
        .await;
    let properties = received.publish().properties;
    assert_eq!(properties.content_type, expected.content_type);
    assert_eq!(properties.response_topic, expected.response_topic);
    assert_eq!(properties.correlation_data, expected.correlation_data);
    assert_eq!(properties.payload_format_utf8, expected.payload_format_utf8);
    assert_eq!(
        properties.message_expiry_interval,
        expected.message_expiry_interval
    );
    assert_eq!(properties.user_properties, expected.user_properties);
}

/// A will reaches its own client's other subscriptions like any message: nothing of it is special.
#[tokio::test(start_paused = true)]
async fn a_will_waits_in_sessions() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V3_1_1, "receiver").await;
    receiver.subscribe("#", QoS::ExactlyOnce).await;
    receiver.disconnect().await;
    Peer::accepted(&broker, &with_will(hello(V3_1_1, "client"), None))
        .await
        .abort()
        .await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    sender
        .publish(&message("after", "text", QoS::AtLeastOnce))
        .await;
    let (mut receiver, _) = Peer::lasting(&broker, V3_1_1, "receiver").await;
    receiver
        .expect_message("will", "dead", QoS::AtLeastOnce)
        .await;
    receiver
        .expect_message("after", "text", QoS::AtLeastOnce)
        .await;
}
