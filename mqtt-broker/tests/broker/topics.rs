//! Topic names and filters: what matches what, as a client sees it.

use mqtt_codec::{Packet, QoS};

use crate::harness::{ALL, Peer, V5, broker, message};

/// [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-3.3.2-3] [MQTT3-4.7.1-1] [MQTT3-4.7.1-2]
/// [MQTT3-4.7.1-3] [MQTT3-4.7.2-1] [MQTT3-4.7.3-4] [MQTT3-3.3.2-3]: each filter against each topic; a message
/// comes exactly when they match, under the topic it was published to, live and retained.
#[tokio::test(start_paused = true)]
async fn filters_match_topics() {
    const TOPICS: [&str; 19] = [
        "sport",
        "sport/",
        "/sport",
        "sport/tennis",
        "sport/tennis/player1",
        "sport/tennis/player1/score",
        "Sport",
        "sport//player1",
        "/",
        "//",
        "/finance",
        "finance",
        "$SYSTEM",
        "$SYSTEM/monitor",
        "$SYSTEM/monitor/Clients",
        "a$b/c",
        "ä",
        "a\u{308}",
        " ",
    ];
    let rows: &[(&str, &[&str])] = &[
        ("sport", &["sport"]),
        ("sport/", &["sport/"]),
        (
            "sport/tennis/player1/#",
            &["sport/tennis/player1", "sport/tennis/player1/score"],
        ),
        (
            "sport/#",
            &[
                "sport",
                "sport/",
                "sport/tennis",
                "sport/tennis/player1",
                "sport/tennis/player1/score",
                "sport//player1",
            ],
        ),
        ("sport/tennis/+", &["sport/tennis/player1"]),
        ("sport/+", &["sport/", "sport/tennis"]),
        (
            "sport/+/player1",
            &["sport/tennis/player1", "sport//player1"],
        ),
        (
            "+/+",
            &["sport/", "/sport", "sport/tennis", "/", "/finance", "a$b/c"],
        ),
        ("/+", &["/sport", "/", "/finance"]),
        ("+", &["sport", "Sport", "finance", "ä", "a\u{308}", " "]),
        (
            "+/tennis/#",
            &[
                "sport/tennis",
                "sport/tennis/player1",
                "sport/tennis/player1/score",
            ],
        ),
        (
            "#",
            &[
                "sport",
                "sport/",
                "/sport",
                "sport/tennis",
                "sport/tennis/player1",
                "sport/tennis/player1/score",
                "Sport",
                "sport//player1",
                "/",
                "//",
                "/finance",
                "finance",
                "a$b/c",
                "ä",
                "a\u{308}",
                " ",
            ],
        ),
        ("+/monitor/Clients", &[]),
        ("+/monitor/#", &[]),
        (
            "$SYSTEM/#",
            &["$SYSTEM", "$SYSTEM/monitor", "$SYSTEM/monitor/Clients"],
        ),
        ("$SYSTEM/monitor/+", &["$SYSTEM/monitor/Clients"]),
        ("$SYSTEM/+", &["$SYSTEM/monitor"]),
        ("/", &["/"]),
        ("//", &["//"]),
        ("/#", &["/sport", "/", "//", "/finance"]),
        ("ä", &["ä"]),
        ("a\u{308}", &["a\u{308}"]),
        (" ", &[" "]),
        ("SPORT", &[]),
        ("$system/#", &[]),
    ];
    for version in ALL {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut peers = Vec::new();
        for (filter, topics) in rows {
            let mut peer = Peer::new(&broker, version, filter).await;
            peer.subscribe(filter, QoS::AtMostOnce).await;
            peers.push((peer, topics));
        }
        for topic in TOPICS {
            let mut publish = message(topic, topic, QoS::AtMostOnce);
            publish.retain = true;
            sender.publish(&publish).await;
            sender.expect_nothing().await;
            for (peer, topics) in &mut peers {
                if topics.contains(&topic) {
                    peer.expect_message(topic, topic, QoS::AtMostOnce).await;
                }
                peer.expect_nothing().await;
            }
        }
        for (filter, topics) in rows {
            let mut late = Peer::new(&broker, version, "late").await;
            late.subscribe(filter, QoS::AtMostOnce).await;
            let mut got = Vec::new();
            for _ in *topics {
                let received = late.receive().await;
                let publish = received.publish();
                assert!(publish.retain);
                got.push(publish.topic.unwrap().as_str().to_owned());
            }
            late.expect_nothing().await;
            let mut expected = topics.to_vec();
            expected.sort_unstable();
            got.sort_unstable();
            assert_eq!(got, expected, "{filter}");
        }
    }
}

/// [MQTT-4.7.3-1] [MQTT-4.7.3-3]: names and filters of one character and of 65,535 bytes pass unaltered, and of
/// as many levels as fit.
#[tokio::test(start_paused = true)]
async fn topics_of_every_length_pass() {
    let long = "x".repeat(65_535);
    let deep = "a/".repeat(200);
    for version in ALL {
        for topic in ["x", "/", &long, &deep] {
            let broker = broker();
            let mut peer = Peer::new(&broker, version, "client").await;
            peer.subscribe(topic, QoS::AtLeastOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            sender
                .publish(&message(topic, "text", QoS::AtLeastOnce))
                .await;
            peer.expect_message(topic, "text", QoS::AtLeastOnce).await;
            peer.unsubscribe(topic).await;
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT-4.2.0-1] [MQTT-4.6.0-6]: packets cut into single bytes are the same packets, in order.
#[tokio::test(start_paused = true)]
async fn the_stream_may_be_cut_anywhere() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.subscribe("#", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut bytes = Vec::new();
        for number in 0..10 {
            let text = "x".repeat(number * 13);
            Packet::Publish(message("a/topic", &text, QoS::AtMostOnce))
                .encode(version, &mut bytes)
                .unwrap();
        }
        for byte in bytes {
            sender.send_raw(&[byte]).await;
            tokio::task::yield_now().await;
        }
        for number in 0..10 {
            let text = "x".repeat(number * 13);
            peer.expect_message("a/topic", &text, QoS::AtMostOnce).await;
        }
        peer.expect_nothing().await;
    }
}

/// Section 4.7.2: clients may publish to topics that begin with `$`; `$share` names a group in a filter only.
#[tokio::test(start_paused = true)]
async fn dollar_topics_are_ordinary_when_named() {
    let broker = broker();
    let mut peer = Peer::new(&broker, V5, "client").await;
    for text in ["$share", "$shared/g/a", "$queue/a", "$own"] {
        peer.subscribe(text, QoS::AtMostOnce).await;
        peer.send_publish(&message(text, "text", QoS::AtMostOnce))
            .await;
        peer.expect_message(text, "text", QoS::AtMostOnce).await;
    }
    // A topic name that looks like a shared filter is a topic name.
    peer.subscribe("$share/g/a", QoS::AtMostOnce).await;
    peer.send_publish(&message("$share/g/a", "name", QoS::AtMostOnce))
        .await;
    peer.expect_nothing().await;
    peer.send_publish(&message("a", "shared", QoS::AtMostOnce))
        .await;
    peer.expect_message("a", "shared", QoS::AtMostOnce).await;
}
