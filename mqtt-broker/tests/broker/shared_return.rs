//! Shared subscriptions when members are full, gone, or take less than the message is.

use core::num::{NonZeroU16, NonZeroU32};

use mqtt_broker::{Config, DropReason};
use mqtt_codec::QoS;

use crate::harness::{EVERY_QOS, Peer, V5, broker, broker_with, hello, lasting, message, settle};

const SHARED: &str = "$share/group/topic";

/// When a session ends, what waited for it goes to a member that is not connected, if no other is.
#[tokio::test(start_paused = true)]
async fn messages_of_an_ended_session_wait_for_an_absent_member() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
        away.subscribe(SHARED, qos).await;
        away.disconnect().await;
        let mut connect = hello(V5, "here");
        connect.properties.receive_maximum = NonZeroU16::new(1);
        let mut here = Peer::accepted(&broker, &connect).await;
        here.subscribe(SHARED, qos).await;
        for text in ["1", "2", "3"] {
            sender.publish(&message("topic", text, qos)).await;
        }
        here.expect_publish("topic", "1", qos).await;
        here.disconnect().await;
        let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
        if qos == QoS::AtLeastOnce {
            away.expect_message("topic", "1", qos).await;
        }
        away.expect_message("topic", "2", qos).await;
        away.expect_message("topic", "3", qos).await;
        away.expect_nothing().await;
    }
}

/// A member that is not connected and was granted QoS 0 would lose the message: another one keeps it.
#[tokio::test(start_paused = true)]
async fn an_absent_member_must_be_able_to_keep_it() {
    for order in [["zero", "one"], ["one", "zero"]] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        for id in order {
            let (mut away, _) = Peer::lasting(&broker, V5, id).await;
            let qos = if id == "zero" {
                QoS::AtMostOnce
            } else {
                QoS::AtLeastOnce
            };
            away.subscribe(SHARED, qos).await;
            away.disconnect().await;
        }
        for text in ["1", "2", "3"] {
            sender
                .publish(&message("topic", text, QoS::AtLeastOnce))
                .await;
        }
        let (mut one, _) = Peer::lasting(&broker, V5, "one").await;
        for text in ["1", "2", "3"] {
            one.expect_message("topic", text, QoS::AtLeastOnce).await;
        }
        assert_eq!(broker.counters().report(), "");
    }
}

/// A member whose queue has no room for a message does not get it, while another has, be it that all come in one
/// write.
#[tokio::test(start_paused = true)]
async fn a_full_member_is_passed_over() {
    for one_write in [false, true] {
        let mut config = Config::default();
        config.queue_bytes = 4_000;
        let broker = broker_with(config);
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = hello(V5, "full");
        connect.properties.receive_maximum = NonZeroU16::new(1);
        let mut full = Peer::accepted(&broker, &connect).await;
        full.subscribe(SHARED, QoS::AtLeastOnce).await;
        connect.client_id = "other";
        let mut other = Peer::accepted(&broker, &connect).await;
        let payload = "x".repeat(900);
        if !one_write {
            for _ in 0..3 {
                sender
                    .publish(&message("topic", &payload, QoS::AtLeastOnce))
                    .await;
            }
        }
        other.subscribe(SHARED, QoS::AtLeastOnce).await;
        let mut bytes = Vec::new();
        let count = if one_write { 6 } else { 3 };
        for number in 0..count {
            let mut publish = message("topic", &payload, QoS::AtLeastOnce);
            publish.packet_id = Some(crate::harness::id(100 + number));
            mqtt_codec::Packet::Publish(publish)
                .encode(V5, &mut bytes)
                .unwrap();
        }
        sender.send_raw(&bytes).await;
        for _ in 0..count {
            let received = sender.receive().await;
            match received.packet() {
                mqtt_codec::Packet::PubAck(ack) => assert!(!ack.reason_code.is_error()),
                unexpected => panic!("{unexpected:?}"),
            }
        }
        for member in [&mut full, &mut other] {
            for _ in 0..3 {
                member
                    .expect_message("topic", &payload, QoS::AtLeastOnce)
                    .await;
            }
            member.expect_nothing().await;
        }
        assert_eq!(broker.counters().report(), "");
    }
}

