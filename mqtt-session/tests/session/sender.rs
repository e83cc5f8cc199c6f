//! Section 4.3 on the side that sends.

use mqtt_codec::{ConnAck, PacketType, QoS, ReasonCode};
use mqtt_session::{Blame, ClientConfig, Completed, Error, Persistence, Session};

use crate::end::{End, V3, V5, client, every_end, id, server};
use crate::message::Message;

/// [MQTT-4.3.1-1] [MQTT-3.3.1-2] [MQTT-2.2.1-2]
#[test]
fn qos_0_is_sent_once_without_identifier() {
    for mut end in every_end(Persistence::Durable) {
        end.push(1, QoS::AtMostOnce);
        assert_eq!(end.written(), ["PUBLISH q0 #1"]);
        assert!(end.changes().is_empty());
        let mut end = end.reconnect();
        assert!(end.written().is_empty());
    }
}

/// [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT3-4.3.2-1] [MQTT3-2.3.1-2]
#[test]
fn qos_1_is_sent_with_an_unused_identifier_until_puback() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.push(1, QoS::AtLeastOnce);
        end.push(2, QoS::AtLeastOnce);
        assert_eq!(end.written(), ["PUBLISH 1 q1 #1", "PUBLISH 2 q1 #2"]);
        assert!(end.written().is_empty());
        assert_eq!(end.connection.session().in_flight_len(), 2);
        assert_eq!(end.completes(PacketType::PubAck, 2), Some(2));
        assert_eq!(end.completes(PacketType::PubAck, 1), Some(1));
        assert_eq!(end.connection.session().in_flight_len(), 0);
    }
}

/// [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
#[test]
fn qos_2_goes_through_its_four_packets() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.push(1, QoS::ExactlyOnce);
        assert_eq!(end.written(), ["PUBLISH 1 q2 #1"]);
        assert_eq!(end.completes(PacketType::PubRec, 1), None);
        assert_eq!(end.written(), ["PUBREL 1"]);
        assert!(end.written().is_empty());
        assert_eq!(end.completes(PacketType::PubComp, 1), Some(1));
        assert_eq!(end.connection.session().in_flight_len(), 0);
    }
}

/// Who asks only when there may be something asks for everything, and not once more.
#[test]
fn there_is_output_until_all_is_written_and_taken() {
    for mut end in every_end(Persistence::Durable) {
        let has_output = |end: &End| end.connection.has_output();
        let written = |end: &mut End| {
            assert!(has_output(end));
            end.sync();
            assert_eq!(end.written().len(), 1);
            end.sync();
            while end.connection.poll_event().is_some() {}
            assert!(!has_output(end));
        };
        assert!(!has_output(&end));
        end.push(1, QoS::AtMostOnce);
        written(&mut end);
        end.push(2, QoS::AtLeastOnce);
        written(&mut end);
        end.push(3, QoS::ExactlyOnce);
        // It leaves when its identifier is stored.
        assert!(end.written().is_empty());
        written(&mut end);
        end.ack(PacketType::PubRec, 2).unwrap();
        written(&mut end);
        end.ack(PacketType::PubComp, 2).unwrap();
        assert!(has_output(&end), "a change");
        end.sync();
        assert!(!has_output(&end));
        end.take(1, QoS::AtLeastOnce);
        written(&mut end);
    }
}

/// What happened to a message is output as well.
#[test]
fn there_is_output_until_events_are_taken() {
    let mut end = server(V5, Persistence::Ephemeral);
    end.push(1, QoS::AtMostOnce);
    let expired = Message {
        expires_at: Some(end.now),
        ..Message::new(2, QoS::AtLeastOnce)
    };
    end.connection.push(expired);
    assert_eq!(end.written().len(), 1);
    assert!(end.connection.has_output());
    assert!(end.connection.poll_event().is_some());
    assert!(!end.connection.has_output());
}

/// [MQTT-4.3.3-6] [MQTT-4.4.0-1]
#[test]
fn a_released_message_is_not_published_again() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.push(1, QoS::ExactlyOnce);
        end.written();
        end.ack(PacketType::PubRec, 1).unwrap();
        end.written();
        let mut end = end.reconnect();
        assert_eq!(end.written(), ["PUBREL 1"]);
        assert_eq!(end.completes(PacketType::PubComp, 1), Some(1));
    }
}

