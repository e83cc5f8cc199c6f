//! What is rejected: each rule with its clause and reason code.

use mqtt_codec::ProtocolVersion::{V3_1, V3_1_1, V5};
use mqtt_codec::{
    Ack, Auth, AuthProperties, ConnAck, Connect, DecodeError, DecodeErrorKind, EncodeError, Frame,
    Packet, PacketId, PacketType, ProtocolVersion, Publish, QoS, ReasonCode, SubAck, Subscribe,
    SubscribeFilter, TopicError, TopicFilter, TopicName, Unsubscribe, UserProperty, decode,
};

use crate::hex;

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

#[track_caller]
fn error(version: ProtocolVersion, text: &str) -> DecodeError {
    match decode(&hex::bytes(text), version, u32::MAX) {
        Err(error) => error,
        Ok(packet) => panic!("{text} is {packet:?} in {version}"),
    }
}

#[track_caller]
fn reject(version: ProtocolVersion, text: &str, clause: &str, reason: ReasonCode) {
    let error = error(version, text);
    assert_eq!(error.clause(), clause, "{error}");
    assert_eq!(error.reason_code(), reason, "{error}");
}

#[track_caller]
fn reject_all(text: &str, clause: &str, reason: ReasonCode) {
    for version in ProtocolVersion::ALL {
        reject(version, text, clause, reason);
    }
}

/// A body with the fixed header that fits it.
fn packet(first: &str, body: &str) -> String {
    let len = hex::bytes(body).len();
    assert!(len < 128);
    format!("{first} {len:02X}\n{body}")
}

/// A PUBLISH of QoS 0 with these properties.
fn publish_with(properties: &str) -> String {
    let len = hex::bytes(properties).len();
    packet("30", &format!("00 01 61 {len:02X} {properties}"))
}

/// A CONNACK with these properties.
fn connack_with(properties: &str) -> String {
    let len = hex::bytes(properties).len();
    packet("20", &format!("00 00 {len:02X} {properties}"))
}

/// A CONNECT of 5.0 with these properties.
fn connect_with(properties: &str) -> String {
    let len = hex::bytes(properties).len();
    packet(
        "10",
        &format!("00 04 4D 51 54 54 05 02 00 00 {len:02X} {properties} 00 01 63"),
    )
}

/// A CONNECT with this level, these flags, and what follows keep alive.
fn connect(level: &str, flags: &str, rest: &str) -> String {
    packet(
        "10",
        &format!("00 04 4D 51 54 54 {level} {flags} 00 00 {rest}"),
    )
}

#[test]
fn reserved_packet_types() {
    reject_all("00 00", "section 2.1.2", MALFORMED);
    reject(V3_1, "F0 00", "section 2.1.2", MALFORMED);
    reject(V3_1_1, "F0 00", "section 2.1.2", MALFORMED);
}

#[test]
fn reserved_flags() {
    for (first, clause) in [
        ("11", "MQTT-2.1.3-1"),
        ("21", "MQTT-2.1.3-1"),
        ("48", "MQTT-2.1.3-1"),
        ("52", "MQTT-2.1.3-1"),
        ("60", "MQTT-3.6.1-1"),
        ("63", "MQTT-3.6.1-1"),
        ("72", "MQTT-2.1.3-1"),
        ("80", "MQTT-3.8.1-1"),
        ("92", "MQTT-2.1.3-1"),
        ("A0", "MQTT-3.10.1-1"),
        ("B2", "MQTT-2.1.3-1"),
        ("C1", "MQTT-2.1.3-1"),
        ("D8", "MQTT-2.1.3-1"),
        ("E1", "MQTT-3.14.1-1"),
    ] {
        // The first byte is enough.
        reject_all(first, clause, MALFORMED);
    }
    reject(V5, "F1", "MQTT-3.15.1-1", MALFORMED);
    // Only 3.1 has DUP on these.
    for version in [V3_1_1, V5] {
        reject(version, "6A 02 00 01", "MQTT-3.6.1-1", MALFORMED);
        reject(version, "8A 02 00 01", "MQTT-3.8.1-1", MALFORMED);
        reject(version, "AA 02 00 01", "MQTT-3.10.1-1", MALFORMED);
    }
    assert!(
        decode(&hex::bytes("6A 02 00 01"), V3_1, 100)
            .unwrap()
            .is_some()
    );
}

