//! What must be on the disk before a packet leaves, and what need not be.

use futures_util::FutureExt;
use mqtt_codec::{
    Ack, Packet, PacketType, Publish, QoS, ReasonCode, SubAck, Subscribe, TopicFilter, UnsubAck,
    Unsubscribe,
};

use super::harness::{EVERY_QOS, Peer, V5, filter, hello, id, lasting, message, settle};
use super::scene::{Scene, VERSIONS};
use crate::store::Op;

const SUCCESS: ReasonCode = ReasonCode::SUCCESS;

/// A PUBLISH with an identifier.
fn numbered<'a>(text: &'a str, qos: QoS, number: u16) -> Publish<'a> {
    let mut publish = message("t", text, qos);
    publish.packet_id = Some(id(number));
    publish
}

async fn send(peer: &mut Peer, publish: &Publish<'_>) {
    peer.send(&Packet::Publish(publish.clone())).await;
}

async fn send_subscribe(peer: &mut Peer, number: u16, text: &str) {
    let filters = vec![filter(text, QoS::AtLeastOnce)];
    let subscribe = Subscribe::new(id(number), filters);
    peer.send(&Packet::Subscribe(subscribe)).await;
}

async fn send_unsubscribe(peer: &mut Peer, number: u16, text: &str) {
    let filters = vec![TopicFilter::new(text).unwrap()];
    let unsubscribe = Unsubscribe::new(id(number), filters);
    peer.send(&Packet::Unsubscribe(unsubscribe)).await;
}

async fn expect_suback(peer: &mut Peer, number: u16) {
    let codes = vec![ReasonCode(QoS::AtLeastOnce as u8)];
    let suback = SubAck::new(id(number), codes);
    peer.expect(&Packet::SubAck(suback)).await;
}

async fn expect_unsuback(peer: &mut Peer, number: u16) {
    let unsuback = UnsubAck::new(id(number), vec![SUCCESS]);
    match peer.receive().await.packet() {
        // Before 5.0 it has no codes.
        Packet::UnsubAck(received) => assert_eq!(received.packet_id, unsuback.packet_id),
        other => panic!("expected UNSUBACK, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn puback_waits_for_the_message() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "away", "t", QoS::AtLeastOnce).await;
        let mut sender = scene.fleeting(version, "sender").await;
        scene.hold().await;
        send(&mut sender, &numbered("m", QoS::AtLeastOnce, 1)).await;
        scene.held().await;
        sender.expect_nothing().await;
        scene.release().await;
        sender.expect_ack(PacketType::PubAck, id(1), SUCCESS).await;
    }
}

#[tokio::test(start_paused = true)]
async fn puback_and_pubrec_wait_for_the_retained_message() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for payload in ["kept", ""] {
            let scene = Scene::new().await;
            let mut sender = scene.fleeting(V5, "sender").await;
            scene.hold().await;
            let mut publish = numbered(payload, qos, 1);
            publish.retain = true;
            send(&mut sender, &publish).await;
            scene.held().await;
            sender.expect_nothing().await;
            scene.release().await;
            assert!(matches!(
                sender.receive().await.packet(),
                Packet::PubAck(_) | Packet::PubRec(_)
            ));
        }
    }
}

/// Of the message that a stored session takes, and of the identifier alone if the publisher's own session is stored.
#[tokio::test(start_paused = true)]
async fn pubrec_waits_for_the_message_and_its_identifier() {
    for version in VERSIONS {
        for (sender_is_stored, is_wanted) in [(false, true), (true, false), (true, true)] {
            let scene = Scene::new().await;
            if is_wanted {
                scene.away(version, "away", "t", QoS::ExactlyOnce).await;
            }
            let mut sender = match sender_is_stored {
                true => scene.stored(version, "sender").await.0,
                false => scene.fleeting(version, "sender").await,
            };
            scene.hold().await;
            send(&mut sender, &numbered("m", QoS::ExactlyOnce, 1)).await;
            scene.held().await;
            sender.expect_nothing().await;
            scene.release().await;
            match sender.receive().await.packet() {
                Packet::PubRec(ack) => assert!(!ack.reason_code.is_error()),
                other => panic!("expected PUBREC, got {other:?}"),
            }
        }
    }
}

