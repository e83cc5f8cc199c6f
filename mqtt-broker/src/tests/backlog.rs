//! Queues longer than what is held of them in memory, on a disk that fails or loses its power.

use core::ops::Range;

use mqtt_codec::{PacketType, QoS, ReasonCode};

use super::harness::{Peer, V5, message, name};
use super::scene::{Scene, VERSIONS};
use crate::config::Config;

/// About ten small messages of a connected session are held in memory, and one of another.
fn small_window() -> Config {
    Config {
        stored_window_bytes: 2_500,
        ..Config::default()
    }
}

/// Publishes numbers without waiting for each.
async fn publish(sender: &mut Peer, numbers: Range<u32>, qos: QoS) {
    for number in numbers.clone() {
        let text = number.to_string();
        sender.send_publish(&message("t", &text, qos)).await;
    }
    for _ in numbers {
        let received = sender.receive().await;
        let kind = received.packet().packet_type();
        assert_eq!(kind, PacketType::PubAck, "{:?}", received.packet());
    }
}

/// The next messages must be these numbers; they are acknowledged.
async fn expect(peer: &mut Peer, numbers: Range<u32>) {
    for number in numbers {
        let received = peer.receive().await;
        let publish = received.publish();
        assert_eq!(publish.topic, Some(name("t")));
        assert_eq!(String::from_utf8_lossy(publish.payload), number.to_string());
        peer.acknowledge(&publish).await;
    }
}

/// The store is closed and opened again after each failure, while parts of queues are read and others wait for it:
/// every message comes once and in order, whether the disk kept what it said it had not.
#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_loses_nothing_of_a_long_queue() {
    for version in VERSIONS {
        for kept in [false, true] {
            let scene = Scene::with(small_window()).await;
            scene.away(version, "reader", "t", QoS::AtLeastOnce).await;
            let mut sender = scene.fleeting(version, "sender").await;
            scene.gate.fail(2, kept);
            publish(&mut sender, 0..200, QoS::AtLeastOnce).await;
            let mut reader = scene.resumed(version, "reader").await;
            for part in 0..10 {
                scene.gate.fail(part % 3, kept);
                let first = part as u32 * 20;
                publish(&mut sender, 200 + first..220 + first, QoS::AtLeastOnce).await;
                expect(&mut reader, first..first + 20).await;
            }
            scene.gate.fail(3, kept);
            expect(&mut reader, 200..300).await;
            scene.gate.fail(1, kept);
            expect(&mut reader, 300..400).await;
            reader.expect_nothing().await;
            scene.saved().await;
            let scene = scene.crash((reader, sender)).await;
            let mut reader = scene.resumed(version, "reader").await;
            reader.expect_nothing().await;
        }
    }
}

/// A crash while a long queue is read costs nothing of it: what was acknowledged to the broker and is on the disk does
/// not come again at QoS 2, and the rest comes in order.
#[tokio::test(start_paused = true)]
async fn a_crash_loses_nothing_of_a_long_queue() {
    for version in VERSIONS {
        let mut scene = Scene::with(small_window()).await;
        scene.away(version, "reader", "t", QoS::ExactlyOnce).await;
        let mut sender = scene.fleeting(version, "sender").await;
        for number in 0..150 {
            let text = number.to_string();
            sender.publish(&message("t", &text, QoS::ExactlyOnce)).await;
        }
        for part in 0..5 {
            let mut reader = scene.resumed(version, "reader").await;
            expect(&mut reader, part * 30..part * 30 + 30).await;
            scene.saved().await;
            scene = scene.crash(reader).await;
        }
        let mut reader = scene.resumed(version, "reader").await;
        reader.expect_nothing().await;
    }
}

/// What was submitted and not committed when somebody reads on is waited for, not passed over.
#[tokio::test(start_paused = true)]
async fn a_read_waits_for_what_is_not_committed() {
    let scene = Scene::with(small_window()).await;
    let (mut sender, mut reader) = (
        scene.fleeting(V5, "sender").await,
        scene.subscriber(V5, "reader", "t", QoS::AtLeastOnce).await,
    );
    scene.hold().await;
    let mut numbers = Vec::new();
    for number in 0..100 {
        let text = number.to_string();
        let publish = message("t", &text, QoS::AtLeastOnce);
        numbers.extend(sender.send_publish(&publish).await);
    }
    scene.held().await;
    // At QoS 1 what is in memory goes at once; what is behind it is not on the disk yet.
    expect(&mut reader, 0..5).await;
    scene.release().await;
    expect(&mut reader, 5..100).await;
    for number in numbers {
        sender
            .expect_ack(PacketType::PubAck, number, ReasonCode::SUCCESS)
            .await;
    }
    reader.expect_nothing().await;
}
