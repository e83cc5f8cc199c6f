//! Mount points: clients of a listener live in a part of the topics, without knowing it, and see nothing else.

use std::sync::Arc;

use mqtt_broker::{Broker, Config, ListenerOptions};
use mqtt_codec::{Connect, Packet, PacketType, ProtocolVersion, QoS, ReasonCode, Will};
use tempfile::TempDir;

use crate::harness::{
    ALL, EVERY_QOS, Peer, Received, V3_1_1, V5, broker, broker_with, filter, hello, lasting,
    message, name,
};

fn behind(mount: &str) -> Arc<ListenerOptions> {
    let mut options = ListenerOptions::default();
    options.mount_point = Some(mount.into());
    Arc::new(options)
}

/// A client of a listener with this mount point; without one where it is empty.
async fn come(broker: &Broker, mount: &str, connect: &Connect<'_>) -> (Peer, bool) {
    let options = match mount {
        "" => Arc::default(),
        mount => behind(mount),
    };
    let (peer, answer) = Peer::connect_through(broker, &options, connect).await;
    let connack = answer.connack();
    assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
    (peer, connack.session_present)
}

async fn client(broker: &Broker, mount: &str, version: ProtocolVersion, id: &str) -> Peer {
    let mut connect = hello(version, id);
    connect.clean_start = true;
    come(broker, mount, &connect).await.0
}

/// The next message; acknowledgements before it are left out.
async fn next_publish(peer: &mut Peer) -> Received {
    loop {
        let received = peer.receive().await;
        if let Packet::Publish(publish) = received.packet() {
            peer.acknowledge(&publish).await;
            return received;
        }
    }
}

async fn next_topic(peer: &mut Peer) -> String {
    let received = next_publish(peer).await;
    let topic = received.publish().topic.unwrap();
    topic.as_str().to_owned()
}

/// What is published behind a mount point arrives behind it as it was, elsewhere with it before, and the other way
/// round; in every version and at every QoS, and whether the packet could be passed on as it came or not.
#[tokio::test(start_paused = true)]
async fn topics_are_prefixed_and_stripped() {
    let broker = broker();
    for version in ALL {
        for other in ALL {
            for qos in EVERY_QOS {
                let mut outside = client(&broker, "", other, "outside").await;
                let mut inside = client(&broker, "a/b/", version, "inside").await;
                let mut beside = client(&broker, "a/b/", other, "beside").await;
                outside.subscribe("a/#", QoS::ExactlyOnce).await;
                inside.subscribe("t/+", QoS::ExactlyOnce).await;
                beside.subscribe("t/x", QoS::ExactlyOnce).await;
                let mut writer = client(&broker, "a/b/", version, "writer").await;
                writer.publish(&message("t/x", "from inside", qos)).await;
                writer.disconnect().await;
                let mut writer = client(&broker, "", other, "writer").await;
                writer
                    .publish(&message("a/b/t/x", "from outside", qos))
                    .await;
                for payload in ["from inside", "from outside"] {
                    outside.expect_message("a/b/t/x", payload, qos).await;
                    inside.expect_message("t/x", payload, qos).await;
                    beside.expect_message("t/x", payload, qos).await;
                }
                for peer in [outside, inside, beside, writer] {
                    peer.disconnect().await;
                }
            }
        }
    }
}

/// No filter reaches out of the mount point, and none of another reaches in, unless it stands outside of all.
#[tokio::test(start_paused = true)]
async fn nothing_leaks_by_wildcards() {
    let broker = broker();
    let filters = ["#", "+", "+/+", "+/#", "/#", "+/+/+", "$share/g/#"];
    let mut peers = Vec::new();
    for mount in ["a/", "b/", "a/b/", ""] {
        // One for each filter, so that what a member of the group gets does not hide a leak.
        for text in filters {
            let id = format!("{mount}{text}");
            let mut peer = client(&broker, mount, V5, &id).await;
            peer.subscribe(text, QoS::AtLeastOnce).await;
            peers.push((mount, text, peer));
        }
    }
    let mut publisher = client(&broker, "b/", V5, "publisher").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        publisher.publish(&message("t", "text", qos)).await;
    }
    for (mount, text, peer) in &mut peers {
        let seen = match (*mount, *text) {
            ("b/", "#" | "+" | "+/#" | "$share/g/#") => Some("t"),
            ("", "#" | "+/+" | "+/#" | "$share/g/#") => Some("b/t"),
            _ => None,
        };
        if let Some(topic) = seen {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                peer.expect_message(topic, "text", qos).await;
            }
        }
        peer.expect_nothing().await;
    }
}

