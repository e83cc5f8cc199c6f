//! Known bytes of every packet: they decode to the packet, and it encodes to them.

use core::num::{NonZeroU16, NonZeroU32};

use mqtt_codec::ProtocolVersion::{V3_1, V3_1_1, V5};
use mqtt_codec::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
    SubscribeFilter, SubscribeProperties, SubscriptionIdentifier, SubscriptionOptions, TopicFilter,
    TopicName, UnsubAck, Unsubscribe, UnsubscribeProperties, UserProperty, Will, WillProperties,
    decode,
};

use crate::hex;

/// Both directions.
fn check(version: ProtocolVersion, text: &str, packet: &Packet<'_>) {
    let bytes = check_decode(version, text, packet);
    let written = packet.to_vec(version).unwrap();
    assert_eq!(written, bytes, "{packet:?} in {version}");
    assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
}

/// For a form that the encoder does not choose.
fn check_decode(version: ProtocolVersion, text: &str, packet: &Packet<'_>) -> Vec<u8> {
    let bytes = hex::bytes(text);
    let limit = u32::try_from(bytes.len()).unwrap();
    let (decoded, len) = decode(&bytes, version, limit).unwrap().unwrap();
    assert_eq!(&decoded, packet, "{text}");
    assert_eq!(len, bytes.len());
    bytes
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

fn user<'a>(name: &'a str, value: &'a str) -> UserProperty<'a> {
    UserProperty { name, value }
}

#[test]
fn connect_3_1() {
    let mut connect = Connect::new(V3_1, "c1");
    connect.keep_alive = 10;
    check(
        V3_1,
        "10 10                ; CONNECT, 16 bytes
         00 06 4D 51 49 73 64 70 ; protocol name MQIsdp
         03                   ; level 3
         02                   ; clean session
         00 0A                ; keep alive 10 s
         00 02 63 31          ; client identifier c1",
        &Packet::Connect(connect.into()),
    );
}

#[test]
fn connect_3_1_without_the_credentials_its_flags_announce() {
    check_decode(
        V3_1,
        "10 10                ; CONNECT, 16 bytes
         00 06 4D 51 49 73 64 70 ; protocol name MQIsdp
         03                   ; level 3
         C2                   ; user name, password, clean session
         00 00                ; keep alive off
         00 02 63 31          ; client identifier c1, and there it ends",
        &Packet::Connect(Connect::new(V3_1, "c1").into()),
    );
}

#[test]
fn connect_3_1_1_with_everything() {
    let mut will = Will::new(topic("w"), b"bye");
    will.qos = QoS::AtLeastOnce;
    will.retain = true;
    let connect = Connect {
        clean_start: false,
        keep_alive: 60,
        will: Some(will),
        username: Some("u"),
        password: Some(&[0xFF, 0x00]),
        ..Connect::new(V3_1_1, "c")
    };
    check(
        V3_1_1,
        "10 1C                ; CONNECT, 28 bytes
         00 04 4D 51 54 54    ; protocol name MQTT
         04                   ; level 4
         EC                   ; user name, password, will retain, will QoS 1, will
         00 3C                ; keep alive 60 s
         00 01 63             ; client identifier c
         00 01 77             ; will topic w
         00 03 62 79 65       ; will payload bye
         00 01 75             ; user name u
         00 02 FF 00          ; password, any bytes",
        &Packet::Connect(connect.into()),
    );
}

#[test]
fn connect_5_with_everything() {
    let will = Will {
        topic: topic("w"),
        payload: b"",
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: WillProperties {
            delay_interval: Some(5),
            payload_format_utf8: Some(true),
            message_expiry_interval: Some(6),
            content_type: Some("t"),
            response_topic: Some(topic("r")),
            correlation_data: Some(&[0]),
            user_properties: vec![user("a", "b")],
        },
    };
    let connect = Connect {
        version: V5,
        client_id: "",
        clean_start: true,
        keep_alive: 0xFFFF,
        will: Some(will),
        username: None,
        password: Some(b"p"),
        properties: ConnectProperties {
            session_expiry_interval: Some(0xFFFF_FFFF),
            receive_maximum: NonZeroU16::new(10),
            maximum_packet_size: NonZeroU32::new(0x0001_0000),
            topic_alias_maximum: Some(0),
            request_response_information: Some(true),
            request_problem_information: Some(false),
            authentication_method: Some("M"),
            authentication_data: Some(&[1, 2]),
            user_properties: vec![user("k", "1"), user("k", "2")],
        },
    };
    check(
        // The argument is ignored for CONNECT.
        V3_1_1,
        "10 60                ; CONNECT, 96 bytes
         00 04 4D 51 54 54    ; protocol name MQTT
         05                   ; version 5
         56                   ; password, will QoS 2, will, clean start
         FF FF                ; keep alive 65,535 s
         2B                   ; properties, 43 bytes
           11 FF FF FF FF     ; Session Expiry Interval, for ever
           21 00 0A           ; Receive Maximum 10
           27 00 01 00 00     ; Maximum Packet Size 65,536
           22 00 00           ; Topic Alias Maximum 0
           19 01              ; Request Response Information
           17 00              ; Request Problem Information off
           15 00 01 4D        ; Authentication Method M
           16 00 02 01 02     ; Authentication Data
           26 00 01 6B 00 01 31 ; User Property k = 1
           26 00 01 6B 00 01 32 ; User Property k = 2
         00 00                ; client identifier, empty
         1F                   ; will properties, 31 bytes
           18 00 00 00 05     ; Will Delay Interval 5 s
           01 01              ; Payload Format Indicator, UTF-8
           02 00 00 00 06     ; Message Expiry Interval 6 s
           03 00 01 74        ; Content Type t
           08 00 01 72        ; Response Topic r
           09 00 01 00        ; Correlation Data
           26 00 01 61 00 01 62 ; User Property a = b
         00 01 77             ; will topic w
         00 00                ; will payload, empty
         00 01 70             ; password p, without user name",
        &Packet::Connect(connect.into()),
    );
}

#[test]
fn connack_3_1_1() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = true;
    check(
        V3_1_1,
        "20 02 01 00 ; session present, accepted",
        &Packet::ConnAck(connack.into()),
    );
    for (code, reason) in [
        ("01", ReasonCode::UNSUPPORTED_PROTOCOL_VERSION),
        ("02", ReasonCode::CLIENT_IDENTIFIER_NOT_VALID),
        ("03", ReasonCode::SERVER_UNAVAILABLE),
        ("04", ReasonCode::BAD_USER_NAME_OR_PASSWORD),
        ("05", ReasonCode::NOT_AUTHORIZED),
    ] {
        check(
            V3_1_1,
            &format!("20 02 00 {code}"),
            &Packet::ConnAck(ConnAck::new(reason).into()),
        );
    }
}

