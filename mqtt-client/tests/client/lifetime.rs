//! Keep alive, the end of a connection, and what everybody who waits is told.

use std::time::Duration;

use mqtt_client::{DisconnectOptions, Error, Filter, ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{Disconnect, Packet};

use crate::peer::{connect, message, options};

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_kept_alive() {
    let (client, _incoming, mut peer) =
        connect(options(ProtocolVersion::V3_1_1).keep_alive(10)).await;
    for _ in 0..3 {
        peer.expect_packet(Packet::PingReq).await;
        peer.send(Packet::PingResp).await;
    }
    peer.expect_packet(Packet::PingReq).await;
    assert!(matches!(client.closed().await, Err(Error::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn disconnect_sends_what_is_queued_first() {
    for version in ProtocolVersion::ALL {
        let (client, mut incoming, mut peer) = connect(options(version)).await;
        let zero = client
            .publish(message(QoS::AtMostOnce, "zero"))
            .await
            .unwrap();
        let one = client
            .publish(message(QoS::AtLeastOnce, "one"))
            .await
            .unwrap();
        let server = async {
            peer.expect_publish("zero").await;
            peer.expect_publish("one").await;
            peer.expect_end(ReasonCode::NORMAL_DISCONNECTION).await;
            drop(peer);
        };
        let (ended, ()) = tokio::join!(client.disconnect(), server);
        ended.unwrap();
        assert!(zero.await.is_ok());
        assert!(one.await.unwrap_err().is_uncertain());
        assert_eq!(incoming.recv().await, None);
        assert!(matches!(
            client.publish(message(QoS::AtMostOnce, "")).await,
            Err(Error::Closed)
        ));
        assert!(matches!(
            client.subscribe(Filter::new("a").unwrap()).await,
            Err(Error::Closed)
        ));
        client.disconnect().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn disconnect_can_ask_for_the_will() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    let server = async {
        peer.expect(|packet| {
            let Packet::Disconnect(disconnect) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(disconnect.reason_code, ReasonCode::DISCONNECT_WITH_WILL);
            assert_eq!(disconnect.properties.session_expiry_interval, Some(5));
        })
        .await;
        drop(peer);
    };
    let disconnect = DisconnectOptions::new()
        .with_will()
        .session_expiry_interval(5);
    let (ended, ()) = tokio::join!(client.disconnect_with(disconnect), server);
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_close_is_left() {
    let (client, _incoming, _peer) = connect(options(ProtocolVersion::V5)).await;
    client.disconnect().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_disconnects() {
    let (client, incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    let clone = client.clone();
    drop(client);
    peer.silent().await;
    drop((clone, incoming));
    peer.expect_end(ReasonCode::NORMAL_DISCONNECTION).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_to_everybody() {
    let (client, mut incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    let receipt = client
        .publish(message(QoS::ExactlyOnce, "x"))
        .await
        .unwrap();
    let subscribing = tokio::spawn({
        let client = client.clone();
        async move { client.subscribe(Filter::new("a").unwrap()).await }
    });
    peer.expect_publish("x").await;
    peer.next().await.unwrap();
    peer.send(Packet::Disconnect(Disconnect::new(
        ReasonCode::SERVER_SHUTTING_DOWN,
    )))
    .await;
    drop(peer);
    let is_told = |error: Error| {
        matches!(
            error,
            Error::Disconnected {
                reason: ReasonCode::SERVER_SHUTTING_DOWN,
                ..
            }
        )
    };
    let Error::Uncertain(cause) = receipt.await.unwrap_err() else {
        panic!("it was sent");
    };
    assert!(is_told((*cause).clone()));
    assert!(is_told(subscribing.await.unwrap().unwrap_err()));
    assert!(is_told(client.closed().await.unwrap_err()));
    assert_eq!(incoming.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn malformed_packets_are_answered() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    peer.send_bytes(b"\x00\x00").await;
    peer.expect_end(ReasonCode::MALFORMED_PACKET).await;
    drop(peer);
    assert!(matches!(client.closed().await, Err(Error::Malformed(_))));
}

#[tokio::test(start_paused = true)]
async fn packets_of_a_client_are_refused_from_a_server() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V3_1_1)).await;
    peer.send(Packet::PingReq).await;
    assert_eq!(peer.next().await, None);
    drop(peer);
    assert!(matches!(
        client.closed().await,
        Err(Error::Unexpected("PINGREQ"))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_expires_in_the_queue_is_not_sent() {
    let connack = {
        let mut connack = mqtt_codec::ConnAck::new(ReasonCode::SUCCESS);
        connack.properties.receive_maximum = std::num::NonZeroU16::new(1);
        connack
    };
    let (connected, mut peer) =
        crate::peer::try_connect(options(ProtocolVersion::V5), connack).await;
    let (client, _incoming) = connected.unwrap();
    let _blocked = client
        .publish(message(QoS::AtLeastOnce, "a"))
        .await
        .unwrap();
    let (id, _) = peer.expect_publish("a").await;
    let properties = mqtt_client::MessageProperties {
        message_expiry_interval: Some(5),
        ..Default::default()
    };
    let late = client
        .publish(message(QoS::AtLeastOnce, "late").properties(properties))
        .await
        .unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    peer.send(Packet::PubAck(crate::peer::ack(id.unwrap().get())))
        .await;
    assert!(matches!(late.await, Err(Error::Expired)));
}

/// A time that no clock reaches is as good as none.
#[tokio::test(start_paused = true)]
async fn endless_times_to_connect_and_to_drain() {
    let options = options(ProtocolVersion::V5)
        .connect_timeout(Duration::MAX)
        .keep_alive(0);
    let (client, _incoming, mut peer) = connect(options).await;
    let receipt = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    let server = async {
        let (id, _) = peer.expect_publish("x").await;
        tokio::time::advance(Duration::from_secs(3600)).await;
        let id = id.unwrap().get();
        peer.send(Packet::PubAck(crate::peer::ack(id))).await;
        peer.expect_end(ReasonCode::NORMAL_DISCONNECTION).await;
        drop(peer);
    };
    let disconnect = DisconnectOptions::new().drain(Duration::MAX);
    let (ended, ()) = tokio::join!(client.disconnect_with(disconnect), server);
    ended.unwrap();
    assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
}