/// The mount point comes behind the name of a shared group: members with and without it share one group.
#[tokio::test(start_paused = true)]
async fn shared_groups_are_mounted() {
    let broker = broker();
    let mut inside = client(&broker, "m/", V5, "inside").await;
    let mut outside = client(&broker, "", V5, "outside").await;
    let mut elsewhere = client(&broker, "n/", V5, "elsewhere").await;
    inside.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    outside.subscribe("$share/g/m/t", QoS::AtLeastOnce).await;
    elsewhere.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    let mut publisher = client(&broker, "", V3_1_1, "publisher").await;
    for round in 0..2 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce][round];
        publisher.publish(&message("m/t", "one", qos)).await;
        publisher.publish(&message("m/t", "two", qos)).await;
        let first = next_topic(&mut inside).await;
        let second = next_topic(&mut outside).await;
        assert_eq!((first.as_str(), second.as_str()), ("t", "m/t"));
    }
    elsewhere.expect_nothing().await;
    // Only its own subscription ends.
    let codes = inside.unsubscribe("$share/g/t").await;
    assert_eq!(codes, [ReasonCode::SUCCESS]);
    publisher
        .publish(&message("m/t", "three", QoS::AtLeastOnce))
        .await;
    assert_eq!(next_topic(&mut outside).await, "m/t");
    inside.expect_nothing().await;
}

/// UNSUBSCRIBE names the filter as SUBSCRIBE did.
#[tokio::test(start_paused = true)]
async fn subscriptions_end() {
    let broker = broker();
    let mut inside = client(&broker, "m/", V5, "inside").await;
    inside.subscribe("t", QoS::AtMostOnce).await;
    let none = ReasonCode::NO_SUBSCRIPTION_EXISTED;
    assert_eq!(inside.unsubscribe("m/t").await, [none]);
    assert_eq!(inside.unsubscribe("t").await, [ReasonCode::SUCCESS]);
    let mut outside = client(&broker, "", V5, "outside").await;
    outside
        .publish(&message("m/t", "text", QoS::AtMostOnce))
        .await;
    inside.expect_nothing().await;
}

/// Retained messages are those of the topics behind the mount point.
#[tokio::test(start_paused = true)]
async fn retained_messages_are_mounted() {
    let broker = broker();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut publishers = Vec::new();
        for mount in ["m/", "n/", ""] {
            let mut publisher = client(&broker, mount, V5, "publisher").await;
            let mut kept = message("t", "text", qos);
            kept.retain = true;
            publisher.publish(&kept).await;
            publishers.push(publisher);
        }
        for (mount, expected) in [
            ("m/", &["t"][..]),
            ("n/", &["t"]),
            ("", &["m/t", "n/t", "t"]),
        ] {
            let mut reader = client(&broker, mount, V5, "reader").await;
            reader.subscribe("#", QoS::AtLeastOnce).await;
            let mut topics = Vec::new();
            for _ in expected {
                topics.push(next_topic(&mut reader).await);
            }
            topics.sort();
            assert_eq!(topics, expected);
            reader.expect_nothing().await;
        }
        // An empty one ends what is retained behind the mount point only.
        let mut clear = message("t", "", qos);
        clear.retain = true;
        publishers[0].publish(&clear).await;
        let mut reader = client(&broker, "m/", V5, "reader").await;
        reader.subscribe("#", QoS::AtLeastOnce).await;
        reader.expect_nothing().await;
    }
}