#[test]
fn connack_codes_that_only_5_has_become_server_unavailable() {
    let packet = Packet::ConnAck(ConnAck::new(ReasonCode::BANNED).into());
    for version in [V3_1, V3_1_1] {
        assert_eq!(packet.to_vec(version).unwrap(), [0x20, 2, 0, 3]);
    }
}

#[test]
fn connack_3_1_does_not_tell_of_sessions() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = true;
    let bytes = Packet::ConnAck(connack.into()).to_vec(V3_1).unwrap();
    assert_eq!(bytes, [0x20, 2, 0, 0]);
}

#[test]
fn connack_5_with_everything() {
    let connack = ConnAck {
        session_present: false,
        reason_code: ReasonCode::SUCCESS,
        properties: ConnAckProperties {
            session_expiry_interval: Some(7),
            receive_maximum: NonZeroU16::new(20),
            maximum_qos: Some(QoS::AtLeastOnce),
            retain_available: Some(false),
            maximum_packet_size: NonZeroU32::new(100),
            assigned_client_identifier: Some("id"),
            topic_alias_maximum: Some(10),
            reason_string: Some("ok"),
            wildcard_subscription_available: Some(true),
            subscription_identifiers_available: Some(false),
            shared_subscription_available: Some(true),
            server_keep_alive: Some(30),
            response_information: Some("ri"),
            server_reference: Some("sr"),
            authentication_method: Some("M"),
            authentication_data: Some(b"d"),
            user_properties: vec![user("", "")],
        },
    };
    check(
        V5,
        "20 41                ; CONNACK, 65 bytes
         00 00                ; no session, success
         3E                   ; properties, 62 bytes
           11 00 00 00 07     ; Session Expiry Interval 7 s
           21 00 14           ; Receive Maximum 20
           24 01              ; Maximum QoS 1
           25 00              ; Retain Available off
           27 00 00 00 64     ; Maximum Packet Size 100
           12 00 02 69 64     ; Assigned Client Identifier id
           22 00 0A           ; Topic Alias Maximum 10
           1F 00 02 6F 6B     ; Reason String ok
           28 01              ; Wildcard Subscription Available
           29 00              ; Subscription Identifier Available off
           2A 01              ; Shared Subscription Available
           13 00 1E           ; Server Keep Alive 30 s
           1A 00 02 72 69     ; Response Information ri
           1C 00 02 73 72     ; Server Reference sr
           15 00 01 4D        ; Authentication Method M
           16 00 01 64        ; Authentication Data d
           26 00 00 00 00     ; User Property, both empty",
        &Packet::ConnAck(connack.into()),
    );
}

