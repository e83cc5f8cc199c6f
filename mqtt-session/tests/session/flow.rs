//! Section 4.9: Receive Maximum, both ways.

use std::num::NonZeroU16;

use mqtt_codec::{PacketType, QoS, ReasonCode};
use mqtt_session::{Durability, Error, Persistence, Role, ServerLimits, Session};

use crate::end::{End, V3, V5, connect, server};

fn server_with(receive_maximum: u16) -> End {
    let mut limits = ServerLimits::default();
    limits.receive_maximum = NonZeroU16::new(receive_maximum).unwrap();
    End::server(Session::new(Persistence::Ephemeral), &limits, &connect(V5))
}

/// [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-7] [MQTT-3.3.4-9]
#[test]
fn no_more_than_the_receive_maximum_is_unacknowledged() {
    let mut end = server(V5, Persistence::Ephemeral).reconnect_with(2);
    for key in 1..=5 {
        end.push(key, QoS::ExactlyOnce);
    }
    assert_eq!(end.written(), ["PUBLISH 1 q2 #1", "PUBLISH 2 q2 #2"]);
    end.take(1, QoS::AtLeastOnce);
    end.ack(PacketType::PubRec, 1).unwrap();
    assert_eq!(
        end.written(),
        ["PUBACK 1", "PUBREL 1"],
        "[MQTT-3.3.4-10]: other packets are not held back"
    );
    end.ack(PacketType::PubComp, 1).unwrap();
    assert_eq!(end.written(), ["PUBLISH 3 q2 #3"]);
    end.ack_with(PacketType::PubRec, 2, ReasonCode::UNSPECIFIED_ERROR)
        .unwrap();
    assert_eq!(end.written(), ["PUBLISH 4 q2 #4"]);
}

/// v3 has no Receive Maximum: the caller's own limit holds.
#[test]
fn towards_v3_the_configured_maximum_holds() {
    let mut limits = ServerLimits::default();
    limits.send_maximum_v3 = NonZeroU16::new(3).unwrap();
    let mut end = End::server(Session::new(Persistence::Ephemeral), &limits, &connect(V3));
    for key in 1..=5 {
        end.push(key, QoS::AtLeastOnce);
    }
    assert_eq!(end.written().len(), 3);
    end.ack(PacketType::PubAck, 2).unwrap();
    assert_eq!(end.written(), ["PUBLISH 4 q1 #4"]);
}

/// [MQTT-3.3.4-7]: what the peer sends beyond the maximum is refused with 0x93.
#[test]
fn a_peer_beyond_the_receive_maximum_is_refused() {
    let mut end = server_with(2);
    let first = end.publish(1, QoS::AtLeastOnce).unwrap().unwrap();
    end.take(2, QoS::ExactlyOnce);
    assert_eq!(
        end.publish(2, QoS::ExactlyOnce),
        Ok(None),
        "a repeated message does not count twice"
    );
    end.take(0, QoS::AtMostOnce);
    let error = end.publish(3, QoS::AtLeastOnce).unwrap_err();
    assert_eq!(
        error,
        Error::ReceiveMaximumExceeded {
            limit: 2,
            sender: Role::Client
        }
    );
    assert_eq!(
        (error.reason_code(), error.clause()),
        (ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, "MQTT-3.3.4-7")
    );
    end.connection.accept(first, Durability::Now);
    assert!(
        end.publish(3, QoS::AtLeastOnce).is_err(),
        "its PUBACK is not written yet"
    );
    assert_eq!(end.written(), ["PUBACK 1", "PUBREC 2", "PUBREC 2"]);
    end.take(3, QoS::AtLeastOnce);
    assert_eq!(end.written(), ["PUBACK 3"]);
    end.ack(PacketType::PubRel, 2).unwrap();
    assert_eq!(end.written(), ["PUBCOMP 2"]);
    end.take(4, QoS::ExactlyOnce);
    end.take(5, QoS::ExactlyOnce);
    assert!(end.publish(6, QoS::ExactlyOnce).is_err());
}

/// [MQTT-4.3.3-9]: a negative PUBREC is the last acknowledgement.
#[test]
fn a_rejected_message_gives_its_room_back() {
    let mut end = server_with(1);
    for packet_id in 1..=3 {
        let token = end.publish(packet_id, QoS::ExactlyOnce).unwrap().unwrap();
        end.connection.reject(token, ReasonCode::QUOTA_EXCEEDED);
        assert_eq!(end.written(), [format!("PUBREC {packet_id} 0x97")]);
    }
}

/// Section 4.9: the sender counts a PUBCOMP for a message of an earlier connection as room, up to the
/// maximum, so that it may send beyond what is unacknowledged on this one.
#[test]
fn a_sender_that_counts_like_the_standard_is_not_refused() {
    let mut end = server_with(2);
    end.take(1, QoS::ExactlyOnce);
    end.written();
    let session = end.connection.into_session();
    let mut limits = ServerLimits::default();
    limits.receive_maximum = NonZeroU16::new(2).unwrap();
    let mut end = End::server(session, &limits, &connect(V5));
    end.ack(PacketType::PubRel, 1).unwrap();
    assert_eq!(end.written(), ["PUBCOMP 1"]);
    for packet_id in 2..=4 {
        let _open = end.publish(packet_id, QoS::AtLeastOnce).unwrap().unwrap();
    }
    assert!(end.publish(5, QoS::AtLeastOnce).is_err());
}

/// Without an announced maximum only the number of identifiers limits.
#[test]
fn v3_clients_are_not_held_to_a_maximum() {
    let mut limits = ServerLimits::default();
    limits.receive_maximum = NonZeroU16::MIN;
    let mut end = End::server(Session::new(Persistence::Ephemeral), &limits, &connect(V3));
    for packet_id in 1..=100 {
        end.take(packet_id, QoS::AtLeastOnce);
    }
    assert_eq!(end.written().len(), 100);
}

/// Output stops at the limit and goes on where it stopped.
#[test]
fn output_goes_on_after_the_limit() {
    let mut end = server(V5, Persistence::Ephemeral);
    for key in 1..=3 {
        end.push(key, QoS::AtLeastOnce);
        end.take(u16::try_from(key).unwrap(), QoS::ExactlyOnce);
    }
    end.connection.handle_ping(end.now);
    let mut lines = Vec::new();
    loop {
        let mut out = Vec::new();
        let more = end.connection.poll_transmit(end.now, &mut out, 1);
        lines.extend(crate::end::describe(&out, V5));
        if !more {
            break;
        }
    }
    let expected = [
        "PUBREC 1",
        "PUBREC 2",
        "PUBREC 3",
        "PINGRESP",
        "PUBLISH 1 q1 #1",
        "PUBLISH 2 q1 #2",
        "PUBLISH 3 q1 #3",
    ];
    assert_eq!(lines, expected);
}
