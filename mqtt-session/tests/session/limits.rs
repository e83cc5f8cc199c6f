//! What the peer limits: size, quality of service, aliases; and what time limits: expiry.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use mqtt_codec::{ConnAck, Packet, PacketType, Publish, QoS, ReasonCode};
use mqtt_session::{ClientConfig, DropReason, Error, Event, Persistence, ServerLimits, Session};

use crate::{
    end::{End, V5, VERSIONS, connect, server},
    message::Message,
};

fn session() -> Session<Message> {
    Session::new(Persistence::Ephemeral)
}

/// The properties of all PUBLISHes that it writes now.
fn publishes<R>(end: &mut End, f: impl Fn(&Publish<'_>) -> R) -> Vec<R> {
    let mut out = Vec::new();
    assert!(!end.connection.poll_transmit(end.now, &mut out, 1_000));
    let mut rest = out.as_slice();
    let mut all = Vec::new();
    while let Some((packet, len)) = mqtt_codec::decode(rest, end.version, u32::MAX).unwrap() {
        rest = &rest[len..];
        if let Packet::Publish(publish) = packet {
            all.push(f(&publish));
        }
    }
    all
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn a_message_too_large_for_the_client_counts_as_delivered() {
    let mut connect = connect(V5);
    connect.properties.maximum_packet_size = NonZeroU32::new(22);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut end = End::server(session(), &ServerLimits::default(), &connect);
        let fits = if qos == QoS::AtMostOnce { 2 } else { 0 };
        let large = Message {
            padding: fits + 1,
            ..Message::new(1, qos)
        };
        end.connection.push(large.clone());
        end.connection.push(Message {
            padding: fits,
            ..Message::new(2, qos)
        });
        assert_eq!(end.written().len(), 1);
        assert_eq!(
            end.connection.poll_event(),
            Some(Event::Dropped(large, DropReason::TooLarge))
        );
        assert_eq!(end.connection.poll_event(), None);
    }
}

/// [MQTT-3.2.2-15] [MQTT-3.2.2-11]
#[test]
fn a_client_keeps_to_what_the_server_takes() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.maximum_packet_size = NonZeroU32::new(30);
    connack.properties.maximum_qos = Some(QoS::AtLeastOnce);
    let mut end = End::client(session(), ClientConfig::new(V5), &connack);
    end.push(1, QoS::ExactlyOnce);
    end.connection.push(Message {
        padding: 100,
        ..Message::new(2, QoS::AtLeastOnce)
    });
    end.push(3, QoS::AtLeastOnce);
    assert_eq!(end.written(), ["PUBLISH 1 q1 #3"]);
    let reasons: Vec<_> = std::iter::from_fn(|| end.connection.poll_event())
        .map(|event| match event {
            Event::Dropped(message, reason) => (message.key, reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        reasons,
        [(1, DropReason::QosNotSupported), (2, DropReason::TooLarge)]
    );
}

/// [MQTT-3.2.2-11] [MQTT-3.2.2-14] seen from the server.
#[test]
fn a_server_refuses_what_it_said_it_does_not_take() {
    let mut limits = ServerLimits::default();
    limits.maximum_qos = QoS::AtLeastOnce;
    limits.retain_available = false;
    let mut end = End::server(session(), &limits, &connect(V5));
    assert_eq!(
        end.publish(1, QoS::ExactlyOnce),
        Err(Error::QosNotSupported)
    );
    let mut publish = Publish::new(mqtt_codec::TopicName::new("t").unwrap(), b"");
    publish.retain = true;
    assert_eq!(end.publish_packet(&publish), Err(Error::RetainNotSupported));
    end.push(1, QoS::ExactlyOnce);
    assert_eq!(
        end.written().len(),
        1,
        "the limit is the client's, not the server's"
    );
}

/// [MQTT-3.3.2-5]
#[test]
fn a_message_that_expires_in_the_queue_is_dropped() {
    for version in VERSIONS {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut end = server(version, Persistence::Ephemeral);
            let message = Message {
                expires_at: Some(end.now + Duration::from_secs(5)),
                ..Message::new(1, qos)
            };
            end.connection.push(message.clone());
            end.now = end.now + Duration::from_secs(5);
            assert!(end.written().is_empty());
            assert_eq!(
                end.connection.poll_event(),
                Some(Event::Dropped(message, DropReason::Expired))
            );
        }
    }
}

/// [MQTT-3.3.2-6]
#[test]
fn the_remaining_expiry_is_sent() {
    let mut end = server(V5, Persistence::Ephemeral);
    let expires_at = Some(end.now + Duration::from_secs(10));
    end.connection.push(Message {
        expires_at,
        ..Message::new(1, QoS::AtLeastOnce)
    });
    end.push(2, QoS::AtLeastOnce);
    end.now = end.now + Duration::from_millis(3_200);
    let expiry = |publish: &Publish<'_>| publish.properties.message_expiry_interval;
    assert_eq!(publishes(&mut end, expiry), [Some(7), None]);
    let mut end = end.reconnect();
    end.now = end.now + Duration::from_secs(60);
    assert_eq!(publishes(&mut end, expiry), [Some(0), None]);
}

/// [MQTT-3.1.2-26] [MQTT-3.3.2-8] [MQTT-3.3.2-11] [MQTT-3.3.2-7]
#[test]
fn aliases_are_used_up_to_the_maximum_of_the_peer() {
    let mut connect = connect(V5);
    connect.properties.topic_alias_maximum = NonZeroU16::new(2).map(NonZeroU16::get);
    let mut end = End::server(session(), &ServerLimits::default(), &connect);
    let seen = |publish: &Publish<'_>| {
        let alias = publish.properties.topic_alias.map(NonZeroU16::get);
        (publish.topic.map(|topic| topic.as_str().to_owned()), alias)
    };
    let topic = |name: &str| Some(name.to_owned());
    for name in ["topic/1", "topic/2", "topic/1", "topic/3", "topic/2"] {
        end.connection.push(Message {
            topic: name.into(),
            ..Message::new(1, QoS::AtMostOnce)
        });
    }
    let expected = [
        (topic("topic/1"), Some(1)),
        (topic("topic/2"), Some(2)),
        (None, Some(1)),
        (topic("topic/3"), None),
        (None, Some(2)),
    ];
    assert_eq!(publishes(&mut end, seen), expected);
    let mut end = End::server(
        end.connection.into_session(),
        &ServerLimits::default(),
        &connect,
    );
    end.connection.push(Message {
        topic: "topic/2".into(),
        ..Message::new(1, QoS::AtMostOnce)
    });
    assert_eq!(publishes(&mut end, seen), [(topic("topic/2"), Some(1))]);
}