#[test]
fn publish_3() {
    for version in [V3_1, V3_1_1] {
        check(
            version,
            "30 07           ; PUBLISH QoS 0, 7 bytes
             00 03 61 2F 62  ; topic a/b
             68 69           ; payload hi",
            &Packet::Publish(Publish::new(topic("a/b"), b"hi")),
        );
        let publish = Publish {
            dup: true,
            qos: QoS::ExactlyOnce,
            retain: true,
            packet_id: Some(id(0x1234)),
            ..Publish::new(topic("a"), b"")
        };
        check(
            version,
            "3D 05      ; PUBLISH DUP QoS 2 RETAIN, 5 bytes
             00 01 61   ; topic a
             12 34      ; packet identifier, and no payload",
            &Packet::Publish(publish),
        );
    }
}

#[test]
fn publish_5() {
    check(
        V5,
        "30 05      ; PUBLISH QoS 0, 5 bytes
         00 01 61   ; topic a
         00         ; no properties
         21         ; payload !",
        &Packet::Publish(Publish::new(topic("a"), b"!")),
    );
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: None,
        packet_id: Some(id(1)),
        payload: &[0xC0],
        properties: PublishProperties {
            payload_format_utf8: Some(false),
            message_expiry_interval: Some(0),
            topic_alias: NonZeroU16::new(9),
            response_topic: Some(topic("r/")),
            correlation_data: Some(b""),
            subscription_identifiers: [1, 268_435_455]
                .into_iter()
                .filter_map(SubscriptionIdentifier::new)
                .collect(),
            content_type: Some(""),
            user_properties: vec![user("b", "2"), user("a", "1")],
        },
    };
    check(
        V5,
        "32 30                ; PUBLISH QoS 1, 48 bytes
         00 00                ; no topic name
         00 01                ; packet identifier 1
         2A                   ; properties, 42 bytes
           01 00              ; Payload Format Indicator, bytes
           02 00 00 00 00     ; Message Expiry Interval 0 s
           23 00 09           ; Topic Alias 9
           08 00 02 72 2F     ; Response Topic r/
           09 00 00           ; Correlation Data, empty
           0B 01              ; Subscription Identifier 1
           0B FF FF FF 7F     ; Subscription Identifier 268,435,455
           03 00 00           ; Content Type, empty
           26 00 01 62 00 01 32 ; User Property b = 2
           26 00 01 61 00 01 31 ; User Property a = 1
         C0                   ; payload, not UTF-8",
        &Packet::Publish(publish),
    );
}

