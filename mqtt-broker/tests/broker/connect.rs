//! CONNECT and CONNACK: who gets in, what is said, and what a second CONNECT does.

use core::time::Duration;

use mqtt_broker::Config;
use mqtt_codec::{Packet, ReasonCode};
use tokio::time::{Instant, sleep};

use crate::harness::{ALL, Peer, V3_1, V3_1_1, V5, broker, broker_with, hello, lasting, settle};

/// [MQTT-3.1.4-5] [MQTT-3.2.2-2] [MQTT-3.2.0-1] [MQTT3-3.1.4-4] [MQTT3-3.2.2-1]: a valid CONNECT is
/// answered, and there is no session to resume.
#[tokio::test(start_paused = true)]
async fn a_connect_is_accepted_in_every_version() {
    for version in ALL {
        let broker = broker();
        let (_, present) = Peer::resumed(&broker, &hello(version, "client")).await;
        assert!(!present);
    }
}

/// [MQTT-3.2.2-9] and section 3.2.2.3: CONNACK names the limits that differ from the standard's.
#[tokio::test(start_paused = true)]
async fn connack_names_the_limits() {
    let broker = broker();
    let (_, connack) = Peer::connect(&broker, &hello(V5, "client")).await;
    let Packet::ConnAck(connack) = connack.packet() else {
        panic!("no CONNACK")
    };
    let properties = &connack.properties;
    assert_eq!(
        properties.receive_maximum.map(|maximum| maximum.get()),
        Some(1_024)
    );
    assert_eq!(
        properties.maximum_packet_size.map(|maximum| maximum.get()),
        Some(2_000_000)
    );
    assert_eq!(properties.topic_alias_maximum, Some(16));
    assert_eq!(properties.maximum_qos, None);
    assert_eq!(properties.assigned_client_identifier, None);
    assert_eq!(properties.authentication_method, None);
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT3-3.1.2-2]: other versions are told so in a form they may read.
#[tokio::test(start_paused = true)]
async fn unknown_versions_are_refused() {
    let cases: [(&[u8], &[u8]); 3] = [
        // Level 6: the form of 5.0, reason code 0x84.
        (b"\x10\x0d\0\x04MQTT\x06\x02\0\0\0\0\0", b"\x20\x03\0\x84\0"),
        // Level 2 of 3.1's name: return code 1.
        (b"\x10\x0e\0\x06MQIsdp\x02\x02\0\0\0\0", b"\x20\x02\0\x01"),
        (b"\x10\x0c\0\x04MQTT\x02\x02\0\0\0\0", b"\x20\x02\0\x01"),
    ];
    for (connect, answer) in cases {
        let broker = broker();
        assert_eq!(Peer::answer_to(&broker, connect).await, answer);
    }
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]: a client of 5.0 is told the identifier it was given, and
/// can come back under it.
#[tokio::test(start_paused = true)]
async fn an_assigned_identifier_is_announced() {
    let broker = broker();
    let (peer, connack) = Peer::connect(&broker, &lasting(V5, "")).await;
    let Packet::ConnAck(connack) = connack.packet() else {
        panic!("no CONNACK")
    };
    let assigned = connack
        .properties
        .assigned_client_identifier
        .unwrap()
        .to_owned();
    peer.disconnect().await;
    let (_, present) = Peer::lasting(&broker, V5, &assigned).await;
    assert!(present);
}

/// [MQTT3-3.1.3-6] [MQTT3-3.1.3-8]: 3.1.1 takes an empty identifier with clean session only, 3.1 never.
#[tokio::test(start_paused = true)]
async fn an_empty_identifier_of_v3_needs_a_clean_session() {
    let broker = broker();
    drop(Peer::new(&broker, V3_1_1, "").await);
    for connect in [lasting(V3_1_1, ""), hello(V3_1, "")] {
        let (mut peer, connack) = Peer::connect(&broker, &connect).await;
        let Packet::ConnAck(connack) = connack.packet() else {
            panic!("no CONNACK")
        };
        assert_eq!(connack.reason_code, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        assert!(!connack.session_present, "[MQTT-3.2.2-6]");
        peer.expect_closed().await;
    }
}

/// [MQTT-4.12.0-1]: an authentication method that the broker does not know.
#[tokio::test(start_paused = true)]
async fn an_unknown_authentication_method_is_refused() {
    let broker = broker();
    let mut connect = hello(V5, "client");
    connect.properties.authentication_method = Some("UNHEARD-OF");
    let (mut peer, connack) = Peer::connect(&broker, &connect).await;
    let Packet::ConnAck(connack) = connack.packet() else {
        panic!("no CONNACK")
    };
    assert_eq!(connack.reason_code, ReasonCode::BAD_AUTHENTICATION_METHOD);
    peer.expect_closed().await;
}

/// [MQTT-3.1.0-2] [MQTT3-3.1.0-2]: a second CONNECT ends the connection.
#[tokio::test(start_paused = true)]
async fn a_second_connect_is_a_protocol_error() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.send(&Packet::Connect(Box::new(hello(version, "client"))))
            .await;
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
    }
}

