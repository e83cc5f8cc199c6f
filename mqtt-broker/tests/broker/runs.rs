//! Messages that follow each other in one write travel together; each receiver gets them as if they had come
//! alone, whatever it reads, keeps, limits and was granted.

use std::num::{NonZeroU16, NonZeroU32};

use mqtt_broker::{Config, DropReason};
use mqtt_codec::{Connect, Packet, PacketType, ProtocolVersion, Publish, QoS, ReasonCode};

use crate::harness::{
    ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, broker_with, hello, id, lasting, message, settle,
};

/// Packets one after the other: `first` has packet identifier `number`, the next the next one.
fn in_one_write(
    first: &Publish<'_>,
    payloads: &[String],
    number: u16,
    version: ProtocolVersion,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (payload, number) in payloads.iter().zip(number..) {
        let mut publish = first.clone();
        publish.payload = payload.as_bytes();
        publish.packet_id = (first.qos != QoS::AtMostOnce).then(|| id(number));
        Packet::Publish(publish)
            .encode(version, &mut bytes)
            .unwrap();
    }
    bytes
}

/// Payloads of different lengths, one above 127 bytes among them.
fn payloads(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{number} {}", "x".repeat(number * 37 % 150)))
        .collect()
}

/// All that answers the publisher, to the end of each exchange.
async fn complete(sender: &mut Peer, qos: QoS, count: usize) {
    for number in 1..=count as u16 {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                sender
                    .expect_ack(PacketType::PubAck, id(number), ReasonCode::SUCCESS)
                    .await;
            }
            QoS::ExactlyOnce => {
                sender
                    .expect_ack(PacketType::PubRec, id(number), ReasonCode::SUCCESS)
                    .await;
            }
        }
    }
    if qos == QoS::ExactlyOnce {
        for number in 1..=count as u16 {
            sender
                .send_ack(PacketType::PubRel, id(number), ReasonCode::SUCCESS)
                .await;
            sender
                .expect_ack(PacketType::PubComp, id(number), ReasonCode::SUCCESS)
                .await;
        }
    }
}

/// [MQTT-4.6.0-5] [MQTT-3.3.1-3] [MQTT-2.2.1-4]: receivers of every version and QoS, with a small Receive Maximum, with
/// topic aliases and with sessions that last beside those without, all get the run, in order, once.
#[tokio::test(start_paused = true)]
async fn every_receiver_gets_the_run() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut receivers = Vec::new();
            for granted in EVERY_QOS {
                for other in ALL {
                    let name = format!("{other:?} {granted:?}");
                    let mut peer = Peer::new(&broker, other, &name).await;
                    peer.subscribe("t", granted).await;
                    receivers.push((peer, granted));
                    let name = format!("{other:?} {granted:?} lasting");
                    let mut peer = Peer::accepted(&broker, &lasting(other, &name)).await;
                    peer.subscribe("t", granted).await;
                    receivers.push((peer, granted));
                }
                let name = format!("few at a time, {granted:?}");
                let mut connect: Connect<'_> = hello(V5, &name);
                connect.properties.receive_maximum = NonZeroU16::new(2);
                let mut peer = Peer::accepted(&broker, &connect).await;
                peer.subscribe("t", granted).await;
                receivers.push((peer, granted));
            }
            let mut sender = Peer::new(&broker, version, "sender").await;
            let payloads = payloads(9);
            let first = message("t", "", qos);
            sender
                .send_raw(&in_one_write(&first, &payloads, 1, version))
                .await;
            complete(&mut sender, qos, payloads.len()).await;
            for (peer, granted) in &mut receivers {
                for payload in &payloads {
                    let received = peer.expect_message("t", payload, qos.min(*granted)).await;
                    let publish = received.publish();
                    assert!(!publish.dup && !publish.retain);
                }
                peer.expect_nothing().await;
            }
        }
    }
}

