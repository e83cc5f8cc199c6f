//! Limits of how long something lasts: sessions, retained messages, silence.

use core::num::NonZeroU16;
use core::time::Duration;

use mqtt_broker::Config;
use mqtt_codec::ReasonCode;
use tokio::time::Instant;

use super::{NOTHING, ONE, Row, publishes, told};
use crate::harness::{Peer, V3_1_1, V5, advance, broker_with, hello, lasting, message};

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "retained_expiry_maximum",
            set: |config, _| config.retained_expiry_maximum = Some(Duration::from_secs(10)),
            reach: |scene| {
                Box::pin(async {
                    publishes(scene, &["a"], ONE, true).await;
                    advance(61).await;
                    scene
                        .knock(&hello(scene.version, "reader"))
                        .await
                        .0
                        .subscribe("a", ONE)
                        .await;
                    NOTHING
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "dropped, expired",
            line: "retained messages expired messages=1",
        },
        Row {
            limit: "keep alive",
            set: |_, _| {},
            reach: |scene| {
                Box::pin(async {
                    let mut connect = hello(scene.version, "silent");
                    connect.keep_alive = 10;
                    let (mut peer, _) = scene.knock(&connect).await;
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), Some(NOTHING)),
            counter: "ended, keep alive",
            line: "nothing received for one and a half times the keep alive",
        },
        Row {
            limit: "keep_alive_maximum",
            set: |config, _| config.keep_alive_maximum = NonZeroU16::new(10),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("silent").await;
                    let started = Instant::now();
                    let told = told(&mut peer).await;
                    assert_eq!(started.elapsed().as_secs(), 15);
                    told
                })
            },
            // A client of 3.1.1 cannot be told: its own holds.
            told: (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), None),
            counter: "ended, keep alive",
            line: "nothing received for one and a half times the keep alive",
        },
        Row {
            limit: "session_expiry_maximum",
            set: |config, _| config.session_expiry_maximum = 10,
            reach: |scene| {
                Box::pin(async {
                    scene.away().await;
                    advance(11).await;
                    let (_, present) =
                        Peer::resumed(&scene.broker, &lasting(scene.version, "away")).await;
                    assert!(!present);
                    NOTHING
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "sessions expired",
            line: "session expired client_id=away",
        },
    ]
}

/// What is retained goes when its time has come: the publisher's or the broker's, whichever is sooner.
#[tokio::test(start_paused = true)]
async fn retained_messages_last_so_long() {
    let mut config = Config::default();
    config.retained_expiry_maximum = Some(Duration::from_secs(100));
    let broker = broker_with(config);
    for version in [V3_1_1, V5] {
        let mut peer = Peer::new(&broker, version, "publisher").await;
        for (topic, own) in [("none", None), ("later", Some(1_000)), ("sooner", Some(50))] {
            let mut publish = message(topic, "text", ONE);
            publish.retain = true;
            if version.has_properties() {
                publish.properties.message_expiry_interval = own;
            }
            peer.publish(&publish).await;
        }
        advance(40).await;
        for (after, expected) in [(0, 3), (20, 2 + usize::from(version == V3_1_1)), (50, 0)] {
            advance(after).await;
            let mut reader = Peer::new(&broker, V5, "reader").await;
            reader.subscribe("#", ONE).await;
            for _ in 0..expected {
                let received = reader.receive().await;
                let left = received.publish().properties.message_expiry_interval;
                assert!(left.is_some_and(|left| left <= 60), "{left:?}");
                reader.acknowledge(&received.publish()).await;
            }
            reader.expect_nothing().await;
        }
    }
    // Who is there when it is published gets it as it was.
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("#", ONE).await;
    let mut peer = Peer::new(&broker, V5, "publisher").await;
    let mut publish = message("none", "text", ONE);
    publish.retain = true;
    peer.publish(&publish).await;
    let received = reader.expect_message("none", "text", ONE).await;
    assert_eq!(received.publish().properties.message_expiry_interval, None);
}

/// A session does not outlive its connection for longer, whatever the client asked for, and in any version.
#[tokio::test(start_paused = true)]
async fn sessions_last_so_long() {
    let mut config = Config::default();
    config.session_expiry_maximum = 100;
    let broker = broker_with(config);
    for version in [V3_1_1, V5] {
        for (away, lasts) in [(90, true), (110, false)] {
            let mut connect = lasting(version, "client");
            connect.clean_start = true;
            Peer::accepted(&broker, &connect).await.abort().await;
            connect.clean_start = false;
            Peer::accepted(&broker, &connect).await.abort().await;
            advance(away).await;
            let (peer, present) = Peer::resumed(&broker, &connect).await;
            assert_eq!(present, lasts, "{version}, away for {away} s");
            peer.abort().await;
        }
    }
}
