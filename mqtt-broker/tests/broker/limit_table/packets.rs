//! Limits of what a client sends: sizes, what is not offered, levels of topics, wills, rates.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use mqtt_codec::{QoS, ReasonCode, Will};
use tokio::time::Instant;

use super::{NOTHING, ONE, Reached, Row, Scene, TAKEN, UNAVAILABLE, publishes, told};
use crate::harness::{hello, message, name};

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "max_packet_size",
            set: |config, _| config.max_packet_size = 30,
            reach: |scene| publishes(scene, &["a"], ONE, false),
            told: (Some(ReasonCode::PACKET_TOO_LARGE), Some(NOTHING)),
            counter: "ended, packet too large",
            line: "disconnected",
        },
        Row {
            limit: "max_packet_size of a listener",
            set: |_, options| options.max_packet_size = Some(30),
            reach: |scene| publishes(scene, &["a"], ONE, false),
            told: (Some(ReasonCode::PACKET_TOO_LARGE), Some(NOTHING)),
            counter: "ended, packet too large",
            line: "disconnected",
        },
        Row {
            limit: "receive_maximum",
            set: |config, _| config.receive_maximum = NonZeroU16::MIN,
            reach: |scene| publishes(scene, &["a", "a"], QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED), None),
            counter: "ended, more unacknowledged than receive maximum",
            line: "disconnected",
        },
        Row {
            limit: "topic_alias_maximum",
            set: |config, _| config.topic_alias_maximum = 2,
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("publisher").await;
                    let mut publish = message("a", "text", ONE);
                    publish.properties.topic_alias = NonZeroU16::new(3);
                    peer.send_publish(&publish).await;
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::TOPIC_ALIAS_INVALID), None),
            counter: "ended, topic alias",
            line: "disconnected",
        },
        Row {
            limit: "maximum_qos",
            set: |config, _| config.maximum_qos = ONE,
            reach: |scene| publishes(scene, &["a"], QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::QOS_NOT_SUPPORTED), Some(NOTHING)),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "retain_available",
            set: |config, _| config.retain_available = false,
            reach: |scene| publishes(scene, &["a"], ONE, true),
            told: (Some(ReasonCode::RETAIN_NOT_SUPPORTED), Some(NOTHING)),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "topic_levels of a message",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| publishes(scene, &["a/b", "a/b/c"], ONE, false),
            told: (Some(ReasonCode::TOPIC_NAME_INVALID), Some(TAKEN)),
            counter: "dropped, too many levels",
            line: "its topic has too many levels",
        },
        Row {
            limit: "topic_levels of a will",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| wills(scene, "a/b/c", QoS::AtMostOnce, false),
            told: (Some(ReasonCode::TOPIC_NAME_INVALID), Some(UNAVAILABLE)),
            counter: "refused, topic of the will has too many levels",
            line: "reason=topic of the will has too many levels",
        },
        Row {
            limit: "maximum_qos of a will",
            set: |config, _| config.maximum_qos = ONE,
            reach: |scene| wills(scene, "a", QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::QOS_NOT_SUPPORTED), Some(NOTHING)),
            counter: "refused, the will uses what is not offered",
            line: "reason=the will uses what is not offered",
        },
        Row {
            limit: "retain_available of a will",
            set: |config, _| config.retain_available = false,
            reach: |scene| wills(scene, "a", ONE, true),
            told: (Some(ReasonCode::RETAIN_NOT_SUPPORTED), Some(NOTHING)),
            counter: "refused, the will uses what is not offered",
            line: "reason=the will uses what is not offered",
        },
        Row {
            limit: "message_rate",
            set: |config, _| config.message_rate = NonZeroU32::new(10),
            reach: floods,
            told: (NOTHING, Some(NOTHING)),
            counter: "paused, sends too fast",
            line: "not read for a while: sends too fast",
        },
        Row {
            limit: "byte_rate",
            set: |config, _| config.byte_rate = NonZeroU32::new(100),
            reach: floods,
            told: (NOTHING, Some(NOTHING)),
            counter: "paused, sends too fast",
            line: "not read for a while: sends too fast",
        },
    ]
}

/// Messages that come at once take a second or more, and all of them come.
fn floods(scene: &Scene) -> Reached<'_> {
    Box::pin(async {
        let mut peer = scene.client("fast").await;
        peer.subscribe("topic", QoS::AtMostOnce).await;
        let started = Instant::now();
        for _ in 0..30 {
            peer.send_publish(&message("topic", "text", QoS::AtMostOnce))
                .await;
        }
        for _ in 0..30 {
            peer.expect_message("topic", "text", QoS::AtMostOnce).await;
        }
        assert!(started.elapsed() >= Duration::from_secs(1));
        None
    })
}

/// What is said to a client with such a will.
fn wills<'s>(scene: &'s Scene, topic: &'static str, qos: QoS, retain: bool) -> Reached<'s> {
    Box::pin(async move {
        let mut connect = hello(scene.version, "a");
        let mut will = Will::new(name(topic), b"gone");
        (will.qos, will.retain) = (qos, retain);
        connect.will = Some(will);
        scene.knock(&connect).await.1
    })
}