/// A receiver that takes topic aliases gets them, and one of 5.0 that limits its packets gets those that fit.
#[tokio::test(start_paused = true)]
async fn receivers_that_want_less_get_it() {
    for version in [V3_1_1, V5] {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut connect = hello(V5, "aliases");
            connect.properties.topic_alias_maximum = Some(5);
            let mut aliases = Peer::accepted(&broker, &connect).await;
            aliases.subscribe("t", qos).await;
            let mut connect = hello(V5, "limited");
            connect.properties.maximum_packet_size = NonZeroU32::new(100);
            let mut limited = Peer::accepted(&broker, &connect).await;
            limited.subscribe("t", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            let payloads = payloads(9);
            let first = message("t", "", qos);
            sender
                .send_raw(&in_one_write(&first, &payloads, 1, version))
                .await;
            complete(&mut sender, qos, payloads.len()).await;
            for payload in &payloads {
                let received = aliases.receive().await;
                let publish = received.publish();
                assert_eq!(publish.payload, payload.as_bytes());
                assert!(publish.topic.is_none_or(|topic| topic.as_str() == "t"));
                aliases.acknowledge(&publish).await;
            }
            let small = payloads.iter().filter(|payload| payload.len() < 90);
            let mut fitting = 0;
            for payload in small {
                limited.expect_message("t", payload, qos).await;
                fitting += 1;
            }
            limited.expect_nothing().await;
            let too_large = broker.client_dropped("limited", DropReason::TooLarge);
            assert_eq!(too_large, Some(payloads.len() as u64 - fitting));
        }
    }
}

/// Of a run that is more than a session has room for, the first messages are taken and the others refused one by
/// one; with a second receiver that has room nothing is refused, and what the first one misses is counted.
#[tokio::test(start_paused = true)]
async fn a_full_session_takes_the_first_of_a_run() {
    let mut config = Config::default();
    config.queue_messages = 5;
    let broker = broker_with(config);
    let mut slow = Peer::new(&broker, V3_1_1, "slow").await;
    slow.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let payloads = payloads(8);
    let first = message("t", "", QoS::AtLeastOnce);
    sender
        .send_raw(&in_one_write(&first, &payloads, 1, V5))
        .await;
    for number in 1..=8 {
        let reason = if number <= 5 {
            ReasonCode::SUCCESS
        } else {
            ReasonCode::QUOTA_EXCEEDED
        };
        sender
            .expect_ack(PacketType::PubAck, id(number), reason)
            .await;
    }
    let full = |broker: &mqtt_broker::Broker| broker.client_dropped("slow", DropReason::QueueFull);
    assert_eq!(full(&broker), Some(3));

    let mut quick = Peer::new(&broker, V5, "quick").await;
    quick.subscribe("t", QoS::ExactlyOnce).await;
    sender
        .send_raw(&in_one_write(&first, &payloads[..4], 11, V5))
        .await;
    for number in 11..=14 {
        sender
            .expect_ack(PacketType::PubAck, id(number), ReasonCode::SUCCESS)
            .await;
    }
    assert_eq!(full(&broker), Some(3 + 4));
    for payload in &payloads[..4] {
        quick.expect_message("t", payload, QoS::AtLeastOnce).await;
    }
    for payload in &payloads[..5] {
        slow.expect_message("t", payload, QoS::AtLeastOnce).await;
    }
    settle().await;
    sender
        .publish(&message("t", "room again", QoS::AtLeastOnce))
        .await;
    slow.expect_message("t", "room again", QoS::AtLeastOnce)
        .await;
}

/// Section 4.3.3: a QoS 2 message that comes again in a run is not passed on again, and is answered.
#[tokio::test(start_paused = true)]
async fn a_duplicate_within_a_run_is_left_out() {
    for version in [V3_1_1, V5] {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("t", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let first = message("t", "", QoS::ExactlyOnce);
        let mut bytes = in_one_write(&first, &payloads(3), 1, version);
        // 2 and 3 again, without DUP as a careless client sends them, then a new one.
        bytes.extend(in_one_write(&first, &payloads(3)[1..], 2, version));
        bytes.extend(in_one_write(&first, &["new".into()], 4, version));
        sender.send_raw(&bytes).await;
        for number in [1, 2, 3, 2, 3, 4] {
            sender
                .expect_ack(PacketType::PubRec, id(number), ReasonCode::SUCCESS)
                .await;
        }
        for payload in payloads(3).iter().map(String::as_str).chain(["new"]) {
            receiver
                .expect_message("t", payload, QoS::ExactlyOnce)
                .await;
        }
        receiver.expect_nothing().await;
    }
}

/// What a run left for a session that ends with its connection is counted as lost, message by message.
#[tokio::test(start_paused = true)]
async fn what_a_session_had_not_sent_is_counted() {
    let broker = broker();
    let mut connect = hello(V5, "receiver");
    connect.properties.receive_maximum = NonZeroU16::new(2);
    let mut receiver = Peer::accepted(&broker, &connect).await;
    receiver.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let first = message("t", "", QoS::AtLeastOnce);
    sender
        .send_raw(&in_one_write(&first, &payloads(9), 1, V5))
        .await;
    complete(&mut sender, QoS::AtLeastOnce, 9).await;
    receiver.abort().await;
    settle().await;
    assert_eq!(broker.counters().dropped(DropReason::SessionEnded), 9);
}