#[test]
fn acknowledgements_3() {
    for version in [V3_1, V3_1_1] {
        let ack = || Ack::new(id(0x0102), ReasonCode::SUCCESS);
        check(version, "40 02 01 02 ; PUBACK", &Packet::PubAck(ack()));
        check(version, "50 02 01 02 ; PUBREC", &Packet::PubRec(ack()));
        check(version, "62 02 01 02 ; PUBREL", &Packet::PubRel(ack()));
        check(version, "70 02 01 02 ; PUBCOMP", &Packet::PubComp(ack()));
    }
}

#[test]
fn acknowledgements_5_in_their_short_forms() {
    let ack = Ack::new(id(2), ReasonCode::SUCCESS);
    check(
        V5,
        "40 02 00 02 ; identifier only",
        &Packet::PubAck(ack.clone()),
    );
    check_decode(
        V5,
        "40 03 00 02 00 ; with the code",
        &Packet::PubAck(ack.clone()),
    );
    check_decode(
        V5,
        "40 04 00 02 00 00 ; with everything",
        &Packet::PubAck(ack),
    );

    let ack = Ack::new(id(2), ReasonCode::NO_MATCHING_SUBSCRIBERS);
    check(V5, "50 03 00 02 10", &Packet::PubRec(ack.clone()));
    check_decode(V5, "50 04 00 02 10 00", &Packet::PubRec(ack));

    let ack = Ack::new(id(2), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    check(V5, "62 03 00 02 92", &Packet::PubRel(ack.clone()));
    check(V5, "70 03 00 02 92", &Packet::PubComp(ack));
}

#[test]
fn acknowledgement_5_with_properties() {
    let ack = Ack {
        packet_id: id(3),
        reason_code: ReasonCode::SUCCESS,
        properties: AckProperties {
            reason_string: Some("r"),
            user_properties: vec![user("a", "b")],
        },
    };
    check(
        V5,
        "40 0F               ; PUBACK, 15 bytes
         00 03               ; packet identifier 3
         00                  ; success
         0B                  ; properties, 11 bytes
           1F 00 01 72       ; Reason String r
           26 00 01 61 00 01 62 ; User Property a = b",
        &Packet::PubAck(ack),
    );
}

#[test]
fn negative_acknowledgement_is_a_plain_one_before_5() {
    let ack = Ack::new(id(1), ReasonCode::QUOTA_EXCEEDED);
    assert_eq!(Packet::PubAck(ack).to_vec(V3_1_1).unwrap(), [0x40, 2, 0, 1]);
}

#[test]
fn subscribe_3() {
    let subscribe = Subscribe::new(
        id(10),
        vec![
            SubscribeFilter::new(filter("a/#"), QoS::AtMostOnce),
            SubscribeFilter::new(filter("+"), QoS::ExactlyOnce),
        ],
    );
    for version in [V3_1, V3_1_1] {
        check(
            version,
            "82 0C                ; SUBSCRIBE, 12 bytes
             00 0A                ; packet identifier 10
             00 03 61 2F 23 00    ; a/#, QoS 0
             00 01 2B 02          ; +, QoS 2",
            &Packet::Subscribe(subscribe.clone()),
        );
    }
    check_decode(
        V3_1,
        "8A 0C                ; SUBSCRIBE with DUP, which 3.1 has
         00 0A                ; packet identifier 10
         00 03 61 2F 23 00    ; a/#, QoS 0
         00 01 2B 02          ; +, QoS 2",
        &Packet::Subscribe(subscribe),
    );
}

#[test]
fn subscribe_5() {
    let mut subscribe = Subscribe::new(
        id(1),
        vec![
            SubscribeFilter {
                filter: filter("a"),
                options: SubscriptionOptions {
                    qos: QoS::AtLeastOnce,
                    no_local: true,
                    retain_as_published: true,
                    retain_handling: RetainHandling::Never,
                },
            },
            SubscribeFilter {
                filter: filter("$share/g/b"),
                options: SubscriptionOptions {
                    retain_handling: RetainHandling::IfNew,
                    ..SubscriptionOptions::new(QoS::AtMostOnce)
                },
            },
        ],
    );
    subscribe.properties = SubscribeProperties {
        subscription_identifier: SubscriptionIdentifier::new(128),
        user_properties: vec![user("a", "b")],
    };
    check(
        V5,
        "82 1E                ; SUBSCRIBE, 30 bytes
         00 01                ; packet identifier 1
         0A                   ; properties, 10 bytes
           0B 80 01           ; Subscription Identifier 128
           26 00 01 61 00 01 62 ; User Property a = b
         00 01 61             ; filter a
         2D                   ; Retain Handling 2, Retain As Published, No Local, QoS 1
         00 0A 24 73 68 61 72 65 2F 67 2F 62 ; filter $share/g/b
         10                   ; Retain Handling 1, QoS 0",
        &Packet::Subscribe(subscribe),
    );
}

#[test]
fn suback() {
    let suback = SubAck::new(
        id(1),
        vec![
            ReasonCode::GRANTED_QOS_0,
            ReasonCode::GRANTED_QOS_1,
            ReasonCode::GRANTED_QOS_2,
            ReasonCode::UNSPECIFIED_ERROR,
        ],
    );
    check(
        V3_1_1,
        "90 06 00 01 00 01 02 80 ; identifier 1, three grants and a failure",
        &Packet::SubAck(suback.clone()),
    );
    check(
        V5,
        "90 07 00 01 00 00 01 02 80 ; the same without properties",
        &Packet::SubAck(suback),
    );
    let suback = SubAck {
        packet_id: id(1),
        reason_codes: vec![ReasonCode::NOT_AUTHORIZED],
        properties: AckProperties {
            reason_string: Some("no"),
            user_properties: Vec::new(),
        },
    };
    assert_eq!(
        suback.encoded_len(V3_1_1),
        Ok(5),
        "a failure is 0x80, and there are no properties"
    );
    let packet = Packet::SubAck(suback);
    assert_eq!(packet.to_vec(V3_1_1).unwrap(), [0x90, 3, 0, 1, 0x80]);
    check(
        V5,
        "90 09               ; SUBACK, 9 bytes
         00 01               ; packet identifier 1
         05                  ; properties, 5 bytes
           1F 00 02 6E 6F    ; Reason String no
         87                  ; not authorized",
        &packet,
    );
}

#[test]
fn unsubscribe() {
    let mut unsubscribe = Unsubscribe::new(id(2), vec![filter("a"), filter("#")]);
    for version in [V3_1, V3_1_1] {
        check(
            version,
            "A2 08      ; UNSUBSCRIBE, 8 bytes
             00 02      ; packet identifier 2
             00 01 61   ; filter a
             00 01 23   ; filter #",
            &Packet::Unsubscribe(unsubscribe.clone()),
        );
    }
    unsubscribe.properties = UnsubscribeProperties {
        user_properties: vec![user("a", "b")],
    };
    check(
        V5,
        "A2 10      ; UNSUBSCRIBE, 16 bytes
         00 02      ; packet identifier 2
         07         ; properties, 7 bytes
           26 00 01 61 00 01 62 ; User Property a = b
         00 01 61   ; filter a
         00 01 23   ; filter #",
        &Packet::Unsubscribe(unsubscribe),
    );
}

#[test]
fn unsuback() {
    for version in [V3_1, V3_1_1] {
        check(
            version,
            "B0 02 00 02 ; packet identifier 2",
            &Packet::UnsubAck(UnsubAck::new(id(2), Vec::new())),
        );
    }
    let codes = vec![ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED];
    check(
        V5,
        "B0 05 00 02 00 00 11 ; identifier 2, no properties, two results",
        &Packet::UnsubAck(UnsubAck::new(id(2), codes)),
    );
}

#[test]
fn pings() {
    for version in ProtocolVersion::ALL {
        check(version, "C0 00", &Packet::PingReq);
        check(version, "D0 00", &Packet::PingResp);
    }
}

#[test]
fn disconnect() {
    let normal = Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
    for version in ProtocolVersion::ALL {
        check(version, "E0 00", &normal);
    }
    check_decode(V5, "E0 01 00", &normal);
    check_decode(V5, "E0 02 00 00", &normal);

    let with_will = Packet::Disconnect(Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL));
    check(V5, "E0 01 04", &with_will);
    assert_eq!(with_will.to_vec(V3_1_1).unwrap(), [0xE0, 0]);

    let disconnect = Disconnect {
        reason_code: ReasonCode::SERVER_MOVED,
        properties: DisconnectProperties {
            session_expiry_interval: Some(1),
            reason_string: Some("x"),
            server_reference: Some("y"),
            user_properties: vec![user("a", "b")],
        },
    };
    check(
        V5,
        "E0 16               ; DISCONNECT, 22 bytes
         9D                  ; server moved
         14                  ; properties, 20 bytes
           11 00 00 00 01    ; Session Expiry Interval 1 s
           1F 00 01 78       ; Reason String x
           1C 00 01 79       ; Server Reference y
           26 00 01 61 00 01 62 ; User Property a = b",
        &Packet::Disconnect(disconnect),
    );
}

