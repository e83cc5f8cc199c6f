//! Shared subscriptions: one member a message, and what happens when a member goes.

use mqtt_broker::DropReason;
use mqtt_codec::{Ack, Packet, QoS, ReasonCode};

use crate::harness::{ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, lasting, message, settle};

/// Section 4.8.2: each message goes to one member, in turn, and to ordinary subscribers as well.
#[tokio::test(start_paused = true)]
async fn each_message_goes_to_one_member() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, version, "sender").await;
            let mut ordinary = Peer::new(&broker, version, "ordinary").await;
            ordinary.subscribe("a/+", qos).await;
            let mut members = Vec::new();
            for number in 0..3 {
                let mut member = Peer::new(&broker, version, &format!("member-{number}")).await;
                member.subscribe("$share/group/a/#", qos).await;
                members.push(member);
            }
            let texts: Vec<String> = (0..6).map(|number| number.to_string()).collect();
            for text in &texts {
                sender.publish(&message("a/b", text, qos)).await;
                ordinary.expect_message("a/b", text, qos).await;
            }
            let mut all = Vec::new();
            for member in &mut members {
                for _ in 0..2 {
                    let received = member.receive().await;
                    let publish = received.publish();
                    all.push(String::from_utf8_lossy(publish.payload).into_owned());
                    member.acknowledge(&publish).await;
                }
                member.expect_nothing().await;
            }
            all.sort();
            assert_eq!(all, texts);
        }
    }
}

/// [MQTT-4.8.2-3]: the granted QoS of the chosen member, and its identifier.
#[tokio::test(start_paused = true)]
async fn the_member_decides_the_qos() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut member = Peer::new(&broker, V5, "member").await;
    let filters = vec![crate::harness::filter(
        "$share/group/topic",
        QoS::AtLeastOnce,
    )];
    member.subscribe_with(filters, Some(9)).await;
    sender
        .publish(&message("topic", "text", QoS::ExactlyOnce))
        .await;
    let received = member
        .expect_message("topic", "text", QoS::AtLeastOnce)
        .await;
    let identifiers = received.publish().properties.subscription_identifiers;
    assert_eq!(
        identifiers.iter().map(|id| id.get()).collect::<Vec<_>>(),
        [9]
    );
}

/// Connected members come before those that only have a session; without any, the session keeps it.
#[tokio::test(start_paused = true)]
async fn connected_members_come_first() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
    away.subscribe("$share/group/topic", QoS::AtLeastOnce).await;
    away.disconnect().await;
    let mut here = Peer::new(&broker, V3_1_1, "here").await;
    here.subscribe("$share/group/topic", QoS::AtLeastOnce).await;
    for text in ["1", "2", "3"] {
        sender
            .publish(&message("topic", text, QoS::AtLeastOnce))
            .await;
        here.expect_message("topic", text, QoS::AtLeastOnce).await;
    }
    here.disconnect().await;
    sender
        .publish(&message("topic", "4", QoS::AtLeastOnce))
        .await;
    let (mut away, present) = Peer::lasting(&broker, V5, "away").await;
    assert!(present);
    away.expect_message("topic", "4", QoS::AtLeastOnce).await;
    away.expect_nothing().await;
}

/// What a member never got goes to another one when it disconnects; what it got at QoS 1 goes when its
/// session ends; a QoS 2 message that was sent to it stays with it ([MQTT-4.8.2-5]).
#[tokio::test(start_paused = true)]
async fn messages_return_to_the_group() {
    for (qos, lasts, returned) in [
        (QoS::AtLeastOnce, false, vec!["1", "2", "3"]),
        (QoS::AtLeastOnce, true, vec!["2", "3"]),
        (QoS::ExactlyOnce, false, vec!["2", "3"]),
        (QoS::ExactlyOnce, true, vec!["2", "3"]),
    ] {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut connect = lasting(V5, "slow");
        connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
        connect.properties.session_expiry_interval = Some(if lasts { 1_000 } else { 0 });
        let mut slow = Peer::accepted(&broker, &connect).await;
        slow.subscribe("$share/group/topic", qos).await;
        for text in ["1", "2", "3"] {
            sender.publish(&message("topic", text, qos)).await;
        }
        assert_eq!(slow.receive().await.publish().payload, b"1");
        let mut other = Peer::new(&broker, V5, "other").await;
        other.subscribe("$share/group/topic", qos).await;
        slow.abort().await;
        for text in returned {
            other.expect_message("topic", text, qos).await;
        }
        other.expect_nothing().await;
        if lasts {
            let mut slow = Peer::accepted(&broker, &connect).await;
            slow.expect_message("topic", "1", qos).await;
            slow.expect_nothing().await;
        }
    }
}

/// [MQTT-4.8.2-6]: a message that a member refuses goes to no other one.
#[tokio::test(start_paused = true)]
async fn a_refused_message_is_discarded() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut first = Peer::new(&broker, V5, "first").await;
    first
        .subscribe("$share/group/topic", QoS::AtLeastOnce)
        .await;
    sender
        .publish(&message("topic", "text", QoS::AtLeastOnce))
        .await;
    let number = first.receive().await.publish().packet_id.unwrap();
    let mut second = Peer::new(&broker, V5, "second").await;
    second
        .subscribe("$share/group/topic", QoS::AtLeastOnce)
        .await;
    first
        .send(&Packet::PubAck(Ack::new(
            number,
            ReasonCode::UNSPECIFIED_ERROR,
        )))
        .await;
    settle().await;
    first.abort().await;
    second.expect_nothing().await;
}

/// Without a member that could take it, a message is counted.
#[tokio::test(start_paused = true)]
async fn nobody_in_the_group_can_take_it() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
    away.subscribe("$share/group/topic", QoS::AtLeastOnce).await;
    away.disconnect().await;
    sender
        .publish(&message("topic", "text", QoS::AtMostOnce))
        .await;
    sender.expect_nothing().await;
    assert_eq!(broker.counters().dropped(DropReason::NoMember), 1);
}
