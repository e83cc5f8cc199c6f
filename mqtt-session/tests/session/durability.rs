//! What waits for which change, and that the changes give the session back.

use core::time::Duration;

use mqtt_codec::{PacketType, QoS, ReasonCode};
use mqtt_session::{
    Change, ChangeNumber, DropReason, Durability, Event, InFlightState, Persistence, Session,
};

use crate::{
    end::{End, V5, client, connect, every_end, id, server},
    message::Message,
};

/// The number of the only change there is.
fn the_change(end: &mut End) -> (ChangeNumber, Change) {
    let first = end.connection.poll_change().expect("a change");
    assert_eq!(end.connection.poll_change(), None);
    first
}

/// PUBACK waits where the caller's own part is pending.
#[test]
fn puback_waits_for_the_unit_of_the_caller() {
    for persistence in [Persistence::Ephemeral, Persistence::Durable] {
        for mut end in every_end(persistence) {
            let tokens: Vec<_> = (1..=3)
                .map(|id| end.publish(id, QoS::AtLeastOnce).unwrap().unwrap())
                .collect();
            let first = end
                .connection
                .accept(tokens[0], Durability::Pending)
                .unwrap();
            assert_eq!(end.connection.accept(tokens[1], Durability::Now), None);
            let third = end
                .connection
                .accept(tokens[2], Durability::Pending)
                .unwrap();
            assert!(first < third);
            assert!(
                end.written().is_empty(),
                "one that waits holds back later ones"
            );
            end.connection.durable(first);
            assert_eq!(end.written(), ["PUBACK 1", "PUBACK 2"]);
            end.connection.durable(third);
            assert_eq!(end.written(), ["PUBACK 3"]);
            assert_eq!(
                end.connection.poll_change(),
                None,
                "QoS 1 leaves nothing in the receiver"
            );
        }
    }
}

/// PUBREC waits for its identifier to be stored, whatever the caller says of its own part.
#[test]
fn pubrec_waits_for_the_identifier() {
    for mut end in every_end(Persistence::Durable) {
        let token = end.publish(7, QoS::ExactlyOnce).unwrap().unwrap();
        let number = end.connection.accept(token, Durability::Now).unwrap();
        assert_eq!(
            the_change(&mut end),
            (number, Change::InboundReceived { packet_id: id(7) })
        );
        assert!(end.written().is_empty());
        end.connection.durable(number);
        assert_eq!(end.written(), ["PUBREC 7"]);
    }
}

/// An identifier known but not durable keeps its number, on a new connection too.
#[test]
fn the_pubrec_of_a_repeated_message_waits_for_the_same() {
    for mut end in every_end(Persistence::Durable) {
        end.take(7, QoS::ExactlyOnce);
        let (number, _) = the_change(&mut end);
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert!(end.written().is_empty());
        let mut end = end.reconnect();
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert!(end.written().is_empty());
        assert_eq!(end.connection.poll_change(), None);
        end.connection.durable(number);
        assert_eq!(
            end.written(),
            ["PUBREC 7"],
            "what waited for the old connection is dropped"
        );
    }
}

/// PUBCOMP waits for the removal, else the next message under the identifier is taken for a duplicate
/// after a crash, and lost.
#[test]
fn pubcomp_waits_for_the_removal() {
    for mut end in every_end(Persistence::Durable) {
        end.take(7, QoS::ExactlyOnce);
        end.sync();
        end.written();
        end.ack(PacketType::PubRel, 7).unwrap();
        let (number, change) = the_change(&mut end);
        assert_eq!(change, Change::InboundReleased { packet_id: id(7) });
        assert!(end.written().is_empty());
        let mut end = end.reconnect();
        end.ack(PacketType::PubRel, 7).unwrap();
        assert!(end.written().is_empty(), "repeated, it still waits");
        end.connection.durable(number);
        assert_eq!(end.written().len(), 1);
    }
}

/// The PUBLISH of a QoS 2 message waits for its identifier; those behind it keep their order.
#[test]
fn a_qos_2_publish_waits_for_its_identifier() {
    for mut end in every_end(Persistence::Durable) {
        for (key, qos) in [
            (1, QoS::AtLeastOnce),
            (2, QoS::ExactlyOnce),
            (3, QoS::AtLeastOnce),
            (4, QoS::AtMostOnce),
        ] {
            end.push(key, qos);
        }
        assert_eq!(end.written(), ["PUBLISH 1 q1 #1"]);
        let sent = |n: u16, qos, key| Change::Sent {
            packet_id: id(n),
            qos,
            key,
        };
        let changes: Vec<_> = std::iter::from_fn(|| end.connection.poll_change()).collect();
        let expected = [
            sent(1, QoS::AtLeastOnce, 1),
            sent(2, QoS::ExactlyOnce, 2),
            sent(3, QoS::AtLeastOnce, 3),
        ];
        assert_eq!(
            changes
                .iter()
                .map(|(_, change)| *change)
                .collect::<Vec<_>>(),
            expected
        );
        end.connection.durable(changes[1].0);
        assert_eq!(
            end.written(),
            ["PUBLISH 2 q2 #2", "PUBLISH 3 q1 #3", "PUBLISH q0 #4"]
        );
    }
}

