//! Clocks and wills across a restart.

use mqtt_codec::{Connect, ProtocolVersion, QoS, Will};

use super::harness::{Peer, V5, hello, lasting, message, name};
use super::scene::{START, Scene, VERSIONS};
use crate::store::WallTime;

/// So many seconds after the first start, by the clock on the wall.
fn wall(seconds: i64) -> WallTime {
    WallTime(START.0.saturating_add_signed(seconds * 1_000))
}

fn expiring(seconds: u32) -> Connect<'static> {
    let mut connect = lasting(V5, "client");
    connect.properties.session_expiry_interval = Some(seconds);
    connect
}

fn with_will(mut connect: Connect<'_>, delay: Option<u32>, qos: QoS) -> Connect<'_> {
    let mut will = Will::new(name("will"), b"gone");
    will.qos = qos;
    will.properties.delay_interval = delay.filter(|_| connect.version.has_properties());
    connect.will = Some(will);
    connect
}

async fn watcher(scene: &Scene, version: ProtocolVersion) -> Peer {
    scene
        .subscriber(version, "watcher", "will", QoS::ExactlyOnce)
        .await
}

/// Time passes while the broker is down: the deadlines of sessions are those of the clock on the wall.
#[tokio::test(start_paused = true)]
async fn sessions_expire_while_the_broker_is_down() {
    for (seconds, is_there) in [(99, true), (101, false)] {
        let scene = Scene::new().await;
        let client = Peer::accepted(&scene.broker, &expiring(100)).await;
        client.disconnect().await;
        scene.saved().await;
        let scene = scene.crash_at(wall(seconds), ()).await;
        let (_, present) = Peer::resumed(&scene.broker, &expiring(100)).await;
        assert_eq!(present, is_there, "{seconds}");
    }
}

/// A session that was connected when the broker went lives on from the start.
#[tokio::test(start_paused = true)]
async fn the_interval_of_a_connected_session_runs_from_the_start() {
    let scene = Scene::new().await;
    let client = Peer::accepted(&scene.broker, &expiring(100)).await;
    scene.saved().await;
    let scene = scene.crash_at(wall(1_000), client).await;
    scene.pass(99).await;
    let (client, present) = Peer::resumed(&scene.broker, &expiring(100)).await;
    assert!(present);
    scene.saved().await;
    let scene = scene.crash_at(wall(2_000), client).await;
    scene.pass(100).await;
    let (_, present) = Peer::resumed(&scene.broker, &expiring(100)).await;
    assert!(!present);
}

#[tokio::test(start_paused = true)]
async fn messages_expire_while_the_broker_is_down() {
    for retain in [false, true] {
        let scene = Scene::new().await;
        scene.away(V5, "away", "t", QoS::AtLeastOnce).await;
        let mut sender = scene.fleeting(V5, "sender").await;
        for (text, seconds) in [("short", 100), ("long", 200)] {
            let mut publish = message("t", text, QoS::AtLeastOnce);
            publish.topic = Some(name(if retain { text } else { "t" }));
            publish.retain = retain;
            publish.properties.message_expiry_interval = Some(seconds);
            sender.publish(&publish).await;
        }
        let scene = scene.crash_at(wall(150), sender).await;
        let mut receiver = scene.resumed(V5, "away").await;
        let topic = if retain {
            receiver.subscribe("#", QoS::AtLeastOnce).await;
            "long"
        } else {
            "t"
        };
        let received = receiver
            .expect_message(topic, "long", QoS::AtLeastOnce)
            .await;
        let left = received.publish().properties.message_expiry_interval;
        assert_eq!(left, Some(50));
        receiver.expect_nothing().await;
    }
}

/// A clock that runs behind the last one stored counts as no time passed, and nothing lives the longer for it.
#[tokio::test(start_paused = true)]
async fn a_clock_that_runs_behind_counts_as_no_time_passed() {
    let scene = Scene::new().await;
    let client = Peer::accepted(&scene.broker, &expiring(100)).await;
    client.disconnect().await;
    scene.saved().await;
    let scene = scene.crash_at(wall(-1_000_000), ()).await;
    scene.pass(99).await;
    let (client, present) = Peer::resumed(&scene.broker, &expiring(100)).await;
    assert!(present);
    client.disconnect().await;
    scene.pass(100).await;
    let (_, present) = Peer::resumed(&scene.broker, &expiring(100)).await;
    assert!(!present);
}

/// Its client was connected: after a crash the delay runs from the start, however long the broker was down.
#[tokio::test(start_paused = true)]
async fn the_delay_of_a_stored_will_runs_from_the_start() {
    let scene = Scene::new().await;
    let watching = watcher(&scene, V5).await;
    let connect = with_will(lasting(V5, "client"), Some(30), QoS::AtLeastOnce);
    let client = Peer::accepted(&scene.broker, &connect).await;
    scene.saved().await;
    let scene = scene.crash_at(wall(1_000), (watching, client)).await;
    let mut watcher = scene.resumed(V5, "watcher").await;
    scene.pass(29).await;
    watcher.expect_nothing().await;
    scene.pass(1).await;
    watcher
        .expect_message("will", "gone", QoS::AtLeastOnce)
        .await;
}

/// The connection had ended before: the delay goes on by the clock on the wall.
#[tokio::test(start_paused = true)]
async fn a_delay_that_runs_goes_on() {
    let scene = Scene::new().await;
    let watching = watcher(&scene, V5).await;
    let connect = with_will(lasting(V5, "client"), Some(30), QoS::AtLeastOnce);
    let client = Peer::accepted(&scene.broker, &connect).await;
    client.abort().await;
    scene.saved().await;
    let scene = scene.crash_at(wall(20), watching).await;
    let mut watcher = scene.resumed(V5, "watcher").await;
    scene.pass(9).await;
    watcher.expect_nothing().await;
    scene.pass(1).await;
    watcher
        .expect_message("will", "gone", QoS::AtLeastOnce)
        .await;
}

/// A client that comes back in time takes its will back, after a crash as before.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_after_a_crash_cancels_its_will() {
    let scene = Scene::new().await;
    let watching = watcher(&scene, V5).await;
    let connect = with_will(lasting(V5, "client"), Some(30), QoS::AtLeastOnce);
    let client = Peer::accepted(&scene.broker, &connect).await;
    scene.saved().await;
    let scene = scene.crash((watching, client)).await;
    let client = scene.resumed(V5, "client").await;
    let mut watcher = scene.resumed(V5, "watcher").await;
    scene.pass(60).await;
    watcher.expect_nothing().await;
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_will_of_a_session_that_ends_with_its_connection_is_lost_in_a_crash() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let watching = watcher(&scene, version).await;
        let connect = with_will(hello(version, "client"), None, QoS::AtLeastOnce);
        let mut connect = connect;
        connect.clean_start = true;
        let client = Peer::accepted(&scene.broker, &connect).await;
        scene.saved().await;
        let scene = scene.crash((watching, client)).await;
        let mut watcher = scene.resumed(version, "watcher").await;
        watcher.expect_nothing().await;
    }
}