/// Section 3.1.2.11.4: a message that one member cannot read goes to one that can.
#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_one_goes_to_another() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = hello(V5, "small");
        connect.properties.maximum_packet_size = NonZeroU32::new(60);
        let mut small = Peer::accepted(&broker, &connect).await;
        small.subscribe(SHARED, qos).await;
        let mut large = Peer::new(&broker, V5, "large").await;
        large.subscribe(SHARED, qos).await;
        let payload = "x".repeat(100);
        for _ in 0..4 {
            sender.publish(&message("topic", &payload, qos)).await;
            large.expect_message("topic", &payload, qos).await;
        }
        for text in ["1", "2"] {
            sender.publish(&message("topic", text, qos)).await;
        }
        let received = small.receive().await;
        small.acknowledge(&received.publish()).await;
        small.expect_nothing().await;
        assert_eq!(broker.counters().report(), "");
    }
}

/// A message that comes back to the group still expires when it was to, at QoS 0 as well.
#[tokio::test(start_paused = true)]
async fn a_returned_message_keeps_its_expiry() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = lasting(V5, "slow");
        connect.properties.receive_maximum = NonZeroU16::new(1);
        let mut slow = Peer::accepted(&broker, &connect).await;
        slow.subscribe(SHARED, QoS::AtLeastOnce).await;
        for text in ["1", "2"] {
            let mut publish = message("topic", text, QoS::AtLeastOnce);
            publish.properties.message_expiry_interval = Some(100);
            sender.publish(&publish).await;
        }
        slow.expect_publish("topic", "1", QoS::AtLeastOnce).await;
        let mut other = Peer::new(&broker, V5, "other").await;
        other.subscribe(SHARED, qos).await;
        tokio::time::sleep(core::time::Duration::from_secs(30)).await;
        slow.abort().await;
        let received = other
            .expect_message("topic", "2", qos.min(QoS::AtLeastOnce))
            .await;
        let left = received.publish().properties.message_expiry_interval;
        assert_eq!(left, Some(70));
        settle().await;
        assert_eq!(broker.counters().dropped(DropReason::NoMember), 0);
    }
}

/// At QoS 0 a member whose outbox is full is passed over for one that has room, however many are full.
#[tokio::test(start_paused = true)]
async fn members_that_read_nothing_are_passed_over() {
    let mut config = Config::default();
    config.outbox_bytes = 50_000;
    let broker = broker_with(config);
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut blocked = Vec::new();
    for number in 0..8 {
        let id = format!("blocked-{number}");
        let mut member = Peer::open_with(&broker, V5, 1_000);
        let connect = mqtt_codec::Packet::Connect(Box::new(hello(V5, &id)));
        member.send(&connect).await;
        member.receive().await;
        member.subscribe(SHARED, QoS::AtMostOnce).await;
        blocked.push(member);
    }
    let payload = "x".repeat(5_000);
    for _ in 0..400 {
        sender
            .send_publish(&message("topic", &payload, QoS::AtMostOnce))
            .await;
    }
    sender.expect_nothing().await;
    let lost = broker.counters().dropped(DropReason::NoMember);
    assert!(lost > 0, "all of them are full");
    let mut healthy = Peer::new(&broker, V5, "healthy").await;
    healthy.subscribe(SHARED, QoS::AtMostOnce).await;
    let texts: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let mut bytes = Vec::new();
    for text in &texts {
        mqtt_codec::Packet::Publish(message("topic", text, QoS::AtMostOnce))
            .encode(V5, &mut bytes)
            .unwrap();
    }
    sender.send_raw(&bytes).await;
    for text in &texts {
        healthy.expect_message("topic", text, QoS::AtMostOnce).await;
    }
    assert_eq!(broker.counters().dropped(DropReason::NoMember), lost);
}
