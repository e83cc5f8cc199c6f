//! Limits of what is kept: what waits for a client, retained messages, the data directory.

use core::time::Duration;

use mqtt_broker::{Broker, Config};
use mqtt_codec::QoS;

use super::{Log, NOTHING, ONE, QUOTA, Reached, Row, Scene, TAKEN, publishes, told};
use crate::harness::{Peer, V3_1_1, V5, advance, message};

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "queue_messages",
            set: |config, _| config.queue_messages = 1,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "queue_bytes",
            set: |config, _| config.queue_bytes = 400,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "stored_queue_bytes",
            set: |config, _| config.stored_queue_bytes = 400,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "outbox_bytes",
            set: |config, _| config.outbox_bytes = 2_000,
            reach: |scene| deafens(scene, 1),
            told: (NOTHING, Some(NOTHING)),
            counter: "dropped, outbox full",
            line: "messages dropped client_id=\"deaf\" reason=outbox full",
        },
        Row {
            limit: "write_timeout",
            set: |config, _| config.write_timeout = Duration::from_secs(20),
            reach: |scene| deafens(scene, 30),
            told: (NOTHING, Some(NOTHING)),
            counter: "ended, reads nothing",
            line: "disconnected",
        },
        Row {
            limit: "retained_messages",
            set: |config, _| config.retained_messages = 1,
            reach: |scene| publishes(scene, &["a", "a", "b"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained full",
            line: "messages dropped reason=retained full",
        },
        Row {
            limit: "retained_bytes",
            set: |config, _| config.retained_bytes = 200,
            reach: |scene| publishes(scene, &["a", "b"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained full",
            line: "messages dropped reason=retained full",
        },
        Row {
            limit: "retained_message_bytes",
            set: |config, _| config.retained_message_bytes = 20,
            reach: |scene| publishes(scene, &["a"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained too large",
            line: "messages dropped reason=retained too large",
        },
    ]
}

/// What is said to the second message for a client that is away.
fn piles_up(scene: &Scene) -> Reached<'_> {
    Box::pin(async {
        scene.away().await;
        publishes(scene, &["topic", "topic"], ONE, false).await
    })
}

/// Messages for a client that reads nothing.
fn deafens<'s>(scene: &'s Scene, seconds: u64) -> Reached<'s> {
    Box::pin(async move {
        let mut deaf = Peer::open_with(&scene.broker, scene.version, 500);
        deaf.introduce("deaf").await;
        deaf.subscribe("topic", QoS::AtMostOnce).await;
        let mut peer = scene.client("publisher").await;
        let text = "x".repeat(4_000);
        for _ in 0..40 {
            peer.send_publish(&message("topic", &text, QoS::AtMostOnce))
                .await;
            peer.expect_nothing().await;
        }
        advance(seconds).await;
        drop(deaf);
        None
    })
}

/// A directory that has reached its bound, or a disk with no more room than its reserve, takes no new message: the
/// publisher is told, and it is counted and logged.
#[tokio::test]
async fn a_full_directory_is_told_counted_and_logged() {
    type Set = fn(&mut Config);
    let rows: [(&str, Set, &str); 2] = [
        (
            "data_directory_bytes",
            |config| config.data_directory_bytes = 1,
            "directory full",
        ),
        // More than any disk has.
        (
            "disk_reserve_bytes",
            |config| config.disk_reserve_bytes = 1 << 60,
            "disk full",
        ),
    ];
    for (limit, set, reason) in rows {
        let log = Log::default();
        let _guard = log.collect();
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        set(&mut config);
        let broker = Broker::open(config, directory.path()).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let run = broker
            .clone()
            .run(Vec::new(), async { drop(stopped.await) });
        let running = tokio::spawn(run);
        for (version, expected) in [(V5, QUOTA), (V3_1_1, TAKEN)] {
            let mut peer = Peer::new(&broker, version, "publisher").await;
            let mut publish = message("a", "text", ONE);
            publish.retain = true;
            peer.send_publish(&publish).await;
            assert_eq!(told(&mut peer).await, expected, "{limit}");
            peer.disconnect().await;
        }
        let report = broker.counters().report();
        let counted = format!("dropped, {reason}: 2\n");
        assert!(report.contains(&counted), "{limit}: {report}");
        let text = log.text();
        let line = format!("messages dropped reason={reason}");
        assert!(text.contains(&line), "{limit}: {text}");
        drop((stop, broker));
        running.await.unwrap();
    }
}