/// [MQTT-4.4.0-2]
#[test]
fn a_refused_message_is_not_sent_again() {
    for (qos, packet_type) in [
        (QoS::AtLeastOnce, PacketType::PubAck),
        (QoS::ExactlyOnce, PacketType::PubRec),
    ] {
        let mut end = client(V5, Persistence::Ephemeral);
        end.push(1, qos);
        end.written();
        let completed = end
            .ack_with(packet_type, 1, ReasonCode::QUOTA_EXCEEDED)
            .unwrap()
            .unwrap();
        assert_eq!(
            (completed.reason, completed.packet_id),
            (ReasonCode::QUOTA_EXCEEDED, id(1))
        );
        let mut end = end.reconnect();
        assert!(end.written().is_empty());
        assert_eq!(end.connection.session().in_flight_len(), 0);
    }
}

/// [MQTT-2.2.1-3] [MQTT-2.2.1-4]
#[test]
fn identifiers_in_use_are_skipped() {
    let mut end = client(V5, Persistence::Ephemeral);
    let request = end.connection.allocate_packet_id().unwrap();
    assert_eq!(request, id(1));
    end.push(0, QoS::ExactlyOnce);
    assert_eq!(end.written(), ["PUBLISH 2 q2 #0"]);
    // Once around: 1 and 2 are still in use, and 65,535 is followed by 3.
    for key in 1..=65_533 {
        end.push(key, QoS::AtLeastOnce);
        let id = u16::try_from(key).unwrap() + 2;
        assert_eq!(end.written(), [format!("PUBLISH {id} q1 #{key}")]);
        assert_eq!(end.completes(PacketType::PubAck, id), Some(key));
    }
    end.push(7, QoS::AtLeastOnce);
    assert_eq!(end.written(), ["PUBLISH 3 q1 #7"]);
    assert!(end.connection.release_packet_id(request));
    assert!(!end.connection.release_packet_id(request));
    assert!(!end.connection.release_packet_id(id(2)));
}

/// Requests end with their connection.
#[test]
fn the_identifier_of_a_request_is_free_after_a_reconnect() {
    let mut end = client(V5, Persistence::Ephemeral);
    let request = end.connection.allocate_packet_id().unwrap();
    end.push(1, QoS::AtLeastOnce);
    end.written();
    let mut end = end.reconnect();
    assert!(!end.connection.release_packet_id(request));
    assert_eq!(end.written(), ["PUBLISH 2 q1 #1 dup"]);
}

/// [MQTT-4.6.0-4]
#[test]
fn pubrels_leave_in_the_order_of_the_pubrecs() {
    for mut end in every_end(Persistence::Ephemeral) {
        for key in 1..=3 {
            end.push(key, QoS::ExactlyOnce);
        }
        end.written();
        for id in [3, 1, 2] {
            end.ack(PacketType::PubRec, id).unwrap();
        }
        assert_eq!(end.written(), ["PUBREL 3", "PUBREL 1", "PUBREL 2"]);
        let mut end = end.reconnect();
        assert_eq!(end.written(), ["PUBREL 3", "PUBREL 1", "PUBREL 2"]);
        for (id, key) in [(1, 1), (2, 2), (3, 3)] {
            assert_eq!(end.completes(PacketType::PubComp, id), Some(key));
        }
    }
}

/// Section 3.6.2.1: 0x92 is not an error, but says that the states of both ends differ.
#[test]
fn pubrec_of_an_unknown_identifier_is_answered() {
    for mut end in every_end(Persistence::Ephemeral) {
        assert_eq!(end.ack(PacketType::PubRec, 9), Ok(None));
        assert_eq!(
            end.written(),
            [if end.has_reason_codes() {
                "PUBREL 9 0x92"
            } else {
                "PUBREL 9"
            }]
        );
        assert_eq!(end.ack(PacketType::PubComp, 9), Ok(None));
        assert_eq!(end.ack(PacketType::PubAck, 9), Ok(None));
        assert!(end.written().is_empty());
        assert_eq!(end.connection.session().unknown_acks(), 3);
    }
}

/// MQTT 3.1 lets a receiver repeat its PUBREC.
#[test]
fn a_repeated_pubrec_is_answered_again() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.push(1, QoS::ExactlyOnce);
        end.written();
        end.ack(PacketType::PubRec, 1).unwrap();
        end.ack(PacketType::PubRec, 1).unwrap();
        assert_eq!(end.written(), ["PUBREL 1"]);
        end.ack(PacketType::PubRec, 1).unwrap();
        assert_eq!(end.written(), ["PUBREL 1"]);
    }
}