/// Else the next message under the identifier is taken for a duplicate after a crash, and lost.
#[tokio::test(start_paused = true)]
async fn pubcomp_waits_for_the_removal_of_the_identifier() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "away", "t", QoS::ExactlyOnce).await;
        let (mut sender, _) = scene.stored(version, "sender").await;
        send(&mut sender, &numbered("m", QoS::ExactlyOnce, 1)).await;
        sender.expect_ack(PacketType::PubRec, id(1), SUCCESS).await;
        scene.hold().await;
        sender.send_ack(PacketType::PubRel, id(1), SUCCESS).await;
        scene.held().await;
        sender.expect_nothing().await;
        // Repeated on a new connection it waits for the same.
        sender.abort().await;
        let mut sender = scene.resumed(version, "sender").await;
        sender.send_ack(PacketType::PubRel, id(1), SUCCESS).await;
        sender.expect_nothing().await;
        scene.release().await;
        match sender.receive().await.packet() {
            Packet::PubComp(ack) => assert_eq!(ack.packet_id, id(1)),
            other => panic!("expected PUBCOMP, got {other:?}"),
        }
        let scene = scene.crash(sender).await;
        let mut sender = scene.resumed(version, "sender").await;
        send(&mut sender, &numbered("next", QoS::ExactlyOnce, 1)).await;
        sender.expect_ack(PacketType::PubRec, id(1), SUCCESS).await;
        let mut away = scene.resumed(version, "away").await;
        for text in ["m", "next"] {
            away.expect_message("t", text, QoS::ExactlyOnce).await;
        }
        away.expect_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn suback_and_unsuback_of_a_stored_session_wait() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let (mut client, _) = scene.stored(version, "client").await;
        scene.hold().await;
        send_subscribe(&mut client, 1, "t").await;
        scene.held().await;
        client.expect_nothing().await;
        scene.release().await;
        expect_suback(&mut client, 1).await;
        scene.hold().await;
        send_unsubscribe(&mut client, 2, "t").await;
        scene.held().await;
        client.expect_nothing().await;
        scene.release().await;
        expect_unsuback(&mut client, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn connack_that_creates_a_stored_session_waits() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.hold().await;
        let mut client = scene.knock(version, "client", false).await;
        scene.held().await;
        assert!(client.receive().now_or_never().is_none());
        scene.release().await;
        assert_eq!(client.receive().await.connack().reason_code, SUCCESS);
        let scene = scene.crash(client).await;
        scene.resumed(version, "client").await;
    }
}

/// Else a client that was told of a new session gets messages of the old one after a crash.
#[tokio::test(start_paused = true)]
async fn connack_that_discards_a_stored_session_waits() {
    for version in VERSIONS {
        for stays in [false, true] {
            let scene = Scene::new().await;
            scene.away(version, "client", "t", QoS::AtLeastOnce).await;
            scene.hold().await;
            let mut connect = if stays {
                lasting(version, "client")
            } else {
                hello(version, "client")
            };
            connect.clean_start = true;
            let mut client = Peer::open(&scene.broker, version);
            client.send(&Packet::Connect(Box::new(connect))).await;
            scene.held().await;
            assert!(client.receive().now_or_never().is_none());
            scene.release().await;
            assert!(!client.receive().await.connack().session_present);
            let scene = scene.crash(client).await;
            let mut sender = scene.fleeting(version, "sender").await;
            sender
                .publish(&message("t", "unwanted", QoS::AtLeastOnce))
                .await;
            let (mut client, present) = scene.stored(version, "client").await;
            assert_eq!(present, stays && version.has_properties());
            client.expect_nothing().await;
        }
    }
}

/// A session that is there already is not made again: its client need not wait for the disk.
#[tokio::test(start_paused = true)]
async fn connack_that_resumes_a_session_waits_for_nothing() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "client", "t", QoS::AtLeastOnce).await;
        scene.hold().await;
        scene.resumed(version, "client").await;
        let fleeting = scene.fleeting(version, "another").await;
        drop(fleeting);
    }
}

/// What only sessions take that end with their connections is acknowledged at once, and so is what they ask for.
#[tokio::test(start_paused = true)]
async fn what_no_stored_session_takes_costs_no_write() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.hold().await;
        let before = scene.gate.commits().len();
        let mut receiver = scene.fleeting(version, "receiver").await;
        let mut sender = scene.fleeting(version, "sender").await;
        receiver.subscribe("t", QoS::ExactlyOnce).await;
        for qos in EVERY_QOS {
            sender.publish(&message("t", "m", qos)).await;
            receiver.expect_message("t", "m", qos).await;
        }
        receiver.unsubscribe("t").await;
        settle().await;
        assert!(!scene.gate.holds(), "nothing was given to the disk");
        scene.release().await;
        assert_eq!(scene.gate.commits().len(), before);
    }
}

/// A message that a stored session takes at QoS 0, and one for a topic that it did not subscribe to.
#[tokio::test(start_paused = true)]
async fn qos_0_costs_no_write() {
    let scene = Scene::new().await;
    let (mut client, _) = scene.stored(V5, "client").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let mut sender = scene.fleeting(V5, "sender").await;
    scene.hold().await;
    for qos in EVERY_QOS {
        sender.publish(&message("t", "m", qos)).await;
        client.expect_message("t", "m", QoS::AtMostOnce).await;
        sender.publish(&message("other", "m", qos)).await;
    }
    assert!(!scene.gate.holds());
}

