//! The outbox against a server that a test plays packet by packet.

use std::num::NonZeroU16;

use mqtt_client::{Client, Error, Options, Outbox, ProtocolVersion, QoS, ReasonCode, Uncertain};
use mqtt_codec::{ConnAck, Packet};
use tokio::io::duplex;

use crate::peer::{Peer, ack, message, options};
use crate::restarts::folder;

/// A client whose CONNECT was answered like this, and whether it asked for a clean start.
async fn connect(options: Options, session_present: bool) -> (Client, Peer, bool) {
    let (near, far) = duplex(1 << 20);
    let mut peer = Peer::new(far, ProtocolVersion::V5);
    let answer = async {
        let clean_start = peer
            .expect(|packet| match packet {
                Packet::Connect(connect) => connect.clean_start,
                packet => panic!("{packet:?}"),
            })
            .await;
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        connack.session_present = session_present;
        connack.properties.receive_maximum = NonZeroU16::new(10);
        peer.send(Packet::ConnAck(Box::new(connack))).await;
        clean_start
    };
    let (client, clean_start) = tokio::join!(Client::connect_with(near, options), answer);
    (client.unwrap(), peer, clean_start)
}

fn with(outbox: &Outbox) -> Options {
    options(ProtocolVersion::V5)
        .session_expiry_interval(3600)
        .outbox(outbox.clone())
}

/// The first run of a program: one message of QoS 1 and three of QoS 2 are sent, of which one has its PUBREC and one
/// is complete. One of QoS 1 was never sent.
async fn first_run(outbox: &Outbox) {
    let (client, mut peer, clean_start) = connect(with(outbox), false).await;
    assert!(clean_start);
    let mut receipts = Vec::new();
    for text in ["done", "released", "sent"] {
        receipts.push(
            client
                .publish(message(QoS::ExactlyOnce, text))
                .await
                .unwrap(),
        );
    }
    receipts.push(
        client
            .publish(message(QoS::AtLeastOnce, "one"))
            .await
            .unwrap(),
    );
    let mut ids = Vec::new();
    for text in ["done", "released", "sent", "one"] {
        ids.push(peer.expect_publish(text).await.0.unwrap().get());
    }
    for id in &ids[..2] {
        peer.send(Packet::PubRec(ack(*id))).await;
        peer.expect_packet(Packet::PubRel(ack(*id))).await;
    }
    peer.send(Packet::PubComp(ack(ids[0]))).await;
    let mut receipts = receipts.into_iter();
    receipts.next().unwrap().await.unwrap();
    // A message of the server whose exchange is not finished either.
    peer.publish(QoS::ExactlyOnce, 9, "received").await;
    let mut incoming = client.unclaimed();
    incoming.recv().await.unwrap();
    peer.expect_packet(Packet::PubRec(ack(9))).await;
    drop(peer);
    assert!(client.closed().await.is_err());
    // The server had taken it over.
    receipts.next().unwrap().await.unwrap();
    for receipt in receipts {
        assert!(matches!(
            receipt.await,
            Err(Error::Uncertain(_) | Error::Kept(_))
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_after_a_restart() {
    let folder = folder();
    first_run(&Outbox::open(folder.path()).unwrap()).await;
    let outbox = Outbox::open(folder.path()).unwrap();
    assert_eq!(outbox.len(), 3);
    let mut receipts = Vec::new();
    for (left, text) in outbox
        .unfinished()
        .unwrap()
        .into_iter()
        .zip(["released", "sent", "one"])
    {
        assert!(left.was_sent);
        assert_eq!(left.message, message(left.message.quality(), text));
        receipts.push(left.receipt);
    }
    let (client, mut peer, clean_start) = connect(with(&outbox), true).await;
    assert!(!clean_start);
    peer.expect_packet(Packet::PubRel(ack(2))).await;
    let (sent, dup) = peer.expect_publish("sent").await;
    assert_eq!((sent.unwrap().get(), dup), (3, true));
    let (one, dup) = peer.expect_publish("one").await;
    assert_eq!((one.unwrap().get(), dup), (4, true));
    // What was received is known, and not received again.
    peer.publish(QoS::ExactlyOnce, 9, "received").await;
    peer.expect_packet(Packet::PubRec(ack(9))).await;
    peer.send(Packet::PubComp(ack(2))).await;
    peer.send(Packet::PubAck(ack(4))).await;
    peer.send(Packet::PubRec(ack(3))).await;
    peer.expect_packet(Packet::PubRel(ack(3))).await;
    peer.send(Packet::PubComp(ack(3))).await;
    for receipt in receipts {
        assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
    }
    assert!(client.unclaimed().try_recv().is_none());
    let server = async {
        peer.expect_end(ReasonCode::NORMAL_DISCONNECTION).await;
        drop(peer);
    };
    let (ended, ()) = tokio::join!(client.disconnect(), server);
    ended.unwrap();
    drop(outbox);
    assert!(Outbox::open(folder.path()).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_that_the_server_lost_over_a_restart() {
    for when_uncertain in [Uncertain::Tell, Uncertain::PublishAnew] {
        let folder = folder();
        first_run(&Outbox::open(folder.path()).unwrap()).await;
        let outbox = Outbox::open(folder.path()).unwrap();
        let left: Vec<_> = outbox.unfinished().unwrap();
        let options = with(&outbox).when_uncertain(when_uncertain);
        let (_client, mut peer, _) = connect(options, false).await;
        let mut receipts = left.into_iter().map(|left| left.receipt);
        receipts.next().unwrap().await.unwrap();
        let sent = receipts.next().unwrap();
        if when_uncertain == Uncertain::Tell {
            assert!(matches!(sent.await, Err(Error::Uncertain(_))));
        } else {
            assert!(!peer.expect_publish("sent").await.1);
        }
        let (id, dup) = peer.expect_publish("one").await;
        assert!(!dup);
        peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
        receipts.next().unwrap().await.unwrap();
    }
}

/// Another Client Identifier is another session: nothing of the old one is in flight in it.
#[tokio::test(start_paused = true)]
async fn another_client_identifier_has_another_session() {
    let folder = folder();
    first_run(&Outbox::open(folder.path()).unwrap()).await;
    let outbox = Outbox::open(folder.path()).unwrap();
    let mut left: Vec<_> = outbox.unfinished().unwrap();
    let options = with(&outbox).client_id("other");
    let (_client, mut peer, clean_start) = connect(options, false).await;
    assert!(clean_start);
    assert!(matches!(
        left.remove(1).receipt.await,
        Err(Error::Uncertain(_))
    ));
    assert!(!peer.expect_publish("one").await.1);
}
