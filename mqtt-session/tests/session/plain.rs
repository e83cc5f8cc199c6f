//! A PUBLISH that the caller recognised as plain is treated as any other; and what an error says to the peer.

use mqtt_codec::{FixedHeader, PacketType, PlainPublish, Publish, QoS, ReasonCode, TopicName};
use mqtt_session::{
    Blame, ClientConfig, Connection, Durability, Error, Persistence, Role, ServerLimits, Session,
    Token,
};

use crate::end::{End, NOW, V5, VERSIONS, connect, every_end, id};
use crate::message::Message;

const TOPIC: &str = "a/topic";

/// The peer sends a message, which is recognised as plain before it is handled.
fn publish_plain(end: &mut End, packet_id: u16, qos: QoS) -> Result<Option<Token>, Error> {
    let mut publish = Publish::new(TopicName::new(TOPIC).unwrap(), &[0; 8]);
    publish.qos = qos;
    publish.packet_id = (qos != QoS::AtMostOnce).then(|| id(packet_id));
    let mut bytes = Vec::new();
    publish.encode(end.version, &mut bytes).unwrap();
    let header = FixedHeader::parse(&bytes).unwrap().unwrap();
    let body = &bytes[usize::from(header.header_len)..];
    let plain = PlainPublish::recognize(header, body, end.version, TopicName::assume_valid(TOPIC))
        .expect("a plain one");
    assert_eq!((plain.qos(), plain.packet_id()), (qos, publish.packet_id));
    end.connection.handle_plain_publish(NOW, plain)
}

fn publish(end: &mut End, packet_id: u16, qos: QoS) -> Result<Option<Token>, Error> {
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { packet_id };
    end.publish(packet_id, qos)
}

/// Both ways give the same verdicts, tokens and acknowledgements, duplicates included.
#[test]
fn both_ways_are_one() {
    let steps = [
        (1, QoS::AtLeastOnce),
        (2, QoS::ExactlyOnce),
        (9, QoS::AtMostOnce),
        (2, QoS::ExactlyOnce),
        (1, QoS::AtLeastOnce),
        (3, QoS::ExactlyOnce),
    ];
    let plain = every_end(Persistence::Durable);
    let whole = every_end(Persistence::Durable);
    for (mut plain, mut whole) in plain.zip(whole) {
        for (packet_id, qos) in steps {
            let one = publish_plain(&mut plain, packet_id, qos).unwrap();
            let other = publish(&mut whole, packet_id, qos).unwrap();
            let seen = |token: &Token| (token.qos(), token.packet_id());
            assert_eq!(one.as_ref().map(seen), other.as_ref().map(seen));
            if let Some(token) = &one {
                let packet_id = (qos != QoS::AtMostOnce).then(|| id(packet_id));
                assert_eq!(seen(token), (qos, packet_id));
            }
            for (end, token) in [(&mut plain, one), (&mut whole, other)] {
                if let Some(token) = token {
                    end.connection.accept(token, Durability::Now);
                }
            }
            assert_eq!(plain.changes(), whole.changes());
            plain.sync();
            whole.sync();
        }
        assert_eq!(plain.written(), whole.written());
    }
}

/// [MQTT-3.2.2-11] holds for them as well.
#[test]
fn a_plain_message_above_the_maximum_is_refused() {
    let mut limits = ServerLimits::default();
    limits.maximum_qos = QoS::AtLeastOnce;
    let session = Session::new(Persistence::Ephemeral);
    let mut end = End::server(session, &limits, &connect(V5));
    assert!(publish_plain(&mut end, 1, QoS::AtLeastOnce).is_ok());
    let error = publish_plain(&mut end, 2, QoS::ExactlyOnce).unwrap_err();
    assert_eq!(error, Error::QosNotSupported);
}

/// Nothing may come before CONNACK.
#[test]
fn a_plain_message_before_connack_is_refused() {
    let header = FixedHeader::parse(&[0x30, 4]).unwrap().unwrap();
    for version in VERSIONS {
        let session = Session::<Message>::new(Persistence::Ephemeral);
        let mut client = Connection::client(session, ClientConfig::new(version), NOW);
        let body: &[u8] = &[0, 1, b'a', 0];
        let plain = PlainPublish::recognize(header, body, version, TopicName::assume_valid("a"))
            .expect("a plain one");
        let packet_type = PacketType::Publish;
        let refused = client.handle_plain_publish(NOW, plain).unwrap_err();
        assert_eq!(refused, Error::NotConnected { packet_type });
        assert_eq!(refused.clause(), "MQTT-3.2.0-1");
    }
}

/// Each error tells the peer what the standard has for it.
#[test]
fn errors_have_a_reason_code_and_a_clause() {
    let limit = |sender| Error::ReceiveMaximumExceeded { limit: 1, sender };
    let alias = |alias, sender| Error::TopicAliasInvalid {
        alias,
        maximum: 1,
        sender,
    };
    let packet_type = PacketType::PingReq;
    let reason = ReasonCode::BANNED;
    let all = [
        (limit(Role::Client), ReasonCode(0x93), "MQTT-3.3.4-7"),
        (limit(Role::Server), ReasonCode(0x93), "MQTT-3.3.4-9"),
        (alias(0, Role::Server), ReasonCode(0x94), "MQTT-3.3.2-8"),
        (alias(2, Role::Client), ReasonCode(0x94), "MQTT-3.3.2-9"),
        (alias(2, Role::Server), ReasonCode(0x94), "MQTT-3.3.2-11"),
        (Error::QosNotSupported, ReasonCode(0x9B), "MQTT-3.2.2-11"),
        (Error::RetainNotSupported, ReasonCode(0x9A), "MQTT-3.2.2-14"),
        (Error::Refused { reason }, reason, "MQTT-3.2.2-7"),
        (Error::PacketIdMissing, ReasonCode(0x83), "MQTT-2.2.1-3"),
        (
            Error::NotAnAck { packet_type },
            ReasonCode(0x83),
            "MQTT-4.13.1-1",
        ),
        (Error::SecondConnAck, ReasonCode(0x82), "MQTT-3.2.0-2"),
        (Error::SessionPresent, ReasonCode(0x82), "MQTT-3.2.2-4"),
        (
            Error::SubscriptionIdentifierSent,
            ReasonCode(0x82),
            "MQTT-3.3.4-6",
        ),
        (Error::TopicMissing, ReasonCode(0x82), "MQTT-4.13.1-1"),
    ];
    for (error, reason, clause) in all {
        assert_eq!((error.reason_code(), error.clause()), (reason, clause));
        let ours = matches!(error, Error::NotAnAck { .. } | Error::PacketIdMissing);
        assert_eq!(error.blame() == Blame::Caller, ours, "{error}");
    }
}

/// A session says how many messages it wants, and whether a store keeps it.
#[test]
fn a_queue_has_a_window() {
    let mut session = Session::new(Persistence::Durable);
    assert_eq!(session.persistence(), Persistence::Durable);
    session.set_window(2);
    assert_eq!((session.wanted(), session.has_room()), (2, true));
    session.push(Message::new(1, QoS::AtLeastOnce));
    assert_eq!((session.wanted(), session.has_room()), (1, true));
    session.push(Message::new(2, QoS::AtLeastOnce));
    session.push(Message::new(3, QoS::AtLeastOnce));
    assert_eq!((session.wanted(), session.has_room()), (0, false));
}
