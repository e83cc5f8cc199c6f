//! Connections that are lost and made again, over TCP on a port the system chooses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mqtt_client::{
    Backoff, Client, Error, Event, Filter, Options, ProtocolVersion, QoS, ReasonCode, Target,
};
use mqtt_codec::{ConnAck, Disconnect, Packet, SubAck};
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{Peer, ack, message};

async fn listen() -> (TcpListener, Options) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let backoff = Backoff {
        first: Duration::ZERO,
        longest: Duration::ZERO,
    };
    let options = Options::new("127.0.0.1", port)
        .client_id("c")
        .session_expiry_interval(60)
        .reconnect(backoff);
    (listener, options)
}

/// Accepts a connection; tells whether it asked for a clean start.
async fn accept(listener: &TcpListener, session_present: bool) -> (Peer<TcpStream>, bool) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer::new(stream, ProtocolVersion::V5);
    let clean_start = peer
        .expect(|packet| match packet {
            Packet::Connect(connect) => connect.clean_start,
            packet => panic!("{packet:?}"),
        })
        .await;
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = session_present;
    peer.send(Packet::ConnAck(Box::new(connack))).await;
    (peer, clean_start)
}

#[tokio::test]
async fn the_session_goes_on_after_a_loss() {
    let (listener, options) = listen().await;
    let (connected, (mut peer, clean_start)) =
        tokio::join!(Client::connect(options), accept(&listener, false));
    let client = connected.unwrap();
    let mut incoming = client.unclaimed();
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(Event::Connected(_))));
    assert!(clean_start);
    let receipt = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    let (id, dup) = peer.expect_publish("x").await;
    assert!(!dup);
    peer.publish(QoS::AtLeastOnce, 9, "not taken").await;
    drop(peer);

    let (mut peer, clean_start) = accept(&listener, true).await;
    assert!(!clean_start);
    assert_eq!(peer.expect_publish("x").await, (id, true));
    peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
    assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
    assert!(matches!(events.next().await, Some(Event::Disconnected(_))));
    assert!(matches!(events.next().await, Some(Event::Connected(_))));

    // What was not acknowledged comes again, and is delivered once.
    peer.publish(QoS::AtLeastOnce, 9, "not taken").await;
    assert_eq!(incoming.recv().await.unwrap().payload()[..], *b"not taken");
    peer.expect_packet(Packet::PubAck(ack(9))).await;
    assert_eq!(incoming.try_recv(), None);
}

#[tokio::test]
async fn a_lost_session_is_told_and_subscribed_again() {
    let (listener, options) = listen().await;
    let (connected, (mut peer, _)) =
        tokio::join!(Client::connect(options), accept(&listener, false));
    let client = connected.unwrap();
    let server = async {
        let id = peer.expect(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.packet_id,
            packet => panic!("{packet:?}"),
        });
        let id = id.await;
        peer.send(Packet::SubAck(SubAck::new(
            id,
            vec![ReasonCode::GRANTED_QOS_1],
        )))
        .await;
    };
    let filter = Filter::new("a/#").unwrap().qos(QoS::AtLeastOnce);
    let (subscription, ()) = tokio::join!(client.subscribe(filter), server);
    let _subscription = subscription.unwrap();
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(Event::Connected(_))));
    let receipt = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    peer.expect_publish("x").await;
    drop(peer);

    let (mut peer, _) = accept(&listener, false).await;
    let mut published = None;
    for _ in 0..2 {
        peer.expect(|packet| match packet {
            Packet::Subscribe(subscribe) => assert_eq!(subscribe.filters[0].filter.as_str(), "a/#"),
            Packet::Publish(publish) => {
                assert!(!publish.dup);
                published = publish.packet_id;
            }
            packet => panic!("{packet:?}"),
        })
        .await;
    }
    peer.send(Packet::PubAck(ack(published.unwrap().get())))
        .await;
    assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
    assert!(matches!(events.next().await, Some(Event::Disconnected(_))));
    assert!(matches!(events.next().await, Some(Event::Connected(_))));
    assert!(matches!(events.next().await, Some(Event::SessionLost)));
}

/// A client that is to end and has messages, but no connection, waits between its attempts.
#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_without_a_connection_does_not_spin() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let open = move |_target: Target| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<DuplexStream, _>(
            std::io::ErrorKind::ConnectionRefused.into(),
        ))
    };
    let options = crate::peer::options(ProtocolVersion::V5).reconnect(Backoff::default());
    let client = Client::start_through(open, options);
    let receipt = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    assert!(client.disconnect().await.is_err());
    assert!(receipt.await.is_err());
    // Five seconds with waits that begin with one.
    assert!(attempts.load(Ordering::Relaxed) < 10);
}

/// Two servers that accept a client and then point to each other are not followed for ever.
#[tokio::test(start_paused = true)]
async fn servers_that_point_to_each_other_are_left() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let open = move |target: Target| {
        counted.fetch_add(1, Ordering::Relaxed);
        let (near, far) = tokio::io::duplex(1 << 16);
        let other = if target.host == "a" { "b" } else { "a" };
        tokio::spawn(async move {
            let mut peer = Peer::new(far, ProtocolVersion::V5);
            peer.next().await;
            peer.send(Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::SUCCESS))))
                .await;
            let mut disconnect = Disconnect::new(ReasonCode::USE_ANOTHER_SERVER);
            disconnect.properties.server_reference = Some(other);
            peer.send(Packet::Disconnect(disconnect)).await;
            while peer.next().await.is_some() {}
        });
        std::future::ready(Ok::<_, std::io::Error>(near))
    };
    let options = Options::new("a", 1883)
        .client_id("c")
        .redirections(3)
        .reconnect(Backoff::default());
    let client = Client::start_through(open, options);
    let ended = client.closed().await;
    let is_told = matches!(
        ended,
        Err(Error::Disconnected {
            reason: ReasonCode::USE_ANOTHER_SERVER,
            ..
        })
    );
    assert!(is_told, "{ended:?}");
    assert_eq!(attempts.load(Ordering::Relaxed), 4);
}

/// A wait that no clock measures, and a client that leaves meanwhile.
#[tokio::test(start_paused = true)]
async fn an_endless_backoff() {
    let open = |_target: Target| {
        std::future::ready(Err::<DuplexStream, _>(
            std::io::ErrorKind::ConnectionRefused.into(),
        ))
    };
    let backoff = Backoff {
        first: Duration::MAX,
        longest: Duration::MAX,
    };
    let options = crate::peer::options(ProtocolVersion::V5).reconnect(backoff);
    let client = Client::start_through(open, options);
    let mut events = client.events();
    assert!(matches!(events.next().await, Some(Event::Disconnected(_))));
    let _waiting = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    let ended = client.disconnect().await;
    assert!(matches!(ended, Err(Error::Io(_))), "{ended:?}");
}