/// [MQTT-3.1.2-27] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
#[test]
fn no_alias_is_used_unless_both_ends_allow_it() {
    let alias = |publish: &Publish<'_>| publish.properties.topic_alias;
    let mut end = server(V5, Persistence::Ephemeral);
    end.push(1, QoS::AtMostOnce);
    assert_eq!(publishes(&mut end, alias), [None]);

    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.topic_alias_maximum = Some(10);
    let mut config = ClientConfig::new(V5);
    config.topic_alias_limit = 0;
    let mut end = End::client(session(), config, &connack);
    end.push(1, QoS::AtMostOnce);
    assert_eq!(publishes(&mut end, alias), [None]);
}

/// An alias costs three bytes at first: a packet that would not fit with it goes without.
#[test]
fn an_alias_does_not_make_a_packet_too_large() {
    let mut connect = connect(V5);
    connect.properties.topic_alias_maximum = Some(1);
    connect.properties.maximum_packet_size = NonZeroU32::new(20);
    let mut end = End::server(session(), &ServerLimits::default(), &connect);
    end.push(1, QoS::AtMostOnce);
    assert_eq!(
        publishes(&mut end, |publish| publish.properties.topic_alias),
        [None]
    );
}

/// A client that asks for it is told of QoS 0 messages too.
#[test]
fn qos_0_is_reported_on_request() {
    let mut config = ClientConfig::new(V5);
    config.report_sent = true;
    let mut end = End::client(session(), config, &ConnAck::new(ReasonCode::SUCCESS));
    end.push(1, QoS::AtMostOnce);
    end.push(2, QoS::AtLeastOnce);
    end.written();
    assert_eq!(
        end.connection.poll_event(),
        Some(Event::Sent(Message::new(1, QoS::AtMostOnce)))
    );
    assert_eq!(end.connection.poll_event(), None);
    assert_eq!(end.completes(PacketType::PubAck, 1), Some(2));
}

/// [MQTT-3.3.2-9]: a client uses no alias above what the server announced, and none if it announced none.
#[test]
fn a_client_uses_the_aliases_of_the_server() {
    for maximum in [None, Some(0), Some(1), Some(3)] {
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        connack.properties.topic_alias_maximum = maximum;
        let mut end = End::client(session(), ClientConfig::new(V5), &connack);
        for number in 0..6 {
            end.connection.push(Message {
                topic: format!("topic/{number}"),
                ..Message::new(1, QoS::AtMostOnce)
            });
        }
        let aliases = publishes(&mut end, |publish| {
            publish.properties.topic_alias.map_or(0, NonZeroU16::get)
        });
        assert_eq!(aliases.iter().max(), Some(&maximum.unwrap_or(0)));
    }
}

/// [MQTT-3.3.4-8]: a client whose send quota is used up still acknowledges, releases and pings.
#[test]
fn other_packets_do_not_wait_for_the_quota() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.receive_maximum = NonZeroU16::new(1);
    let mut end = End::client(session(), ClientConfig::new(V5), &connack);
    end.push(1, QoS::ExactlyOnce);
    end.push(2, QoS::AtLeastOnce);
    assert_eq!(end.written(), ["PUBLISH 1 q2 #1"]);
    let token = end.publish(7, QoS::AtLeastOnce).unwrap().unwrap();
    end.connection.accept(token, mqtt_session::Durability::Now);
    end.connection.ping();
    assert_eq!(end.written(), ["PUBACK 7", "PINGREQ"]);
    end.ack(PacketType::PubRec, 1).unwrap();
    assert_eq!(end.written(), ["PUBREL 1"]);
    end.completes(PacketType::PubComp, 1);
    assert_eq!(end.written(), ["PUBLISH 2 q1 #2"]);
}