/// A will is published behind the mount point, with its response topic.
#[tokio::test(start_paused = true)]
async fn wills_are_mounted() {
    let broker = broker();
    for version in [V3_1_1, V5] {
        let mut outside = client(&broker, "", V5, "outside").await;
        let mut beside = client(&broker, "m/", V5, "beside").await;
        outside.subscribe("#", QoS::AtLeastOnce).await;
        beside.subscribe("#", QoS::AtLeastOnce).await;
        let mut connect = hello(version, "doomed");
        connect.clean_start = true;
        let mut will = Will::new(name("gone"), b"text");
        if version == V5 {
            will.properties.response_topic = Some(name("answer"));
        }
        connect.will = Some(will);
        drop(come(&broker, "m/", &connect).await);
        let response = |text| (version == V5).then(|| name(text));
        let received = outside.receive().await;
        let publish = received.publish();
        assert_eq!(publish.topic, Some(name("m/gone")));
        assert_eq!(publish.properties.response_topic, response("m/answer"));
        let received = beside.receive().await;
        let publish = received.publish();
        assert_eq!(publish.topic, Some(name("gone")));
        assert_eq!(publish.properties.response_topic, response("answer"));
        outside.disconnect().await;
        beside.disconnect().await;
    }
}

/// Who answers to a response topic reaches whoever asked, across the border where the topics do.
#[tokio::test(start_paused = true)]
async fn response_topics_are_mounted() {
    let broker = broker();
    let mut inside = client(&broker, "m/", V5, "inside").await;
    let mut outside = client(&broker, "", V5, "outside").await;
    inside.subscribe("ask", QoS::AtLeastOnce).await;
    outside.subscribe("m/ask", QoS::AtLeastOnce).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut asked = message("ask", "text", qos);
        asked.properties.response_topic = Some(name("answer"));
        asked.properties.content_type = Some("text");
        inside.send_publish(&asked).await;
        let expected = [("answer", &mut inside), ("m/answer", &mut outside)];
        for (response, peer) in expected {
            let received = next_publish(peer).await;
            let properties = received.publish().properties;
            assert_eq!(properties.response_topic, Some(name(response)));
            assert_eq!(properties.content_type, Some("text"));
        }
        // A response topic that it cannot publish to is not told to it.
        let mut asked = message("m/ask", "text", qos);
        asked.properties.response_topic = Some(name("beyond"));
        asked.properties.content_type = Some("text");
        outside.send_publish(&asked).await;
        let received = next_publish(&mut inside).await;
        let properties = received.publish().properties;
        assert_eq!(properties.response_topic, None);
        assert_eq!(properties.content_type, Some("text"));
        let received = next_publish(&mut outside).await;
        let properties = received.publish().properties;
        assert_eq!(properties.response_topic, Some(name("beyond")));
    }
}

/// The same client identifier behind two mount points is two clients, and neither knows of the mount point.
#[tokio::test(start_paused = true)]
async fn client_identifiers_are_scoped() {
    let broker = broker();
    let mut peers = Vec::new();
    for mount in ["", "a/", "b/"] {
        let (mut peer, present) = come(&broker, mount, &lasting(V5, "same")).await;
        assert!(!present);
        peer.subscribe("t", QoS::AtLeastOnce).await;
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.expect_nothing().await;
    }
    let (_second, present) = come(&broker, "a/", &lasting(V5, "same")).await;
    assert!(present);
    peers[1]
        .expect_disconnect(ReasonCode::SESSION_TAKEN_OVER)
        .await;
    peers[0].expect_nothing().await;
    peers[2].expect_nothing().await;

    let (_, answer) = Peer::connect_through(&broker, &behind("a/"), &hello(V5, "")).await;
    let connack = answer.connack();
    let assigned = connack.properties.assigned_client_identifier.unwrap();
    assert!(assigned.starts_with("auto-"), "{assigned}");
}

