//! What is promised to a session: that it is on the disk, that the system has it, or nothing.

use mqtt_codec::{Packet, PacketType, QoS, ReasonCode};

use super::harness::{Peer, V5, id, message, settle};
use super::scene::Scene;
use crate::config::{Config, Durability};

const SUCCESS: ReasonCode = ReasonCode::SUCCESS;

/// A session of a durability that subscribed to a topic and has gone.
async fn away(scene: &Scene, durability: Durability, id: &str) {
    let (mut peer, _) = scene.through(durability, id).await;
    peer.subscribe("t", QoS::ExactlyOnce).await;
    peer.disconnect().await;
}

async fn with(durability: Durability) -> Scene {
    Scene::with(Config {
        durability,
        ..Config::default()
    })
    .await
}

/// What only such a session takes is written before the acknowledgement, and not synced.
#[tokio::test(start_paused = true)]
async fn os_waits_for_the_write_and_not_for_the_disk() {
    let scene = Scene::new().await;
    let mut sender = scene.fleeting(V5, "sender").await;
    away(&scene, Durability::Os, "away").await;
    scene.saved().await;
    assert!(!scene.gate.last_was_synced(), "its subscription");
    scene.hold().await;
    sender
        .send_publish(&message("t", "m", QoS::AtLeastOnce))
        .await;
    scene.held().await;
    sender.expect_nothing().await;
    scene.release().await;
    sender.expect_ack(PacketType::PubAck, id(1), SUCCESS).await;
    assert!(!scene.gate.last_was_synced());
    let scene = scene.crash(sender).await;
    let mut away = scene.resumed(V5, "away").await;
    away.expect_message("t", "m", QoS::AtLeastOnce).await;
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_waits_for_the_strictest_that_took_the_message() {
    let scene = with(Durability::Memory).await;
    let mut sender = scene.fleeting(V5, "sender").await;
    away(&scene, Durability::Memory, "memory").await;
    away(&scene, Durability::Os, "os").await;
    sender.publish(&message("t", "m", QoS::AtLeastOnce)).await;
    scene.saved().await;
    assert!(!scene.gate.last_was_synced());
    away(&scene, Durability::Disk, "disk").await;
    sender.publish(&message("t", "m", QoS::AtLeastOnce)).await;
    scene.saved().await;
    assert!(scene.gate.last_was_synced());
}

/// It outlives its connection, and nothing of it is written; it ends with the broker.
#[tokio::test(start_paused = true)]
async fn a_session_in_memory_is_not_stored() {
    let scene = Scene::new().await;
    let mut sender = scene.fleeting(V5, "sender").await;
    scene.hold().await;
    away(&scene, Durability::Memory, "away").await;
    sender.publish(&message("t", "m", QoS::ExactlyOnce)).await;
    settle().await;
    assert!(!scene.gate.holds(), "nothing was given to the disk");
    let (mut peer, present) = scene.through(Durability::Memory, "away").await;
    assert!(present);
    peer.expect_message("t", "m", QoS::ExactlyOnce).await;
    peer.disconnect().await;
    let scene = scene.crash(sender).await;
    let (_, present) = scene.through(Durability::Memory, "away").await;
    assert!(!present);
}

/// A session keeps what it was made with, whichever listener its client comes through later, and after a restart.
#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_durability() {
    for (made, resumed) in [
        (Durability::Disk, Durability::Memory),
        (Durability::Disk, Durability::Os),
        (Durability::Os, Durability::Disk),
        (Durability::Memory, Durability::Disk),
    ] {
        let mut scene = Scene::new().await;
        away(&scene, made, "away").await;
        for restarts in [false, true] {
            if restarts {
                scene = scene.crash(()).await;
            }
            let (peer, present) = scene.through(resumed, "away").await;
            assert_eq!(present, !restarts || made != Durability::Memory);
            peer.abort().await;
            if made == Durability::Memory {
                break;
            }
            let mut sender = scene.fleeting(V5, "sender").await;
            sender.publish(&message("t", "m", QoS::AtLeastOnce)).await;
            sender.disconnect().await;
            scene.saved().await;
            assert_eq!(scene.gate.last_was_synced(), made == Durability::Disk);
        }
    }
}

/// A publisher in memory waits for the sessions that take its messages, on its next connection as well.
#[tokio::test(start_paused = true)]
async fn a_publisher_in_memory_waits_for_those_on_the_disk() {
    let scene = Scene::new().await;
    away(&scene, Durability::Disk, "away").await;
    let (mut sender, _) = scene.through(Durability::Memory, "sender").await;
    scene.hold().await;
    let mut publish = message("t", "m", QoS::ExactlyOnce);
    publish.packet_id = Some(id(1));
    sender.send(&Packet::Publish(publish.clone())).await;
    scene.held().await;
    sender.expect_nothing().await;
    sender.abort().await;
    let (mut sender, _) = scene.through(Durability::Memory, "sender").await;
    publish.dup = true;
    sender.send(&Packet::Publish(publish)).await;
    sender.expect_nothing().await;
    scene.release().await;
    sender.expect_ack(PacketType::PubRec, id(1), SUCCESS).await;
    let mut away = scene.resumed(V5, "away").await;
    away.expect_message("t", "m", QoS::ExactlyOnce).await;
    away.expect_nothing().await;
}

async fn retain(sender: &mut Peer, topic: &str, text: &str) {
    let mut publish = message(topic, text, QoS::AtLeastOnce);
    publish.retain = true;
    sender.publish(&publish).await;
}

/// Retained messages are kept as the configuration says, whoever publishes them. One that the directory has and
/// that was replaced in memory does not come back.
#[tokio::test(start_paused = true)]
async fn retained_messages_in_memory_end_with_the_broker() {
    let mut scene = Scene::new().await;
    let mut sender = scene.fleeting(V5, "sender").await;
    for topic in ["untouched", "replaced", "cleared"] {
        retain(&mut sender, topic, "before").await;
    }
    scene.change(|config| config.durability = Durability::Memory);
    let mut scene = scene.crash(sender).await;
    let mut sender = scene.fleeting(V5, "sender").await;
    scene.hold().await;
    for (topic, text) in [("replaced", "after"), ("cleared", ""), ("new", "after")] {
        retain(&mut sender, topic, text).await;
    }
    scene.release().await;
    let mut reader = scene.fleeting(V5, "reader").await;
    for (topic, text) in [
        ("untouched", "before"),
        ("replaced", "after"),
        ("new", "after"),
    ] {
        reader.subscribe(topic, QoS::AtMostOnce).await;
        reader.expect_message(topic, text, QoS::AtMostOnce).await;
    }
    scene.change(|config| config.durability = Durability::Disk);
    let scene = scene.crash((sender, reader)).await;
    let mut reader = scene.fleeting(V5, "reader").await;
    reader.subscribe("#", QoS::AtMostOnce).await;
    reader
        .expect_message("untouched", "before", QoS::AtMostOnce)
        .await;
    reader.expect_nothing().await;
}
