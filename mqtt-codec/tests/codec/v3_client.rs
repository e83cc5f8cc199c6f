//! What 3.1 and 3.1.1 demand of the packets that a client writes, checked on their bytes.

use mqtt_codec::{
    Connect, EncodeError, Packet, PacketId, ProtocolVersion, Publish, QoS, Subscribe,
    SubscribeFilter, TopicFilter, TopicName, Unsubscribe, Will,
};

const V3: [ProtocolVersion; 2] = [ProtocolVersion::V3_1, ProtocolVersion::V3_1_1];
const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
/// Characters of one to four bytes.
const TEXT: &str = "a\u{e9}\u{20ac}\u{1d11e}";
const UTF_8: &[u8] = b"a\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e";

fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::new(text).unwrap()
}

/// A string or binary data: two bytes of length, then the bytes.
fn field(bytes: &[u8]) -> Vec<u8> {
    [&[0, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// [MQTT3-3.1.2-11] [MQTT3-3.1.2-13] [MQTT3-3.1.2-14] [MQTT3-3.1.2-15] [MQTT3-3.1.2-18] [MQTT3-3.1.2-19]
/// [MQTT3-3.1.2-20] [MQTT3-3.1.2-21] [MQTT3-3.1.3-1] [MQTT3-3.1.3-3]: for every choice of optional fields the
/// flags say which are there, and the fields have their order.
#[test]
fn connect_flags_say_which_fields_follow() {
    let wills = EVERY_QOS.map(|qos| [(qos, false), (qos, true)]);
    let wills = wills.into_iter().flatten().map(Some).chain([None]);
    for (version, will) in V3
        .into_iter()
        .flat_map(|v| wills.clone().map(move |w| (v, w)))
    {
        for (username, password) in [(None, None), (Some("u"), None), (Some("u"), Some(b"p"))] {
            let mut connect = Connect::new(version, "c");
            connect.clean_start = false;
            connect.username = username;
            connect.password = password.map(|password| &password[..]);
            let mut flags = 0;
            let mut payload = field(b"c");
            if let Some((qos, retain)) = will {
                let mut will = Will::new(topic("w"), b"gone");
                (will.qos, will.retain) = (qos, retain);
                connect.will = Some(will);
                flags |= 0x04 | (qos as u8) << 3 | u8::from(retain) << 5;
                payload.extend(field(b"w"));
                payload.extend(field(b"gone"));
            }
            if username.is_some() {
                flags |= 0x80;
                payload.extend(field(b"u"));
            }
            if password.is_some() {
                flags |= 0x40;
                payload.extend(field(b"p"));
            }
            let bytes = Packet::Connect(connect.into()).to_vec(version).unwrap();
            // Fixed header, protocol name, level; the keep alive follows the flags.
            let at = 2 + 2 + version.name().len() + 1;
            assert_eq!(bytes[at], flags);
            assert_eq!(bytes[at + 3..], payload);
        }
    }
}

/// [MQTT3-3.1.2-22]: a password without a user name cannot be written.
#[test]
fn a_password_needs_a_user_name() {
    for version in V3 {
        let mut connect = Connect::new(version, "c");
        connect.password = Some(b"p");
        let error = Packet::Connect(connect.into()).to_vec(version).unwrap_err();
        assert_eq!(error, EncodeError::PasswordWithoutUsername);
    }
}

/// [MQTT3-3.1.3-4] [MQTT3-3.1.3-10] [MQTT3-3.1.3-11] [MQTT3-3.8.3-1] [MQTT3-3.10.3-1]: strings are written in UTF-8,
/// and filters one after the other without anything between them.
#[test]
fn strings_are_written_in_utf_8() {
    for version in V3 {
        let mut connect = Connect::new(version, TEXT);
        connect.will = Some(Will::new(topic(TEXT), b""));
        connect.username = Some(TEXT);
        let bytes = Packet::Connect(connect.into()).to_vec(version).unwrap();
        let text = field(UTF_8);
        assert!(bytes.ends_with(&[&text[..], &text, b"\0\0", &text].concat()));

        let id = PacketId::new(1).unwrap();
        let filters =
            ["x/#", TEXT].map(|text| SubscribeFilter::new(filter(text), QoS::AtLeastOnce));
        let bytes = Packet::Subscribe(Subscribe::new(id, filters.to_vec()))
            .to_vec(version)
            .unwrap();
        let body = [&b"\0\x01"[..], b"\0\x03x/#\x01", &text, b"\x01"].concat();
        assert_eq!(bytes[2..], body);

        let filters = ["x/#", TEXT].map(filter);
        let bytes = Packet::Unsubscribe(Unsubscribe::new(id, filters.to_vec()))
            .to_vec(version)
            .unwrap();
        assert_eq!(bytes[2..], [&b"\0\x01"[..], b"\0\x03x/#", &text].concat());
    }
}

/// [MQTT3-3.8.3-3] [MQTT3-3.10.3-2]: requests without a filter cannot be written.
#[test]
fn requests_have_a_filter() {
    let id = PacketId::new(1).unwrap();
    for version in V3 {
        for packet in [
            Packet::Subscribe(Subscribe::new(id, Vec::new())),
            Packet::Unsubscribe(Unsubscribe::new(id, Vec::new())),
        ] {
            let error = packet.to_vec(version).unwrap_err();
            assert_eq!(error, EncodeError::EmptyList(packet.packet_type()));
        }
    }
}

/// [MQTT3-2.3.1-1] [MQTT3-2.3.1-5]: PUBLISH has an identifier above QoS 0 and only there, and none is 0.
#[test]
fn publish_has_an_identifier_above_qos_0() {
    assert_eq!(PacketId::new(0), None);
    for version in V3 {
        for qos in EVERY_QOS {
            for packet_id in [None, PacketId::new(0x1234)] {
                let mut publish = Publish::new(topic("t"), b"x");
                (publish.qos, publish.packet_id) = (qos, packet_id);
                let written = Packet::Publish(publish).to_vec(version);
                match (qos, packet_id) {
                    (QoS::AtMostOnce, None) => assert_eq!(written.unwrap(), b"\x30\x04\0\x01tx"),
                    (QoS::AtMostOnce, Some(_)) => {
                        assert_eq!(written.unwrap_err(), EncodeError::PacketIdUnexpected);
                    }
                    (_, None) => assert_eq!(written.unwrap_err(), EncodeError::PacketIdMissing),
                    (_, Some(_)) => assert_eq!(written.unwrap()[2..], *b"\0\x01t\x12\x34x"),
                }
            }
        }
    }
}
