//! Every packet of every version comes back from its bytes, without what the version cannot carry.

use mqtt_codec::{
    AckProperties, ConnAck, Disconnect, FixedHeader, Packet, PacketType, PlainAck, PlainPublish,
    ProtocolVersion, Publish, ReasonCode, SubscriptionOptions, TopicFilter, TopicName, decode,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate;

/// What is left of a packet that travels in this version.
fn carried<'a>(version: ProtocolVersion, packet: &Packet<'a>) -> Packet<'a> {
    let mut packet = packet.clone();
    if version == ProtocolVersion::V5 {
        return packet;
    }
    match &mut packet {
        Packet::Connect(connect) => {
            connect.properties = Default::default();
            if let Some(will) = &mut connect.will {
                will.properties = Default::default();
            }
        }
        Packet::ConnAck(connack) => {
            let reason = connack.reason_code.0;
            let session_present = connack.session_present && version == ProtocolVersion::V3_1_1;
            **connack = ConnAck::new(match reason {
                0 | 0x84..=0x88 => ReasonCode(reason),
                _ => ReasonCode::SERVER_UNAVAILABLE,
            });
            connack.session_present = session_present;
        }
        Packet::Publish(publish) => publish.properties = Default::default(),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.reason_code = ReasonCode::SUCCESS;
            ack.properties = AckProperties::default();
        }
        Packet::Subscribe(subscribe) => {
            subscribe.properties = Default::default();
            for filter in &mut subscribe.filters {
                filter.options = SubscriptionOptions::new(filter.options.qos);
            }
        }
        Packet::SubAck(suback) => {
            suback.properties = AckProperties::default();
            for code in &mut suback.reason_codes {
                if code.is_error() {
                    *code = ReasonCode::UNSPECIFIED_ERROR;
                }
            }
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.properties = Default::default(),
        Packet::UnsubAck(unsuback) => {
            unsuback.properties = AckProperties::default();
            unsuback.reason_codes.clear();
        }
        Packet::Disconnect(disconnect) => {
            *disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        }
        Packet::PingReq | Packet::PingResp | Packet::Auth(_) => {}
    }
    packet
}

/// What decodes, encodes; and what that gives, decodes to the same.
fn check_bytes(bytes: &[u8], version: ProtocolVersion) {
    if let Ok(Some((packet, len))) = decode(bytes, version, u32::MAX) {
        assert!(len <= bytes.len());
        let written = packet.to_vec(version).unwrap();
        let (again, written_len) = decode(&written, version, u32::MAX).unwrap().unwrap();
        assert_eq!(again, packet);
        assert_eq!(written_len, written.len());
    }
}

/// The rule of section 4.7, level by level, as plainly as can be.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        ([level, filter @ ..], [name, topic @ ..]) => {
            (*level == "+" || level == name) && matches(filter, topic)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn packets_come_back((version, packet) in generate::any_packet()) {
        let bytes = packet.to_vec(version).unwrap();
        prop_assert_eq!(packet.encoded_len(version), Ok(bytes.len()));
        let limit = bytes.len() as u32;
        let (decoded, len) = decode(&bytes, version, limit).unwrap().unwrap();
        prop_assert_eq!(&decoded, &carried(version, &packet));
        prop_assert_eq!(len, bytes.len());
        prop_assert_eq!(&decoded.to_vec(version).unwrap(), &bytes);
        if let Packet::Publish(publish) = &packet {
            let mut parts = Vec::new();
            publish.encode_head(version, &mut parts).unwrap();
            parts.extend_from_slice(publish.payload);
            prop_assert_eq!(parts, bytes);
        }
    }

    /// A PUBLISH for a topic that is known is the same packet as for one that is not.
    #[test]
    fn known_topics_change_nothing(
        (version, packet) in generate::any_packet(),
        other in generate::topic(),
        damage in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let own = match &packet {
            Packet::Publish(publish) => publish.topic,
            _ => None,
        };
        let mut bytes = packet.to_vec(version).unwrap();
        let head = usize::from(FixedHeader::parse(&bytes).unwrap().unwrap().header_len);
        if let Some((index, byte)) = damage.filter(|_| bytes.len() > head) {
            *index.get_mut(&mut bytes[head..]) = byte;
        }
        let header = FixedHeader::parse(&bytes).unwrap().unwrap();
        let body = &bytes[head..];
        for known in own.into_iter().chain([other]) {
            let decoded = Publish::decode(header.flags, body, version);
            if header.packet_type == PacketType::Publish
                && let Some(publish) = Publish::decode_knowing(header.flags, body, version, known)
            {
                prop_assert_eq!(&publish, &decoded);
            }
            let plain = decoded
                .ok()
                .filter(|publish| {
                    let (qos, packet_id) = (publish.qos, publish.packet_id);
                    let bare = Publish { qos, packet_id, ..Publish::new(known, publish.payload) };
                    header.packet_type == PacketType::Publish && *publish == bare
                })
                .map(|publish| (publish.qos, publish.packet_id));
            let recognized = PlainPublish::recognize(header, body, version, known)
                .map(|plain| (plain.qos(), plain.packet_id()));
            prop_assert_eq!(recognized, plain);
        }
    }

    /// An acknowledgement of four bytes is the same one without the general decoder, and nothing else is.
    #[test]
    fn the_shortest_acknowledgements_are_recognized(
        first in 0x3E_u8..=0x80,
        length in 0_u8..6,
        mut rest in vec(0_u8..3, 0..6),
        version in generate::version(),
    ) {
        rest.splice(0..0, [first, length]);
        let decoded = decode(&rest, version, u32::MAX).ok().flatten();
        let ack = decoded.filter(|(_, len)| *len == PlainAck::LEN).and_then(|(packet, _)| {
            let packet_type = packet.packet_type();
            match packet {
                Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
                    PlainAck::new(packet_type, ack.packet_id)
                }
                _ => None,
            }
        });
        // The DUP flag that 3.1 has on PUBREL is not of the shortest form.
        let ack = ack.filter(|_| first != 0x6A);
        prop_assert_eq!(PlainAck::recognize(&rest), ack);
        if let Some(ack) = ack {
            let bytes = ack.to_bytes();
            prop_assert_eq!(&bytes[..], &rest[..PlainAck::LEN]);
        }
    }

    #[test]
    fn damaged_packets_do_no_harm(
        (version, packet) in generate::any_packet(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = packet.to_vec(version).unwrap();
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        for version in ProtocolVersion::ALL {
            check_bytes(&bytes, version);
            check_bytes(&bytes[cut.index(bytes.len())..], version);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..64), version in generate::version()) {
        check_bytes(&bytes, version);
    }

    #[test]
    fn filters_match_as_the_plain_rule_says(
        filter in generate::filter(),
        topic in generate::topic(),
    ) {
        let inner = filter.shared().map_or(filter, |shared| shared.filter);
        let levels: Vec<_> = inner.levels().collect();
        let names: Vec<_> = topic.levels().collect();
        let hidden = topic.is_dollar() && matches!(levels[0], "+" | "#");
        prop_assert_eq!(filter.matches(topic), !hidden && matches(&levels, &names));
    }

    #[test]
    fn any_text_is_a_topic_or_is_not(text in "[a$/+#\0é]{0,8}") {
        let name = TopicName::new(&text).is_ok();
        prop_assert_eq!(name, !text.is_empty() && !text.contains(['\0', '+', '#']));
        if let Ok(filter) = TopicFilter::new(&text) {
            prop_assert_eq!(filter.has_wildcards(), !name);
        }
    }
}
