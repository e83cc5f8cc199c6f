//! Section 4.3 on the side that receives, and the order of acknowledgements.

use mqtt_codec::{PacketType, Publish, QoS, ReasonCode, TopicName};
use mqtt_session::{Durability, Error, Persistence, Role, Verdict};

use crate::end::{NOW, V5, client, every_end, id, server};

/// [MQTT-3.3.4-1] [MQTT-4.3.1-1]
#[test]
fn qos_0_is_not_acknowledged() {
    for mut end in every_end(Persistence::Durable) {
        end.take(0, QoS::AtMostOnce);
        assert!(end.written().is_empty());
        assert_eq!(end.connection.unsent_acks(), 0);
    }
}

/// [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.5.0-2] [MQTT3-4.3.2-2] [MQTT3-4.5.0-2]
#[test]
fn qos_1_is_acknowledged_and_its_identifier_is_free() {
    for mut end in every_end(Persistence::Durable) {
        for _ in 0..2 {
            end.take(7, QoS::AtLeastOnce);
            assert_eq!(end.written(), ["PUBACK 7"]);
        }
    }
}

/// [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]
#[test]
fn qos_2_is_delivered_once_until_pubrel() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.take(7, QoS::ExactlyOnce);
        assert_eq!(end.written(), ["PUBREC 7"]);
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert_eq!(end.written(), ["PUBREC 7"]);
        end.ack(PacketType::PubRel, 7).unwrap();
        assert_eq!(end.written(), ["PUBCOMP 7"]);
        end.take(7, QoS::ExactlyOnce);
        assert_eq!(end.written(), ["PUBREC 7"]);
    }
}

/// [MQTT-4.3.3-10] across connections: the identifiers outlive them.
#[test]
fn qos_2_identifiers_survive_the_connection() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.take(7, QoS::ExactlyOnce);
        let mut end = end.reconnect();
        assert!(end.written().is_empty());
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert_eq!(end.written(), ["PUBREC 7"]);
        let mut end = end.reconnect();
        end.ack(PacketType::PubRel, 7).unwrap();
        assert_eq!(end.written(), ["PUBCOMP 7"]);
        assert_eq!(end.connection.session().received_len(), 0);
    }
}

/// What was not accepted is not ours.
#[test]
fn an_unaccepted_message_comes_again_as_new() {
    for mut end in every_end(Persistence::Ephemeral) {
        let old = end.publish(7, QoS::ExactlyOnce).unwrap().unwrap();
        let mut end = end.reconnect();
        let new = end
            .publish(7, QoS::ExactlyOnce)
            .unwrap()
            .expect("a new message");
        assert_eq!(end.connection.accept(old, Durability::Now), None);
        assert!(end.written().is_empty(), "a token ends with its connection");
        end.connection.accept(new, Durability::Now);
        assert_eq!(end.written(), ["PUBREC 7"]);
    }
}

/// [MQTT-4.3.3-9]
#[test]
fn after_a_negative_pubrec_the_identifier_is_free() {
    let mut end = server(V5, Persistence::Durable);
    for _ in 0..2 {
        let token = end
            .publish(7, QoS::ExactlyOnce)
            .unwrap()
            .expect("a new message");
        end.connection.reject(token, ReasonCode::NOT_AUTHORIZED);
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert_eq!(end.written(), ["PUBREC 7 0x87"]);
        assert!(end.changes().is_empty());
    }
}

/// [MQTT-3.4.2-1]; [MQTT3-3.3.5-2]: v3 has no negative acknowledgement.
#[test]
fn a_rejected_message_is_acknowledged() {
    for mut end in every_end(Persistence::Ephemeral) {
        let token = end.publish(1, QoS::AtLeastOnce).unwrap().unwrap();
        end.connection.reject(token, ReasonCode::NOT_AUTHORIZED);
        let token = end.publish(2, QoS::ExactlyOnce).unwrap().unwrap();
        end.connection.reject(token, ReasonCode::NOT_AUTHORIZED);
        if end.has_reason_codes() {
            assert_eq!(end.written(), ["PUBACK 1 0x87", "PUBREC 2 0x87"]);
        } else {
            assert_eq!(end.written(), ["PUBACK 1", "PUBREC 2"]);
            assert_eq!(end.publish(2, QoS::ExactlyOnce), Ok(None));
        }
    }
}

/// Section 3.4.2.1: 0x10 tells that there was no subscriber.
#[test]
fn a_message_is_accepted_with_a_reason() {
    let mut end = server(V5, Persistence::Ephemeral);
    for (packet_id, qos) in [(1, QoS::AtLeastOnce), (2, QoS::ExactlyOnce)] {
        let token = end.publish(packet_id, qos).unwrap().unwrap();
        end.connection
            .accept_with(token, ReasonCode::NO_MATCHING_SUBSCRIBERS, Durability::Now);
    }
    assert_eq!(end.written(), ["PUBACK 1 0x10", "PUBREC 2 0x10"]);
}

