//! Message Expiry Interval: counted down while a message waits, and its end.

use mqtt_broker::DropReason;
use mqtt_codec::{PacketType, Publish, QoS, ReasonCode};

use crate::harness::{ALL, EVERY_QOS, Peer, V3_1_1, V5, advance, broker, lasting, message};

fn expiring<'a>(payload: &'a str, qos: QoS, seconds: u32) -> Publish<'a> {
    let mut publish = message("topic", payload, qos);
    publish.properties.message_expiry_interval = Some(seconds);
    publish
}

/// [MQTT-3.3.2-6]: without waiting the interval is forwarded as it came, also 0 and the largest; and none
/// stays none.
#[tokio::test(start_paused = true)]
async fn the_interval_is_forwarded() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("topic", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        for interval in [1, 60, u32::MAX] {
            sender.publish(&expiring("text", qos, interval)).await;
            let received = receiver.expect_message("topic", "text", qos).await;
            assert_eq!(
                received.publish().properties.message_expiry_interval,
                Some(interval)
            );
        }
        sender.publish(&message("topic", "text", qos)).await;
        let received = receiver.expect_message("topic", "text", qos).await;
        assert_eq!(received.publish().properties.message_expiry_interval, None);
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: in a session without connection time counts; what has expired is gone, what
/// has not has the rest of its interval, in whole seconds, and never 0 or more than it had.
#[tokio::test(start_paused = true)]
async fn waiting_time_is_subtracted() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.subscribe("topic", QoS::ExactlyOnce).await;
        receiver.disconnect().await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        for interval in [29, 30, 31, 60, 1_000] {
            sender
                .publish(&expiring(&interval.to_string(), qos, interval))
                .await;
        }
        advance(30).await;
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        for interval in [31_u32, 60, 1_000] {
            let received = receiver
                .expect_message("topic", &interval.to_string(), qos)
                .await;
            let left = received.publish().properties.message_expiry_interval;
            assert_eq!(left, Some(interval - 30));
        }
        receiver.expect_nothing().await;
        assert_eq!(
            broker.client_dropped("receiver", DropReason::Expired),
            Some(2)
        );
    }
}

/// [MQTT-3.3.2-5]: a message that waits behind a full window expires there, while the client is connected.
#[tokio::test(start_paused = true)]
async fn messages_expire_behind_the_window() {
    let broker = broker();
    let mut connect = lasting(V5, "receiver");
    connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
    let mut receiver = Peer::accepted(&broker, &connect).await;
    receiver.subscribe("topic", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for (text, interval) in [("first", 10), ("short", 20), ("long", 100)] {
        sender
            .publish(&expiring(text, QoS::AtLeastOnce, interval))
            .await;
    }
    let first = receiver
        .expect_publish("topic", "first", QoS::AtLeastOnce)
        .await;
    advance(50).await;
    receiver.acknowledge(&first.publish()).await;
    let received = receiver
        .expect_message("topic", "long", QoS::AtLeastOnce)
        .await;
    assert_eq!(
        received.publish().properties.message_expiry_interval,
        Some(50)
    );
    receiver.expect_nothing().await;
}

/// [MQTT-4.3.3-7] [MQTT-4.3.3-13]: a QoS 2 message that was sent does not expire: it is sent again after its
/// interval, and its acknowledgements go on to the end, in both directions.
#[tokio::test(start_paused = true)]
async fn a_qos_2_delivery_that_began_does_not_expire() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::ExactlyOnce).await;
    let (mut sender, _) = Peer::lasting(&broker, V5, "sender").await;
    let publish = expiring("text", QoS::ExactlyOnce, 10);
    let sent = sender.send_publish(&publish).await.unwrap();
    sender
        .expect_ack(PacketType::PubRec, sent, ReasonCode::SUCCESS)
        .await;
    let first = receiver
        .expect_publish("topic", "text", QoS::ExactlyOnce)
        .await;
    let number = first.publish().packet_id.unwrap();
    advance(100).await;
    // The publisher's half.
    sender
        .send_ack(PacketType::PubRel, sent, ReasonCode::SUCCESS)
        .await;
    sender
        .expect_ack(PacketType::PubComp, sent, ReasonCode::SUCCESS)
        .await;
    // The subscriber's half: again, under its identifier, on a new connection.
    receiver.abort().await;
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    let again = receiver
        .expect_publish("topic", "text", QoS::ExactlyOnce)
        .await;
    assert!(again.publish().dup);
    assert_eq!(again.publish().packet_id, Some(number));
    receiver
        .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
        .await;
    receiver
        .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
        .await;
    advance(100).await;
    receiver.abort().await;
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver
        .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
        .await;
    receiver
        .send_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
        .await;
    receiver.expect_nothing().await;
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: retained messages count down as well, expire for new subscriptions, and give
/// way to what replaced them; receivers of 3.1.1 get none that has expired and see no interval.
#[tokio::test(start_paused = true)]
async fn retained_messages_count_down() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, V5, "sender").await;
            let mut publish = expiring("kept", qos, 100);
            publish.retain = true;
            sender.publish(&publish).await;
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            for (seconds, left) in [(0, 100), (40, 60), (59, 1)] {
                advance(seconds).await;
                receiver.subscribe("topic", qos).await;
                let received = receiver.expect_message("topic", "kept", qos).await;
                assert_eq!(
                    received.publish().properties.message_expiry_interval,
                    version.has_properties().then_some(left)
                );
            }
            advance(1).await;
            receiver.subscribe("topic", qos).await;
            receiver.expect_nothing().await;
        }
    }
}

/// [MQTT-3.3.2-5]: the interval of a publisher of 5.0 counts for subscribers of 3.1.1 too.
#[tokio::test(start_paused = true)]
async fn messages_expire_for_older_clients() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V3_1_1, "receiver").await;
    receiver.subscribe("topic", QoS::AtLeastOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for (text, interval) in [("short", 10), ("long", 100)] {
        sender
            .publish(&expiring(text, QoS::AtLeastOnce, interval))
            .await;
    }
    advance(20).await;
    let (mut receiver, _) = Peer::lasting(&broker, V3_1_1, "receiver").await;
    receiver
        .expect_message("topic", "long", QoS::AtLeastOnce)
        .await;
    receiver.expect_nothing().await;
}

/// [MQTT-3.3.2-6]: a QoS 1 message sent again after its interval is either gone or says that no time is left;
/// one with time left says how much.
#[tokio::test(start_paused = true)]
async fn redelivery_counts_down() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender
        .publish(&expiring("text", QoS::AtLeastOnce, 100))
        .await;
    receiver
        .expect_publish("topic", "text", QoS::AtLeastOnce)
        .await;
    advance(30).await;
    receiver.abort().await;
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    let again = receiver
        .expect_publish("topic", "text", QoS::AtLeastOnce)
        .await;
    assert!(again.publish().dup);
    assert_eq!(again.publish().properties.message_expiry_interval, Some(70));
}
