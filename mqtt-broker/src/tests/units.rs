//! What is made durable together, and in which order.

use mqtt_codec::{Packet, PacketType, QoS, ReasonCode};

use super::harness::{EVERY_QOS, Peer, V5, id, message, settle};
use super::scene::Scene;
use crate::store::Op;

/// What changes of a commit a test looks for, in no order.
fn kinds(ops: &[Op]) -> Vec<&'static str> {
    let mut kinds: Vec<_> = ops
        .iter()
        .map(|op| match op {
            Op::Body(..) => "body",
            Op::Queued(..) => "queued",
            Op::Retained(..) => "retained",
            Op::Received(..) => "received",
            Op::Session(..) => "session",
            Op::SessionEnded(..) => "session ended",
            Op::Dequeued(..) => "dequeued",
            _ => "another",
        })
        .collect();
    kinds.sort_unstable();
    kinds
}

/// The writes of all connections that come while a commit is under way are the next commit.
#[tokio::test(start_paused = true)]
async fn writes_of_all_connections_are_committed_together() {
    let scene = Scene::new().await;
    scene.away(V5, "away", "t", QoS::AtLeastOnce).await;
    let mut senders = Vec::new();
    for number in 0..10 {
        senders.push(scene.fleeting(V5, &format!("sender-{number}")).await);
    }
    scene.hold().await;
    let before = scene.gate.commits().len();
    for sender in &mut senders {
        sender
            .send_publish(&message("t", "m", QoS::AtLeastOnce))
            .await;
        scene.held().await;
    }
    scene.release().await;
    for sender in &mut senders {
        sender
            .expect_ack(PacketType::PubAck, id(1), ReasonCode::SUCCESS)
            .await;
    }
    let commits: Vec<_> = scene.gate.commits().drain(before..).collect();
    let sizes: Vec<_> = commits.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 9]);
}

/// The body, every queue's entry, the retained value and the publisher's identifier.
#[tokio::test(start_paused = true)]
async fn the_changes_of_one_publish_are_one_unit() {
    let scene = Scene::new().await;
    scene.away(V5, "first", "t", QoS::ExactlyOnce).await;
    scene.away(V5, "second", "+", QoS::AtLeastOnce).await;
    let (mut sender, _) = scene.stored(V5, "sender").await;
    scene.hold().await;
    let before = scene.gate.commits().len();
    let mut publish = message("t", "m", QoS::ExactlyOnce);
    publish.retain = true;
    sender.send_publish(&publish).await;
    scene.held().await;
    scene.release().await;
    let commits = scene.gate.commits();
    let expected = ["body", "queued", "queued", "received", "retained"];
    assert_eq!(kinds(&commits[before]), expected);
}

/// However many receivers a message has: what is gathered for some of them is not handed on before the rest.
#[tokio::test(start_paused = true)]
async fn a_large_fan_out_is_one_unit() {
    const READERS: usize = 300;
    let scene = Scene::new().await;
    // Those at the ends are stored; those between, at QoS 0, take more bytes than a batch gathers.
    let mut readers: Vec<Peer> = Vec::new();
    scene.away(V5, "first", "t", QoS::ExactlyOnce).await;
    for number in 0..READERS {
        let mut reader = scene.fleeting(V5, &format!("reader-{number}")).await;
        reader.subscribe("t", QoS::AtMostOnce).await;
        readers.push(reader);
        if number % 50 == 0 {
            let id = format!("between-{number}");
            scene.away(V5, &id, "t", QoS::ExactlyOnce).await;
        }
    }
    scene.away(V5, "last", "t", QoS::ExactlyOnce).await;
    let (mut sender, _) = scene.stored(V5, "sender").await;
    scene.hold().await;
    let before = scene.gate.commits().len();
    // Two of one read: neither the first, nor the identifier of it, is torn by the second.
    let text = "x".repeat(8_000);
    let mut bytes = Vec::new();
    for number in [1, 2] {
        let mut publish = message("t", &text, QoS::ExactlyOnce);
        publish.packet_id = Some(id(number));
        bytes.extend(Packet::Publish(publish).to_vec(V5).unwrap());
    }
    sender.send_raw(&bytes).await;
    settle().await;
    for reader in &mut readers {
        for _ in 0..2 {
            reader.expect_message("t", &text, QoS::AtMostOnce).await;
        }
    }
    scene.release().await;
    let commits = scene.gate.commits();
    for commit in &commits[before..] {
        let kinds = kinds(commit);
        let count = |kind| kinds.iter().filter(|it| **it == kind).count();
        let messages = count("received");
        assert_eq!(count("body"), messages);
        assert_eq!(count("queued"), 8 * messages);
    }
    let all = commits[before..].concat();
    assert_eq!(
        kinds(&all).iter().filter(|it| **it == "received").count(),
        2
    );
}

/// After a crash at any commit there is a prefix: a message is nowhere, or everywhere, and what came before it too.
#[tokio::test(start_paused = true)]
async fn commits_are_durable_as_a_prefix() {
    for passed in 0..=6 {
        let scene = Scene::new().await;
        scene.away(V5, "first", "#", QoS::ExactlyOnce).await;
        scene.away(V5, "second", "t", QoS::AtLeastOnce).await;
        let mut sender = scene.fleeting(V5, "sender").await;
        scene.hold().await;
        let mut acknowledged = 0;
        for number in 0..6 {
            let text = number.to_string();
            sender
                .send_publish(&message("t", &text, QoS::AtLeastOnce))
                .await;
            scene.held().await;
            if number < passed {
                assert!(scene.commit_one().await);
                acknowledged += 1;
                let ack = sender.receive().await;
                assert!(matches!(ack.packet(), Packet::PubAck(_)));
            }
        }
        sender.expect_nothing().await;
        let scene = scene.crash(sender).await;
        let mut first = scene.resumed(V5, "first").await;
        let mut second = scene.resumed(V5, "second").await;
        for number in 0..acknowledged {
            let text = number.to_string();
            first.expect_message("t", &text, QoS::AtLeastOnce).await;
            second.expect_message("t", &text, QoS::AtLeastOnce).await;
        }
        first.expect_nothing().await;
        second.expect_nothing().await;
    }
}

/// Of several values that a topic gets while a commit is under way the last is written.
#[tokio::test(start_paused = true)]
async fn the_last_of_several_retained_values_is_there() {
    for qos in EVERY_QOS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(V5, "sender").await;
        scene.hold().await;
        let before = scene.gate.commits().len();
        for text in ["first", "second", "third", "last"] {
            let mut publish = message("t", text, qos);
            publish.retain = true;
            sender.send_publish(&publish).await;
            scene.held().await;
        }
        scene.release().await;
        assert_eq!(scene.gate.commits().len(), before + 2);
        let scene = scene.crash(sender).await;
        let mut reader = scene.fleeting(V5, "reader").await;
        reader.subscribe("t", QoS::AtMostOnce).await;
        reader.expect_message("t", "last", QoS::AtMostOnce).await;
    }
}
