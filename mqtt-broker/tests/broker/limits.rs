//! Limits of either side: Receive Maximum, Maximum Packet Size, queues, outboxes, time.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use mqtt_broker::{Config, DropReason};
use mqtt_codec::{Packet, PacketType, QoS, ReasonCode};
use tokio::time::Instant;

use crate::harness::{
    Peer, V3_1_1, V5, advance, broker, broker_with, filter, hello, id, lasting, message,
};

/// [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-2] [MQTT-4.9.0-3]: no more than the client's Receive Maximum
/// is unacknowledged, and other packets pass meanwhile.
#[tokio::test(start_paused = true)]
async fn the_receive_maximum_of_the_client_holds() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = hello(V5, "receiver");
        connect.properties.receive_maximum = NonZeroU16::new(2);
        let mut receiver = Peer::accepted(&broker, &connect).await;
        receiver.subscribe("topic", qos).await;
        for number in 0..5 {
            sender
                .publish(&message("topic", &number.to_string(), qos))
                .await;
        }
        let first = receiver.receive().await;
        let second = receiver.receive().await;
        receiver.expect_nothing().await;
        receiver.acknowledge(&first.publish()).await;
        let third = receiver.receive().await;
        receiver.expect_nothing().await;
        for received in [second, third] {
            receiver.acknowledge(&received.publish()).await;
            receiver.receive().await;
        }
    }
}

/// [MQTT-3.3.4-7]: a client that has more unacknowledged than it may is disconnected with 0x93.
#[tokio::test(start_paused = true)]
async fn the_receive_maximum_of_the_broker_holds() {
    let mut config = Config::default();
    config.receive_maximum = NonZeroU16::new(3).unwrap();
    let broker = broker_with(config);
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 1..=4 {
        let mut publish = message("topic", "text", QoS::ExactlyOnce);
        publish.packet_id = Some(id(number));
        sender.send_publish(&publish).await;
        if number <= 3 {
            sender
                .expect_ack(
                    PacketType::PubRec,
                    id(number),
                    ReasonCode::NO_MATCHING_SUBSCRIBERS,
                )
                .await;
        }
    }
    sender
        .expect_disconnect(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)
        .await;
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]: what is too large for the client is dropped, counted, and blocks nothing.
#[tokio::test(start_paused = true)]
async fn the_packet_size_of_the_client_holds() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = hello(V5, "receiver");
        connect.properties.maximum_packet_size = NonZeroU32::new(40);
        let mut receiver = Peer::accepted(&broker, &connect).await;
        receiver.subscribe("topic", qos).await;
        let large = "x".repeat(40);
        sender.publish(&message("topic", &large, qos)).await;
        sender.publish(&message("topic", "small", qos)).await;
        receiver.expect_message("topic", "small", qos).await;
        receiver.expect_nothing().await;
        assert_eq!(
            broker.client_dropped("receiver", DropReason::TooLarge),
            Some(1)
        );
    }
}

/// Section 3.2.2.3.6: a packet above the broker's limit ends the connection with 0x95, on its header.
#[tokio::test(start_paused = true)]
async fn the_packet_size_of_the_broker_holds() {
    for version in [V3_1_1, V5] {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        // PUBLISH of 268,435,455 bytes, of which only the header is sent.
        peer.send_raw(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE).await;
    }
}

/// Of what a reload changes, this holds for those who are connected as well.
#[tokio::test(start_paused = true)]
async fn some_limits_change_for_those_who_are_there() {
    let broker = broker_with(Config::default());
    let mut peer = Peer::new(&broker, V5, "client").await;
    let full = ReasonCode::QUOTA_EXCEEDED;
    let mut retained = message("kept", "text", QoS::AtLeastOnce);
    retained.retain = true;
    peer.publish(&retained).await;

    let mut config = Config::default();
    config.subscription_bytes = 0;
    config.retained_messages = 0;
    config.reason_strings = true;
    broker.reconfigure(config.clone());
    let wanted = vec![filter("a", QoS::AtMostOnce)];
    assert_eq!(peer.subscribe_with(wanted, None).await, [full]);
    let id = peer.send_publish(&retained).await.unwrap();
    peer.expect_ack(PacketType::PubAck, id, full).await;

    config = Config::default();
    config.retained_expiry_maximum = Some(Duration::from_secs(10));
    config.reason_strings = true;
    broker.reconfigure(config);
    peer.publish(&retained).await;
    advance(11).await;
    peer.subscribe("kept", QoS::AtMostOnce).await;
    peer.expect_nothing().await;
    // A packet that no client sends.
    peer.send_raw(&[0x20, 0x03, 0, 0, 0]).await;
    let farewell = peer.receive().await;
    let reason = farewell.disconnect().properties.reason_string;
    assert!(reason.is_some_and(|text| !text.is_empty()));
}

