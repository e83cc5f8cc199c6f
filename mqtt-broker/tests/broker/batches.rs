//! Packets that come in one write: each is handled after the one before it, as if they had come alone.

use mqtt_codec::{
    Disconnect, Packet, PacketType, Publish, QoS, ReasonCode, Subscribe, TopicFilter, Unsubscribe,
};

use crate::harness::{
    ALL, EVERY_QOS, Peer, V5, broker, filter, hello, id, lasting, message, settle,
};

fn encoded(packets: &[Packet<'_>], version: mqtt_codec::ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet.encode(version, &mut bytes).unwrap();
    }
    bytes
}

fn subscribe<'a>(number: u16, text: &'a str, qos: QoS) -> Packet<'a> {
    Packet::Subscribe(Subscribe::new(id(number), vec![filter(text, qos)]))
}

fn unsubscribe(number: u16, text: &str) -> Packet<'_> {
    let filters = vec![TopicFilter::new(text).unwrap()];
    Packet::Unsubscribe(Unsubscribe::new(id(number), filters))
}

fn publish<'a>(number: u16, payload: &'a str, qos: QoS) -> Publish<'a> {
    let mut publish = message("topic", payload, qos);
    publish.packet_id = (qos != QoS::AtMostOnce).then(|| id(number));
    publish
}

/// [MQTT-3.8.4-5] [MQTT-3.10.4-2] [MQTT-4.6.0-5]: SUBSCRIBE, UNSUBSCRIBE and PUBLISH of one client in one write take
/// effect in their order.
#[tokio::test(start_paused = true)]
async fn requests_take_effect_in_order() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut peer = Peer::new(&broker, version, "client").await;
            let bytes = encoded(
                &[
                    Packet::Publish(publish(1, "too early", qos)),
                    subscribe(2, "topic", QoS::ExactlyOnce),
                    Packet::Publish(publish(3, "in time", qos)),
                    Packet::Publish(publish(4, "as well", qos)),
                    unsubscribe(5, "topic"),
                    Packet::Publish(publish(6, "too late", qos)),
                    subscribe(7, "topic/#", QoS::ExactlyOnce),
                    subscribe(8, "#", QoS::AtMostOnce),
                    Packet::Publish(publish(9, "again", qos)),
                ],
                version,
            );
            peer.send_raw(&bytes).await;
            let mut got = Vec::new();
            settle().await;
            peer.send(&Packet::PingReq).await;
            // PUBREL is not sent for what the client publishes, so that every packet comes without asking.
            loop {
                let received = peer.receive().await;
                match received.packet() {
                    Packet::PingResp => break,
                    Packet::Publish(publish) => {
                        got.push(String::from_utf8_lossy(publish.payload).into_owned());
                    }
                    _ => {}
                }
            }
            assert_eq!(got, ["in time", "as well", "again"], "{version} {qos:?}");
        }
    }
}

/// A retained message and a SUBSCRIBE behind it in one write: it is there; cleared before it: it is not.
#[tokio::test(start_paused = true)]
async fn retained_messages_are_there_at_once() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut peer = Peer::new(&broker, version, "client").await;
            let mut kept = publish(1, "kept", qos);
            kept.retain = true;
            let mut cleared = publish(2, "", qos);
            cleared.retain = true;
            peer.send_raw(&encoded(
                &[
                    Packet::Publish(kept.clone()),
                    subscribe(3, "topic", QoS::AtMostOnce),
                ],
                version,
            ))
            .await;
            settle().await;
            peer.send(&Packet::PingReq).await;
            let mut messages = 0;
            loop {
                let received = peer.receive().await;
                match received.packet() {
                    Packet::PingResp => break,
                    Packet::Publish(publish) => {
                        assert!(publish.retain);
                        messages += 1;
                    }
                    _ => {}
                }
            }
            assert_eq!(messages, 1, "{version} {qos:?}");

            let mut other = Peer::new(&broker, version, "other").await;
            other
                .send_raw(&encoded(
                    &[
                        Packet::Publish(cleared),
                        subscribe(3, "topic", QoS::AtMostOnce),
                    ],
                    version,
                ))
                .await;
            settle().await;
            other.send(&Packet::PingReq).await;
            loop {
                let received = other.receive().await;
                match received.packet() {
                    Packet::PingResp => break,
                    Packet::Publish(publish) => panic!("{publish:?}"),
                    _ => {}
                }
            }
        }
    }
}