#[test]
fn remaining_length_is_rejected_as_soon_as_it_is_wrong() {
    for text in ["30 80 00", "30 FF 00", "30 80 80 00", "30 80 80 80 00"] {
        reject_all(text, "MQTT-1.5.5-1", MALFORMED);
    }
    reject_all("30 80 80 80 80", "MQTT-1.5.5-1", MALFORMED);
    reject_all("30 FF FF FF FF 7F", "MQTT-1.5.5-1", MALFORMED);
    for text in ["", "30", "30 80", "30 80 80 80"] {
        assert_eq!(decode(&hex::bytes(text), V5, 100), Ok(None));
    }
}

#[test]
fn size_limit_is_checked_on_the_header() {
    let header = hex::bytes("30 FF FF FF 7F");
    let error = decode(&header, V5, 1024).unwrap_err();
    assert_eq!(
        error.kind(),
        DecodeErrorKind::PacketTooLarge {
            size: 268_435_460,
            limit: 1024
        }
    );
    assert_eq!(error.reason_code(), ReasonCode::PACKET_TOO_LARGE);
    // The limit is for the whole packet.
    let whole = hex::bytes("30 04 00 01 61 00");
    assert!(decode(&whole, V5, 6).unwrap().is_some());
    assert!(decode(&whole[..2], V5, 5).is_err());
    let mut buffer = bytes::BytesMut::from(&header[..]);
    assert!(Frame::split_from(&mut buffer, V5, 1024).is_err());
}

#[test]
fn publish_flags() {
    reject_all("36", "MQTT-3.3.1-4", MALFORMED);
    reject_all("38", "MQTT-3.3.1-2", MALFORMED);
    for version in ProtocolVersion::ALL {
        let error = Publish::decode(0b0110, &[0, 1, 0x61, 0, 1], version).unwrap_err();
        assert_eq!(error.kind(), DecodeErrorKind::QoS);
    }
}

#[test]
fn publish_topic() {
    let invalid = ReasonCode::TOPIC_NAME_INVALID;
    reject_all("30 04 00 01 2B 00", "MQTT-4.7.0-1", invalid);
    reject_all("30 05 00 02 61 23 00", "MQTT-4.7.0-1", invalid);
    reject_all("30 04 00 01 00 00", "MQTT-4.7.3-2", MALFORMED);
    // U+D800, and a sequence cut short.
    reject_all("30 06 00 03 ED A0 80 00", "MQTT-1.5.4-1", MALFORMED);
    reject_all("30 04 00 01 C3 00", "MQTT-1.5.4-1", MALFORMED);
    reject(V3_1_1, "30 02 00 00", "MQTT-4.7.3-1", invalid);
    // In 5.0 an alias must stand for it.
    reject(V5, "30 03 00 00 00", "section 3.3.2.1", PROTOCOL);
    reject_all("30 03 00 02 61", "MQTT-4.13.1-1", MALFORMED);
    reject_all("30 00", "MQTT-4.13.1-1", MALFORMED);
    // The properties are missing.
    reject(V5, "30 03 00 01 61", "MQTT-4.13.1-1", MALFORMED);
}

#[test]
fn packet_identifiers_are_not_zero() {
    reject_all("32 06 00 01 61 00 00 00", "MQTT-2.2.1-3", MALFORMED);
    for first in ["40", "50", "62", "70", "82", "90", "A2", "B0"] {
        reject_all(
            &packet(first, "00 00 00 00 00 01 61 00"),
            "MQTT-2.2.1-3",
            MALFORMED,
        );
    }
}