/// What it puts into queues, and that it is no longer to be published, is one unit: after a crash in between it does
/// not come twice.
#[tokio::test(start_paused = true)]
async fn a_will_is_published_once_whenever_the_broker_crashes() {
    for passed in 0..3 {
        let scene = Scene::new().await;
        let watching = watcher(&scene, V5).await;
        watching.disconnect().await;
        let connect = with_will(lasting(V5, "client"), None, QoS::ExactlyOnce);
        let client = Peer::accepted(&scene.broker, &connect).await;
        scene.hold().await;
        client.abort().await;
        for _ in 0..passed {
            scene.commit_one().await;
        }
        let scene = scene.crash(()).await;
        let mut watcher = scene.resumed(V5, "watcher").await;
        scene.saved().await;
        watcher
            .expect_message("will", "gone", QoS::ExactlyOnce)
            .await;
        watcher.expect_nothing().await;
    }
}

/// The broker closes the connection, and the client had not taken its will back: it is published, and those whose
/// sessions last have it when they come back.
#[tokio::test(start_paused = true)]
async fn a_shutdown_publishes_wills() {
    for version in VERSIONS {
        for lasts in [false, true] {
            let scene = Scene::new().await;
            let watching = watcher(&scene, version).await;
            let mut connect = if lasts {
                lasting(version, "client")
            } else {
                hello(version, "client")
            };
            connect.clean_start = true;
            let mut connect = with_will(connect, None, QoS::ExactlyOnce);
            connect.will.as_mut().unwrap().retain = true;
            let client = Peer::accepted(&scene.broker, &connect).await;
            let scene = scene.restart((watching, client)).await;
            let mut watcher = scene.resumed(version, "watcher").await;
            watcher
                .expect_message("will", "gone", QoS::ExactlyOnce)
                .await;
            watcher.expect_nothing().await;
            let mut late = scene.fleeting(version, "late").await;
            late.subscribe("will", QoS::AtMostOnce).await;
            late.expect_message("will", "gone", QoS::AtMostOnce).await;
        }
    }
}

/// A delay runs on while the broker is down, and a client that is back in time takes its will back.
#[tokio::test(start_paused = true)]
async fn a_shutdown_keeps_wills_with_a_delay() {
    for comes_back in [false, true] {
        let scene = Scene::new().await;
        let watching = watcher(&scene, V5).await;
        let connect = with_will(lasting(V5, "client"), Some(30), QoS::AtLeastOnce);
        let client = Peer::accepted(&scene.broker, &connect).await;
        let scene = scene.restart_at(wall(20), (watching, client)).await;
        let mut watcher = scene.resumed(V5, "watcher").await;
        scene.pass(9).await;
        watcher.expect_nothing().await;
        if comes_back {
            let client = scene.resumed(V5, "client").await;
            scene.pass(60).await;
            watcher.expect_nothing().await;
            drop(client);
        } else {
            scene.pass(1).await;
            watcher
                .expect_message("will", "gone", QoS::AtLeastOnce)
                .await;
        }
    }
}
