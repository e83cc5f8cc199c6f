//! Which filters match which topics, as MQTT 3.1 and 3.1.1 have it.

use mqtt_codec::QoS;

use crate::harness::{Peer, V3, broker, message};

/// Filters, topics that they match, and topics that they do not.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    (
        "#",
        &["a", "a/b", "/", "/a", "a/", "//", " "],
        &["$a", "$a/b"],
    ),
    ("+", &["a", " "], &["a/b", "/a", "a/", "/", "$a"]),
    ("a", &["a"], &["A", "b", "a/", "/a", "aa", "a/b", "a "]),
    ("/", &["/"], &["a", "//", "a/", "/a"]),
    (
        "+/+",
        &["a/b", "/a", "a/", "/"],
        &["a", "a/b/c", "$a/b", "//"],
    ),
    ("/+", &["/a", "/"], &["a", "a/b", "/a/b", "//"]),
    ("+/", &["a/", "/"], &["a", "a/b", "//"]),
    ("/#", &["/", "/a", "/a/b", "//"], &["a", "a/b", "a/"]),
    (
        "a/#",
        &["a", "a/", "a/b", "a/b/c", "a//"],
        &["A/b", "aa", "ab/c", "/a", "b/a"],
    ),
    ("a/+", &["a/b", "a/", "a/$"], &["a", "a/b/c", "b/a", "a/b/"]),
    ("a/+/#", &["a/b", "a/b/c", "a/", "a//b"], &["a", "b/a"]),
    (
        "+/a/#",
        &["b/a", "/a", "b/a/c"],
        &["a", "b", "a/b/a", "$b/a"],
    ),
    ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/c/", "a/b/b/c"]),
    ("a//b", &["a//b"], &["a/b", "a/x/b", "a///b"]),
    (
        "sport/tennis/player1/#",
        &[
            "sport/tennis/player1",
            "sport/tennis/player1/ranking",
            "sport/tennis/player1/score/wimbledon",
        ],
        &[
            "sport/tennis",
            "sport/tennis/player2",
            "sport/tennis/player1x",
        ],
    ),
    ("$a/#", &["$a", "$a/b", "$a/b/c"], &["a", "$ab", "$A/b"]),
    ("$a/+", &["$a/b"], &["$a", "a/b", "$b/b"]),
    ("$a/b", &["$a/b"], &["a/b"]),
    ("é/ü", &["é/ü"], &["e\u{301}/ü", "e/u", "É/Ü"]),
    ("a b/c", &["a b/c"], &["a%20b/c", "ab/c", "a/b/c"]),
    ("../a", &["../a"], &["a", "/a"]),
    ("a\\b", &["a\\b"], &["a/b", "a\\\\b"]),
    ("ﬁ", &["ﬁ"], &["fi"]),
];

/// [MQTT3-3.3.2-3] [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.2-1] [MQTT3-4.7.3-1] [MQTT3-4.7.3-4]: every row of
/// the table, for messages that come and for retained ones.
#[tokio::test(start_paused = true)]
async fn filters_match_as_listed() {
    for version in V3 {
        for (filter, matching, others) in TABLE {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut receiver = Peer::new(&broker, version, "receiver").await;
            receiver.subscribe(filter, QoS::AtMostOnce).await;
            let send = |topic: &'static str| {
                let mut publish = message(topic, topic, QoS::AtMostOnce);
                publish.retain = true;
                publish
            };
            for topic in *others {
                sender.publish(&send(topic)).await;
                receiver.expect_nothing().await;
            }
            for topic in *matching {
                sender.publish(&send(topic)).await;
                receiver.expect_message(topic, topic, QoS::AtMostOnce).await;
                receiver.expect_nothing().await;
            }
            let mut late = Peer::new(&broker, version, "late").await;
            late.subscribe(filter, QoS::AtMostOnce).await;
            let mut found = Vec::new();
            for _ in *matching {
                let received = late.receive().await;
                let topic = received.publish().topic.unwrap().as_str().to_owned();
                assert_eq!(received.publish().payload, topic.as_bytes());
                found.push(topic);
            }
            late.expect_nothing().await;
            found.sort();
            let mut wanted = matching.to_vec();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{filter}");
        }
    }
}

/// [MQTT3-4.7.2-1]: neither at the start of a filter nor in the first level: topics that begin with `$`.
#[tokio::test(start_paused = true)]
async fn wildcards_do_not_match_dollar_topics() {
    for version in V3 {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        for filter in ["#", "+/monitor/Clients", "+/#", "+/+/+", "+"] {
            receiver.subscribe(filter, QoS::AtMostOnce).await;
        }
        for topic in ["$own/monitor/Clients", "$", "$/a", "$own"] {
            sender.publish(&message(topic, "x", QoS::AtMostOnce)).await;
            receiver.expect_nothing().await;
        }
        // In other places it is a character as any other.
        sender
            .publish(&message("a$/$b", "x", QoS::AtMostOnce))
            .await;
        receiver.expect_message("a$/$b", "x", QoS::AtMostOnce).await;
    }
}