#[test]
fn auth() {
    let success = Auth {
        reason_code: ReasonCode::SUCCESS,
        properties: AuthProperties::default(),
    };
    check(V5, "F0 00", &Packet::Auth(success.clone()));
    check_decode(V5, "F0 02 00 00", &Packet::Auth(success));

    let mut auth = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "M");
    auth.properties.authentication_data = Some(&[0xDE, 0xAD]);
    auth.properties.reason_string = Some("");
    auth.properties.user_properties = vec![user("a", "b")];
    check(
        V5,
        "F0 15               ; AUTH, 21 bytes
         18                  ; continue authentication
         13                  ; properties, 19 bytes
           15 00 01 4D       ; Authentication Method M
           16 00 02 DE AD    ; Authentication Data
           1F 00 00          ; Reason String, empty
           26 00 01 61 00 01 62 ; User Property a = b",
        &Packet::Auth(auth),
    );
}

/// The four sizes of a remaining length at their edges [MQTT-1.5.5-1].
#[test]
fn remaining_lengths_take_their_shortest_form() {
    let payload = vec![0x55; 2_097_152];
    for (remaining, field) in [
        (127, "7F"),
        (128, "80 01"),
        (16_383, "FF 7F"),
        (16_384, "80 80 01"),
        (2_097_151, "FF FF 7F"),
        (2_097_152, "80 80 80 01"),
    ] {
        let publish = Publish::new(topic("t"), &payload[..remaining - 3]);
        let bytes = Packet::Publish(publish.clone()).to_vec(V3_1_1).unwrap();
        let field = hex::bytes(field);
        assert_eq!(&bytes[1..=field.len()], field);
        let (decoded, len) = decode(&bytes, V3_1_1, u32::MAX).unwrap().unwrap();
        assert_eq!(decoded, Packet::Publish(publish));
        assert_eq!(len, bytes.len());
    }
}

/// U+FEFF is a character like any other [MQTT-1.5.4-3], and so are control characters,
/// non-characters and characters of four bytes.
#[test]
fn strings_keep_their_characters() {
    for text in [
        "\u{FEFF}a",
        "a\u{FEFF}",
        "\u{1}\u{7F}",
        "\u{FFFE}",
        "\u{10FFFF}",
        "𝄞",
    ] {
        let packet = Packet::Publish(Publish::new(topic(text), b""));
        let bytes = packet.to_vec(V5).unwrap();
        assert_eq!(decode(&bytes, V5, 1000).unwrap().unwrap().0, packet);
    }
}
