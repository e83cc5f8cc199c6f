//! Sessions of MQTT 3.1 and 3.1.1: what they keep, and what comes again.

use core::time::Duration;

use mqtt_codec::{Ack, Packet, PacketType, QoS, ReasonCode};
use tokio::time::sleep;

use crate::harness::{Peer, V3, broker, lasting, message};

/// [MQTT3-4.1.0-1] [MQTT3-3.1.2-4]: subscriptions, waiting messages and identifiers in flight both ways are
/// there after a month without a connection.
#[tokio::test(start_paused = true)]
async fn a_session_keeps_everything() {
    for version in V3 {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("a/#", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        // In flight: one unacknowledged at each QoS, one released.
        for text in ["1", "2", "released"] {
            let qos = if text == "1" {
                QoS::AtLeastOnce
            } else {
                QoS::ExactlyOnce
            };
            sender.publish(&message("a/b", text, qos)).await;
        }
        let one = peer.receive().await.publish().packet_id.unwrap();
        let two = peer.receive().await.publish().packet_id.unwrap();
        let released = peer.receive().await.publish().packet_id.unwrap();
        peer.send(&Packet::PubRec(Ack::new(released, ReasonCode::SUCCESS)))
            .await;
        peer.expect_ack(PacketType::PubRel, released, ReasonCode::SUCCESS)
            .await;
        // Received at QoS 2 and not released.
        peer.send_raw(b"\x34\x08\0\x03a/c\0\x63x").await;
        peer.expect_ack(
            PacketType::PubRec,
            crate::harness::id(0x63),
            ReasonCode::SUCCESS,
        )
        .await;
        // It is delivered to the client itself.
        let own = peer.receive().await.publish().packet_id.unwrap();
        peer.abort().await;
        sender
            .publish(&message("a/b", "new", QoS::AtLeastOnce))
            .await;
        sleep(Duration::from_secs(30 * 86_400)).await;

        let (mut peer, present) = Peer::lasting(&broker, version, "client").await;
        assert_eq!(present, version.has_session_present());
        let mut again = Vec::new();
        let mut release = None;
        for _ in 0..5 {
            let received = peer.receive().await;
            match received.packet() {
                Packet::Publish(publish) => again.push((
                    publish.dup,
                    publish.packet_id.unwrap(),
                    publish.payload.to_vec(),
                )),
                Packet::PubRel(ack) => release = Some(ack.packet_id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(release, Some(released));
        let new = again.pop().unwrap();
        assert_eq!((new.0, &*new.2), (false, &b"new"[..]));
        assert_eq!(
            again,
            [
                (true, one, b"1".to_vec()),
                (true, two, b"2".to_vec()),
                (true, own, b"x".to_vec())
            ]
        );
        // The identifier that was received is still known.
        peer.send_raw(b"\x3c\x08\0\x03a/c\0\x63x").await;
        peer.expect_ack(
            PacketType::PubRec,
            crate::harness::id(0x63),
            ReasonCode::SUCCESS,
        )
        .await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-4.1.0-2]: a session lasts at least as long as its connection, a clean one too.
#[tokio::test(start_paused = true)]
async fn a_clean_session_lasts_as_long_as_its_connection() {
    for version in V3 {
        let broker = broker();
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.subscribe("a", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "1", QoS::ExactlyOnce)).await;
        let number = peer.receive().await.publish().packet_id.unwrap();
        sleep(Duration::from_secs(30 * 86_400)).await;
        peer.send(&Packet::PubRec(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
        peer.expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        peer.send(&Packet::PubComp(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
        sender.publish(&message("a", "2", QoS::ExactlyOnce)).await;
        peer.expect_message("a", "2", QoS::ExactlyOnce).await;
    }
}

/// [MQTT3-3.1.2-6] [MQTT3-4.1.0-2]: nothing of a clean session comes to the next one.
#[tokio::test(start_paused = true)]
async fn a_clean_session_leaves_nothing() {
    for version in V3 {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        for first_clean in [false, true] {
            let mut connect = lasting(version, "client");
            connect.clean_start = first_clean;
            let mut peer = Peer::accepted(&broker, &connect).await;
            peer.subscribe("a", QoS::ExactlyOnce).await;
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                sender.publish(&message("a", "x", qos)).await;
                peer.receive().await;
            }
            peer.send_raw(b"\x34\x06\0\x01b\0\x05x").await;
            assert_eq!(peer.receive().await.bytes(), b"\x50\x02\0\x05");
            peer.abort().await;
            sender.publish(&message("a", "y", QoS::AtLeastOnce)).await;
            connect.clean_start = true;
            let (mut peer, present) = Peer::resumed(&broker, &connect).await;
            assert!(!present);
            peer.expect_nothing().await;
            // The identifier that was received is a new one.
            peer.subscribe("b", QoS::AtMostOnce).await;
            peer.send_raw(b"\x3c\x06\0\x01b\0\x05x").await;
            let answers = [
                peer.receive().await.bytes().to_vec(),
                peer.receive().await.bytes().to_vec(),
            ];
            assert!(answers.contains(&b"\x50\x02\0\x05".to_vec()), "{answers:?}");
            assert!(
                answers.contains(&b"\x30\x04\0\x01bx".to_vec()),
                "{answers:?}"
            );
            peer.disconnect().await;
        }
    }
}

/// [MQTT3-3.1.2-5] [MQTT3-4.5.0-1]: a message goes to the session of each subscriber, connected or not; QoS 0
/// need not wait for those that are not.
#[tokio::test(start_paused = true)]
async fn each_matching_session_gets_a_message() {
    for version in V3 {
        let broker = broker();
        let mut online = Vec::new();
        for number in 0..3 {
            let (mut peer, _) = Peer::lasting(&broker, version, &format!("online-{number}")).await;
            peer.subscribe("a/+", QoS::ExactlyOnce).await;
            online.push(peer);
        }
        for number in 0..3 {
            let name = format!("offline-{number}");
            let (mut peer, _) = Peer::lasting(&broker, version, &name).await;
            peer.subscribe("+/b", QoS::ExactlyOnce).await;
            if number == 0 {
                peer.abort().await;
            } else {
                peer.disconnect().await;
            }
        }
        let (mut other, _) = Peer::lasting(&broker, version, "other").await;
        other.subscribe("a/c", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        for (text, qos) in [("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)] {
            sender.publish(&message("a/b", text, qos)).await;
        }
        sender.disconnect().await;
        for number in 0..3 {
            let (peer, present) =
                Peer::lasting(&broker, version, &format!("offline-{number}")).await;
            assert_eq!(present, version.has_session_present());
            online.push(peer);
        }
        for peer in &mut online {
            peer.expect_message("a/b", "1", QoS::AtLeastOnce).await;
            peer.expect_message("a/b", "2", QoS::ExactlyOnce).await;
            peer.expect_nothing().await;
        }
        other.expect_nothing().await;
    }
}

/// [MQTT3-4.4.0-1] [MQTT3-4.6.0-1] [MQTT3-3.3.1-1]: on every reconnect what is unacknowledged comes again under
/// its identifier, with DUP, in the first order, until it is acknowledged.
#[tokio::test(start_paused = true)]
async fn unacknowledged_messages_come_again_each_time() {
    for version in V3 {
        let broker = broker();
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.subscribe("a", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut open = Vec::new();
        for number in 0..10_u8 {
            let qos = if number % 3 == 0 {
                QoS::ExactlyOnce
            } else {
                QoS::AtLeastOnce
            };
            let text = number.to_string();
            sender.publish(&message("a", &text, qos)).await;
            let received = peer.receive().await;
            assert!(!received.publish().dup);
            open.push((received.publish().packet_id.unwrap(), text, qos));
        }
        while !open.is_empty() {
            peer.abort().await;
            peer = Peer::lasting(&broker, version, "client").await.0;
            let mut again = Vec::new();
            for (number, text, qos) in &open {
                let received = peer.receive().await;
                let publish = received.publish();
                assert!(publish.dup);
                assert_eq!(publish.packet_id, Some(*number));
                assert_eq!(publish.payload, text.as_bytes());
                assert_eq!(publish.qos, *qos);
                again.push(received);
            }
            peer.expect_nothing().await;
            // The second one is acknowledged, then the last.
            let done = open.len().min(2) - 1;
            peer.acknowledge(&again[done].publish()).await;
            peer.expect_nothing().await;
            open.remove(done);
        }
        peer.abort().await;
        let (mut peer, _) = Peer::lasting(&broker, version, "client").await;
        peer.expect_nothing().await;
    }
}

/// [MQTT3-4.4.0-1] [MQTT3-3.1.4-2]: the same where another connection takes the session over.
#[tokio::test(start_paused = true)]
async fn a_takeover_repeats_what_is_unacknowledged() {
    for version in V3 {
        let broker = broker();
        let (mut first, _) = Peer::lasting(&broker, version, "client").await;
        first.subscribe("a", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender.publish(&message("a", "1", QoS::ExactlyOnce)).await;
        sender.publish(&message("a", "2", QoS::AtLeastOnce)).await;
        let one = first.receive().await.publish().packet_id;
        let two = first.receive().await.publish().packet_id;
        let (mut second, _) = Peer::lasting(&broker, version, "client").await;
        first.expect_closed().await;
        for (number, text, qos) in [(one, "1", QoS::ExactlyOnce), (two, "2", QoS::AtLeastOnce)] {
            let received = second.expect_message("a", text, qos).await;
            assert!(received.publish().dup);
            assert_eq!(received.publish().packet_id, number);
        }
        second.expect_nothing().await;
    }
}
