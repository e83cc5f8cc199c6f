//! CONNECT and CONNACK of MQTT 3.1 and 3.1.1: who gets in, the return codes, clean session.

use core::time::Duration;

use mqtt_broker::{Config, Listener};
use mqtt_codec::{ProtocolVersion, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::harness::{
    Peer, V3, V3_1, V3_1_1, V5, broker, broker_with, hello, lasting, message, settle,
};
use crate::v3_wire::{
    CLEAN, PASSWORD, USER, WILL, WILL_RETAIN, connect, connect_as, packet, publish, subscribe,
};

/// All that the broker says to these bytes before it closes the connection.
async fn answer(version: ProtocolVersion, bytes: &[u8]) -> Vec<u8> {
    let broker = broker();
    let mut peer = Peer::open(&broker, version);
    peer.send_raw(bytes).await;
    peer.rest().await
}

/// What CONNACK says to these bytes on a connection that stays open.
async fn connack(bytes: &[u8], version: ProtocolVersion) -> Vec<u8> {
    let broker = broker();
    let mut peer = Peer::open(&broker, version);
    peer.send_raw(bytes).await;
    let connack = peer.receive().await.bytes().to_vec();
    peer.expect_nothing().await;
    connack
}

/// [MQTT3-3.1.4-4] [MQTT3-3.2.0-1] [MQTT3-3.2.2-1] [MQTT3-3.2.2-3]: a valid CONNECT is answered by CONNACK 0
/// without Session Present, whatever its optional fields.
#[tokio::test(start_paused = true)]
async fn a_valid_connect_is_accepted() {
    for version in V3 {
        for clean in [0, CLEAN] {
            let cases: [(u8, &[&[u8]]); 9] = [
                (0, &[b"c"]),
                (USER, &[b"c", b"user"]),
                (USER, &[b"c", b""]),
                (USER | PASSWORD, &[b"c", b"user", b"\0\xffsecret"]),
                (USER | PASSWORD, &[b"c", b"", b""]),
                (WILL, &[b"c", b"will", b"gone"]),
                (WILL, &[b"c", b"will", b""]),
                (WILL | 0x10 | WILL_RETAIN, &[b"c", b"will", b"\0\xff"]),
                (
                    USER | PASSWORD | WILL | 0x08,
                    &[b"c", b"will", b"gone", b"u", b"p"],
                ),
            ];
            for (flags, fields) in cases {
                let bytes = connect(version, flags | clean, fields);
                assert_eq!(
                    connack(&bytes, version).await,
                    [0x20, 2, 0, 0],
                    "{bytes:02x?}"
                );
            }
        }
    }
}

/// [MQTT3-3.2.0-1] [MQTT3-3.2.2-2]: CONNACK comes first also where messages wait for the session, and says
/// so where the version can.
#[tokio::test(start_paused = true)]
async fn connack_comes_before_what_waits() {
    for version in V3 {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("#", QoS::AtLeastOnce).await;
        peer.disconnect().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "x", QoS::AtLeastOnce)).await;
        let mut peer = Peer::open(&broker, version);
        peer.send_raw(&connect(version, 0, &[b"client"])).await;
        let present = u8::from(version.has_session_present());
        assert_eq!(peer.receive().await.bytes(), [0x20, 2, present, 0]);
        peer.expect_message("a", "x", QoS::AtLeastOnce).await;
    }
}

/// [MQTT3-3.1.0-2]: a second CONNECT ends the connection, an identical one too, and does not begin a session.
#[tokio::test(start_paused = true)]
async fn a_second_connect_closes() {
    for version in V3 {
        for second in [&b"client"[..], b"other"] {
            let broker = broker();
            let mut peer = Peer::new(&broker, version, "client").await;
            peer.send_raw(&connect(version, 0, &[second])).await;
            assert_eq!(peer.rest().await, b"");
            settle().await;
            let (_, present) = Peer::lasting(&broker, V3_1_1, "other").await;
            assert!(!present);
        }
    }
}

/// [MQTT3-3.1.2-1]: another protocol name, or the name of another level, is not taken for MQTT.
#[tokio::test(start_paused = true)]
async fn other_protocol_names_are_not_served() {
    for (name, level) in [
        (&b"mqtt"[..], 4),
        (b"MQTTX", 4),
        (b"MQT", 4),
        (b"", 4),
        (b"MQIsdp\0", 3),
        (b"mqisdp", 3),
        (b"AMQP", 4),
    ] {
        let bytes = connect_as(name, level, CLEAN, &[b"c"]);
        assert_eq!(answer(V3_1_1, &bytes).await, b"", "{name:?}");
    }
    for (name, level) in [(&b"MQTT"[..], 3), (b"MQIsdp", 4), (b"MQIsdp", 5)] {
        let bytes = connect_as(name, level, CLEAN, &[b"c"]);
        let answer = answer(V3_1_1, &bytes).await;
        assert!(!answer.starts_with(&[0x20, 2, 0, 0]), "{name:?} {level}");
    }
}

