//! Received messages: when they are acknowledged, and what happens when nobody takes them.

use std::num::NonZeroU16;
#[cfg(feature = "outbox")]
use std::{
    future::ready,
    io,
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex},
    time::Duration,
};

use mqtt_client::{Acknowledge, Error, ProtocolVersion, QoS, ReasonCode, TopicName};
#[cfg(feature = "outbox")]
use mqtt_client::{Client, Filter, Message, Target};
use mqtt_codec::{Packet, Publish};

use crate::peer::{ack, connect, options};

#[tokio::test(start_paused = true)]
async fn messages_are_acknowledged_when_they_are_taken() {
    for version in ProtocolVersion::ALL {
        let (_client, mut incoming, mut peer) = connect(options(version)).await;
        peer.publish(QoS::AtLeastOnce, 1, "a").await;
        peer.publish(QoS::ExactlyOnce, 2, "b").await;
        peer.silent().await;
        assert_eq!(incoming.recv().await.unwrap().payload()[..], *b"a");
        peer.expect_packet(Packet::PubAck(ack(1))).await;
        peer.silent().await;
        assert_eq!(incoming.recv().await.unwrap().payload()[..], *b"b");
        peer.expect_packet(Packet::PubRec(ack(2))).await;
        peer.send(Packet::PubRel(ack(2))).await;
        peer.expect_packet(Packet::PubComp(ack(2))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_by_hand_leave_in_the_order_of_arrival() {
    let options = options(ProtocolVersion::V5).acknowledge(Acknowledge::Manually);
    let (_client, mut incoming, mut peer) = connect(options).await;
    peer.publish(QoS::AtLeastOnce, 1, "a").await;
    peer.publish(QoS::AtLeastOnce, 2, "b").await;
    let first = incoming.recv().await.unwrap();
    let second = incoming.recv().await.unwrap();
    assert_eq!(first.packet_id().unwrap().get(), 1);
    incoming.acknowledge(&second);
    peer.silent().await;
    incoming.acknowledge(&first);
    incoming.acknowledge(&first);
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_receiver_does_not_stop_the_connection() {
    let options = options(ProtocolVersion::V5)
        .unreliable_capacity(2)
        .receive_maximum(1);
    let (client, mut incoming, mut peer) = connect(options).await;
    peer.publish(QoS::AtLeastOnce, 1, "kept").await;
    for payload in ["a", "b", "c", "d"] {
        peer.publish(QoS::AtMostOnce, 0, payload).await;
    }
    // The connection is read on: it answers while nothing is taken.
    let receipt = client
        .publish(crate::peer::message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    let (id, _) = peer.expect_publish("x").await;
    peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
    receipt.await.unwrap();

    let mut taken = Vec::new();
    while let Some(message) = incoming.try_recv() {
        taken.push(String::from_utf8_lossy(message.payload()).into_owned());
    }
    assert_eq!(taken, ["kept", "a", "b"]);
    assert_eq!(incoming.dropped(), 2);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_receive_maximum_is_the_servers_fault() {
    let (client, _incoming, mut peer) =
        connect(options(ProtocolVersion::V5).receive_maximum(1)).await;
    peer.publish(QoS::AtLeastOnce, 1, "a").await;
    peer.publish(QoS::AtLeastOnce, 2, "b").await;
    peer.expect_end(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED).await;
    drop(peer);
    assert!(matches!(client.closed().await, Err(Error::Protocol(_))));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_that_comes_again_is_delivered_once() {
    let (_client, mut incoming, mut peer) = connect(options(ProtocolVersion::V3_1_1)).await;
    peer.publish(QoS::ExactlyOnce, 5, "once").await;
    incoming.recv().await.unwrap();
    peer.expect_packet(Packet::PubRec(ack(5))).await;
    peer.publish(QoS::ExactlyOnce, 5, "once").await;
    peer.expect_packet(Packet::PubRec(ack(5))).await;
    assert_eq!(incoming.try_recv(), None);
}

#[tokio::test(start_paused = true)]
async fn the_servers_aliases_are_resolved() {
    let (_client, mut incoming, mut peer) =
        connect(options(ProtocolVersion::V5).topic_alias_maximum(3)).await;
    let mut publish = Publish::new(TopicName::new("long/topic").unwrap(), b"x");
    publish.properties.topic_alias = NonZeroU16::new(3);
    peer.send(Packet::Publish(publish.clone())).await;
    publish.topic = None;
    peer.send(Packet::Publish(publish)).await;
    for _ in 0..2 {
        assert_eq!(incoming.recv().await.unwrap().topic(), "long/topic");
    }
}

/// What the application has of QoS 2 does not come to it again, though it took it, or acknowledged it, when the link
/// was lost, before the server could hear of it.
#[cfg(feature = "outbox")]
#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_that_is_taken_without_a_link_comes_once() {
    use crate::simulation::{Fuse, broker, opener, options};

    for (version, acknowledge) in [
        (ProtocolVersion::V5, Acknowledge::WhenTaken),
        (ProtocolVersion::V5, Acknowledge::Manually),
        (ProtocolVersion::V3_1_1, Acknowledge::WhenTaken),
    ] {
        let place = Arc::new(Mutex::new(broker()));
        let fuse = Fuse::new(usize::MAX);
        let is_reachable = Arc::new(AtomicBool::new(true));
        let open = opener(&place, &fuse);
        let reachable = Arc::clone(&is_reachable);
        let open = move |target: Target| {
            let opened = match reachable.load(Ordering::Relaxed) {
                true => open(target).into_inner(),
                false => Err(io::ErrorKind::ConnectionRefused.into()),
            };
            ready(opened)
        };
        let options_of = |id| options(version, id).acknowledge(acknowledge);
        let reader = Client::connect_through(open, options_of("r"))
            .await
            .unwrap();
        let filter = Filter::new("t").unwrap().qos(QoS::ExactlyOnce);
        let mut subscription = reader.subscribe(filter).await.unwrap();
        let writer = opener(&place, &Fuse::new(usize::MAX));
        let writer = Client::connect_through(writer, options_of("w"))
            .await
            .unwrap();
        let publish = async |text: &'static str| {
            let message = Message::new("t", text).unwrap().qos(QoS::ExactlyOnce);
            writer.publish(message).await.unwrap().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        publish("first").await;
        publish("second").await;
        is_reachable.store(false, Ordering::Relaxed);
        fuse.cut();
        publish("third").await;
        let first = subscription.try_recv().unwrap();
        first.acknowledge();
        assert_eq!(first.payload()[..], *b"first");
        is_reachable.store(true, Ordering::Relaxed);
        for expected in ["second", "third"] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let next = subscription.recv().await.unwrap();
            assert_eq!(next.payload()[..], *expected.as_bytes(), "{acknowledge:?}");
            next.acknowledge();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(subscription.try_recv(), None);
    }
}
