//! CONNECT of 5.0, byte by byte: what is malformed, what is refused, and what is accepted.

use mqtt_codec::{Packet, QoS, ReasonCode, UserProperty, Will};

use crate::harness::{Peer, V3_1_1, V5, broker, hello, hex, message, name, settle};

/// A CONNECT of 5.0 from its flags, its properties and its payload.
fn connect(flags: &str, properties: &str, payload: &str) -> Vec<u8> {
    let body = format!(
        "0004 4D515454 05 {flags} 0000 {:02X} {properties} {payload}",
        hex(properties).len()
    );
    let mut packet = vec![0x10, u8::try_from(hex(&body).len()).unwrap()];
    packet.extend(hex(&body));
    packet
}

/// The CONNACK without properties that bears a reason code.
fn connack(reason: ReasonCode) -> Vec<u8> {
    vec![0x20, 3, 0, reason.0, 0]
}

const CLIENT: &str = "0003 616263";

/// [MQTT-3.1.2-3] [MQTT-3.1.2-9] [MQTT-3.1.4-1] [MQTT-4.13.1-1]: connect flags that contradict each other, or
/// the payload, are malformed; every other combination is accepted.
#[tokio::test(start_paused = true)]
async fn connect_flags_are_checked() {
    for flags in 0..=255_u8 {
        let (will, qos, retain) = (flags & 4 != 0, flags >> 3 & 3, flags & 0x20 != 0);
        let valid = flags & 1 == 0 && if will { qos < 3 } else { qos == 0 && !retain };
        let mut payload = CLIENT.to_owned();
        if will {
            payload += "00 0001 77 0001 78";
        }
        if flags & 0x80 != 0 {
            payload += "0001 75";
        }
        if flags & 0x40 != 0 {
            payload += "0001 70";
        }
        let broker = broker();
        let mut peer = Peer::open(&broker, V5);
        let packet = connect(&format!("{flags:02X}"), "", &payload);
        peer.send_raw(&packet).await;
        if valid {
            let received = peer.receive().await;
            assert_eq!(
                received.connack().reason_code,
                ReasonCode::SUCCESS,
                "{flags:08b}"
            );
            peer.expect_nothing().await;
            // One field less, one field more.
            if payload != CLIENT {
                let short = connect(&format!("{flags:02X}"), "", CLIENT);
                assert_eq!(
                    Peer::answer_to(&broker, &short).await,
                    connack(ReasonCode::MALFORMED_PACKET)
                );
            }
            let long = connect(&format!("{flags:02X}"), "", &(payload + "0001 7A"));
            assert_eq!(
                Peer::answer_to(&broker, &long).await,
                connack(ReasonCode::MALFORMED_PACKET)
            );
        } else {
            assert_eq!(
                peer.rest().await,
                connack(ReasonCode::MALFORMED_PACKET),
                "{flags:08b}"
            );
        }
    }
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.4-1]: names and levels that the broker does not speak are answered
/// with 0x84 in a form that their client may read, or not at all; the connection ends.
#[tokio::test(start_paused = true)]
async fn names_and_levels_are_checked() {
    let v5 = connack(ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
    let v3 = vec![0x20, 2, 0, 1];
    for (head, level, answer) in [
        ("0004 4D515454", 6, &v5),
        ("0004 4D515454", 255, &v5),
        ("0004 4D515454", 3, &v3),
        ("0004 4D515454", 0, &v3),
        ("0006 4D5149736470", 2, &v3),
        ("0006 4D5149736470", 4, &v3),
    ] {
        let broker = broker();
        let body = hex(&format!("{head} {level:02X} 02 0000 00 {CLIENT}"));
        let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        assert_eq!(&Peer::answer_to(&broker, &packet).await, answer, "{head}");
    }
    for name in [
        "0004 6D717474",
        "0004 4D515458",
        "0003 4D5154",
        "0005 4D51545454",
        "0000",
        "0004 48545450",
    ] {
        let broker = broker();
        let body = hex(&format!("{name} 05 02 0000 00 {CLIENT}"));
        let mut packet = vec![0x10, u8::try_from(body.len()).unwrap()];
        packet.extend(body);
        let answer = Peer::answer_to(&broker, &packet).await;
        assert!(answer.is_empty() || answer == v5, "{name}: {answer:02x?}");
    }
}

/// [MQTT-3.1.4-1] [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.3.2-8]: properties and strings of
/// CONNECT and its will.
#[tokio::test(start_paused = true)]
async fn connect_fields_are_checked() {
    const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
    const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;
    let connect_properties = [
        ("receive maximum 0", "21 0000", PROTOCOL),
        ("receive maximum twice", "21 0001 21 0001", PROTOCOL),
        ("maximum packet size 0", "27 00000000", PROTOCOL),
        ("session expiry twice", "11 00000001 11 00000001", PROTOCOL),
        ("alias maximum twice", "22 0001 22 0001", PROTOCOL),
        ("problem information 2", "17 02", PROTOCOL),
        ("problem information twice", "17 01 17 01", PROTOCOL),
        ("response information 2", "19 02", PROTOCOL),
        ("authentication data alone", "16 0001 61", PROTOCOL),
        ("method twice", "15 0001 61 15 0001 61", PROTOCOL),
        ("will delay outside the will", "18 00000001", MALFORMED),
        ("server keep alive", "13 0001", MALFORMED),
        ("unknown", "7E 00", MALFORMED),
        ("user property, U+0000", "26 0001 00 0001 61", MALFORMED),
        (
            "user property, surrogate",
            "26 0001 61 0003 EDA080",
            MALFORMED,
        ),
        ("cut", "11 0000", MALFORMED),
    ];
    let mut rows = Vec::new();
    for (what, properties, reason) in connect_properties {
        rows.push((what, connect("02", properties, CLIENT), reason));
    }
    let wills = [
        ("will delay twice", "18 00000001 18 00000001", PROTOCOL),
        ("payload format 2", "01 02", PROTOCOL),
        ("response topic with wildcard", "08 0001 23", PROTOCOL),
        ("session expiry in the will", "11 00000001", MALFORMED),
        ("topic alias in the will", "23 0001", MALFORMED),
        ("content type, not UTF-8", "03 0001 FF", MALFORMED),
    ];
    for (what, properties, reason) in wills {
        let will = format!("{:02X} {properties} 0001 77 0000", hex(properties).len());
        rows.push((what, connect("06", "", &format!("{CLIENT} {will}")), reason));
    }
    for (what, payload, reason) in [
        ("no payload", "", MALFORMED),
        ("identifier cut", "0005 6162", MALFORMED),
        ("identifier, U+0000", "0001 00", MALFORMED),
        ("identifier, surrogate", "0003 EDA080", MALFORMED),
        ("identifier, not UTF-8", "0001 FF", MALFORMED),
    ] {
        rows.push((what, connect("02", "", payload), reason));
    }
    for (what, topic, reason) in [
        ("will topic, not UTF-8", "0001 FF", MALFORMED),
        ("will topic, U+0000", "0001 00", MALFORMED),
        (
            "will topic with #",
            "0001 23",
            ReasonCode::TOPIC_NAME_INVALID,
        ),
        (
            "will topic with +",
            "0003 612F2B",
            ReasonCode::TOPIC_NAME_INVALID,
        ),
        ("will topic empty", "0000", ReasonCode::TOPIC_NAME_INVALID),
    ] {
        let payload = format!("{CLIENT} 00 {topic} 0000");
        rows.push((what, connect("06", "", &payload), reason));
    }
    for (what, flags, field) in [
        ("user name, not UTF-8", "82", "0001 FF"),
        ("user name, U+0000", "82", "0001 00"),
        ("user name cut", "82", "0002 61"),
        ("password cut", "42", "0002 61"),
    ] {
        let payload = format!("{CLIENT} {field}");
        rows.push((what, connect(flags, "", &payload), MALFORMED));
    }
    let mut wrong = Vec::new();
    for (what, packet, reason) in rows {
        let broker = broker();
        let answer = Peer::answer_to(&broker, &packet).await;
        if answer != connack(reason) {
            wrong.push(format!("{what}: {answer:02x?}, not {reason:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// [MQTT-3.1.4-6] [MQTT-3.1.4-2]: what follows a CONNECT that is refused is not processed.
#[tokio::test(start_paused = true)]
async fn nothing_after_a_refused_connect_is_processed() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("#", QoS::AtMostOnce).await;
    let mut refused = hello(V5, "client");
    refused.properties.authentication_method = Some("UNHEARD-OF");
    let malformed = connect("03", "", CLIENT);
    for first in [
        Packet::Connect(Box::new(refused)).to_vec(V5).unwrap(),
        malformed,
    ] {
        let mut bytes = first;
        for packet in [
            Packet::Publish(message("topic", "smuggled", QoS::AtMostOnce)),
            Packet::Connect(Box::new(hello(V5, "second"))),
            Packet::PingReq,
        ] {
            bytes.extend(packet.to_vec(V5).unwrap());
        }
        let answer = Peer::answer_to(&broker, &bytes).await;
        assert_eq!(answer.len(), 5, "one CONNACK and no more: {answer:02x?}");
        assert_eq!(answer[0], 0x20);
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.1.3-5] [MQTT-3.1.3-2]: identifiers of 1 to 23 letters and digits are accepted, and longer ones and
/// others too; each names a session of its own, told apart byte by byte.
#[tokio::test(start_paused = true)]
async fn client_identifiers_are_told_apart() {
    let broker = broker();
    let long = "x".repeat(65_000);
    let identifiers = [
        "a",
        "A",
        "0123456789",
        "abcdefghijklmnopqrstuvw",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "a b",
        "a/b/#",
        "ä",
        "a\u{308}",
        "\u{feff}a",
        "日本語",
        &long,
    ];
    let mut peers = Vec::new();
    for version in [V3_1_1, V5] {
        for id in identifiers {
            let mut connect = crate::harness::lasting(version, id);
            connect.clean_start = version == V3_1_1;
            let (peer, _) = Peer::resumed(&broker, &connect).await;
            peers.push((id, peer));
        }
        if version == V3_1_1 {
            for (_, peer) in peers.drain(..) {
                peer.disconnect().await;
            }
        }
    }
    for (id, peer) in &mut peers {
        peer.subscribe("topic", QoS::AtMostOnce).await;
        assert!(!id.is_empty());
        peer.expect_nothing().await;
    }
    for (_, peer) in peers {
        peer.disconnect().await;
    }
    for id in identifiers {
        assert!(Peer::lasting(&broker, V5, id).await.1, "{id}");
    }
    assert!(!Peer::lasting(&broker, V5, "B").await.1);
}

/// [MQTT-1.5.4-3]: EF BB BF is a character like any other: kept in topics, properties and identifiers.
#[tokio::test(start_paused = true)]
async fn the_byte_order_mark_is_kept() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "\u{feff}sender").await;
    let mut receiver = Peer::new(&broker, V5, "sender").await;
    receiver.subscribe("\u{feff}topic", QoS::AtMostOnce).await;
    let mut publish = message("\u{feff}topic", "marked", QoS::AtMostOnce);
    publish.properties.content_type = Some("\u{feff}text");
    publish.properties.user_properties = vec![UserProperty {
        name: "\u{feff}",
        value: "a\u{feff}b",
    }];
    sender.publish(&publish).await;
    sender
        .publish(&message("topic", "unmarked", QoS::AtMostOnce))
        .await;
    let received = receiver
        .expect_message("\u{feff}topic", "marked", QoS::AtMostOnce)
        .await;
    assert_eq!(received.publish().properties, publish.properties);
    receiver.expect_nothing().await;
    sender.expect_nothing().await;
}

/// Sections 3.1.3.5 and 3.1.3.6: user name and password may come alone, together or not at all; where nobody
/// must log in they change nothing.
#[tokio::test(start_paused = true)]
async fn credentials_are_taken() {
    for (username, password) in [
        (None, None),
        (Some("user"), None),
        (None, Some(&b"\0\xff"[..])),
        (Some(""), Some(&b""[..])),
        (Some("user"), Some(&b"pass"[..])),
    ] {
        let broker = broker();
        let mut connect = hello(V5, "client");
        connect.username = username;
        connect.password = password;
        Peer::accepted(&broker, &connect)
            .await
            .expect_nothing()
            .await;
    }
}

/// [MQTT-3.1.3-10] [MQTT-3.1.2-7]: the will is published with all its properties as they were, user properties
/// in order, and without its delay.
#[tokio::test(start_paused = true)]
async fn a_will_keeps_its_properties() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::ExactlyOnce).await;
    let mut connect = hello(V5, "client");
    let mut will = Will::new(name("will"), b"dead");
    will.qos = QoS::ExactlyOnce;
    will.properties.delay_interval = Some(0);
    will.properties.payload_format_utf8 = Some(true);
    will.properties.message_expiry_interval = Some(77);
    will.properties.content_type = Some("text/plain");
    will.properties.response_topic = Some(name("answers"));
    will.properties.correlation_data = Some(b"\0\xff");
    will.properties.user_properties = ["b", "a", "b", "c", "a"]
        .iter()
        .zip(["1", "2", "3", "", "1"])
        .map(|(name, value)| UserProperty { name, value })
        .collect();
    connect.will = Some(will.clone());
    Peer::accepted(&broker, &connect).await.abort().await;
    let received = watcher
        .expect_message("will", "dead", QoS::ExactlyOnce)
        .await;
    let properties = received.publish().properties;
    assert_eq!(properties.payload_format_utf8, Some(true));
    assert_eq!(properties.message_expiry_interval, Some(77));
    assert_eq!(properties.content_type, Some("text/plain"));
    assert_eq!(properties.response_topic, Some(name("answers")));
    assert_eq!(properties.correlation_data, Some(&b"\0\xff"[..]));
    assert_eq!(properties.user_properties, will.properties.user_properties);
}

/// [MQTT-3.1.0-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]: after a violation nothing is processed and nothing is sent
/// but one DISCONNECT.
#[tokio::test(start_paused = true)]
async fn nothing_comes_after_the_disconnect_of_the_broker() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut peer = Peer::new(&broker, V5, "client").await;
    peer.subscribe("#", QoS::AtMostOnce).await;
    let mut bytes = Packet::Connect(Box::new(hello(V5, "client")))
        .to_vec(V5)
        .unwrap();
    bytes.extend(Packet::PingReq.to_vec(V5).unwrap());
    peer.send_raw(&bytes).await;
    settle().await;
    sender
        .publish(&message("topic", "late", QoS::AtMostOnce))
        .await;
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
}

/// [MQTT-4.12.0-1] [MQTT-4.12.0-4] [MQTT-3.1.4-2] [MQTT-4.12.0-6]: a method that the broker does not have is refused
/// with 0x8C and the end of the connection, with data or without, before a session or a will is touched; AUTH is
/// sent to nobody, with a method or without.
#[tokio::test(start_paused = true)]
async fn an_authentication_that_cannot_succeed() {
    let broker = broker();
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("#", QoS::AtMostOnce).await;
    for (method, data) in [
        ("SCRAM-SHA-1", None),
        ("SCRAM-SHA-1", Some(&b"n,,n=user,r=nonce"[..])),
        ("", Some(&b""[..])),
    ] {
        let mut kept = Peer::lasting(&broker, V5, "client").await.0;
        let mut connect = hello(V5, "client");
        connect.properties.authentication_method = Some(method);
        connect.properties.authentication_data = data;
        connect.will = Some(Will::new(name("will"), b"dead"));
        let bytes = Packet::Connect(Box::new(connect)).to_vec(V5).unwrap();
        let answer = Peer::answer_to(&broker, &bytes).await;
        assert_eq!(answer, connack(ReasonCode::BAD_AUTHENTICATION_METHOD));
        kept.expect_nothing().await;
        watcher.expect_nothing().await;
    }
    let (mut peer, received) = Peer::connect(&broker, &hello(V5, "other")).await;
    let properties = received.connack().properties;
    assert_eq!(properties.authentication_method, None);
    assert_eq!(properties.authentication_data, None);
    peer.expect_nothing().await;
}
