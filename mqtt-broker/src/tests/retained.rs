//! Retained messages across a crash: whose they are, and to whom they are owed.

use core::num::NonZeroU16;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use mqtt_codec::{Packet, PacketId, QoS, Subscribe};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::harness::{Peer, V5, filter, lasting, message, name, settle};
use super::scene::Scene;
use crate::store::Op;

const TOPICS: usize = 200;

async fn retain(sender: &mut Peer, topic: &str) {
    let mut publish = message("t", "kept", QoS::AtLeastOnce);
    publish.topic = Some(name(topic));
    publish.retain = true;
    sender.publish(&publish).await;
}

/// What a client published itself does not come to its subscription with No Local, after a restart as before.
#[tokio::test(start_paused = true)]
async fn no_local_holds_for_retained_messages_after_a_crash() {
    let scene = Scene::new().await;
    let (mut client, _) = scene.stored(V5, "client").await;
    let mut other = scene.fleeting(V5, "other").await;
    retain(&mut client, "t/own").await;
    retain(&mut other, "t/other").await;
    let scene = scene.crash((client, other)).await;
    let mut client = scene.resumed(V5, "client").await;
    let mut own = filter("t/+", QoS::AtLeastOnce);
    own.options.no_local = true;
    client.subscribe_with(vec![own], None).await;
    client
        .expect_message("t/other", "kept", QoS::AtLeastOnce)
        .await;
    client.expect_nothing().await;
}

/// Reads and acknowledges until nothing comes any more; returns the topics.
async fn topics(peer: &mut Peer) -> BTreeSet<String> {
    let mut topics = BTreeSet::new();
    loop {
        settle().await;
        peer.send(&Packet::PingReq).await;
        let mut quiet = true;
        loop {
            let received = peer.receive().await;
            match received.packet() {
                Packet::PingResp => break,
                Packet::Publish(publish) => {
                    quiet = false;
                    topics.insert(publish.topic.unwrap().as_str().to_owned());
                    peer.acknowledge(&publish).await;
                }
                _ => {}
            }
        }
        if quiet {
            return topics;
        }
    }
}

/// A stored session that was told of its subscription gets all retained messages of it, though the broker crashes
/// or shuts down in between; and only once it has them it is owed nothing.
#[tokio::test(start_paused = true)]
async fn retained_messages_are_owed_until_they_are_queued() {
    for crashes in [false, true] {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(V5, "sender").await;
        for number in 0..TOPICS {
            retain(&mut sender, &format!("t/{number}")).await;
        }
        let mut connect = lasting(V5, "client");
        connect.properties.receive_maximum = NonZeroU16::new(5);
        let mut client = Peer::accepted(&scene.broker, &connect).await;
        client.subscribe("t/#", QoS::AtLeastOnce).await;
        let first = client.receive().await;
        client.acknowledge(&first.publish()).await;
        scene.saved().await;
        let scene = if crashes {
            scene.crash((client, sender)).await
        } else {
            scene.restart((client, sender)).await
        };
        let (mut client, _) = Peer::resumed(&scene.broker, &connect).await;
        assert_eq!(topics(&mut client).await.len(), TOPICS);
        scene.saved().await;
        let done = |op: &Op| matches!(op, Op::Owes(_, _, false));
        assert_eq!(scene.committed().iter().filter(|op| done(op)).count(), 1);
        let scene = scene.crash(client).await;
        let mut client = scene.resumed(V5, "client").await;
        client.expect_nothing().await;
    }
}

/// Nothing is owed to a subscription that was ended.
#[tokio::test(start_paused = true)]
async fn unsubscribe_ends_what_is_owed() {
    let scene = Scene::new().await;
    let mut sender = scene.fleeting(V5, "sender").await;
    for number in 0..TOPICS {
        retain(&mut sender, &format!("t/{number}")).await;
    }
    let mut connect = lasting(V5, "client");
    connect.properties.receive_maximum = NonZeroU16::new(5);
    let mut client = Peer::accepted(&scene.broker, &connect).await;
    client.subscribe("t/#", QoS::AtLeastOnce).await;
    let mut begun = Vec::new();
    for _ in 0..5 {
        begun.push(client.receive().await);
    }
    client.unsubscribe("t/#").await;
    let scene = scene.crash((sender, client)).await;
    let (mut client, _) = Peer::resumed(&scene.broker, &connect).await;
    let topics = topics(&mut client).await;
    assert!(topics.len() < TOPICS, "{}", topics.len());
}

/// A stream that counts how often it is asked for bytes.
struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// While a SUBACK waits for the disk, and retained messages for the SUBACK, the connection waits as well and does not
/// look again and again: a disk may fail for long.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_waits_for_the_disk_takes_no_turns() {
    let scene = Scene::new().await;
    let mut sender = scene.fleeting(V5, "sender").await;
    let mut kept = message("t", "kept", QoS::AtLeastOnce);
    kept.retain = true;
    sender.publish(&kept).await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let turns = Arc::new(AtomicUsize::new(0));
    scene.broker.serve(Counted(far, Arc::clone(&turns)), "test");
    let mut peer = Peer::over(near, V5);
    peer.send(&Packet::Connect(Box::new(lasting(V5, "subscriber"))))
        .await;
    peer.receive().await;
    scene.hold().await;
    let id = PacketId::new(1).unwrap();
    let filters = vec![filter("t", QoS::AtLeastOnce)];
    peer.send(&Packet::Subscribe(Subscribe::new(id, filters)))
        .await;
    scene.held().await;
    let before = turns.load(Ordering::Relaxed);
    for _ in 0..20 {
        settle().await;
    }
    assert_eq!(turns.load(Ordering::Relaxed), before);
    scene.release().await;
    assert!(matches!(peer.receive().await.packet(), Packet::SubAck(_)));
    peer.expect_message("t", "kept", QoS::AtLeastOnce).await;
}