/// A session holds so much and no more: beyond it the publisher is told, and the loss counted.
#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let mut config = Config::default();
    config.queue_bytes = 10_000;
    let broker = broker_with(config);
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::AtLeastOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let text = "x".repeat(1_000);
    let mut taken = 0;
    let refused = loop {
        let number = sender
            .send_publish(&message("topic", &text, QoS::AtLeastOnce))
            .await
            .unwrap();
        match sender.receive().await.packet() {
            Packet::PubAck(ack) if ack.reason_code == ReasonCode::SUCCESS => taken += 1,
            Packet::PubAck(ack) => {
                assert_eq!(ack.packet_id, number);
                break ack.reason_code;
            }
            other => panic!("expected PUBACK, got {other:?}"),
        }
    };
    assert_eq!(refused, ReasonCode::QUOTA_EXCEEDED);
    assert!(
        (5..10).contains(&taken),
        "{taken} messages of 1,000 bytes in 10,000"
    );
    assert_eq!(
        broker.client_dropped("receiver", DropReason::QueueFull),
        Some(1)
    );
    // Once it is read there is room again.
    let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
    for _ in 0..taken {
        receiver
            .expect_message("topic", &text, QoS::AtLeastOnce)
            .await;
    }
    receiver.expect_nothing().await;
    sender
        .publish(&message("topic", "room", QoS::AtLeastOnce))
        .await;
    receiver
        .expect_message("topic", "room", QoS::AtLeastOnce)
        .await;
}

/// A client that reads nothing loses QoS 0 messages beyond its outbox and disturbs nobody; it is
/// disconnected when nothing could be written for the write timeout.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing() {
    let mut config = Config::default();
    config.outbox_bytes = 10_000;
    let broker = broker_with(config);
    let mut deaf = Peer::open_with(&broker, V3_1_1, 4_000);
    deaf.send(&Packet::Connect(Box::new(hello(V3_1_1, "deaf"))))
        .await;
    deaf.receive().await;
    deaf.subscribe("topic", QoS::AtMostOnce).await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    let text = "x".repeat(1_000);
    for _ in 0..200 {
        sender
            .publish(&message("topic", &text, QoS::AtMostOnce))
            .await;
        sender.expect_nothing().await;
    }
    let dropped = broker
        .client_dropped("deaf", DropReason::OutboxFull)
        .unwrap();
    assert!((50..200).contains(&dropped), "{dropped} of 200 dropped");
    let started = Instant::now();
    while broker
        .client_dropped("deaf", DropReason::OutboxFull)
        .is_some()
    {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(
            started.elapsed().as_secs() < 100,
            "the connection is not closed"
        );
    }
    assert!(started.elapsed().as_secs() >= 58);
}

/// A single message larger than the outbox passes where nothing else waits.
#[tokio::test(start_paused = true)]
async fn a_message_larger_than_the_outbox() {
    let mut config = Config::default();
    config.outbox_bytes = 1_000;
    let broker = broker_with(config);
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    let mut receiver = Peer::new(&broker, V3_1_1, "receiver").await;
    receiver.subscribe("topic", QoS::AtMostOnce).await;
    let text = "x".repeat(5_000);
    sender
        .publish(&message("topic", &text, QoS::AtMostOnce))
        .await;
    receiver
        .expect_message("topic", &text, QoS::AtMostOnce)
        .await;
}

/// Answers that a client does not read stop the broker from reading more of what provokes them.
#[tokio::test(start_paused = true)]
async fn a_flood_of_requests_is_not_read_on() {
    let broker = broker();
    let mut peer = Peer::open_with(&broker, V3_1_1, 1_000);
    peer.send(&Packet::Connect(Box::new(hello(V3_1_1, "flood"))))
        .await;
    peer.receive().await;
    let pings = Packet::PingReq.to_vec(V3_1_1).unwrap().repeat(500);
    let mut sent = 0_usize;
    let flood = async {
        loop {
            peer.send_raw(&pings).await;
            sent += pings.len();
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(30), flood)
            .await
            .is_err()
    );
    assert!(
        sent < 200_000,
        "{sent} bytes of PINGREQ were read without an answer taken"
    );
}