/// [MQTT3-3.1.2-2] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5]: a level that is not known gets return code 1.
#[tokio::test(start_paused = true)]
async fn unknown_levels_get_return_code_1() {
    for level in [0, 1, 2, 3] {
        let bytes = connect_as(b"MQTT", level, CLEAN, &[b"c"]);
        assert_eq!(answer(V3_1_1, &bytes).await, [0x20, 2, 0, 1], "{level}");
    }
    for level in [0, 1, 2, 4] {
        let bytes = connect_as(b"MQIsdp", level, CLEAN, &[b"c"]);
        assert_eq!(answer(V3_1, &bytes).await, [0x20, 2, 0, 1], "{level}");
    }
}

/// [MQTT3-3.1.2-3] [MQTT3-3.1.4-1] [MQTT3-3.2.2-6] [MQTT3-3.1.2-9]: no return code says that CONNECT is
/// malformed, so that the connection ends without one.
#[tokio::test(start_paused = true)]
async fn a_malformed_connect_is_not_answered() {
    for version in V3 {
        let cases: &[(u8, &[&[u8]])] = &[
            // The reserved flag.
            (CLEAN | 0x01, &[b"c"]),
            (0x01, &[b"c"]),
            // Will QoS 3; Will QoS and Will Retain without Will Flag.
            (CLEAN | WILL | 0x18, &[b"c", b"will", b"gone"]),
            (CLEAN | 0x08, &[b"c"]),
            (CLEAN | 0x10, &[b"c"]),
            (CLEAN | 0x18, &[b"c"]),
            (CLEAN | WILL_RETAIN, &[b"c"]),
            // A password without a user name.
            (CLEAN | PASSWORD, &[b"c", b"secret"]),
            // Fields that the flags announce and that are not there.
            (CLEAN, &[]),
            (CLEAN | WILL, &[b"c"]),
            (CLEAN | WILL, &[b"c", b"will"]),
            (CLEAN | WILL | USER, &[b"c", b"will"]),
            // Fields that no flag announces.
            (CLEAN, &[b"c", b"user"]),
            (CLEAN, &[b"c", b"will", b"gone"]),
            (CLEAN | USER, &[b"c", b"user", b"secret"]),
        ];
        for (flags, fields) in cases {
            let bytes = connect(version, *flags, fields);
            assert_eq!(answer(version, &bytes).await, b"", "{version} {bytes:02x?}");
        }
        // Cut short anywhere, with the length to match.
        let whole = connect(version, CLEAN | WILL, &[b"client", b"will", b"gone"]);
        for end in 2..whole.len() {
            let bytes = packet(0x10, &[&whole[2..end]]);
            assert_eq!(answer(version, &bytes).await, b"", "{version} {bytes:02x?}");
        }
        // A byte too many.
        let bytes = packet(0x10, &[&whole[2..], b"\0"]);
        assert_eq!(answer(version, &bytes).await, b"");
    }
}

/// A user name and a password may be announced and missing in 3.1, where both flags were advice, and not in
/// 3.1.1.
#[tokio::test(start_paused = true)]
async fn only_3_1_may_leave_out_credentials() {
    for flags in [CLEAN | USER, CLEAN | USER | PASSWORD] {
        let accepted = connack(&connect(V3_1, flags, &[b"c"]), V3_1).await;
        assert_eq!(accepted, [0x20, 2, 0, 0]);
        assert_eq!(answer(V3_1_1, &connect(V3_1_1, flags, &[b"c"])).await, b"");
    }
}

/// [MQTT3-3.2.2-6]: a will beyond the highest QoS of the broker, or a retained one where nothing is retained:
/// no return code says so.
#[tokio::test(start_paused = true)]
async fn a_will_that_is_not_supported_is_not_answered() {
    for version in V3 {
        for (flags, taken) in [(0x08, true), (0x10, false), (WILL_RETAIN, false), (0, true)] {
            let mut config = Config::default();
            config.maximum_qos = QoS::AtLeastOnce;
            config.retain_available = false;
            let broker = broker_with(config);
            let mut peer = Peer::open(&broker, version);
            let fields = [&b"c"[..], b"will", b"gone"];
            peer.send_raw(&connect(version, CLEAN | WILL | flags, &fields))
                .await;
            if taken {
                assert_eq!(peer.receive().await.bytes(), [0x20, 2, 0, 0]);
            } else {
                assert_eq!(peer.rest().await, b"");
            }
        }
    }
}

