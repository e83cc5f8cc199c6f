//! Messages that the caller takes when the connection that they came on has ended.

use mqtt_codec::{PacketType, QoS};
use mqtt_session::Persistence;

use crate::end::every_end;

/// [MQTT-4.3.3-10] [MQTT3-4.3.3-2] with a caller that takes its time: what it has is not given to it again.
#[test]
fn a_qos_2_message_that_is_taken_late_comes_again_as_a_duplicate() {
    for mut end in every_end(Persistence::Ephemeral) {
        let token = end.publish(7, QoS::ExactlyOnce).unwrap().unwrap();
        let other = end.publish(8, QoS::ExactlyOnce).unwrap().unwrap();
        let mut end = end.reconnect();
        end.connection.session_mut().accept_late(token);
        end.connection.session_mut().accept_late(token);
        assert!(end.written().is_empty());
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert_eq!(end.written(), ["PUBREC 7"]);
        end.ack(PacketType::PubRel, 7).unwrap();
        assert_eq!(end.written(), ["PUBCOMP 7"]);
        assert_eq!(end.connection.session().received_len(), 0);
        // The other one was not taken.
        assert!(end.publish(8, QoS::ExactlyOnce).unwrap().is_some());
        assert_ne!(Some(other), end.publish(9, QoS::ExactlyOnce).unwrap());
    }
}

/// Its PUBREC waits for the store, as that of any other.
#[test]
fn a_message_that_is_taken_late_is_told_to_the_store() {
    for mut end in every_end(Persistence::Durable) {
        let token = end.publish(7, QoS::ExactlyOnce).unwrap().unwrap();
        let mut end = end.reconnect();
        end.connection.session_mut().accept_late(token);
        assert_eq!(end.publish(7, QoS::ExactlyOnce), Ok(None));
        assert!(end.written().is_empty(), "PUBREC before it is durable");
        end.sync();
        assert_eq!(end.written(), ["PUBREC 7"]);
    }
}

/// At QoS 1 it comes again, and is new: at least once.
#[test]
fn a_qos_1_message_that_is_taken_late_comes_again() {
    for mut end in every_end(Persistence::Ephemeral) {
        let token = end.publish(7, QoS::AtLeastOnce).unwrap().unwrap();
        let mut end = end.reconnect();
        end.connection.session_mut().accept_late(token);
        assert!(end.publish(7, QoS::AtLeastOnce).unwrap().is_some());
    }
}
