//! Maximum Packet Size both ways, and what the broker leaves out of its packets.

use core::num::NonZeroU32;

use mqtt_broker::{Config, DropReason};
use mqtt_codec::{
    Connect, Disconnect, Packet, PacketType, QoS, ReasonCode, Subscribe, TopicFilter, Unsubscribe,
    UserProperty,
};

use crate::harness::{
    EVERY_QOS, Peer, V5, broker, broker_with, filter, hello, hex, id, lasting, message,
};

fn with_maximum(mut connect: Connect<'_>, size: u32) -> Connect<'_> {
    connect.properties.maximum_packet_size = NonZeroU32::new(size);
    connect
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]: a message larger than the client takes is dropped for that client, to the
/// byte; what comes behind it arrives, and other clients get it.
#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_a_client_is_dropped() {
    for qos in EVERY_QOS {
        let broker = broker();
        // 1 + 1 header, 2 + 5 topic, 2 identifier at QoS 1 and 2, 1 property length.
        let overhead = if qos == QoS::AtMostOnce { 10 } else { 12 };
        let mut small = Peer::accepted(&broker, &with_maximum(hello(V5, "small"), 100)).await;
        small.subscribe("topic", QoS::ExactlyOnce).await;
        let mut large = Peer::new(&broker, V5, "large").await;
        large.subscribe("topic", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let fits = "f".repeat(100 - overhead);
        let exceeds = "e".repeat(101 - overhead);
        let far = "x".repeat(20_000);
        for text in [&exceeds, &fits, &far, &exceeds, &fits] {
            sender.publish(&message("topic", text, qos)).await;
        }
        for _ in 0..2 {
            let received = small.expect_message("topic", &fits, qos).await;
            assert_eq!(received.bytes().len(), 100);
        }
        small.expect_nothing().await;
        for text in [&exceeds, &fits, &far, &exceeds, &fits] {
            large.expect_message("topic", text, qos).await;
        }
        assert_eq!(
            broker.client_dropped("small", DropReason::TooLarge),
            Some(3)
        );
        assert_eq!(
            broker.client_dropped("large", DropReason::TooLarge),
            Some(0)
        );
    }
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]: the same for retained messages, for what waited in a session, for what is
/// sent again to a client that takes less than before, and for Subscription Identifiers that make it too large.
#[tokio::test(start_paused = true)]
async fn the_size_counts_for_every_way_to_a_client() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let text = "x".repeat(90);
        for topic in ["kept/1", "kept/2"] {
            let mut publish = message(topic, if topic == "kept/1" { &text } else { "short" }, qos);
            publish.retain = true;
            sender.publish(&publish).await;
        }
        let mut peer = Peer::accepted(&broker, &with_maximum(lasting(V5, "client"), 100)).await;
        peer.subscribe("kept/#", QoS::ExactlyOnce).await;
        peer.expect_message("kept/2", "short", qos).await;
        peer.expect_nothing().await;

        // 104 bytes with two identifiers of 4 + 1 bytes each, 94 without.
        let text = "x".repeat(84);
        for (wanted, identifier) in [("topic", 200_000_000), ("+", 200_000_001)] {
            peer.subscribe_with(vec![filter(wanted, QoS::AtMostOnce)], Some(identifier))
                .await;
        }
        sender
            .publish(&message("topic", &text, QoS::AtMostOnce))
            .await;
        peer.expect_nothing().await;
        peer.unsubscribe("+").await;
        sender
            .publish(&message("topic", &text, QoS::AtMostOnce))
            .await;
        let received = peer.expect_message("topic", &text, QoS::AtMostOnce).await;
        assert_eq!(received.bytes().len(), 99);
    }
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
        peer.subscribe("topic", qos).await;
        let text = "x".repeat(500);
        sender.publish(&message("topic", &text, qos)).await;
        sender.publish(&message("topic", "short", qos)).await;
        peer.expect_publish("topic", &text, qos).await;
        peer.expect_publish("topic", "short", qos).await;
        peer.abort().await;
        sender.publish(&message("topic", &text, qos)).await;
        sender.publish(&message("topic", "last", qos)).await;
        let mut peer = Peer::accepted(&broker, &with_maximum(lasting(V5, "client"), 100)).await;
        let again = peer.expect_publish("topic", "short", qos).await;
        assert!(again.publish().dup);
        if qos == QoS::ExactlyOnce {
            // What was sent at QoS 2 and cannot be sent again is released, so that its identifier is free.
            peer.expect_ack(PacketType::PubRel, id(1), ReasonCode::SUCCESS)
                .await;
            peer.send_ack(
                PacketType::PubComp,
                id(1),
                ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
            )
            .await;
        }
        peer.acknowledge(&again.publish()).await;
        peer.expect_message("topic", "last", qos).await;
        peer.expect_nothing().await;
        peer.disconnect().await;
        // Treated as delivered: a connection that takes more does not get it either.
        let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.1.2-24]: a SUBACK or UNSUBACK that the client does not take is not sent; the client cannot go on
/// without it, so that the connection ends.
#[tokio::test(start_paused = true)]
async fn an_answer_too_large_for_a_client_is_not_sent() {
    for count in [25_usize, 26] {
        let broker = broker();
        let texts: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        let number = id(1);
        let filters = texts
            .iter()
            .map(|text| filter(text, QoS::AtMostOnce))
            .collect();
        let names = texts
            .iter()
            .map(|text| TopicFilter::new(text).unwrap())
            .collect();
        for packet in [
            Packet::Subscribe(Subscribe::new(number, filters)),
            Packet::Unsubscribe(Unsubscribe::new(number, names)),
        ] {
            let mut peer = Peer::accepted(&broker, &with_maximum(hello(V5, "client"), 30)).await;
            peer.send(&packet).await;
            if count == 25 {
                assert_eq!(peer.receive().await.bytes().len(), 30);
                peer.expect_nothing().await;
            } else {
                peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE).await;
            }
        }
    }
}