/// [MQTT-3.1.4-3] [MQTT3-3.1.4-2]: the same identifier again ends the older connection.
#[tokio::test(start_paused = true)]
async fn a_second_connection_takes_the_session_over() {
    for version in ALL {
        let broker = broker();
        let (mut first, _) = Peer::lasting(&broker, version, "client").await;
        first.subscribe("topic", mqtt_codec::QoS::AtLeastOnce).await;
        let (mut second, present) = Peer::lasting(&broker, version, "client").await;
        assert_eq!(present, version.has_session_present());
        first
            .expect_disconnect(ReasonCode::SESSION_TAKEN_OVER)
            .await;
        second.expect_nothing().await;
    }
}

/// Several claims of one identifier are served in order; the last one stays.
#[tokio::test(start_paused = true)]
async fn claims_wait_in_line() {
    let broker = broker();
    let mut peers: Vec<Peer> = (0..20).map(|_| Peer::open(&broker, V5)).collect();
    for peer in &mut peers {
        peer.send(&Packet::Connect(Box::new(lasting(V5, "client"))))
            .await;
    }
    settle().await;
    let mut last = peers.pop().unwrap();
    for mut peer in peers {
        assert!(matches!(peer.receive().await.packet(), Packet::ConnAck(_)));
        peer.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER).await;
    }
    assert!(matches!(last.receive().await.packet(), Packet::ConnAck(_)));
    last.expect_nothing().await;
}

/// A connection without CONNECT ends after the connect timeout.
#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let broker = broker();
    let started = Instant::now();
    let mut peer = Peer::open(&broker, V5);
    peer.send_raw(&[0x10]).await;
    peer.expect_closed().await;
    assert_eq!(started.elapsed().as_secs(), 10);
}

/// [MQTT-3.1.2-22] [MQTT3-3.1.2-24]: one and a half times the keep alive without a packet.
#[tokio::test(start_paused = true)]
async fn a_silent_client_is_disconnected() {
    for version in ALL {
        let broker = broker();
        let mut connect = hello(version, "client");
        connect.keep_alive = 10;
        let mut peer = Peer::accepted(&broker, &connect).await;
        sleep(Duration::from_secs(9)).await;
        peer.expect_nothing().await;
        let silent_since = Instant::now();
        peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        assert_eq!(silent_since.elapsed().as_secs(), 15);
    }
}

/// A keep alive of 0 is none.
#[tokio::test(start_paused = true)]
async fn without_keep_alive_silence_is_allowed() {
    let broker = broker();
    let mut peer = Peer::new(&broker, V5, "client").await;
    sleep(Duration::from_secs(50_000)).await;
    peer.expect_nothing().await;
}

/// [MQTT-3.1.2-21] [MQTT-3.2.2-21]: a keep alive of the broker replaces the client's.
#[tokio::test(start_paused = true)]
async fn the_broker_may_set_the_keep_alive() {
    let mut config = Config::default();
    config.keep_alive_maximum = core::num::NonZeroU16::new(20);
    let broker = broker_with(config);
    let (mut peer, connack) = Peer::connect(&broker, &hello(V5, "client")).await;
    let Packet::ConnAck(connack) = connack.packet() else {
        panic!("no CONNACK")
    };
    assert_eq!(connack.properties.server_keep_alive, Some(20));
    let started = Instant::now();
    peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
    assert_eq!(started.elapsed().as_secs(), 30);
}

/// Packets that come together with CONNECT are handled after it.
#[tokio::test(start_paused = true)]
async fn what_follows_connect_in_one_write_is_handled() {
    let broker = broker();
    let mut peer = Peer::open(&broker, V3_1_1);
    let mut bytes = Packet::Connect(Box::new(hello(V3_1_1, "client")))
        .to_vec(V3_1_1)
        .unwrap();
    bytes.extend(Packet::PingReq.to_vec(V3_1_1).unwrap());
    peer.send_raw(&bytes).await;
    assert!(matches!(peer.receive().await.packet(), Packet::ConnAck(_)));
    peer.expect(&Packet::PingResp).await;
}