#[test]
fn trailing_bytes() {
    const CLAUSE: &str = "MQTT-4.13.1-1";
    for text in ["C0 01 00", "D0 01 00"] {
        reject_all(text, CLAUSE, MALFORMED);
    }
    for version in [V3_1, V3_1_1] {
        for text in [
            "20 03 00 00 00",
            "40 03 00 01 00",
            "50 04 00 01 00 00",
            "62 03 00 01 00",
            "70 03 00 01 00",
            "B0 03 00 01 00",
            "E0 01 00",
        ] {
            reject(version, text, CLAUSE, MALFORMED);
        }
    }
    for text in [
        "20 04 00 00 00 00",
        "40 05 00 01 00 00 00",
        "E0 03 00 00 00",
        "F0 03 00 00 00",
    ] {
        reject(V5, text, CLAUSE, MALFORMED);
    }
    reject(
        V3_1_1,
        &connect("04", "02", "00 01 63 00"),
        CLAUSE,
        MALFORMED,
    );
    reject(
        V5,
        &connect("05", "02", "00 00 01 63 00"),
        CLAUSE,
        MALFORMED,
    );
}

#[test]
fn protocol_name_and_level() {
    let unsupported = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
    let odd_name = packet("10", "00 04 4D 51 54 58 04 02 00 00 00 01 63");
    reject_all(&odd_name, "MQTT-3.1.2-1", unsupported);
    assert_eq!(error(V5, &odd_name).answer_version(), None);
    for (level, value, answer) in [
        ("03", 3, V3_1),
        ("06", 6, V5),
        ("84", 0x84, V5),
        ("00", 0, V3_1),
    ] {
        let error = error(V5, &connect(level, "02", "00 01 63"));
        assert_eq!(
            error.kind(),
            DecodeErrorKind::UnsupportedVersion { level: value }
        );
        assert_eq!(error.clause(), "MQTT-3.1.2-2");
        assert_eq!(error.reason_code(), unsupported);
        assert_eq!(error.answer_version(), Some(answer));
    }
    let odd_level = packet("10", "00 06 4D 51 49 73 64 70 04 02 00 00 00 01 63");
    let error = error(V3_1, &odd_level);
    assert_eq!(error.answer_version(), Some(V3_1_1));
}

#[test]
fn connect_flags() {
    for (flags, clause) in [
        ("03", "MQTT-3.1.2-3"),
        ("0A", "MQTT-3.1.2-11"),
        ("12", "MQTT-3.1.2-11"),
        ("22", "MQTT-3.1.2-13"),
        ("1E", "MQTT-3.1.2-12"),
    ] {
        reject(V3_1_1, &connect("04", flags, "00 01 63"), clause, MALFORMED);
        reject(V5, &connect("05", flags, "00 00 01 63"), clause, MALFORMED);
    }
    reject(
        V3_1_1,
        &connect("04", "42", "00 01 63 00 01 70"),
        "MQTT3-3.1.2-22",
        MALFORMED,
    );
}

#[test]
fn connect_fields_that_the_flags_announce() {
    const CLAUSE: &str = "MQTT-4.13.1-1";
    for flags in ["06", "82", "C2"] {
        reject(V3_1_1, &connect("04", flags, "00 01 63"), CLAUSE, MALFORMED);
    }
    reject(V3_1_1, &connect("04", "02", ""), CLAUSE, MALFORMED);
    // Will topic with a wildcard, and user name with U+0000.
    let will = connect("04", "06", "00 01 63 00 01 23 00 00");
    reject(
        V3_1_1,
        &will,
        "MQTT-4.7.0-1",
        ReasonCode::TOPIC_NAME_INVALID,
    );
    let user = connect("04", "82", "00 01 63 00 01 00");
    reject(V3_1_1, &user, "MQTT-1.5.4-2", MALFORMED);
    let client = connect("04", "02", "00 01 80");
    reject(V3_1_1, &client, "MQTT-1.5.4-1", MALFORMED);
}

#[test]
fn unknown_properties() {
    const CLAUSE: &str = "section 2.2.2.2";
    for identifier in ["00", "04", "14", "2B", "7F", "FF 7F"] {
        reject(
            V5,
            &publish_with(&format!("{identifier} 00")),
            CLAUSE,
            MALFORMED,
        );
    }
    // Not the shortest form of an identifier that exists.
    reject(V5, &publish_with("81 00 00"), "MQTT-1.5.5-1", MALFORMED);
}