/// What was sent before DISCONNECT in one write counts, with CONNECT in front as well; what came behind does not.
#[tokio::test(start_paused = true)]
async fn a_whole_life_in_one_write() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("topic", QoS::ExactlyOnce).await;
        let mut peer = Peer::open(&broker, version);
        let bytes = encoded(
            &[
                Packet::Connect(Box::new(hello(version, "client"))),
                Packet::Publish(publish(1, "0", QoS::AtMostOnce)),
                Packet::Publish(publish(1, "1", QoS::AtLeastOnce)),
                Packet::Publish(publish(2, "2", QoS::ExactlyOnce)),
                Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)),
                Packet::Publish(publish(3, "late", QoS::AtMostOnce)),
            ],
            version,
        );
        peer.send_raw(&bytes).await;
        for (text, qos) in [
            ("0", QoS::AtMostOnce),
            ("1", QoS::AtLeastOnce),
            ("2", QoS::ExactlyOnce),
        ] {
            watcher.expect_message("topic", text, qos).await;
        }
        watcher.expect_nothing().await;
        assert_eq!(
            peer.receive().await.connack().reason_code,
            ReasonCode::SUCCESS
        );
        while peer.next().await.is_some() {}
    }
}

/// [MQTT-4.3.3-10] [MQTT-4.3.3-12]: a whole QoS 2 exchange, repeated PUBLISH included, in one write is one message
/// for each time that the identifier was free.
#[tokio::test(start_paused = true)]
async fn a_qos_2_exchange_in_one_write() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("topic", QoS::AtMostOnce).await;
        let mut peer = Peer::new(&broker, version, "client").await;
        let first = Packet::Publish(publish(5, "1", QoS::ExactlyOnce));
        let release = Packet::PubRel(mqtt_codec::Ack::new(id(5), ReasonCode::SUCCESS));
        peer.send_raw(&encoded(&[first.clone(), first.clone(), first], version))
            .await;
        for _ in 0..3 {
            peer.expect_ack(PacketType::PubRec, id(5), ReasonCode::SUCCESS)
                .await;
        }
        peer.send_raw(&encoded(
            &[release, Packet::Publish(publish(5, "2", QoS::ExactlyOnce))],
            version,
        ))
        .await;
        let mut answers = [peer.receive().await, peer.receive().await];
        answers.sort_by_key(|received| received.packet().packet_type() as u8);
        assert!(matches!(answers[0].packet(), Packet::PubRec(_)));
        assert!(matches!(answers[1].packet(), Packet::PubComp(_)));
        watcher.expect_message("topic", "1", QoS::AtMostOnce).await;
        watcher.expect_message("topic", "2", QoS::AtMostOnce).await;
        watcher.expect_nothing().await;
    }
}

/// A client that is subscribed to its own will gets it on the connection that takes over.
#[tokio::test(start_paused = true)]
async fn a_client_may_receive_its_own_will() {
    for version in ALL {
        let broker = broker();
        let mut connect = lasting(version, "client");
        let mut will = mqtt_codec::Will::new(crate::harness::name("will"), b"dead");
        will.qos = QoS::AtLeastOnce;
        connect.will = Some(will);
        let mut old = Peer::accepted(&broker, &connect).await;
        old.subscribe("will", QoS::AtLeastOnce).await;
        connect.will = None;
        let mut new = Peer::accepted(&broker, &connect).await;
        old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER).await;
        new.expect_message("will", "dead", QoS::AtLeastOnce).await;
        new.expect_nothing().await;
    }
}

/// [MQTT-3.3.2-4]: a payload that is not what the Payload Format Indicator promises is passed on or refused with
/// 0x99, never altered.
#[tokio::test(start_paused = true)]
async fn payloads_are_never_altered() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut watcher = Peer::new(&broker, V5, "watcher").await;
        watcher.subscribe("topic", QoS::ExactlyOnce).await;
        let mut peer = Peer::new(&broker, V5, "client").await;
        let every_byte: Vec<u8> = (0..=255).collect();
        for payload in [&b"\xff\xfe"[..], b"\0", b"", &every_byte] {
            for format in [None, Some(false), Some(true)] {
                let mut publish = Publish::new(crate::harness::name("topic"), payload);
                publish.qos = qos;
                publish.properties.payload_format_utf8 = format;
                peer.publish(&publish).await;
                let received = watcher.receive().await;
                assert_eq!(received.publish().payload, payload);
                assert_eq!(received.publish().properties.payload_format_utf8, format);
                watcher.acknowledge(&received.publish()).await;
            }
        }
    }
}

