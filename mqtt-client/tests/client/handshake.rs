//! CONNECT and CONNACK.

use std::time::Duration;

use mqtt_client::{Blame, Client, Error, Message, ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{ConnAck, Packet};
use tokio::io::duplex;

use crate::peer::{Peer, options, try_connect};

#[tokio::test(start_paused = true)]
async fn connect_carries_the_options() {
    for version in ProtocolVersion::ALL {
        let (near, far) = duplex(4096);
        let will = Message::new("w", "gone")
            .unwrap()
            .qos(QoS::AtLeastOnce)
            .retain(true);
        let options = options(version)
            .client_id("id")
            .clean_start(false)
            .keep_alive(17)
            .username("name")
            .password("word")
            .receive_maximum(5)
            .maximum_packet_size(1000)
            .session_expiry_interval(60)
            .user_property("k", "v")
            .will(will, Some(9));
        let client = tokio::spawn(Client::connect_with(near, options));
        let mut peer = Peer::new(far, version);
        peer.expect(|packet| {
            let Packet::Connect(connect) = packet else {
                panic!("{packet:?}")
            };
            assert_eq!(connect.version, version);
            assert_eq!(
                (connect.client_id, connect.clean_start, connect.keep_alive),
                ("id", false, 17)
            );
            assert_eq!(
                (connect.username, connect.password),
                (Some("name"), Some(&b"word"[..]))
            );
            let will = connect.will.as_ref().unwrap();
            assert_eq!((will.topic.as_str(), will.payload), ("w", &b"gone"[..]));
            assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
            let properties = &connect.properties;
            if version.has_properties() {
                assert_eq!(will.properties.delay_interval, Some(9));
                assert_eq!(
                    properties.receive_maximum.map(|maximum| maximum.get()),
                    Some(5)
                );
                assert_eq!(
                    properties.maximum_packet_size.map(|maximum| maximum.get()),
                    Some(1000)
                );
                assert_eq!(properties.session_expiry_interval, Some(60));
                assert_eq!(properties.user_properties.len(), 1);
            }
        })
        .await;
        peer.send(Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::SUCCESS))))
            .await;
        let client = client.await.unwrap().unwrap();
        assert_eq!(client.server().client_id, "id");
        assert_eq!(client.server().version, version);
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_announces_its_limits() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.assigned_client_identifier = Some("given");
    connack.properties.server_keep_alive = Some(3);
    connack.properties.maximum_qos = Some(QoS::AtLeastOnce);
    connack.properties.retain_available = Some(false);
    let (connected, _peer) = try_connect(options(ProtocolVersion::V5).client_id(""), connack).await;
    let server = connected.unwrap().0.server();
    assert_eq!((server.client_id.as_str(), server.keep_alive), ("given", 3));
    assert_eq!(
        (server.maximum_qos, server.retain_available),
        (QoS::AtLeastOnce, false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_servers() {
    for version in ProtocolVersion::ALL {
        let connack = ConnAck::new(ReasonCode::NOT_AUTHORIZED);
        let (connected, _peer) = try_connect(options(version), connack).await;
        let error = connected.map(drop).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Refused {
                    reason: ReasonCode::NOT_AUTHORIZED,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(error.blame(), Blame::Server);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_nobody_asked_for_is_an_error_unless_adopted() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = true;
    let options = options(ProtocolVersion::V5).clean_start(false);
    let (connected, _peer) = try_connect(options.clone(), connack.clone()).await;
    assert!(matches!(connected.map(drop), Err(Error::Protocol(_))));
    let (connected, _peer) = try_connect(options.adopt_session(true), connack).await;
    assert!(connected.unwrap().0.server().session_present);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let (near, _far) = duplex(4096);
    let options = options(ProtocolVersion::V5).connect_timeout(Duration::from_secs(5));
    let error = Client::connect_with(near, options)
        .await
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, Error::TimedOut));
    assert_eq!(error.blame(), Blame::Network);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_connack() {
    for bytes in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"\xd0\x00",
        b"\x20\x02\x02\x00",
    ] {
        let (near, far) = duplex(4096);
        let client = tokio::spawn(Client::connect_with(near, options(ProtocolVersion::V3_1_1)));
        let mut peer = Peer::new(far, ProtocolVersion::V3_1_1);
        peer.next().await.unwrap();
        peer.send_bytes(bytes).await;
        let error = client.await.unwrap().map(drop).unwrap_err();
        assert_eq!(error.blame(), Blame::Server, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_a_packet_is_the_callers_fault() {
    let (near, _far) = duplex(4096);
    let options = options(ProtocolVersion::V3_1_1).password("without a name");
    let error = Client::connect_with(near, options)
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.blame(), Blame::Caller, "{error}");
}