#[test]
fn misplaced_properties() {
    const CLAUSE: &str = "section 2.2.2.2";
    for text in [
        publish_with("11 00 00 00 01"),
        publish_with("18 00 00 00 01"),
        connect_with("01 01"),
        connect_with("1F 00 00"),
        connack_with("17 01"),
        // Subscription Identifier in UNSUBSCRIBE, Server Reference in PUBACK.
        packet("A2", "00 01 02 0B 01 00 01 61"),
        packet("40", "00 01 00 04 1C 00 01 61"),
        // Topic Alias in a Will.
        connect("05", "06", "00 00 01 63 03 23 00 01 00 01 77 00 00"),
    ] {
        reject(V5, &text, CLAUSE, MALFORMED);
        assert_eq!(error(V5, &text).kind(), DecodeErrorKind::MisplacedProperty);
    }
}

#[test]
fn repeated_properties() {
    const CLAUSE: &str = "section 2.2.2.2";
    for text in [
        publish_with("01 00 01 00"),
        publish_with("02 00 00 00 01 02 00 00 00 01"),
        publish_with("03 00 00 03 00 00"),
        publish_with("08 00 01 61 08 00 01 61"),
        publish_with("09 00 00 09 00 00"),
        publish_with("23 00 01 23 00 01"),
        connect_with("11 00 00 00 01 11 00 00 00 01"),
        connect_with("21 00 01 21 00 01"),
        connack_with("24 01 24 01"),
        // Many in PUBLISH, one in SUBSCRIBE.
        packet("82", "00 01 04 0B 01 0B 01 00 01 61 00"),
    ] {
        reject(V5, &text, CLAUSE, PROTOCOL);
        assert_eq!(error(V5, &text).kind(), DecodeErrorKind::RepeatedProperty);
    }
}

#[test]
fn property_values() {
    for (text, clause) in [
        (publish_with("01 02"), "section 3.3.2.3.2"),
        (publish_with("0B 00"), "section 3.8.2.1.2"),
        (publish_with("08 00 01 2B"), "MQTT-3.3.2-14"),
        (publish_with("08 00 00"), "MQTT-3.3.2-14"),
        (connect_with("21 00 00"), "section 3.1.2.11.3"),
        (connect_with("27 00 00 00 00"), "section 3.1.2.11.4"),
        (connect_with("19 02"), "section 3.1.2.11.6"),
        (connect_with("17 02"), "section 3.1.2.11.7"),
        (connack_with("24 02"), "section 3.2.2.3.4"),
        (connack_with("25 02"), "section 3.2.2.3.5"),
        (connack_with("28 02"), "section 3.2.2.3.11"),
        (connack_with("29 02"), "section 3.2.2.3.12"),
        (connack_with("2A FF"), "section 3.2.2.3.13"),
    ] {
        reject(V5, &text, clause, PROTOCOL);
    }
    reject(
        V5,
        &publish_with("23 00 00"),
        "MQTT-3.3.2-8",
        ReasonCode::TOPIC_ALIAS_INVALID,
    );
    reject(V5, &publish_with("03 00 01 00"), "MQTT-1.5.4-2", MALFORMED);
    reject(
        V5,
        &publish_with("26 00 00 00 01 FF"),
        "MQTT-1.5.4-1",
        MALFORMED,
    );
}

#[test]
fn property_lengths() {
    const CLAUSE: &str = "MQTT-4.13.1-1";
    // Longer than the packet; a value that is longer than the section, though not the packet.
    reject(V5, "30 05 00 01 61 02 01", CLAUSE, MALFORMED);
    reject(V5, "30 07 00 01 61 02 02 00 00", CLAUSE, MALFORMED);
    reject(V5, &publish_with("26 00 01 61"), CLAUSE, MALFORMED);
    reject(V5, "30 06 00 01 61 80 00 00", "MQTT-1.5.5-1", MALFORMED);
}