/// [MQTT3-3.1.3-5]: identifiers of 1 to 23 letters and digits.
#[tokio::test(start_paused = true)]
async fn ordinary_identifiers_are_accepted() {
    let characters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for version in V3 {
        let broker = broker();
        for length in 1..=23 {
            for start in [0, 10, 36, characters.len() - length] {
                let client_id = &characters[start..start + length];
                Peer::new(&broker, version, client_id)
                    .await
                    .disconnect()
                    .await;
            }
        }
    }
}

/// [MQTT3-3.1.3-6]: several clients without an identifier are several clients.
#[tokio::test(start_paused = true)]
async fn empty_identifiers_become_unique_ones() {
    let broker = broker();
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = Peer::open(&broker, V3_1_1);
        peer.send_raw(&connect(V3_1_1, CLEAN, &[b""])).await;
        assert_eq!(peer.receive().await.bytes(), [0x20, 2, 0, 0]);
        peer.subscribe("a", QoS::AtLeastOnce).await;
        peers.push(peer);
    }
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    sender.publish(&message("a", "x", QoS::AtLeastOnce)).await;
    for peer in &mut peers {
        peer.expect_message("a", "x", QoS::AtLeastOnce).await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-3.1.3-8] [MQTT3-3.1.3-9] [MQTT3-3.2.2-4] [MQTT3-3.2.2-5]: an empty identifier without clean session
/// in 3.1.1, and any empty identifier in 3.1: return code 2, then the end.
#[tokio::test(start_paused = true)]
async fn rejected_identifiers_get_return_code_2() {
    for (version, flags) in [(V3_1_1, 0), (V3_1, 0), (V3_1, CLEAN)] {
        let bytes = connect(version, flags, &[b""]);
        assert_eq!(answer(version, &bytes).await, [0x20, 2, 0, 2]);
    }
}

/// [MQTT3-3.1.4-5]: what follows a CONNECT that is rejected is not looked at; what follows one that is
/// accepted is, before CONNACK is read.
#[tokio::test(start_paused = true)]
async fn nothing_counts_after_a_rejected_connect() {
    for (version, client_id, connack) in [
        (V3_1_1, &b""[..], [0x20, 2, 0, 2]),
        (V3_1, b"", [0x20, 2, 0, 2]),
        (V3_1_1, b"c", [0x20, 2, 0, 0]),
        (V3_1, b"c", [0x20, 2, 0, 0]),
    ] {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        let mut peer = Peer::open(&broker, version);
        let mut bytes = connect(version, 0, &[client_id]);
        bytes.extend(publish(0x31, b"a", b"", b"x"));
        bytes.extend(subscribe(1, b"b", 0));
        bytes.extend(packet(0xc0, &[]));
        peer.send_raw(&bytes).await;
        if connack[3] == 0 {
            for answer in [&connack[..], b"\x90\x03\0\x01\0", b"\xd0\0"] {
                assert_eq!(peer.receive().await.bytes(), answer);
            }
            watcher.expect_message("a", "x", QoS::AtMostOnce).await;
        } else {
            assert_eq!(peer.rest().await, connack);
        }
        watcher.expect_nothing().await;
        let mut late = Peer::new(&broker, version, "late").await;
        late.subscribe("a", QoS::AtMostOnce).await;
        if connack[3] == 0 {
            late.expect_message("a", "x", QoS::AtMostOnce).await;
        }
        late.expect_nothing().await;
    }
}

/// [MQTT3-3.1.4-2]: the same identifier again ends the older connection, with and without clean session and
/// across versions.
#[tokio::test(start_paused = true)]
async fn the_newer_connection_stays() {
    for version in V3 {
        for newer in [V3_1, V3_1_1, V5] {
            for clean in [false, true] {
                let broker = broker();
                let mut bystander = Peer::new(&broker, version, "clientx").await;
                let (mut first, _) = Peer::lasting(&broker, version, "client").await;
                let mut connect = lasting(newer, "client");
                connect.clean_start = clean;
                let mut second = Peer::accepted(&broker, &connect).await;
                assert_eq!(first.rest().await, b"");
                second.expect_nothing().await;
                bystander.expect_nothing().await;
            }
        }
    }
}