/// The broker keeps more than the window of a client in the session and sends it as the client acknowledges.
#[tokio::test(start_paused = true)]
async fn a_long_queue_drains_in_order() {
    let broker = broker();
    let (mut receiver, _) = Peer::lasting(&broker, V3_1_1, "receiver").await;
    receiver.subscribe("topic", QoS::AtLeastOnce).await;
    receiver.disconnect().await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    for number in 0..3_000 {
        sender
            .publish(&message("topic", &number.to_string(), QoS::AtLeastOnce))
            .await;
    }
    let mut receiver = Peer::accepted(&broker, &lasting(V3_1_1, "receiver")).await;
    for number in 0..3_000 {
        receiver
            .expect_message("topic", &number.to_string(), QoS::AtLeastOnce)
            .await;
    }
    receiver.expect_nothing().await;
}

/// A session has so many subscriptions and no more; what it has can be replaced, and room is given back.
#[tokio::test(start_paused = true)]
async fn subscriptions_are_bounded() {
    let mut config = Config::default();
    config.subscription_bytes = 1_600;
    let broker = broker_with(config);
    let mut peer = Peer::new(&broker, V5, "client").await;
    let mut codes = Vec::new();
    for number in 0..6 {
        let text = format!("a/{number}/c");
        let wanted = vec![filter(&text, QoS::AtMostOnce)];
        codes.extend(peer.subscribe_with(wanted, None).await);
    }
    let refused = ReasonCode::QUOTA_EXCEEDED;
    let granted = ReasonCode::GRANTED_QOS_0;
    assert_eq!(
        codes,
        [granted, granted, granted, refused, refused, refused]
    );
    peer.subscribe("a/0/c", QoS::AtLeastOnce).await;
    peer.unsubscribe("a/1/c").await;
    peer.subscribe("a/5/c", QoS::AtLeastOnce).await;
}

/// What waits in the outbox while the socket is full goes on when the client reads, without a new message.
#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_everything_in_the_end() {
    for pipe in [3_000, 200_000] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let mut slow = Peer::open_with(&broker, V3_1_1, pipe);
            slow.send(&Packet::Connect(Box::new(hello(V3_1_1, "slow"))))
                .await;
            slow.receive().await;
            slow.subscribe("topic", qos).await;
            let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
            let text = "x".repeat(1_000);
            for _ in 0..800 {
                sender.publish(&message("topic", &text, qos)).await;
            }
            let started = Instant::now();
            for _ in 0..800 {
                slow.expect_message("topic", &text, qos).await;
            }
            slow.expect_nothing().await;
            // Nothing had to wait for a timer.
            assert_eq!(started.elapsed().as_secs(), 0);
        }
    }
}

/// The bytes of a session's queue are counted right, however its connections end.
#[tokio::test(start_paused = true)]
async fn acknowledged_messages_give_their_room_back() {
    let mut config = Config::default();
    config.queue_bytes = 5_000;
    let broker = broker_with(config);
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let text = "x".repeat(1_000);
    for _ in 0..20 {
        let (mut receiver, _) = Peer::lasting(&broker, V5, "receiver").await;
        receiver.subscribe("topic", QoS::AtLeastOnce).await;
        sender
            .publish(&message("topic", &text, QoS::AtLeastOnce))
            .await;
        let received = receiver.receive().await;
        // The acknowledgement and a violation in one write.
        let ack = mqtt_codec::Ack::new(received.publish().packet_id.unwrap(), ReasonCode::SUCCESS);
        let mut bytes = Packet::PubAck(ack).to_vec(V5).unwrap();
        bytes.extend([0x00, 0x00]);
        receiver.send_raw(&bytes).await;
        receiver
            .expect_disconnect(ReasonCode::MALFORMED_PACKET)
            .await;
    }
    assert_eq!(
        broker.client_dropped("receiver", DropReason::QueueFull),
        Some(0)
    );
}