#[test]
fn authentication_data_needs_a_method() {
    reject(
        V5,
        &connect_with("16 00 01 61"),
        "section 3.1.2.11.10",
        PROTOCOL,
    );
    for text in [
        "F0 02 18 00",
        "F0 06 18 04 16 00 01 61",
        "F0 06 00 04 16 00 01 61",
    ] {
        reject(V5, text, "section 3.15.2.2.2", PROTOCOL);
    }
    // There is no form with a reason code and no property length.
    reject(V5, "F0 01 18", "MQTT-4.13.1-1", MALFORMED);
}

#[test]
fn reason_codes() {
    for (text, clause) in [
        ("20 03 00 04 00", "MQTT-3.2.2-8"),
        ("40 03 00 01 92", "MQTT-3.4.2-1"),
        ("50 03 00 01 81", "MQTT-3.5.2-1"),
        ("62 03 00 01 10", "MQTT-3.6.2-1"),
        ("70 03 00 01 80", "MQTT-3.7.2-1"),
        ("90 04 00 01 00 03", "MQTT-3.9.3-2"),
        ("B0 04 00 01 00 01", "MQTT-3.11.3-2"),
        ("E0 01 01", "MQTT-3.14.2-1"),
        ("F0 02 01 00", "MQTT-3.15.2-1"),
    ] {
        reject(V5, text, clause, PROTOCOL);
    }
    reject(V3_1_1, "20 02 00 06", "MQTT-3.2.2-8", PROTOCOL);
    reject(V3_1_1, "90 03 00 01 03", "MQTT-3.9.3-2", PROTOCOL);
    reject(V3_1_1, "90 03 00 01 87", "MQTT3-3.9.3-2", PROTOCOL);
}

#[test]
fn connack_flags() {
    reject_all("20 03 02 00 00", "MQTT-3.2.2-1", MALFORMED);
    reject(V5, "20 03 01 80 00", "MQTT-3.2.2-6", PROTOCOL);
    reject(V3_1_1, "20 02 01 05", "MQTT-3.2.2-6", PROTOCOL);
}

#[test]
fn empty_lists() {
    for (v3, v5, clause) in [
        ("82 02 00 01", "82 03 00 01 00", "MQTT-3.8.3-2"),
        ("A2 02 00 01", "A2 03 00 01 00", "MQTT-3.10.3-2"),
        ("90 02 00 01", "90 03 00 01 00", "MQTT-3.8.4-6"),
    ] {
        reject(V3_1, v3, clause, PROTOCOL);
        reject(V3_1_1, v3, clause, PROTOCOL);
        reject(V5, v5, clause, PROTOCOL);
    }
    reject(V5, "B0 03 00 01 00", "MQTT-3.11.3-1", PROTOCOL);
}

#[test]
fn subscription_options() {
    for (options, kind, reason) in [
        ("40", DecodeErrorKind::SubscriptionOptions(0x40), MALFORMED),
        ("80", DecodeErrorKind::SubscriptionOptions(0x80), MALFORMED),
        ("03", DecodeErrorKind::SubscriptionQoS, PROTOCOL),
        ("30", DecodeErrorKind::RetainHandling, PROTOCOL),
    ] {
        let error = error(V5, &packet("82", &format!("00 01 00 00 01 61 {options}")));
        assert_eq!(error.kind(), kind);
        assert_eq!(error.reason_code(), reason);
    }
    for options in ["03", "04", "08", "10", "80"] {
        for version in [V3_1, V3_1_1] {
            reject(
                version,
                &packet("82", &format!("00 01 00 01 61 {options}")),
                "MQTT3-3.8.3-4",
                MALFORMED,
            );
        }
    }
    reject(
        V5,
        &packet("82", "00 01 00 00 0A 24 73 68 61 72 65 2F 67 2F 62 04"),
        "MQTT-3.8.3-4",
        PROTOCOL,
    );
    // The options are missing.
    reject(V5, "82 06 00 01 00 00 01 61", "MQTT-4.13.1-1", MALFORMED);
}

