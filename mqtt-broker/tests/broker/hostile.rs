//! Bytes that are not MQTT, or not allowed here and now.

use mqtt_codec::{Ack, Packet, Publish, QoS, ReasonCode, SubAck, SubscriptionIdentifier};

use crate::harness::{ALL, Peer, V3_1, V5, broker, id, message, name};

/// [MQTT-4.13.1-1] [MQTT3-4.8.0-1] and the rules they name: each of these ends the connection, with its
/// reason where the version has one, and no other client is disturbed.
#[tokio::test(start_paused = true)]
async fn malformed_packets_end_the_connection() {
    let cases: &[(&[u8], ReasonCode)] = &[
        // Reserved packet type 0.
        (&[0x00, 0x00], ReasonCode::MALFORMED_PACKET),
        // PINGREQ with flags.
        (&[0xc1, 0x00], ReasonCode::MALFORMED_PACKET),
        // A length of five bytes.
        (
            &[0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
            ReasonCode::MALFORMED_PACKET,
        ),
        // PUBLISH at QoS 3.
        (
            &[0x36, 0x05, 0x00, 0x01, b'a', 0x00, 0x01],
            ReasonCode::MALFORMED_PACKET,
        ),
        // PUBLISH with identifier 0; with DUP at QoS 0.
        (
            &[0x32, 0x05, 0x00, 0x01, b'a', 0x00, 0x00],
            ReasonCode::MALFORMED_PACKET,
        ),
        (
            &[0x38, 0x04, 0x00, 0x01, b'a', 0x00],
            ReasonCode::MALFORMED_PACKET,
        ),
        // A topic with a wildcard, with U+0000, and one that is not UTF-8.
        (
            &[0x30, 0x04, 0x00, 0x01, b'#', 0x00],
            ReasonCode::TOPIC_NAME_INVALID,
        ),
        (
            &[0x30, 0x04, 0x00, 0x01, 0x00, 0x00],
            ReasonCode::MALFORMED_PACKET,
        ),
        (
            &[0x30, 0x04, 0x00, 0x01, 0xff, 0x00],
            ReasonCode::MALFORMED_PACKET,
        ),
        // SUBSCRIBE without a filter.
        (
            &[0x82, 0x03, 0x00, 0x01, 0x00],
            ReasonCode::MALFORMED_PACKET,
        ),
    ];
    for version in ALL {
        for (bytes, reason) in cases {
            let broker = broker();
            let mut bystander = Peer::new(&broker, version, "bystander").await;
            let mut peer = Peer::new(&broker, version, "client").await;
            peer.send_raw(bytes).await;
            if version.has_server_disconnect() {
                match peer.receive().await.packet() {
                    Packet::Disconnect(disconnect) => {
                        assert!(disconnect.reason_code.is_error(), "{bytes:02x?}");
                        if disconnect.reason_code != ReasonCode::PROTOCOL_ERROR {
                            assert_eq!(disconnect.reason_code, *reason, "{bytes:02x?}");
                        }
                    }
                    other => panic!("expected DISCONNECT, got {other:?}"),
                }
            }
            peer.expect_closed().await;
            bystander.expect_nothing().await;
        }
    }
}

/// What was sent before a violation counts.
#[tokio::test(start_paused = true)]
async fn what_came_before_a_violation_is_delivered() {
    let broker = broker();
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::AtMostOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut bytes = Packet::Publish(message("topic", "good", QoS::AtMostOnce))
        .to_vec(V5)
        .unwrap();
    bytes.extend([0x00, 0x00]);
    sender.send_raw(&bytes).await;
    sender.expect_disconnect(ReasonCode::MALFORMED_PACKET).await;
    receiver
        .expect_message("topic", "good", QoS::AtMostOnce)
        .await;
}

/// Packets that only a server sends.
#[tokio::test(start_paused = true)]
async fn packets_of_a_server_are_refused() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        let suback = SubAck::new(id(1), vec![ReasonCode::SUCCESS]);
        peer.send(&Packet::SubAck(suback)).await;
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
    }
}

/// [MQTT-3.3.4-6]: a Subscription Identifier in a PUBLISH of a client.
#[tokio::test(start_paused = true)]
async fn a_client_sends_no_subscription_identifier() {
    let broker = broker();
    let mut peer = Peer::new(&broker, V5, "client").await;
    let mut publish = Publish::new(name("topic"), b"");
    publish
        .properties
        .subscription_identifiers
        .extend(SubscriptionIdentifier::new(1));
    peer.send(&Packet::Publish(publish)).await;
    peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
}

/// An acknowledgement of something that does not exist is no reason to end the connection.
#[tokio::test(start_paused = true)]
async fn unknown_acknowledgements_are_ignored() {
    for version in ALL {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.send(&Packet::PubAck(Ack::new(id(77), ReasonCode::SUCCESS)))
            .await;
        peer.send(&Packet::PubComp(Ack::new(id(78), ReasonCode::SUCCESS)))
            .await;
        peer.expect_nothing().await;
    }
}

/// The first packet must be CONNECT ([MQTT-3.1.0-1]): everything else is not answered.
#[tokio::test(start_paused = true)]
async fn the_first_packet_must_be_connect() {
    for first in [
        &[0xc0, 0x00][..],
        &[0x30, 0x03, 0x00, 0x01, b'a'],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x10, 0x00],
    ] {
        let broker = broker();
        let mut peer = Peer::open(&broker, V3_1);
        peer.send_raw(first).await;
        assert_eq!(peer.rest().await, b"");
    }
}