/// Section 3.2.2.3.6: a packet above the broker's own maximum ends the connection with 0x95, to the byte, as
/// soon as its header is there.
#[tokio::test(start_paused = true)]
async fn a_packet_too_large_for_the_broker_is_refused() {
    let mut config = Config::default();
    config.max_packet_size = 1_000;
    let broker = broker_with(config);
    let (mut peer, received) = Peer::connect(&broker, &hello(V5, "client")).await;
    assert_eq!(
        received.connack().properties.maximum_packet_size,
        NonZeroU32::new(1_000)
    );
    peer.subscribe("topic", QoS::AtMostOnce).await;
    // 1 + 2 header, 2 + 5 topic, 1 property length.
    let fits = "x".repeat(989);
    peer.send_publish(&message("topic", &fits, QoS::AtMostOnce))
        .await;
    let received = peer.expect_message("topic", &fits, QoS::AtMostOnce).await;
    assert_eq!(received.bytes().len(), 1_000);
    // 1,001 bytes, of which the header is sent: remaining length 998.
    peer.send_raw(&hex("30 E6 07")).await;
    peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE).await;
}

/// [MQTT-3.1.2-29] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3]
/// [MQTT-3.14.2-4] [MQTT-2.2.2-1]: with and without problem information, and for a client that takes hardly
/// more than the bare packets, every answer is as short as it can be.
#[tokio::test(start_paused = true)]
async fn answers_have_no_reason_in_words() {
    for problem_information in [None, Some(false), Some(true)] {
        let broker = broker();
        let mut connect = with_maximum(hello(V5, "client"), 16);
        connect.properties.request_problem_information = problem_information;
        let mut peer = Peer::accepted(&broker, &connect).await;
        let mut answers = Vec::new();
        for request in [
            // SUBSCRIBE to a/# and UNSUBSCRIBE from it, and from what is not there.
            "82 09 0001 00 0003 612F23 02",
            "A2 08 0002 00 0003 612F23",
            "A2 08 0003 00 0003 612F23",
            "82 09 0004 00 0003 612F23 02",
            // PUBLISH at QoS 1 and 2 without a subscriber, and PUBREL.
            "32 06 0001 62 0005 00",
            "34 06 0001 62 0006 00",
            "62 02 0006",
            "62 02 0007",
            // PUBREC of nothing.
            "50 02 0008",
            // PUBLISH at QoS 2 to the client itself.
            "34 08 0003 612F62 0009 00",
        ] {
            peer.send_raw(&hex(request)).await;
            answers.push(peer.receive().await.bytes().to_vec());
        }
        let delivered = peer.receive().await;
        let number = delivered.publish().packet_id.unwrap();
        answers.push(delivered.bytes().to_vec());
        peer.send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
            .await;
        answers.push(peer.receive().await.bytes().to_vec());
        peer.send_raw(&hex("C1 00")).await;
        answers.push(peer.receive().await.bytes().to_vec());
        peer.expect_closed().await;
        let expected = [
            "90 04 0001 00 02",
            "B0 04 0002 00 00",
            "B0 04 0003 00 11",
            "90 04 0004 00 02",
            "40 03 0005 10",
            "50 03 0006 10",
            "70 02 0006",
            "70 03 0007 92",
            "62 03 0008 92",
            "50 02 0009",
            "34 08 0003 612F62 0001 00",
            "62 02 0001",
            "E0 01 81",
        ];
        for (answer, expected) in answers.iter().zip(expected) {
            assert_eq!(answer, &hex(expected), "{expected}");
        }
        assert_eq!(answers.len(), expected.len());
    }
}

/// [MQTT-3.1.2-29]: Request Problem Information 0 keeps no User Properties out of messages, and wishes of the
/// client's own packets are not sent back.
#[tokio::test(start_paused = true)]
async fn user_properties_of_messages_are_not_problem_information() {
    let broker = broker();
    let mut connect = hello(V5, "client");
    connect.properties.request_problem_information = Some(false);
    let mut peer = Peer::accepted(&broker, &connect).await;
    let pair = UserProperty {
        name: "name",
        value: "value",
    };
    let mut subscribe = Subscribe::new(id(1), vec![filter("topic", QoS::AtLeastOnce)]);
    subscribe.properties.user_properties = vec![pair];
    peer.send(&Packet::Subscribe(subscribe)).await;
    assert_eq!(peer.receive().await.bytes(), hex("90 04 0001 00 01"));
    let mut publish = message("topic", "text", QoS::AtLeastOnce);
    publish.packet_id = Some(id(2));
    publish.properties.user_properties = vec![pair, pair];
    peer.send(&Packet::Publish(publish)).await;
    let mut received = [peer.receive().await, peer.receive().await];
    received.sort_by_key(|received| received.packet().packet_type() as u8);
    assert_eq!(
        received[0].publish().properties.user_properties,
        [pair, pair]
    );
    assert_eq!(received[1].bytes(), hex("40 02 0002"));
    let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    disconnect.properties.user_properties = vec![pair];
    peer.send(&Packet::Disconnect(disconnect)).await;
    peer.expect_closed().await;
}
