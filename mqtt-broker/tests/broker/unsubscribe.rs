//! UNSUBSCRIBE: what ends, what goes on, and what is answered.

use mqtt_codec::{Packet, PacketType, QoS, ReasonCode, TopicFilter, UnsubAck, Unsubscribe};

use crate::harness::{ALL, EVERY_QOS, Peer, V5, broker, filter, id, lasting, message};

/// [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]: one UNSUBACK with
/// the identifier of the request and one code a filter, in order; a filter named twice is gone the second time.
#[tokio::test(start_paused = true)]
async fn one_code_for_each_filter_of_unsubscribe() {
    let broker = broker();
    let mut peer = Peer::new(&broker, V5, "client").await;
    for text in ["a", "b/+", "$share/g/a", "#"] {
        peer.subscribe(text, QoS::AtMostOnce).await;
    }
    let names = [
        "missing",
        "b/+",
        "a",
        "b/+",
        "$share/g/a",
        "$share/h/a",
        "b/c",
        "A",
    ];
    for number in [1, 77, 65_535] {
        let filters = names
            .iter()
            .map(|text| TopicFilter::new(text).unwrap())
            .collect();
        peer.send(&Packet::Unsubscribe(Unsubscribe::new(id(number), filters)))
            .await;
        let codes = if number == 1 {
            [0x11, 0, 0, 0x11, 0, 0x11, 0x11, 0x11]
        } else {
            [0x11; 8]
        };
        let codes = codes.map(ReasonCode).to_vec();
        peer.expect(&Packet::UnsubAck(UnsubAck::new(id(number), codes)))
            .await;
    }
    // What was not named is still there.
    peer.send_publish(&message("a", "text", QoS::AtMostOnce))
        .await;
    peer.expect_message("a", "text", QoS::AtMostOnce).await;
    peer.expect_nothing().await;
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-4.7.3-4]: filters are compared character by character; a wildcard in
/// UNSUBSCRIBE removes the filter that is written like it and no other.
#[tokio::test(start_paused = true)]
async fn filters_are_compared_by_character() {
    for version in ALL {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        let filters = ["a/b", "a/+", "a/#", "+/b", "#", "a/B", "/a/b", "a/b/"];
        for text in filters {
            peer.subscribe(text, QoS::AtLeastOnce).await;
        }
        for text in ["a/#", "#", "+/b", "a/+"] {
            peer.unsubscribe(text).await;
        }
        let mut sender = Peer::new(&broker, version, "sender").await;
        for topic in ["a/c", "b/b", "x"] {
            sender.publish(&message(topic, "", QoS::AtLeastOnce)).await;
        }
        for topic in ["a/b", "a/B", "/a/b", "a/b/"] {
            sender.publish(&message(topic, "", QoS::AtLeastOnce)).await;
            peer.expect_message(topic, "", QoS::AtLeastOnce).await;
        }
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.10.4-2] [MQTT-3.10.4-3]: deliveries that began before go on to their end, also on a new connection;
/// nothing new comes.
#[tokio::test(start_paused = true)]
async fn deliveries_that_began_are_completed() {
    for version in ALL {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("topic", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::ExactlyOnce] {
            sender.publish(&message("topic", "before", qos)).await;
        }
        peer.expect_publish("topic", "before", QoS::AtLeastOnce)
            .await;
        let released = peer
            .expect_publish("topic", "before", QoS::ExactlyOnce)
            .await
            .publish()
            .packet_id
            .unwrap();
        peer.expect_publish("topic", "before", QoS::ExactlyOnce)
            .await;
        peer.send_ack(PacketType::PubRec, released, ReasonCode::SUCCESS)
            .await;
        peer.expect_ack(PacketType::PubRel, released, ReasonCode::SUCCESS)
            .await;
        peer.unsubscribe("topic").await;
        for qos in EVERY_QOS {
            sender.publish(&message("topic", "after", qos)).await;
        }
        peer.expect_nothing().await;
        peer.abort().await;
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        let mut messages = 0;
        let mut pubrels = 0;
        for _ in 0..3 {
            let received = peer.receive().await;
            match received.packet() {
                Packet::PubRel(ack) => {
                    assert_eq!(ack.packet_id, released);
                    peer.send_ack(PacketType::PubComp, released, ReasonCode::SUCCESS)
                        .await;
                    pubrels += 1;
                }
                Packet::Publish(publish) => {
                    assert!(publish.dup);
                    assert_eq!(publish.payload, b"before");
                    peer.acknowledge(&publish).await;
                    messages += 1;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!((messages, pubrels), (2, 1));
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// [MQTT-2.2.1-6]: one SUBACK with the identifier of the request and one listed code a filter, in order, the same
/// as of one SUBSCRIBE for each; of two with one filter the later counts.
#[tokio::test(start_paused = true)]
async fn one_code_for_each_filter_of_subscribe() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let wanted: Vec<(String, QoS)> = (0..60_usize)
            .map(|number| (format!("t/{}", number % 50), EVERY_QOS[number * 7 % 3]))
            .collect();
        for number in [1, 65_535] {
            let filters = wanted
                .iter()
                .map(|(text, qos)| filter(text, *qos))
                .collect();
            let subscribe = mqtt_codec::Subscribe::new(id(number), filters);
            peer.send(&Packet::Subscribe(subscribe)).await;
            let received = peer.receive().await;
            let Packet::SubAck(suback) = received.packet() else {
                panic!("no SUBACK")
            };
            assert_eq!(suback.packet_id, id(number));
            let granted: Vec<ReasonCode> = wanted.iter().map(|(_, qos)| (*qos).into()).collect();
            assert_eq!(suback.reason_codes, granted);
        }
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (text, _) in &wanted {
            let (_, granted) = wanted
                .iter()
                .rev()
                .find(|(other, _)| other == text)
                .unwrap();
            sender.publish(&message(text, "", QoS::ExactlyOnce)).await;
            peer.expect_message(text, "", *granted).await;
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT-3.10.4-2]: a client that has unsubscribed gets no more, whoever else is still subscribed, and in
/// whatever order connections, sessions and subscriptions end.
#[tokio::test(start_paused = true)]
async fn others_keep_their_subscriptions() {
    for version in ALL {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut peers = Vec::new();
        for number in 0..4 {
            let name = format!("client {number}");
            let mut peer = Peer::accepted(&broker, &lasting(version, &name)).await;
            peer.subscribe("topic/+", QoS::AtLeastOnce).await;
            peers.push(peer);
        }
        while let Some(mut gone) = peers.pop() {
            sender
                .publish(&message("topic/x", "all", QoS::AtLeastOnce))
                .await;
            for peer in peers.iter_mut().chain([&mut gone]) {
                peer.expect_message("topic/x", "all", QoS::AtLeastOnce)
                    .await;
            }
            gone.unsubscribe("topic/+").await;
            sender
                .publish(&message("topic/x", "left", QoS::AtLeastOnce))
                .await;
            gone.expect_nothing().await;
            for peer in &mut peers {
                peer.expect_message("topic/x", "left", QoS::AtLeastOnce)
                    .await;
                peer.expect_nothing().await;
            }
        }
    }
}
