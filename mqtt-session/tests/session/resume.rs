//! Sections 4.4 and 4.6: what a new connection of a session sends again.

use mqtt_codec::{PacketType, QoS, ReasonCode};
use mqtt_session::{DropReason, Event, InFlightState, Persistence, Session};

use crate::{
    end::{End, V5, client, connect, every_end, id, server},
    message::Message,
};

/// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT3-2.3.1-3]
#[test]
fn unacknowledged_packets_are_sent_again_in_order_before_new_ones() {
    for mut end in every_end(Persistence::Ephemeral) {
        for (key, qos) in [
            (1, QoS::AtLeastOnce),
            (2, QoS::ExactlyOnce),
            (3, QoS::AtLeastOnce),
            (4, QoS::ExactlyOnce),
        ] {
            end.push(key, qos);
        }
        end.written();
        end.ack(PacketType::PubRec, 2).unwrap();
        end.push(5, QoS::AtLeastOnce);
        let mut end = end.reconnect();
        let again = [
            "PUBREL 2",
            "PUBLISH 1 q1 #1 dup",
            "PUBLISH 3 q1 #3 dup",
            "PUBLISH 4 q2 #4 dup",
            "PUBLISH 5 q1 #5",
        ];
        assert_eq!(end.written(), again);
        assert!(
            end.written().is_empty(),
            "nothing is sent again at any other time"
        );
    }
}

/// [MQTT-4.4.0-1]: at no other time.
#[test]
fn nothing_is_sent_again_while_connected() {
    let mut end = server(V5, Persistence::Ephemeral);
    end.push(1, QoS::AtLeastOnce);
    end.push(2, QoS::ExactlyOnce);
    end.written();
    end.ack(PacketType::PubRec, 2).unwrap();
    end.written();
    end.now = end.now + core::time::Duration::from_secs(3_600);
    assert!(end.written().is_empty());
}

/// [MQTT-3.3.1-3], [MQTT3-3.3.1-3]
#[test]
fn a_message_that_was_never_written_has_no_dup() {
    let mut end = server(V5, Persistence::Durable);
    end.push(1, QoS::ExactlyOnce);
    assert!(end.written().is_empty(), "its identifier is not durable");
    let states: Vec<_> = end
        .connection
        .session()
        .in_flight()
        .map(|message| message.state)
        .collect();
    assert_eq!(states, [InFlightState::Assigned]);
    let mut end = end.reconnect();
    end.sync();
    assert_eq!(end.written(), ["PUBLISH 1 q2 #1"]);
}

/// [MQTT-4.9.0-2] on a session whose peer has less room than before.
#[test]
fn a_smaller_receive_maximum_is_kept_to() {
    for version_end in [client, server] {
        let mut end = version_end(V5, Persistence::Ephemeral);
        for key in 1..=4 {
            end.push(key, QoS::AtLeastOnce);
        }
        end.push(5, QoS::ExactlyOnce);
        end.written();
        end.ack(PacketType::PubRec, 5).unwrap();
        let mut end = end.reconnect_with(2);
        assert_eq!(end.written(), ["PUBREL 5", "PUBLISH 1 q1 #1 dup"]);
        end.push(6, QoS::AtLeastOnce);
        assert_eq!(end.completes(PacketType::PubComp, 5), Some(5));
        assert_eq!(end.written(), ["PUBLISH 2 q1 #2 dup"]);
        for (done, line) in [
            (2, vec!["PUBLISH 3 q1 #3 dup"]),
            (1, vec!["PUBLISH 4 q1 #4 dup"]),
            (3, vec!["PUBLISH 6 q1 #6"]),
        ] {
            end.completes(PacketType::PubAck, done);
            assert_eq!(end.written(), line);
        }
    }
}