/// A topic that is too long with the mount point before it is refused, and nothing else.
#[tokio::test(start_paused = true)]
async fn what_gets_too_long_is_refused() {
    let broker = broker();
    let long = "x".repeat(65_534);
    let mut peer = client(&broker, "m/", V5, "peer").await;
    let codes = peer
        .subscribe_with(vec![filter(&long, QoS::AtMostOnce)], None)
        .await;
    assert_eq!(codes, [ReasonCode::TOPIC_FILTER_INVALID]);
    peer.send_publish(&message(&long, "text", QoS::AtMostOnce))
        .await;
    peer.expect_disconnect(ReasonCode::TOPIC_NAME_INVALID).await;

    let mut config = Config::default();
    config.max_connect_size = 200_000;
    let broker = broker_with(config);
    let mut connect = hello(V5, "peer");
    connect.will = Some(Will::new(name(&long), b"text"));
    let (_, answer) = Peer::connect_through(&broker, &behind("m/"), &connect).await;
    let reason = answer.connack().reason_code;
    assert_eq!(reason, ReasonCode::TOPIC_NAME_INVALID);
}

/// Topic aliases stand for topics as the client knows them, in both directions.
#[tokio::test(start_paused = true)]
async fn aliases_stand_for_topics_without_the_mount_point() {
    let broker = broker();
    let mut connect = hello(V5, "inside");
    connect.properties.topic_alias_maximum = Some(5);
    let (mut inside, _) = come(&broker, "m/", &connect).await;
    inside.subscribe("t", QoS::AtLeastOnce).await;
    let mut publish = message("t", "text", QoS::AtMostOnce);
    publish.properties.topic_alias = core::num::NonZeroU16::new(1);
    inside.send_publish(&publish).await;
    publish.topic = None;
    inside.send_publish(&publish).await;
    for _ in 0..2 {
        let received = inside.receive().await;
        let publish = received.publish();
        assert!(publish.topic.is_none_or(|topic| topic == name("t")));
    }
}

/// A session that was stored has its mount point, its subscriptions and its messages when the broker starts again.
#[tokio::test]
async fn stored_sessions_keep_their_mount_point() {
    let directory = TempDir::new().unwrap();
    for round in 0..2 {
        let broker = Broker::open(Config::default(), directory.path()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(broker.clone().run(Vec::new(), async move {
            let _ = stopped.await;
        }));
        if round == 0 {
            for mount in ["m/", ""] {
                let (mut peer, _) = come(&broker, mount, &lasting(V5, "same")).await;
                let topic = if mount.is_empty() { "own" } else { "t" };
                peer.subscribe(topic, QoS::AtLeastOnce).await;
                peer.disconnect().await;
            }
            let mut publisher = client(&broker, "m/", V5, "publisher").await;
            let mut kept = message("t", "kept", QoS::AtLeastOnce);
            kept.properties.response_topic = Some(name("answer"));
            kept.retain = true;
            let number = publisher.send_publish(&kept).await.unwrap();
            publisher
                .expect_ack(PacketType::PubAck, number, ReasonCode::SUCCESS)
                .await;
        } else {
            let (mut peer, present) = come(&broker, "m/", &lasting(V5, "same")).await;
            assert!(present);
            let received = next_publish(&mut peer).await;
            let publish = received.publish();
            assert_eq!(publish.topic, Some(name("t")));
            assert_eq!(publish.properties.response_topic, Some(name("answer")));
            let mut publisher = client(&broker, "", V5, "publisher").await;
            publisher
                .publish(&message("m/t", "later", QoS::AtLeastOnce))
                .await;
            peer.expect_message("t", "later", QoS::AtLeastOnce).await;
            let mut reader = client(&broker, "m/", V5, "reader").await;
            reader.subscribe("#", QoS::AtMostOnce).await;
            let received = next_publish(&mut reader).await;
            assert_eq!(received.publish().topic, Some(name("t")));
            let (mut other, present) = come(&broker, "", &lasting(V5, "same")).await;
            assert!(present);
            other.send(&Packet::PingReq).await;
            assert_eq!(other.receive().await.packet(), Packet::PingResp);
        }
        drop(stop);
        running.await.unwrap();
    }
}