/// [MQTT-3.3.2-5]: a message that expires while its identifier waits for the store was never sent, and is dropped; those
/// behind it go on.
#[test]
fn a_message_that_expires_before_its_identifier_is_stored_is_dropped() {
    for mut end in every_end(Persistence::Durable) {
        let message = Message {
            expires_at: Some(end.now + Duration::from_secs(5)),
            ..Message::new(1, QoS::ExactlyOnce)
        };
        end.connection.push(message.clone());
        end.push(2, QoS::AtLeastOnce);
        assert!(end.written().is_empty());
        let (number, _) = end.connection.poll_change().unwrap();
        end.changes();
        end.now = end.now + Duration::from_secs(5);
        end.connection.durable(number);
        assert_eq!(end.written(), ["PUBLISH 2 q1 #2"]);
        assert_eq!(
            end.connection.poll_event(),
            Some(Event::Dropped(message, DropReason::Expired))
        );
        assert_eq!(
            the_change(&mut end).1,
            Change::Completed { packet_id: id(1) }
        );
        assert_eq!(end.connection.session().in_flight_len(), 1);
    }
}

/// PUBREL waits for the receipt of PUBREC, else a peer that is done gets the message again.
#[test]
fn pubrel_waits_for_the_receipt_of_pubrec() {
    for mut end in every_end(Persistence::Durable) {
        end.push(1, QoS::ExactlyOnce);
        end.written();
        end.sync();
        end.written();
        end.ack(PacketType::PubRec, 1).unwrap();
        let (number, change) = the_change(&mut end);
        assert_eq!(change, Change::PubRecReceived { packet_id: id(1) });
        assert!(end.written().is_empty());
        let mut end = end.reconnect();
        assert!(end.written().is_empty());
        end.connection.durable(number);
        assert_eq!(end.written(), ["PUBREL 1"]);
        assert_eq!(end.completes(PacketType::PubComp, 1), Some(1));
        assert_eq!(
            the_change(&mut end).1,
            Change::Completed { packet_id: id(1) }
        );
    }
}

/// A message that has no way out leaves the store too.
#[test]
fn a_dropped_message_is_a_change() {
    let mut end = server(V5, Persistence::Durable);
    end.connection.push(Message {
        expires_at: Some(end.now),
        ..Message::new(5, QoS::AtLeastOnce)
    });
    end.connection.push(Message {
        expires_at: Some(end.now),
        ..Message::new(6, QoS::AtMostOnce)
    });
    assert!(end.written().is_empty());
    assert_eq!(the_change(&mut end).1, Change::Dropped { key: 5 });
}

#[test]
fn an_ephemeral_session_never_waits() {
    for mut end in every_end(Persistence::Ephemeral) {
        end.push(1, QoS::ExactlyOnce);
        end.take(7, QoS::ExactlyOnce);
        assert_eq!(end.written(), ["PUBREC 7", "PUBLISH 1 q2 #1"]);
        end.ack(PacketType::PubRec, 1).unwrap();
        end.ack(PacketType::PubRel, 7).unwrap();
        assert_eq!(end.written(), ["PUBCOMP 7", "PUBREL 1"]);
        end.ack(PacketType::PubComp, 1).unwrap();
        assert!(end.changes().is_empty());
    }
}

/// Numbers beyond the last change do not release what comes later.
#[test]
fn durable_reaches_no_further_than_the_last_change() {
    let mut end = server(V5, Persistence::Durable);
    end.connection.durable(ChangeNumber::from_u64(1_000));
    end.take(1, QoS::ExactlyOnce);
    assert!(end.written().is_empty());
}

/// What a store that keeps a table, not a log, reads back.
#[test]
fn a_session_is_restored_from_its_parts() {
    let mut session = Session::new(Persistence::Durable);
    session.restore_released(id(4), None);
    session.restore_sent(id(2), Message::new(2, QoS::ExactlyOnce));
    session.restore_sent(id(3), Message::new(3, QoS::AtLeastOnce));
    session.restore_received(id(9));
    session.push(Message::new(5, QoS::AtLeastOnce));
    let states: Vec<_> = session
        .in_flight()
        .map(|message| (message.packet_id.get(), message.state))
        .collect();
    let expected = [
        (4, InFlightState::Released),
        (2, InFlightState::Published),
        (3, InFlightState::Published),
    ];
    assert_eq!(states, expected);
    assert_eq!(session.received().collect::<Vec<_>>(), [id(9)]);

    let mut end = End::server(
        session,
        &mqtt_session::ServerLimits::default(),
        &connect(V5),
    );
    assert!(end.connection.negotiated().session_present);
    assert_eq!(
        end.written(),
        [
            "PUBREL 4",
            "PUBLISH 2 q2 #2 dup",
            "PUBLISH 3 q1 #3 dup",
            "PUBLISH 5 q1 #5"
        ]
    );
    assert_eq!(end.publish(9, QoS::ExactlyOnce), Ok(None));
    assert_eq!(end.written(), ["PUBREC 9"]);
    let completed = end.ack(PacketType::PubComp, 4).unwrap().unwrap();
    assert_eq!(completed.handle, None);
}

/// A negative PUBREC ends the message: nothing is left to restore.
#[test]
fn a_refused_message_is_completed() {
    let mut end = client(V5, Persistence::Durable);
    end.push(1, QoS::ExactlyOnce);
    end.written();
    end.sync();
    end.written();
    end.ack_with(PacketType::PubRec, 1, ReasonCode::NOT_AUTHORIZED)
        .unwrap()
        .unwrap();
    assert_eq!(
        the_change(&mut end).1,
        Change::Completed { packet_id: id(1) }
    );
}