/// With a reason code of 0x80 or more it ends the message, which the receiver has given up (section 4.3.3).
#[test]
fn a_later_pubrec_with_an_error_ends_the_message() {
    let mut end = client(V5, Persistence::Ephemeral);
    end.push(1, QoS::ExactlyOnce);
    end.written();
    assert_eq!(end.ack(PacketType::PubRec, 1), Ok(None));
    let ended = end.ack_with(PacketType::PubRec, 1, ReasonCode::UNSPECIFIED_ERROR);
    let ended = ended.unwrap().expect("its end");
    assert_eq!(
        (ended.packet_id, ended.reason),
        (id(1), ReasonCode::UNSPECIFIED_ERROR)
    );
    assert_eq!(end.connection.session().in_flight_len(), 0);
}

/// With all of them in use, by requests here, a message waits, kept or not, and leaves with the first that is free.
#[test]
fn a_message_waits_for_an_identifier() {
    let lasts = client(V5, Persistence::Ephemeral);
    let ends = End::client(
        Session::new(Persistence::Ephemeral),
        ClientConfig::new(V5),
        &ConnAck::new(ReasonCode::SUCCESS),
    );
    for mut end in [lasts, ends] {
        for n in 1..=u16::MAX {
            assert_eq!(end.connection.allocate_packet_id(), Some(id(n)));
        }
        assert_eq!(end.connection.allocate_packet_id(), None);
        end.push(1, QoS::AtLeastOnce);
        assert!(end.written().is_empty());
        let session = end.connection.session();
        assert_eq!((session.queue_len(), session.in_flight_len()), (1, 0));
        assert!(end.connection.release_packet_id(id(700)));
        assert_eq!(end.written(), ["PUBLISH 700 q1 #1"]);
    }
}

/// [MQTT-2.2.1-5], section 4.13
#[test]
fn an_acknowledgement_of_another_kind_of_message_is_an_error() {
    use PacketType::{PubAck, PubComp, PubRec};
    for mut end in every_end(Persistence::Ephemeral) {
        let request = end.connection.allocate_packet_id().unwrap().get();
        end.push(1, QoS::AtLeastOnce);
        end.push(2, QoS::ExactlyOnce);
        end.push(3, QoS::ExactlyOnce);
        end.written();
        end.ack(PubRec, request + 3).unwrap();
        let wrong = [
            (PubAck, request),
            (PubRec, request),
            (PubComp, request),
            (PubRec, request + 1),
            (PubComp, request + 1),
            (PubAck, request + 2),
            (PubComp, request + 2),
            (PubAck, request + 3),
        ];
        for (packet_type, packet_id) in wrong {
            let error = end.ack(packet_type, packet_id).unwrap_err();
            assert_eq!(
                error,
                Error::UnexpectedAck {
                    packet_type,
                    packet_id: id(packet_id)
                }
            );
            assert_eq!(
                (error.blame(), error.reason_code()),
                (Blame::Peer, ReasonCode::PROTOCOL_ERROR)
            );
        }
        let error = end.ack(PacketType::SubAck, 1).unwrap_err();
        assert_eq!(error.blame(), Blame::Caller);
    }
}

/// Section 4 of the design of the crate: a session that ends with its connection keeps no copy of
/// what a server sent.
#[test]
fn a_session_without_expiry_keeps_no_copy() {
    let mut connect = crate::end::connect(V5);
    connect.properties.session_expiry_interval = None;
    let session = Session::new(Persistence::Ephemeral);
    let mut end = End::server(session, &mqtt_session::ServerLimits::default(), &connect);
    end.push(1, QoS::AtLeastOnce);
    end.push(2, QoS::ExactlyOnce);
    end.written();
    let in_flight: Vec<_> = end
        .connection
        .session()
        .in_flight()
        .map(|message| message.handle)
        .collect();
    assert_eq!(in_flight, [None, None]);
    let completed = Completed {
        handle: None,
        packet_id: id(1),
        reason: ReasonCode::SUCCESS,
    };
    assert_eq!(end.ack(PacketType::PubAck, 1), Ok(Some(completed)));
    end.ack(PacketType::PubRec, 2).unwrap();
    assert_eq!(end.written(), ["PUBREL 2"]);
}

/// Clean Session 0 of v3 has no end.
#[test]
fn a_session_with_expiry_keeps_what_it_sent() {
    let mut end = server(V3, Persistence::Ephemeral);
    end.push(1, QoS::AtLeastOnce);
    end.written();
    assert_eq!(end.completes(PacketType::PubAck, 1), Some(1));
}
