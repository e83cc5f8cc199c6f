//! The small values: what they are made of, how they are shown, and what is refused.

use bytes::BytesMut;
use mqtt_codec::{
    Ack, Auth, ConnAck, Connect, DecodeErrorKind, Disconnect, EncodeError, Frame, Packet, PacketId,
    PacketType, ProtocolVersion, Publish, QoS, ReasonCode, SubAck, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, UnsubAck, Unsubscribe, decode,
};

#[test]
fn qualities_of_service_are_two_bits() {
    for (bits, qos) in [
        (0, QoS::AtMostOnce),
        (1, QoS::AtLeastOnce),
        (2, QoS::ExactlyOnce),
    ] {
        assert_eq!(QoS::try_from(bits), Ok(qos));
        assert_eq!(u8::from(qos), bits);
        assert_eq!(ReasonCode::from(qos), ReasonCode(bits));
    }
    let error = QoS::try_from(3).unwrap_err();
    assert_eq!(error.to_string(), "3 is not a quality of service");
}

#[test]
fn packet_identifiers_are_never_zero() {
    assert_eq!(PacketId::new(0), None);
    let id = PacketId::new(65_535).unwrap();
    assert_eq!((u16::from(id), id.to_string().as_str()), (65_535, "65535"));
}

#[test]
fn values_are_shown() {
    let code = ReasonCode::QUOTA_EXCEEDED;
    assert_eq!(code.to_string(), format!("0x97 {}", code.name()));
    assert_eq!(
        format!("{code:?}"),
        format!("ReasonCode(0x97 {})", code.name())
    );
    let versions = ProtocolVersion::ALL.map(|version| version.to_string());
    assert_eq!(versions, ["3.1", "3.1.1", "5.0"]);
    assert_eq!(PacketType::PubComp.to_string(), "PUBCOMP");
}

#[test]
fn topics_are_texts() {
    let name = TopicName::try_from("a/b").unwrap();
    assert_eq!((name.to_string().as_str(), name.as_ref()), ("a/b", "a/b"));
    assert_eq!(TopicName::assume_valid("a/b"), name);
    TopicName::try_from("a/+").unwrap_err();
    let filter = TopicFilter::try_from("a/+").unwrap();
    assert_eq!(
        (filter.to_string().as_str(), filter.as_ref()),
        ("a/+", "a/+")
    );
    assert_eq!(TopicFilter::assume_valid("a/+"), filter);
    TopicFilter::try_from("a+").unwrap_err();
}

/// A debug build finds whoever wraps what is no topic.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "not a topic name")]
fn wildcards_are_no_topic_name() {
    let _ = TopicName::assume_valid("a/#");
}

/// The same of filters.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "not a topic filter")]
fn misplaced_wildcards_are_no_topic_filter() {
    let _ = TopicFilter::assume_valid("a/#/b");
}

/// One of each type.
fn packets() -> Vec<Packet<'static>> {
    let id = PacketId::MIN;
    let ack = || Ack::new(id, ReasonCode::SUCCESS);
    let filter = TopicFilter::assume_valid("a");
    vec![
        Packet::Connect(Connect::new(ProtocolVersion::V5, "client").into()),
        Packet::ConnAck(ConnAck::new(ReasonCode::SUCCESS).into()),
        Packet::Publish(Publish::new(TopicName::assume_valid("a"), b"1")),
        Packet::PubAck(ack()),
        Packet::PubRec(ack()),
        Packet::PubRel(ack()),
        Packet::PubComp(ack()),
        Packet::Subscribe(Subscribe::new(
            id,
            vec![SubscribeFilter::new(filter, QoS::AtMostOnce)],
        )),
        Packet::SubAck(SubAck::new(id, vec![ReasonCode::SUCCESS])),
        Packet::Unsubscribe(Unsubscribe::new(id, vec![filter])),
        Packet::UnsubAck(UnsubAck::new(id, vec![ReasonCode::SUCCESS])),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)),
        Packet::Auth(Auth::new(ReasonCode::SUCCESS, "method")),
    ]
}

#[test]
fn a_packet_has_the_type_that_its_frame_has() {
    let acks = [
        PacketType::PubAck,
        PacketType::PubRec,
        PacketType::PubRel,
        PacketType::PubComp,
    ];
    for (packet, packet_type) in packets().into_iter().zip(PacketType::ALL) {
        assert_eq!(packet.packet_type(), packet_type);
        assert_eq!(
            packet_type.is_publish_ack(),
            acks.contains(&packet_type),
            "{packet_type}"
        );
        let bytes = packet.to_vec(ProtocolVersion::V5).unwrap();
        let mut buffer = BytesMut::from(bytes.as_slice());
        let frame = Frame::split_from(&mut buffer, ProtocolVersion::V5, 100)
            .unwrap()
            .unwrap();
        assert!(buffer.is_empty());
        assert_eq!(frame.header().packet_type, packet_type);
        assert_eq!(frame.header().frame_len(), bytes.len());
        assert_eq!(frame.as_bytes(), bytes);
        assert_eq!(frame.packet(ProtocolVersion::V5), Ok(packet));
        assert_eq!(frame.into_bytes(), bytes);
    }
}

/// Section 3.2.2.3.4: 0 and 1 are the values of Maximum QoS, and nothing else is written.
#[test]
fn a_maximum_qos_of_two_is_left_out() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        connack.properties.maximum_qos = Some(qos);
        connack.encoded_len(ProtocolVersion::V5).unwrap();
    }
    connack.properties.maximum_qos = Some(QoS::ExactlyOnce);
    let error = connack.encoded_len(ProtocolVersion::V5).unwrap_err();
    assert_eq!(error, EncodeError::MaximumQos);
    assert_eq!(connack.encoded_len(ProtocolVersion::V3_1_1), Ok(4));
}

/// A sign of life says nothing, and AUTH is of 5.0 alone.
#[test]
fn what_a_packet_has_not_is_refused() {
    for (byte, place) in [(0xC0, "PINGREQ"), (0xD0, "PINGRESP")] {
        let error = decode(&[byte, 1, 0], ProtocolVersion::V5, 100).unwrap_err();
        assert_eq!(error.place(), place);
    }
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1] {
        let error = Auth::decode(&[], version).unwrap_err();
        assert_eq!(
            (error.kind(), error.place()),
            (DecodeErrorKind::PacketType(15), "AUTH")
        );
    }
    let nothing = UnsubAck::new(PacketId::MIN, Vec::new());
    nothing.encoded_len(ProtocolVersion::V5).unwrap_err();
    assert_eq!(nothing.encoded_len(ProtocolVersion::V3_1_1), Ok(4));
}

#[test]
fn refusals_have_return_codes_before_5() {
    for version in [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1] {
        for code in 0..=5 {
            let bytes = [0x20, 2, 0, code];
            let (packet, _) = decode(&bytes, version, u32::MAX).unwrap().unwrap();
            let Packet::ConnAck(connack) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(connack.reason_code.connect_code(version), code);
        }
        assert_eq!(ReasonCode::BANNED.connect_code(version), 3);
    }
    let code = ReasonCode::BANNED.connect_code(ProtocolVersion::V5);
    assert_eq!(code, ReasonCode::BANNED.0);
}
