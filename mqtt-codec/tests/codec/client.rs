//! What 5.0 demands of the packets that a client writes, where the encoder has a say in it.

use mqtt_codec::{
    Connect, EncodeError, Packet, PacketId, ProtocolVersion, QoS, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, Unsubscribe, Will,
};

const V5: ProtocolVersion = ProtocolVersion::V5;

fn encoded(connect: &Connect<'_>) -> Vec<u8> {
    Packet::Connect(Box::new(connect.clone()))
        .to_vec(V5)
        .unwrap()
}

/// The flags of CONNECT: after the fixed header, the name of the protocol and its level.
fn flags(connect: &Connect<'_>) -> u8 {
    encoded(connect)[9]
}

/// [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]: without a will its QoS and RETAIN are 0; with one they are its own.
#[test]
fn the_will_has_its_flags() {
    let mut connect = Connect::new(V5, "id");
    connect.clean_start = true;
    assert_eq!(flags(&connect), 0b0000_0010);
    for (qos, bits) in [
        (QoS::AtMostOnce, 0b0000_0000),
        (QoS::AtLeastOnce, 0b0000_1000),
        (QoS::ExactlyOnce, 0b0001_0000),
    ] {
        for retain in [false, true] {
            let mut will = Will::new(TopicName::new("will").unwrap(), b"gone");
            will.qos = qos;
            will.retain = retain;
            connect.will = Some(will);
            let expected = 0b0000_0110 | bits | u8::from(retain) << 5;
            assert_eq!(flags(&connect), expected);
        }
    }
}

/// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19]: user name and password are in the payload exactly
/// when their flags are set.
#[test]
fn credentials_are_there_when_their_flags_are() {
    for (username, password, bits, rest) in [
        (None, None, 0, &b""[..]),
        (Some("user"), None, 0b1000_0000, b"\0\x04user"),
        (
            Some("user"),
            Some(&b"pass"[..]),
            0b1100_0000,
            b"\0\x04user\0\x04pass",
        ),
        (None, Some(b"pass"), 0b0100_0000, b"\0\x04pass"),
    ] {
        let mut connect = Connect::new(V5, "id");
        connect.clean_start = false;
        connect.username = username;
        connect.password = password;
        assert_eq!(flags(&connect), bits);
        let bytes = encoded(&connect);
        let payload = bytes.split_at(bytes.len() - 4 - rest.len()).1;
        assert_eq!(payload, [b"\0\x02id", rest].concat());
    }
}

/// [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]: the payload is client identifier, will
/// properties, will topic, will payload, user name and password, the texts in UTF-8.
#[test]
fn the_payload_of_connect_has_its_order() {
    let mut connect = Connect::new(V5, "n\u{e4}me");
    connect.username = Some("\u{fc}ser");
    connect.password = Some(b"pass");
    let mut will = Will::new(TopicName::new("t\u{f6}pic").unwrap(), b"gone");
    will.properties.delay_interval = Some(1);
    connect.will = Some(will);
    let payload = [
        &b"\0\x05n\xc3\xa4me"[..],
        b"\x05\x18\0\0\0\x01",
        b"\0\x06t\xc3\xb6pic",
        b"\0\x04gone",
        b"\0\x05\xc3\xbcser",
        b"\0\x04pass",
    ]
    .concat();
    assert!(encoded(&connect).ends_with(&payload));
    // An empty identifier is there as well.
    let bytes = encoded(&Connect::new(V5, ""));
    assert!(bytes.ends_with(b"\0\0"));
}

/// [MQTT-3.8.3-1] [MQTT-3.8.3-2] [MQTT-3.10.3-1] [MQTT-3.10.3-2]: SUBSCRIBE and UNSUBSCRIBE bear filters in UTF-8, and
/// are not written without one.
#[test]
fn requests_have_filters() {
    let id = PacketId::new(1).unwrap();
    let filter = TopicFilter::new("\u{e4}/#").unwrap();
    let subscribe = Subscribe::new(id, vec![SubscribeFilter::new(filter, QoS::AtMostOnce)]);
    let bytes = Packet::Subscribe(subscribe).to_vec(V5).unwrap();
    assert!(bytes.ends_with(b"\0\x04\xc3\xa4/#\0"));
    let unsubscribe = Unsubscribe::new(id, vec![filter]);
    let bytes = Packet::Unsubscribe(unsubscribe).to_vec(V5).unwrap();
    assert!(bytes.ends_with(b"\0\x04\xc3\xa4/#"));
    for packet in [
        Packet::Subscribe(Subscribe::new(id, Vec::new())),
        Packet::Unsubscribe(Unsubscribe::new(id, Vec::new())),
    ] {
        assert!(matches!(packet.to_vec(V5), Err(EncodeError::EmptyList(_))));
    }
}

/// [MQTT-3.8.3-4]: No Local for a shared subscription is not written.
#[test]
fn a_shared_subscription_has_no_no_local() {
    let filter = TopicFilter::new("$share/group/a").unwrap();
    let mut wanted = SubscribeFilter::new(filter, QoS::AtMostOnce);
    wanted.options.no_local = true;
    let subscribe = Subscribe::new(PacketId::new(1).unwrap(), vec![wanted]);
    assert_eq!(
        Packet::Subscribe(subscribe).to_vec(V5),
        Err(EncodeError::NoLocalShared)
    );
}