#[test]
fn topic_filters() {
    for (text, error) in [
        ("", TopicError::Empty),
        ("a\0", TopicError::NulCharacter),
        ("a#", TopicError::MultiLevelWildcard),
        ("#/a", TopicError::MultiLevelWildcard),
        ("a/#/", TopicError::MultiLevelWildcard),
        ("a+/b", TopicError::SingleLevelWildcard),
        ("++", TopicError::SingleLevelWildcard),
        ("$share/", TopicError::EmptyShareName),
        ("$share//a", TopicError::EmptyShareName),
        ("$share/g", TopicError::SharedFilter),
        ("$share/g/", TopicError::SharedFilter),
        ("$share/+/a", TopicError::SharedFilter),
        ("$share/g#/a", TopicError::SharedFilter),
        ("$share/g/a#", TopicError::MultiLevelWildcard),
    ] {
        assert_eq!(TopicFilter::new(text), Err(error), "{text:?}");
        let mut body = vec![0, 1, 0, text.len() as u8];
        body.extend_from_slice(text.as_bytes());
        body.push(0);
        let decoded = Subscribe::decode(&body, V3_1_1).unwrap_err();
        assert_eq!(decoded.kind(), DecodeErrorKind::TopicFilter(error));
        assert_eq!(decoded.clause(), error.clause());
        let reason = match error {
            TopicError::NulCharacter => MALFORMED,
            _ => ReasonCode::TOPIC_FILTER_INVALID,
        };
        assert_eq!(decoded.reason_code(), reason);
    }
}

fn id() -> PacketId {
    PacketId::new(1).unwrap()
}

#[track_caller]
fn refuse(packet: &Packet<'_>, version: ProtocolVersion, error: EncodeError) {
    let mut out = vec![0xAA];
    assert_eq!(packet.encode(version, &mut out), Err(error));
    assert_eq!(packet.encoded_len(version), Err(error));
    assert_eq!(out, [0xAA], "nothing is written");
}

#[test]
fn encoder_refuses_long_and_nul_strings() {
    let long = "x".repeat(65_536);
    let connect = Packet::Connect(Connect::new(V3_1_1, &long).into());
    refuse(
        &connect,
        V3_1_1,
        EncodeError::FieldTooLong("client identifier"),
    );
    let connect = Packet::Connect(Connect::new(V5, "\0").into());
    refuse(&connect, V5, EncodeError::NulCharacter("client identifier"));

    let mut publish = Publish::new(TopicName::new("t").unwrap(), b"");
    publish.properties.user_properties.push(UserProperty {
        name: "a",
        value: &long,
    });
    let publish = Packet::Publish(publish);
    refuse(&publish, V5, EncodeError::FieldTooLong("User Property"));
    assert_eq!(
        publish.encoded_len(V3_1_1),
        Ok(5),
        "3.1.1 has no properties"
    );
}

#[test]
fn encoder_refuses_packets_that_are_too_long() {
    // Zeroed memory that is never touched.
    let payload = vec![0; 268_435_455];
    let publish = Publish::new(TopicName::new("t").unwrap(), &payload);
    refuse(
        &Packet::Publish(publish),
        V3_1_1,
        EncodeError::PacketTooLong(268_435_458),
    );
}

