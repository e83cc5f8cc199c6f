//! CONNACK: what is granted, what is refused, and that it comes first and once.

use core::num::{NonZeroU16, NonZeroU32};

use mqtt_broker::Config;
use mqtt_codec::{Packet, PacketType, QoS, ReasonCode, Will};

use crate::harness::{
    ALL, EVERY_QOS, Peer, V3_1, V3_1_1, V5, advance, broker, broker_with, hello, id, lasting,
    message, name,
};

/// [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT3-3.2.0-1]: CONNACK is the first packet, also where
/// messages wait and packets came together with CONNECT; it comes once, and its flags hold nothing but
/// Session Present.
#[tokio::test(start_paused = true)]
async fn connack_is_first_and_alone() {
    for version in ALL {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("#", QoS::ExactlyOnce).await;
        peer.disconnect().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("topic", "waits", QoS::AtLeastOnce))
            .await;

        let mut peer = Peer::open(&broker, version);
        let mut bytes = Packet::Connect(Box::new(lasting(version, "client")))
            .to_vec(version)
            .unwrap();
        bytes.extend(Packet::PingReq.to_vec(version).unwrap());
        peer.send_raw(&bytes).await;
        let first = peer.receive().await;
        assert_eq!(first.connack().reason_code, ReasonCode::SUCCESS);
        let present = u8::from(version.has_session_present());
        assert_eq!(first.bytes()[2], present, "acknowledge flags");
        let mut rest = [peer.receive().await, peer.receive().await];
        rest.sort_by_key(|received| received.packet().packet_type() as u8);
        assert_eq!(rest[0].publish().payload, b"waits");
        assert_eq!(rest[1].packet(), Packet::PingResp);
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT3-3.2.2-1] [MQTT3-3.2.2-2]
/// [MQTT3-3.2.2-3]: Session Present for every combination of Clean Start and state.
#[tokio::test(start_paused = true)]
async fn session_present_tells_the_truth() {
    for version in [V3_1_1, V5] {
        for (had_session, clean_start, expected) in [
            (false, false, false),
            (false, true, false),
            (true, false, true),
            (true, true, false),
        ] {
            let broker = broker();
            if had_session {
                Peer::lasting(&broker, version, "client")
                    .await
                    .0
                    .disconnect()
                    .await;
            }
            let mut connect = lasting(version, "client");
            connect.clean_start = clean_start;
            let (_, received) = Peer::connect(&broker, &connect).await;
            let connack = received.connack();
            assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
            assert_eq!(connack.session_present, expected);
        }
    }
}

/// [MQTT-3.2.2-6] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-4.13.2-1] [MQTT-3.14.0-1] [MQTT3-3.2.2-4]
/// [MQTT3-3.2.2-5]: a refusal bears a code of its table, never a session, no DISCONNECT follows it, and the
/// broker closes; the session of that identifier is not touched.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_last_word() {
    let broker = broker();
    let (mut kept, _) = Peer::lasting(&broker, V5, "client").await;
    kept.subscribe("topic", QoS::AtLeastOnce).await;
    let mut connect = lasting(V5, "client");
    connect.properties.authentication_method = Some("UNHEARD-OF");
    let (mut peer, received) = Peer::connect(&broker, &connect).await;
    let connack = received.connack();
    assert!(connack.reason_code.is_error());
    assert!(connack.reason_code.is_allowed_in(PacketType::ConnAck));
    assert!(!connack.session_present);
    peer.expect_closed().await;
    kept.expect_nothing().await;

    Peer::refused(
        &broker,
        &hello(V3_1, ""),
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    )
    .await;
    Peer::refused(
        &broker,
        &lasting(V3_1_1, ""),
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    )
    .await;
}

/// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12]: a lower maximum QoS is announced, limits what is granted,
/// and refuses wills and messages above it.
#[tokio::test(start_paused = true)]
async fn a_lower_maximum_qos_is_announced() {
    for maximum in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut config = Config::default();
        config.maximum_qos = maximum;
        let broker = broker_with(config);
        let (mut peer, received) = Peer::connect(&broker, &hello(V5, "client")).await;
        assert_eq!(received.connack().properties.maximum_qos, Some(maximum));
        for qos in EVERY_QOS {
            let wanted = vec![crate::harness::filter("topic", qos)];
            assert_eq!(
                peer.subscribe_with(wanted, None).await,
                [ReasonCode(qos.min(maximum) as u8)]
            );
            let mut connect = hello(V5, "will");
            let mut will = Will::new(name("will"), b"");
            will.qos = qos;
            connect.will = Some(will);
            if qos > maximum {
                Peer::refused(&broker, &connect, ReasonCode::QOS_NOT_SUPPORTED).await;
                let mut sender = Peer::new(&broker, V5, "sender").await;
                sender.send_publish(&message("other", "", qos)).await;
                sender
                    .expect_disconnect(ReasonCode::QOS_NOT_SUPPORTED)
                    .await;
            } else {
                Peer::accepted(&broker, &connect).await.disconnect().await;
                peer.publish(&message("other", "", qos)).await;
            }
        }
    }
}

/// [MQTT-3.2.2-13]: without retained messages a retained will is refused, and a retained PUBLISH ends the
/// connection (section 3.2.2.3.5).
#[tokio::test(start_paused = true)]
async fn retained_wills_need_retained_messages() {
    let mut config = Config::default();
    config.retain_available = false;
    let broker = broker_with(config);
    let mut connect = hello(V5, "will");
    let mut will = Will::new(name("will"), b"");
    will.retain = true;
    connect.will = Some(will);
    Peer::refused(&broker, &connect, ReasonCode::RETAIN_NOT_SUPPORTED).await;
    let (mut peer, received) = Peer::connect(&broker, &hello(V5, "client")).await;
    assert_eq!(received.connack().properties.retain_available, Some(false));
    let mut publish = message("topic", "", QoS::AtMostOnce);
    publish.retain = true;
    peer.send_publish(&publish).await;
    peer.expect_disconnect(ReasonCode::RETAIN_NOT_SUPPORTED)
        .await;
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]: many clients without identifier get as many identifiers,
/// none of them that of another session, and none is announced to a client that has its own.
#[tokio::test(start_paused = true)]
async fn assigned_identifiers_are_unique() {
    let broker = broker();
    let mut seen = std::collections::HashSet::new();
    let mut peers = Vec::new();
    for number in 0..50 {
        let mut connect = hello(V5, "");
        connect.clean_start = number % 2 == 0;
        let (peer, received) = Peer::connect(&broker, &connect).await;
        let connack = received.connack();
        assert!(!connack.session_present);
        let assigned = connack.properties.assigned_client_identifier.unwrap();
        assert!(!assigned.is_empty());
        assert!(seen.insert(assigned.to_owned()), "{assigned} twice");
        peers.push(peer);
    }
    for peer in &mut peers {
        peer.expect_nothing().await;
    }
    let (_, received) = Peer::connect(&broker, &hello(V5, "own")).await;
    assert_eq!(
        received.connack().properties.assigned_client_identifier,
        None
    );
    // The same identifier is a takeover.
    let assigned = seen.iter().next().unwrap();
    let taken = Peer::accepted(&broker, &hello(V5, assigned)).await;
    let mut gone = 0;
    for mut peer in peers {
        peer.send(&Packet::PingReq).await;
        match peer.receive().await.packet() {
            Packet::PingResp => {}
            Packet::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason_code, ReasonCode::SESSION_TAKEN_OVER);
                gone += 1;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(gone, 1);
    taken.disconnect().await;
}

/// [MQTT-3.2.2-22] [MQTT-3.1.2-22]: without Server Keep Alive the client's own value counts, from the last
/// packet of any kind.
#[tokio::test(start_paused = true)]
async fn the_keep_alive_of_the_client_is_in_force() {
    let broker = broker();
    for keep_alive in [1, 7, 600] {
        let mut connect = hello(V5, "client");
        connect.keep_alive = keep_alive;
        let (mut peer, received) = Peer::connect(&broker, &connect).await;
        assert_eq!(received.connack().properties.server_keep_alive, None);
        let step = u64::from(keep_alive);
        advance(step).await;
        peer.publish(&message("topic", "", QoS::AtMostOnce)).await;
        advance(step).await;
        peer.subscribe("nothing", QoS::AtMostOnce).await;
        advance(step).await;
        // An acknowledgement of nothing is a packet as well.
        peer.send_ack(PacketType::PubAck, id(9), ReasonCode::SUCCESS)
            .await;
        advance(step).await;
        peer.expect_nothing().await;
        let since = tokio::time::Instant::now();
        peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        let waited = since.elapsed().as_millis();
        assert_eq!(waited / 100, u128::from(keep_alive) * 15);
    }
}

/// A keep alive that the broker replaces holds for the broker as well ([MQTT-3.2.2-21]).
#[tokio::test(start_paused = true)]
async fn a_keep_alive_above_the_maximum_is_replaced() {
    for (wanted, told, in_force) in [(0, Some(20), 20), (100, Some(20), 20), (5, None, 5)] {
        let mut config = Config::default();
        config.keep_alive_maximum = NonZeroU16::new(20);
        let broker = broker_with(config);
        let mut connect = hello(V5, "client");
        connect.keep_alive = wanted;
        let (mut peer, received) = Peer::connect(&broker, &connect).await;
        assert_eq!(received.connack().properties.server_keep_alive, told);
        let since = tokio::time::Instant::now();
        peer.expect_disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT).await;
        assert_eq!(since.elapsed().as_secs(), in_force * 3 / 2);
    }
}