/// [MQTT-3.2.2-5]
#[test]
fn a_client_discards_what_the_server_has_forgotten() {
    let mut end = client(V5, Persistence::Durable);
    end.take(9, QoS::ExactlyOnce);
    for (key, qos) in [
        (1, QoS::AtLeastOnce),
        (2, QoS::ExactlyOnce),
        (3, QoS::ExactlyOnce),
    ] {
        end.push(key, qos);
    }
    end.written();
    end.sync();
    end.written();
    end.ack(PacketType::PubRec, 3).unwrap();
    end.push(4, QoS::AtLeastOnce);
    end.changes();

    let mut config = mqtt_session::ClientConfig::new(V5);
    config.clean_start = false;
    let mut end = End::client(
        end.connection.into_session(),
        config,
        &mqtt_codec::ConnAck::new(ReasonCode::SUCCESS),
    );
    let mut lost = Vec::new();
    while let Some(event) = end.connection.poll_event() {
        match event {
            Event::Dropped(message, DropReason::SessionLost(state)) => {
                lost.push((message.key, state));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        lost,
        [
            (3, InFlightState::Released),
            (1, InFlightState::Published),
            (2, InFlightState::Published),
        ]
    );
    let changes = end.changes();
    assert_eq!(
        changes
            .iter()
            .filter(|change| change.starts_with("Completed"))
            .count(),
        3
    );
    assert_eq!(
        changes
            .iter()
            .filter(|change| change.starts_with("InboundReleased"))
            .count(),
        1
    );
    assert_eq!(
        end.written(),
        ["PUBLISH 4 q1 #4"],
        "what was never sent stays"
    );
    assert!(end.publish(9, QoS::ExactlyOnce).unwrap().is_some());
}

/// A message of QoS 2 that the new connection cannot carry is released: the peer may hold its
/// identifier, under which the next message would be taken for a duplicate.
#[test]
fn a_message_too_large_to_be_sent_again_is_released() {
    let mut end = server(V5, Persistence::Ephemeral);
    for (key, qos) in [(1, QoS::ExactlyOnce), (2, QoS::AtLeastOnce)] {
        end.connection.push(Message {
            padding: 1_000,
            ..Message::new(key, qos)
        });
    }
    end.push(3, QoS::AtLeastOnce);
    end.written();
    let mut connect = connect(V5);
    connect.properties.maximum_packet_size = std::num::NonZeroU32::new(100);
    let mut end = End::server(
        end.connection.into_session(),
        &mqtt_session::ServerLimits::default(),
        &connect,
    );
    assert_eq!(end.written(), ["PUBLISH 3 q1 #3 dup", "PUBREL 1"]);
    for key in [1, 2] {
        let message = Message {
            padding: 1_000,
            ..Message::new(
                key,
                if key == 1 {
                    QoS::ExactlyOnce
                } else {
                    QoS::AtLeastOnce
                },
            )
        };
        assert_eq!(
            end.connection.poll_event(),
            Some(Event::Dropped(message, DropReason::TooLarge))
        );
    }
    let completed = end.ack(PacketType::PubComp, 1).unwrap().unwrap();
    assert_eq!((completed.handle, completed.packet_id), (None, id(1)));
    assert_eq!(end.connection.session().in_flight_len(), 1);
}

/// [MQTT-4.3.3-7]
#[test]
fn a_message_once_sent_does_not_expire() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut end = server(V5, Persistence::Ephemeral);
        let expires_at = Some(end.now + core::time::Duration::from_secs(1));
        end.connection.push(Message {
            expires_at,
            ..Message::new(1, qos)
        });
        end.written();
        let mut end = end.reconnect();
        end.now = end.now + core::time::Duration::from_secs(2);
        assert_eq!(end.written(), [format!("PUBLISH 1 q{} #1 dup", qos as u8)]);
    }
}

/// [MQTT-4.8.2-4]: what has an identifier stays; the rest can go to another member.
#[test]
fn queued_messages_can_be_taken_back() {
    let mut connect = connect(V5);
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let mut end = End::server(
        Session::new(Persistence::Ephemeral),
        &mqtt_session::ServerLimits::default(),
        &connect,
    );
    for key in 1..=5 {
        end.push(key, QoS::AtLeastOnce);
    }
    end.written();
    let size = Message::new(1, QoS::AtLeastOnce).topic.len() + 8;
    assert_eq!(end.connection.session().queue_size(), 4 * size);
    let taken = end
        .connection
        .session_mut()
        .take_queued(|message| message.key % 2 == 1);
    assert_eq!(
        taken.iter().map(|message| message.key).collect::<Vec<_>>(),
        [3, 5]
    );
    let session = end.connection.session();
    assert_eq!(
        (
            session.queue_len(),
            session.queue_size(),
            session.in_flight_len()
        ),
        (2, 2 * size, 1)
    );
    assert_eq!(
        session.wanted(),
        Session::<Message>::DEFAULT_WINDOW as usize - 2
    );
    assert_eq!(
        session
            .queued()
            .map(|message| message.key)
            .collect::<Vec<_>>(),
        [2, 4]
    );
}