/// QoS 0 retained messages are stored, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn a_retained_message_of_qos_0_waits_for_nothing() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(version, "sender").await;
        let mut receiver = scene.fleeting(version, "receiver").await;
        receiver.subscribe("t", QoS::ExactlyOnce).await;
        scene.hold().await;
        let mut publish = message("t", "kept", QoS::AtMostOnce);
        publish.retain = true;
        sender.publish(&publish).await;
        receiver.expect_message("t", "kept", QoS::AtMostOnce).await;
        scene.release().await;
        let scene = scene.crash((sender, receiver)).await;
        let mut receiver = scene.fleeting(version, "receiver").await;
        receiver.subscribe("t", QoS::ExactlyOnce).await;
        receiver.expect_message("t", "kept", QoS::AtMostOnce).await;
    }
}

/// An acknowledgement that could leave at once stays behind one that waits.
#[tokio::test(start_paused = true)]
async fn acknowledgements_keep_their_order() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "away", "t", QoS::AtLeastOnce).await;
        let mut sender = scene.fleeting(version, "sender").await;
        scene.hold().await;
        send(&mut sender, &numbered("stored", QoS::AtLeastOnce, 1)).await;
        scene.held().await;
        let mut unwanted = numbered("unwanted", QoS::AtLeastOnce, 2);
        unwanted.topic = message("other", "", QoS::AtMostOnce).topic;
        send(&mut sender, &unwanted).await;
        send(&mut sender, &numbered("stored too", QoS::AtLeastOnce, 3)).await;
        sender.expect_nothing().await;
        assert!(scene.commit_one().await);
        for number in 1..=2 {
            match sender.receive().await.packet() {
                Packet::PubAck(ack) => assert_eq!(ack.packet_id, id(number)),
                other => panic!("expected PUBACK, got {other:?}"),
            }
        }
        sender.expect_nothing().await;
        scene.release().await;
        sender.expect_ack(PacketType::PubAck, id(3), SUCCESS).await;
    }
}

/// Not before the unit that put the message into the session's queue is durable.
#[tokio::test(start_paused = true)]
async fn a_qos_2_publish_to_a_session_that_can_resume_waits_for_the_message() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(version, "sender").await;
        let mut client = scene
            .subscriber(version, "client", "t", QoS::ExactlyOnce)
            .await;
        scene.hold().await;
        sender
            .send_publish(&message("t", "m", QoS::ExactlyOnce))
            .await;
        scene.held().await;
        client.expect_nothing().await;
        scene.release().await;
        client.expect_publish("t", "m", QoS::ExactlyOnce).await;
    }
}

/// Nor before the identifier is durable under which it goes.
#[tokio::test(start_paused = true)]
async fn a_qos_2_publish_to_a_session_that_can_resume_waits_for_its_identifier() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "client", "t", QoS::ExactlyOnce).await;
        let mut sender = scene.fleeting(version, "sender").await;
        sender.publish(&message("t", "m", QoS::ExactlyOnce)).await;
        scene.hold().await;
        let mut client = scene.resumed(version, "client").await;
        scene.held().await;
        client.expect_nothing().await;
        scene.release().await;
        let received = client.expect_publish("t", "m", QoS::ExactlyOnce).await;
        let number = received.publish().packet_id.unwrap();
        let scene = scene.crash((sender, client)).await;
        let mut client = scene.resumed(version, "client").await;
        let received = client.expect_publish("t", "m", QoS::ExactlyOnce).await;
        assert_eq!(received.publish().packet_id, Some(number));
        assert!(received.publish().dup);
    }
}

#[tokio::test(start_paused = true)]
async fn qos_0_and_1_leave_at_once() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(version, "sender").await;
        let mut client = scene
            .subscriber(version, "client", "t", QoS::ExactlyOnce)
            .await;
        scene.hold().await;
        sender
            .send_publish(&message("t", "zero", QoS::AtMostOnce))
            .await;
        sender
            .send_publish(&message("t", "one", QoS::AtLeastOnce))
            .await;
        client.expect_message("t", "zero", QoS::AtMostOnce).await;
        client.expect_message("t", "one", QoS::AtLeastOnce).await;
        client.expect_nothing().await;
        scene.held().await;
    }
}

/// Nothing waits for the removal of a QoS 1 message: it may come again after a crash.
#[tokio::test(start_paused = true)]
async fn the_removal_of_a_qos_1_message_may_lag() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(version, "sender").await;
        let mut client = scene
            .subscriber(version, "client", "t", QoS::AtLeastOnce)
            .await;
        sender
            .publish(&message("t", "first", QoS::AtLeastOnce))
            .await;
        client.expect_publish("t", "first", QoS::AtLeastOnce).await;
        scene.hold().await;
        let puback = Packet::PubAck(Ack::new(id(1), SUCCESS));
        client.send(&puback).await;
        scene.held().await;
        sender
            .send_publish(&message("t", "second", QoS::AtLeastOnce))
            .await;
        client.expect_message("t", "second", QoS::AtLeastOnce).await;
        let scene = scene.crash((sender, client)).await;
        let mut client = scene.resumed(version, "client").await;
        client.expect_message("t", "first", QoS::AtLeastOnce).await;
        client.expect_nothing().await;
    }
}