/// [MQTT-4.6.0-2] [MQTT-4.6.0-3]
#[test]
fn acknowledgements_leave_in_the_order_of_the_messages() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let name = if qos == QoS::AtLeastOnce {
            "PUBACK"
        } else {
            "PUBREC"
        };
        for mut end in every_end(Persistence::Ephemeral) {
            let tokens: Vec<_> = [5, 9, 3]
                .iter()
                .map(|id| end.publish(*id, qos).unwrap().unwrap())
                .collect();
            end.connection.accept(tokens[2], Durability::Now);
            assert!(end.written().is_empty());
            end.connection.accept(tokens[0], Durability::Now);
            assert_eq!(end.written(), [format!("{name} 5")]);
            assert_eq!(end.connection.unsent_acks(), 2);
            end.connection.reject(tokens[1], ReasonCode::SUCCESS);
            assert_eq!(end.written(), [format!("{name} 9"), format!("{name} 3")]);
        }
    }
}

/// Only the order within one quality of service is prescribed.
#[test]
fn qos_1_and_2_do_not_hold_each_other_back() {
    let mut end = server(V5, Persistence::Ephemeral);
    let first = end.publish(1, QoS::ExactlyOnce).unwrap().unwrap();
    end.take(2, QoS::AtLeastOnce);
    assert_eq!(end.written(), ["PUBACK 2"]);
    end.connection.accept(first, Durability::Now);
    assert_eq!(end.written(), ["PUBREC 1"]);
}

/// A token used late or twice is without effect.
#[test]
fn a_token_ends_once() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut end = server(V5, Persistence::Ephemeral);
        let token = end.publish(1, qos).unwrap().unwrap();
        end.connection.accept(token, Durability::Now);
        end.connection.reject(token, ReasonCode::NOT_AUTHORIZED);
        assert_eq!(end.written().len(), 1);
        if qos == QoS::ExactlyOnce {
            end.ack(PacketType::PubRel, 1).unwrap();
            end.written();
        }
        let _open = end.publish(1, qos).unwrap().unwrap();
        end.connection.accept(token, Durability::Now);
        assert!(end.written().is_empty());
    }
}

/// [MQTT-3.7.2-1]
#[test]
fn pubrel_of_an_unknown_identifier_is_answered() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.ack(PacketType::PubRel, 4).unwrap();
        assert_eq!(
            end.written(),
            [if end.has_reason_codes() {
                "PUBCOMP 4 0x92"
            } else {
                "PUBCOMP 4"
            }]
        );
    }
}

#[test]
fn pubrel_before_pubrec_is_an_error() {
    let mut end = server(V5, Persistence::Ephemeral);
    let _open = end.publish(4, QoS::ExactlyOnce).unwrap().unwrap();
    let error = end.ack(PacketType::PubRel, 4).unwrap_err();
    assert_eq!(
        error,
        Error::UnexpectedAck {
            packet_type: PacketType::PubRel,
            packet_id: id(4)
        }
    );
}

/// [MQTT-3.3.2-7] [MQTT-3.3.2-10] [MQTT-3.3.2-12]
#[test]
fn aliases_resolve_until_the_connection_ends() {
    let mut end = server(V5, Persistence::Ephemeral);
    let mut publish = Publish::new(TopicName::new("some/topic").unwrap(), b"");
    publish.properties.topic_alias = std::num::NonZeroU16::new(16);
    end.publish_packet(&publish).unwrap();
    publish.topic = None;
    match end.connection.handle_publish(NOW, &publish).unwrap() {
        Verdict::Deliver(message) => assert_eq!(message.topic.as_str(), "some/topic"),
        Verdict::Duplicate => panic!("QoS 0"),
    }
    let mut end = end.reconnect();
    assert_eq!(
        end.publish_packet(&publish),
        Err(Error::TopicAliasUnknown { alias: 16 })
    );
    publish.properties.topic_alias = std::num::NonZeroU16::new(17);
    let error = end.publish_packet(&publish).unwrap_err();
    assert_eq!(
        error,
        Error::TopicAliasInvalid {
            alias: 17,
            maximum: 16,
            sender: Role::Client
        }
    );
    assert_eq!(error.reason_code(), ReasonCode::TOPIC_ALIAS_INVALID);
    publish.properties.topic_alias = None;
    assert_eq!(end.publish_packet(&publish), Err(Error::TopicMissing));
}

/// [MQTT-3.3.4-6] binds clients only.
#[test]
fn subscription_identifiers_come_from_servers_only() {
    let mut publish = Publish::new(TopicName::new("t").unwrap(), b"");
    publish
        .properties
        .subscription_identifiers
        .push(mqtt_codec::SubscriptionIdentifier::new(1).unwrap());
    assert_eq!(
        server(V5, Persistence::Ephemeral).publish_packet(&publish),
        Err(Error::SubscriptionIdentifierSent)
    );
    assert!(
        client(V5, Persistence::Ephemeral)
            .publish_packet(&publish)
            .is_ok()
    );
}

/// [MQTT-4.3.3-8]: a PUBREL that does not wait for the PUBREC does not save it.
#[test]
fn a_pubrec_is_written_though_pubrel_was_faster() {
    for mut end in every_end(Persistence::Durable) {
        let token = end
            .publish(7, QoS::ExactlyOnce)
            .unwrap()
            .expect("a new message");
        end.connection.accept(token, Durability::Now);
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        end.ack(PacketType::PubRel, 7).unwrap();
        assert!(end.written().is_empty(), "nothing is durable");
        end.sync();
        assert_eq!(end.written(), ["PUBREC 7", "PUBREC 7", "PUBCOMP 7"]);
    }
}