#[test]
fn encoder_refuses_what_the_decoder_rejects() {
    let topic = TopicName::new("t").unwrap();
    let publish = |change: fn(&mut Publish<'_>)| {
        let mut publish = Publish::new(topic, b"");
        change(&mut publish);
        Packet::Publish(publish)
    };
    for version in ProtocolVersion::ALL {
        let no_id = publish(|p| p.qos = QoS::AtLeastOnce);
        refuse(&no_id, version, EncodeError::PacketIdMissing);
        let extra_id = publish(|p| p.packet_id = PacketId::new(1));
        refuse(&extra_id, version, EncodeError::PacketIdUnexpected);
        refuse(
            &publish(|p| p.dup = true),
            version,
            EncodeError::DupWithoutQos,
        );
        refuse(
            &publish(|p| p.topic = None),
            version,
            EncodeError::TopicMissing,
        );

        let subscribe = Packet::Subscribe(Subscribe::new(id(), Vec::new()));
        refuse(
            &subscribe,
            version,
            EncodeError::EmptyList(PacketType::Subscribe),
        );
        let suback = Packet::SubAck(SubAck::new(id(), Vec::new()));
        refuse(&suback, version, EncodeError::EmptyList(PacketType::SubAck));
        let unsubscribe = Packet::Unsubscribe(Unsubscribe::new(id(), Vec::new()));
        refuse(
            &unsubscribe,
            version,
            EncodeError::EmptyList(PacketType::Unsubscribe),
        );
        let mut connack = ConnAck::new(ReasonCode::NOT_AUTHORIZED);
        connack.session_present = true;
        refuse(
            &Packet::ConnAck(connack.into()),
            version,
            EncodeError::SessionPresent,
        );
    }
    let alias_only = publish(|p| {
        p.topic = None;
        p.properties.topic_alias = core::num::NonZeroU16::new(1);
    });
    refuse(&alias_only, V3_1_1, EncodeError::TopicMissing);
    assert!(alias_only.encoded_len(V5).is_ok());

    let code = ReasonCode::PROTOCOL_ERROR;
    refuse(
        &Packet::PubAck(Ack::new(id(), code)),
        V5,
        EncodeError::ReasonCode {
            packet: PacketType::PubAck,
            code,
        },
    );

    let mut connect = Connect::new(V3_1_1, "c");
    connect.password = Some(b"p");
    refuse(
        &Packet::Connect(connect.clone().into()),
        V5,
        EncodeError::PasswordWithoutUsername,
    );
    connect.version = V5;
    connect.properties.authentication_data = Some(b"d");
    refuse(
        &Packet::Connect(connect.into()),
        V5,
        EncodeError::AuthenticationMethodMissing,
    );

    let auth = Auth::new(ReasonCode::REAUTHENTICATE, "M");
    for version in [V3_1, V3_1_1] {
        refuse(
            &Packet::Auth(auth.clone()),
            version,
            EncodeError::NotInVersion {
                packet: PacketType::Auth,
                version,
            },
        );
    }
    let auth = Auth {
        properties: AuthProperties::default(),
        ..auth
    };
    refuse(
        &Packet::Auth(auth),
        V5,
        EncodeError::AuthenticationMethodMissing,
    );

    let mut filter = SubscribeFilter::new(TopicFilter::new("$share/g/a").unwrap(), QoS::AtMostOnce);
    filter.options.no_local = true;
    let subscribe = Packet::Subscribe(Subscribe::new(id(), vec![filter]));
    refuse(&subscribe, V5, EncodeError::NoLocalShared);
    assert!(subscribe.encoded_len(V3_1_1).is_ok());
}

#[test]
fn encoder_refuses_a_buffer_that_is_too_small() {
    let packet = Packet::Publish(Publish::new(TopicName::new("t").unwrap(), b"x"));
    let mut small = [0xAA; 5];
    let mut out = &mut small[..];
    assert_eq!(
        packet.encode(V3_1_1, &mut out),
        Err(EncodeError::BufferTooSmall {
            needed: 6,
            available: 5
        })
    );
    assert_eq!(small, [0xAA; 5]);
    let mut exact = [0; 6];
    assert_eq!(packet.encode(V3_1_1, &mut &mut exact[..]), Ok(()));
    assert_eq!(exact, [0x30, 4, 0, 1, b't', b'x']);
    let publish = Publish::new(TopicName::new("t").unwrap(), b"x");
    let mut head = [0; 5];
    assert_eq!(publish.encode_head(V3_1_1, &mut &mut head[..]), Ok(()));
    assert_eq!(head, [0x30, 4, 0, 1, b't']);
    assert_eq!(
        publish.encode_head(V3_1_1, &mut &mut head[..4]),
        Err(EncodeError::BufferTooSmall {
            needed: 5,
            available: 4
        })
    );
}

#[test]
fn errors_name_place_rule_and_clause() {
    assert_eq!(
        error(V5, "36 00").to_string(),
        "PUBLISH: QoS 3 [MQTT-3.3.1-4]"
    );
    assert_eq!(
        error(V5, &connect_with("21 00 00")).to_string(),
        "Receive Maximum: property value not allowed [section 3.1.2.11.3]"
    );
    assert_eq!(
        error(V3_1_1, "82 06 00 01 00 01 23 05").to_string(),
        "subscription options: reserved subscription option bits 0b00000101 [MQTT3-3.8.3-4]"
    );
}