/// [MQTT3-3.1.4-3] [MQTT3-3.1.2-4] [MQTT3-3.1.2-6] [MQTT3-3.2.2-1] [MQTT3-3.2.2-2] [MQTT3-3.2.2-3]: what each
/// order of clean and lasting connections leaves, also when the connection breaks or is taken over.
#[tokio::test(start_paused = true)]
async fn clean_session_decides() {
    #[derive(Clone, Copy)]
    enum Ending {
        Farewell,
        Break,
        Takeover,
    }
    for version in V3 {
        for ending in [Ending::Farewell, Ending::Break, Ending::Takeover] {
            for (first_clean, second_clean) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                let broker = broker();
                let connect = |clean| {
                    let mut connect = hello(version, "client");
                    connect.clean_start = clean;
                    connect
                };
                let mut first = Peer::accepted(&broker, &connect(first_clean)).await;
                first.subscribe("a", QoS::AtLeastOnce).await;
                match ending {
                    Ending::Farewell => first.disconnect().await,
                    Ending::Break => first.abort().await,
                    Ending::Takeover => {}
                }
                let (mut second, present) = Peer::resumed(&broker, &connect(second_clean)).await;
                let resumes = !first_clean && !second_clean;
                assert_eq!(present, resumes && version.has_session_present());
                let mut sender = Peer::new(&broker, version, "sender").await;
                sender.publish(&message("a", "x", QoS::AtLeastOnce)).await;
                if resumes {
                    second.expect_message("a", "x", QoS::AtLeastOnce).await;
                }
                second.expect_nothing().await;
                second.disconnect().await;
                // And what the second one leaves.
                let (_, present) = Peer::resumed(&broker, &connect(false)).await;
                assert_eq!(present, !second_clean && version.has_session_present());
            }
        }
    }
}

/// [MQTT3-3.1.3-2]: each identifier has a session of its own, compared byte by byte.
#[tokio::test(start_paused = true)]
async fn sessions_go_by_the_identifier() {
    for version in V3 {
        let broker = broker();
        let identifiers = [
            "client", "Client", "client ", "clien", "client1", "ä", "a\u{308}",
        ];
        for client_id in identifiers {
            let (mut peer, present) = Peer::lasting(&broker, version, client_id).await;
            assert!(!present, "{client_id}");
            peer.subscribe(&format!("to/{client_id}"), QoS::AtLeastOnce)
                .await;
            peer.disconnect().await;
        }
        let mut sender = Peer::new(&broker, version, "sender").await;
        for client_id in identifiers {
            sender
                .publish(&message(&format!("to/{client_id}"), "x", QoS::AtLeastOnce))
                .await;
        }
        for client_id in identifiers {
            let (mut peer, present) = Peer::lasting(&broker, version, client_id).await;
            assert_eq!(present, version.has_session_present());
            peer.expect_message(&format!("to/{client_id}"), "x", QoS::AtLeastOnce)
                .await;
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.1.2-24]: silence for one and a half times the keep alive ends the connection; any packet of the
/// client begins it anew, and packets to the client do not.
#[tokio::test(start_paused = true)]
async fn silence_ends_the_connection() {
    for version in V3 {
        for keep_alive in [1, 10, u16::MAX] {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut connect = hello(version, "client");
            connect.keep_alive = keep_alive;
            let mut peer = Peer::accepted(&broker, &connect).await;
            let period = Duration::from_secs(keep_alive.into());
            for packet in [
                &b"\xc0\x00"[..],
                b"\x82\x06\0\x01\0\x01a\0",
                b"\x32\x06\0\x01b\0\x01x",
                b"\x40\x02\0\x07",
            ] {
                sleep(period).await;
                peer.send_raw(packet).await;
                settle().await;
            }
            let silent_since = Instant::now();
            sleep(period).await;
            sender.publish(&message("a", "x", QoS::AtMostOnce)).await;
            for packet_type in [0xd0, 0x90, 0x40, 0x30] {
                assert_eq!(peer.receive().await.bytes()[0], packet_type);
            }
            assert_eq!(peer.rest().await, b"");
            let expected = period * 3 / 2;
            let took = silent_since.elapsed();
            assert!(took >= expected, "{took:?}");
            assert!(took < expected + Duration::from_secs(1), "{took:?}");
        }
    }
}

/// [MQTT3-7.1.1-1]: over TCP, the transport that every server has.
#[tokio::test]
async fn tcp_is_served() {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let broker = broker();
    let running = tokio::spawn(broker.run(vec![listener], core::future::pending()));
    for version in V3 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut bytes = connect(version, CLEAN, &[b"c"]);
        bytes.extend(subscribe(1, b"a", 0));
        bytes.extend(publish(0x30, b"a", b"", b"x"));
        bytes.extend(packet(0xc0, &[]));
        stream.write_all(&bytes).await.unwrap();
        let mut answers = [0; 17];
        stream.read_exact(&mut answers).await.unwrap();
        let (connack, rest) = answers.split_at(4);
        assert_eq!(connack, [0x20, 2, 0, 0]);
        let message = publish(0x30, b"a", b"", b"x");
        assert_eq!(
            rest,
            [&b"\x90\x03\0\x01\0"[..], &message, b"\xd0\0"].concat()
        );
    }
    running.abort();
}