/// Section 3.2.2.3.2: a Session Expiry Interval above the maximum is replaced and announced.
#[tokio::test(start_paused = true)]
async fn a_shorter_session_expiry_is_announced() {
    for (wanted, told) in [
        (Some(u32::MAX), Some(100)),
        (Some(101), Some(100)),
        (Some(100), None),
        (Some(0), None),
        (None, None),
    ] {
        let mut config = Config::default();
        config.session_expiry_maximum = 100;
        let broker = broker_with(config);
        let mut connect = hello(V5, "client");
        connect.properties.session_expiry_interval = wanted;
        let (peer, received) = Peer::connect(&broker, &connect).await;
        let connack = received.connack();
        assert_eq!(connack.properties.session_expiry_interval, told);
        peer.abort().await;
        advance(99).await;
        connect.clean_start = false;
        let (peer, present) = Peer::resumed(&broker, &connect).await;
        assert_eq!(present, wanted.unwrap_or(0) > 0);
        peer.abort().await;
        advance(101).await;
        assert!(!Peer::resumed(&broker, &connect).await.1);
    }
}

/// [MQTT-3.1.2-28] [MQTT-4.12.0-6] [MQTT-3.2.2-19] [MQTT-3.2.2-20]: what nobody asked for is not in CONNACK,
/// and nothing optional makes it larger than the client takes.
#[tokio::test(start_paused = true)]
async fn connack_has_nothing_unasked() {
    for wanted in [None, Some(false), Some(true)] {
        let broker = broker();
        let mut connect = hello(V5, "client");
        connect.properties.request_response_information = wanted;
        connect.properties.maximum_packet_size = NonZeroU32::new(16);
        let (_, received) = Peer::connect(&broker, &connect).await;
        assert!(received.bytes().len() <= 16);
        let properties = received.connack().properties;
        if wanted != Some(true) {
            assert_eq!(properties.response_information, None);
        }
        assert_eq!(properties.authentication_method, None);
        assert_eq!(properties.authentication_data, None);
        assert_eq!(properties.reason_string, None);
        assert!(properties.user_properties.is_empty());
    }
}

/// [MQTT-3.1.2-24] for CONNACK: a client that takes no packet of its size is sent none that is larger, and
/// does not get in.
#[tokio::test(start_paused = true)]
async fn a_connack_too_large_is_not_sent() {
    for (size, answer) in [
        (1, &b""[..]),
        (4, b""),
        (5, b"\x20\x03\0\x95\0"),
        (15, b"\x20\x03\0\x95\0"),
    ] {
        let broker = broker();
        let mut connect = hello(V5, "client");
        connect.properties.maximum_packet_size = NonZeroU32::new(size);
        let bytes = Packet::Connect(Box::new(connect.clone()))
            .to_vec(V5)
            .unwrap();
        assert_eq!(Peer::answer_to(&broker, &bytes).await, answer, "{size}");
        connect.client_id = "";
        connect.properties.authentication_method = Some("UNHEARD-OF");
        let bytes = Packet::Connect(Box::new(connect)).to_vec(V5).unwrap();
        let refused = Peer::answer_to(&broker, &bytes).await;
        assert!(refused.len() <= size as usize, "{refused:02x?}");
    }
}