/// Retained messages at QoS 1 and 2 keep to a Receive Maximum of 1, and live messages arrive between them.
#[tokio::test(start_paused = true)]
async fn retained_messages_through_a_window_of_one() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        for number in 0..150 {
            let topic = format!("kept/{number}");
            let mut publish = message(&topic, "kept", qos);
            publish.retain = true;
            sender.publish(&publish).await;
        }
        let mut connect = hello(V5, "client");
        connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
        let mut peer = Peer::accepted(&broker, &connect).await;
        peer.subscribe_with(vec![filter("kept/#", qos), filter("live", qos)], None)
            .await;
        sender.publish(&message("live", "live", qos)).await;
        let mut topics = std::collections::HashSet::new();
        for _ in 0..151 {
            let received = peer.receive().await;
            let publish = received.publish();
            peer.expect_nothing().await;
            assert!(topics.insert(publish.topic.unwrap().as_str().to_owned()));
            peer.acknowledge(&publish).await;
        }
        peer.expect_nothing().await;
        assert_eq!(topics.len(), 151);
    }
}

/// A session made with Clean Start 1 and an expiry interval is there for a client that comes back without.
#[tokio::test(start_paused = true)]
async fn a_clean_start_makes_a_session_that_lasts() {
    let broker = broker();
    let mut connect = lasting(V5, "client");
    connect.clean_start = true;
    let mut peer = Peer::accepted(&broker, &connect).await;
    peer.subscribe("topic", QoS::AtLeastOnce).await;
    peer.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender
        .publish(&message("topic", "text", QoS::AtLeastOnce))
        .await;
    connect.clean_start = false;
    let (mut peer, present) = Peer::resumed(&broker, &connect).await;
    assert!(present);
    peer.expect_message("topic", "text", QoS::AtLeastOnce).await;
}

/// [MQTT-3.1.2-8]: DISCONNECT 0x04 with another expiry interval: the will waits for its delay or for the interval
/// that holds now.
#[tokio::test(start_paused = true)]
async fn disconnect_with_will_and_another_expiry() {
    for (delay, expiry, published_after) in
        [(50, Some(10), 10), (50, Some(0), 0), (5, Some(500), 5)]
    {
        let broker = broker();
        let mut watcher = Peer::new(&broker, V5, "watcher").await;
        watcher.subscribe("will", QoS::AtMostOnce).await;
        let mut connect = lasting(V5, "client");
        connect.properties.session_expiry_interval = Some(100);
        let mut will = mqtt_codec::Will::new(crate::harness::name("will"), b"dead");
        will.properties.delay_interval = Some(delay);
        connect.will = Some(will);
        let mut peer = Peer::accepted(&broker, &connect).await;
        let mut bye = Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL);
        bye.properties.session_expiry_interval = expiry;
        peer.send(&Packet::Disconnect(bye)).await;
        peer.expect_closed().await;
        let ended = tokio::time::Instant::now();
        watcher
            .expect_message("will", "dead", QoS::AtMostOnce)
            .await;
        assert_eq!(ended.elapsed().as_secs(), published_after);
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT3-3.8.4-3] [MQTT3-3.8.4-4]: each SUBSCRIBE, and each filter of one, brings the retained message
/// as it was then, before what is published behind it.
#[tokio::test(start_paused = true)]
async fn each_subscribe_brings_the_retained_message() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut kept = message("topic", "old", qos);
            kept.retain = true;
            sender.publish(&kept).await;
            let mut peer = Peer::new(&broker, version, "client").await;
            let mut new = publish(9, "new", qos);
            new.retain = true;
            let filters = ["topic", "#", "topic"].map(|text| filter(text, QoS::AtMostOnce));
            let bytes = encoded(
                &[
                    subscribe(1, "topic", QoS::AtMostOnce),
                    subscribe(2, "topic", QoS::AtMostOnce),
                    Packet::Subscribe(Subscribe::new(id(3), filters.into())),
                    Packet::Publish(new),
                ],
                version,
            );
            peer.send_raw(&bytes).await;
            settle().await;
            peer.send(&Packet::PingReq).await;
            let mut got = Vec::new();
            loop {
                let received = peer.receive().await;
                match received.packet() {
                    Packet::PingResp => break,
                    Packet::Publish(publish) => {
                        let text = String::from_utf8_lossy(publish.payload).into_owned();
                        got.push((text, publish.retain));
                    }
                    _ => {}
                }
            }
            let mut expected = vec![("old".to_owned(), true); 5];
            expected.push(("new".to_owned(), false));
            assert_eq!(got, expected, "{version} {qos:?}");
        }
    }
}