/// Else a client that has finished gets the message again.
#[tokio::test(start_paused = true)]
async fn pubrel_waits_for_the_receipt_of_pubrec() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        let mut sender = scene.fleeting(version, "sender").await;
        let mut client = scene
            .subscriber(version, "client", "t", QoS::ExactlyOnce)
            .await;
        sender.publish(&message("t", "m", QoS::ExactlyOnce)).await;
        let received = client.expect_publish("t", "m", QoS::ExactlyOnce).await;
        let number = received.publish().packet_id.unwrap();
        scene.hold().await;
        client.send_ack(PacketType::PubRec, number, SUCCESS).await;
        scene.held().await;
        client.expect_nothing().await;
        // Nor on a new connection.
        client.abort().await;
        let mut client = scene.resumed(version, "client").await;
        client.expect_nothing().await;
        scene.release().await;
        client.expect_ack(PacketType::PubRel, number, SUCCESS).await;
        let scene = scene.crash((sender, client)).await;
        let mut client = scene.resumed(version, "client").await;
        client.expect_ack(PacketType::PubRel, number, SUCCESS).await;
        client.send_ack(PacketType::PubComp, number, SUCCESS).await;
        client.expect_nothing().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_identifier_of_a_publisher_is_stored_if_its_session_outlives_the_connection() {
    for version in VERSIONS {
        for is_stored in [false, true] {
            let scene = Scene::new().await;
            scene.away(version, "away", "t", QoS::ExactlyOnce).await;
            let mut sender = match is_stored {
                true => scene.stored(version, "sender").await.0,
                false => scene.fleeting(version, "sender").await,
            };
            send(&mut sender, &numbered("m", QoS::ExactlyOnce, 1)).await;
            sender.expect_ack(PacketType::PubRec, id(1), SUCCESS).await;
            let received = |op: &Op| matches!(op, Op::Received(..));
            assert_eq!(scene.committed().iter().any(received), is_stored);
        }
    }
}

/// Repeated on the same connection or on a new one: it is no new message, and it is not acknowledged either.
#[tokio::test(start_paused = true)]
async fn the_pubrec_of_a_repeated_publish_waits_for_the_same() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "away", "t", QoS::ExactlyOnce).await;
        let (mut sender, _) = scene.stored(version, "sender").await;
        scene.hold().await;
        let mut publish = numbered("once", QoS::ExactlyOnce, 1);
        send(&mut sender, &publish).await;
        scene.held().await;
        publish.dup = true;
        send(&mut sender, &publish).await;
        sender.expect_nothing().await;
        sender.abort().await;
        let mut sender = scene.resumed(version, "sender").await;
        send(&mut sender, &publish).await;
        sender.expect_nothing().await;
        scene.release().await;
        sender.expect_ack(PacketType::PubRec, id(1), SUCCESS).await;
        sender.expect_nothing().await;
        let mut away = scene.resumed(version, "away").await;
        away.expect_message("t", "once", QoS::ExactlyOnce).await;
        away.expect_nothing().await;
    }
}

/// Acknowledgements that wait for a connection that is taken over are dropped with it; what they wait for is
/// committed all the same.
#[tokio::test(start_paused = true)]
async fn a_takeover_drops_what_waits_and_the_commit_goes_on() {
    for version in VERSIONS {
        let scene = Scene::new().await;
        scene.away(version, "away", "t", QoS::AtLeastOnce).await;
        let (mut first, _) = scene.stored(version, "client").await;
        scene.hold().await;
        send(&mut first, &numbered("m", QoS::AtLeastOnce, 1)).await;
        send_subscribe(&mut first, 2, "u").await;
        scene.held().await;
        let mut second = scene.resumed(version, "client").await;
        first
            .expect_disconnect(ReasonCode::SESSION_TAKEN_OVER)
            .await;
        second.expect_nothing().await;
        scene.release().await;
        second.expect_nothing().await;
        let scene = scene.crash((first, second)).await;
        let mut away = scene.resumed(version, "away").await;
        away.expect_message("t", "m", QoS::AtLeastOnce).await;
        let mut client = scene.resumed(version, "client").await;
        let mut sender = scene.fleeting(version, "sender").await;
        sender
            .publish(&message("u", "there", QoS::AtLeastOnce))
            .await;
        client.expect_message("u", "there", QoS::AtLeastOnce).await;
    }
}
