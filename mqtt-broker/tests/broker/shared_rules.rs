//! Shared subscriptions: who gets a message, once, and what becomes of it when a member goes.

use mqtt_codec::{PacketType, QoS, ReasonCode, RetainHandling};

use crate::harness::{ALL, EVERY_QOS, Peer, V5, advance, broker, filter, lasting, message, settle};

/// Two members with sessions that last, and a sender.
async fn group(broker: &mqtt_broker::Broker, qos: QoS) -> (Peer, Peer, Peer) {
    let (mut first, _) = Peer::lasting(broker, V5, "first").await;
    first.subscribe("$share/g/topic", qos).await;
    let sender = Peer::new(broker, V5, "sender").await;
    let (second, _) = Peer::lasting(broker, V5, "second").await;
    (first, second, sender)
}

/// [MQTT-4.8.2-4]: a QoS 2 delivery that began with a member is completed with it when it comes back, wherever it
/// stood; no other member gets the message.
#[tokio::test(start_paused = true)]
async fn a_qos_2_delivery_stays_with_its_member() {
    for released in [false, true] {
        let broker = broker();
        let (mut first, mut second, mut sender) = group(&broker, QoS::ExactlyOnce).await;
        sender
            .publish(&message("topic", "text", QoS::ExactlyOnce))
            .await;
        let number = first
            .expect_publish("topic", "text", QoS::ExactlyOnce)
            .await
            .publish()
            .packet_id
            .unwrap();
        if released {
            first
                .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
                .await;
            first
                .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
                .await;
        }
        second.subscribe("$share/g/topic", QoS::ExactlyOnce).await;
        first.abort().await;
        second.expect_nothing().await;
        advance(10_000).await;
        second.expect_nothing().await;
        let (mut first, present) = Peer::lasting(&broker, V5, "first").await;
        assert!(present);
        if !released {
            let again = first
                .expect_publish("topic", "text", QoS::ExactlyOnce)
                .await;
            assert!(again.publish().dup);
            assert_eq!(again.publish().packet_id, Some(number));
            first
                .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
                .await;
        }
        first
            .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
            .await;
        first
            .send_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
            .await;
        first.expect_nothing().await;
        second.expect_nothing().await;
    }
}

/// [MQTT-4.8.2-5]: where the session of that member ends instead, by a clean start, by its expiry or by DISCONNECT,
/// the message goes to nobody else.
#[tokio::test(start_paused = true)]
async fn a_qos_2_delivery_ends_with_its_session() {
    for released in [false, true] {
        for how in ["clean start", "expiry", "disconnect"] {
            let broker = broker();
            let mut second = Peer::new(&broker, V5, "second").await;
            let mut sender = Peer::new(&broker, V5, "sender").await;
            let mut connect = lasting(V5, "first");
            connect.properties.session_expiry_interval = Some(50);
            let mut first = Peer::accepted(&broker, &connect).await;
            first.subscribe("$share/g/topic", QoS::ExactlyOnce).await;
            sender
                .publish(&message("topic", "text", QoS::ExactlyOnce))
                .await;
            let number = first
                .expect_publish("topic", "text", QoS::ExactlyOnce)
                .await
                .publish()
                .packet_id
                .unwrap();
            if released {
                first
                    .send_ack(PacketType::PubRec, number, ReasonCode::SUCCESS)
                    .await;
                first
                    .expect_ack(PacketType::PubRel, number, ReasonCode::SUCCESS)
                    .await;
            }
            second.subscribe("$share/g/topic", QoS::ExactlyOnce).await;
            match how {
                "clean start" => {
                    first.abort().await;
                    connect.clean_start = true;
                    Peer::accepted(&broker, &connect).await.disconnect().await;
                }
                "expiry" => {
                    first.abort().await;
                    advance(60).await;
                }
                _ => {
                    let mut bye = mqtt_codec::Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
                    bye.properties.session_expiry_interval = Some(0);
                    first.send(&mqtt_codec::Packet::Disconnect(bye)).await;
                    first.expect_closed().await;
                    settle().await;
                }
            }
            second.expect_nothing().await;
            // The group goes on.
            sender
                .publish(&message("topic", "next", QoS::ExactlyOnce))
                .await;
            second
                .expect_message("topic", "next", QoS::ExactlyOnce)
                .await;
            second.expect_nothing().await;
        }
    }
}

/// [MQTT-4.8.2-6]: a message that its member answered with an error is discarded, at QoS 1 and 2, now and when that
/// member goes.
#[tokio::test(start_paused = true)]
async fn a_refused_shared_message_goes_to_nobody() {
    for reason in [0x80, 0x83, 0x87, 0x97] {
        for (qos, packet_type) in [
            (QoS::AtLeastOnce, PacketType::PubAck),
            (QoS::ExactlyOnce, PacketType::PubRec),
        ] {
            let broker = broker();
            let (mut first, mut second, mut sender) = group(&broker, qos).await;
            sender.publish(&message("topic", "text", qos)).await;
            let received = first.expect_publish("topic", "text", qos).await;
            second.subscribe("$share/g/topic", qos).await;
            let number = received.publish().packet_id.unwrap();
            first
                .send_ack(packet_type, number, ReasonCode(reason))
                .await;
            first.expect_nothing().await;
            second.expect_nothing().await;
            let mut connect = lasting(V5, "first");
            connect.clean_start = true;
            first.abort().await;
            Peer::accepted(&broker, &connect).await.disconnect().await;
            second.expect_nothing().await;
        }
    }
}

/// [MQTT-4.8.2-3] [MQTT-3.8.4-8]: each member gets messages at the lower of the published QoS and the one that it was
/// granted itself, with its own identifier.
#[tokio::test(start_paused = true)]
async fn each_member_gets_its_own_qos() {
    for published in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut members = Vec::new();
        for granted in EVERY_QOS {
            let name = format!("member {granted:?}");
            let mut member = Peer::new(&broker, V5, &name).await;
            member
                .subscribe_with(
                    vec![filter("$share/g/topic", granted)],
                    Some(10 + u32::from(granted as u8)),
                )
                .await;
            members.push((granted, member));
        }
        for _ in 0..30 {
            sender.publish(&message("topic", "text", published)).await;
        }
        let mut total = 0;
        for (granted, member) in &mut members {
            settle().await;
            member.send(&mqtt_codec::Packet::PingReq).await;
            let mut own = 0;
            loop {
                let received = member.receive().await;
                let mqtt_codec::Packet::Publish(publish) = received.packet() else {
                    if received.packet() == mqtt_codec::Packet::PingResp {
                        break;
                    }
                    continue;
                };
                assert_eq!(publish.qos, published.min(*granted));
                assert_eq!(received.identifiers(), [10 + u32::from(*granted as u8)]);
                member.acknowledge(&publish).await;
                own += 1;
            }
            assert!(own > 0, "{granted:?} of the group got nothing");
            total += own;
        }
        assert_eq!(total, 30);
    }
}

/// Section 4.8.2: different groups, and the same name with another filter, are different subscriptions; ordinary
/// subscriptions of the members are not affected.
#[tokio::test(start_paused = true)]
async fn groups_are_told_apart() {
    for version in ALL {
        let broker = broker();
        let mut sender = Peer::new(&broker, version, "sender").await;
        let mut members = Vec::new();
        for (name, text) in [
            ("1", "$share/g/a/+"),
            ("2", "$share/G/a/+"),
            ("3", "$share/g/a/#"),
            ("4", "$share/g/a/b"),
            ("5", "a/b"),
        ] {
            let mut member = Peer::new(&broker, version, name).await;
            member.subscribe(text, QoS::AtLeastOnce).await;
            members.push(member);
        }
        sender
            .publish(&message("a/b", "text", QoS::AtLeastOnce))
            .await;
        for member in &mut members {
            member.expect_message("a/b", "text", QoS::AtLeastOnce).await;
            member.expect_nothing().await;
        }
        // Both kinds for one client: the ordinary subscription brings its copy, the group one more.
        members[4].subscribe("$share/h/a/b", QoS::AtLeastOnce).await;
        sender
            .publish(&message("a/b", "both", QoS::AtLeastOnce))
            .await;
        for _ in 0..2 {
            members[4]
                .expect_message("a/b", "both", QoS::AtLeastOnce)
                .await;
        }
        members[4].expect_nothing().await;
        members[4].unsubscribe("a/b").await;
        sender
            .publish(&message("a/b", "group", QoS::AtLeastOnce))
            .await;
        members[4]
            .expect_message("a/b", "group", QoS::AtLeastOnce)
            .await;
        members[4].unsubscribe("$share/h/a/b").await;
        sender
            .publish(&message("a/b", "none", QoS::AtLeastOnce))
            .await;
        members[4].expect_nothing().await;
    }
}

/// Section 4.8.2: no retained messages for a shared subscription, whatever Retain Handling says; Retain As Published
/// counts, and wildcards do not reach topics with `$`.
#[tokio::test(start_paused = true)]
async fn retained_messages_and_groups() {
    for handling in [
        RetainHandling::Always,
        RetainHandling::IfNew,
        RetainHandling::Never,
    ] {
        for retain_as_published in [false, true] {
            let broker = broker();
            let mut sender = Peer::new(&broker, V5, "sender").await;
            let mut publish = message("topic", "kept", QoS::AtLeastOnce);
            publish.retain = true;
            sender.publish(&publish).await;
            let mut member = Peer::new(&broker, V5, "member").await;
            for _ in 0..2 {
                let mut wanted = filter("$share/g/#", QoS::AtLeastOnce);
                wanted.options.retain_handling = handling;
                wanted.options.retain_as_published = retain_as_published;
                member.subscribe_with(vec![wanted], None).await;
                member.expect_nothing().await;
            }
            sender.publish(&publish).await;
            let received = member
                .expect_message("topic", "kept", QoS::AtLeastOnce)
                .await;
            assert_eq!(received.publish().retain, retain_as_published);
            sender
                .publish(&message("$topic", "hidden", QoS::AtLeastOnce))
                .await;
            member.expect_nothing().await;
        }
    }
}

/// [MQTT-4.5.0-1] for groups: with members that come and go every accepted QoS 1 message arrives, and none at two
/// members without need.
#[tokio::test(start_paused = true)]
async fn a_changing_group_loses_nothing() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut got: Vec<u32> = Vec::new();
    let names = ["a", "b", "c"];
    let mut members: Vec<Option<Peer>> = Vec::new();
    for name in names {
        let (mut member, _) = Peer::lasting(&broker, V5, name).await;
        member.subscribe("$share/g/topic", QoS::AtLeastOnce).await;
        members.push(Some(member));
    }
    for round in 0..40_u32 {
        let index = round as usize % 3;
        match members[index].take() {
            Some(member) if round % 2 == 0 => member.abort().await,
            Some(member) => members[index] = Some(member),
            None => members[index] = Some(Peer::lasting(&broker, V5, names[index]).await.0),
        }
        sender
            .publish(&message("topic", &round.to_string(), QoS::AtLeastOnce))
            .await;
    }
    for (index, name) in names.iter().enumerate() {
        if members[index].is_none() {
            members[index] = Some(Peer::lasting(&broker, V5, name).await.0);
        }
    }
    for member in members.iter_mut().flatten() {
        settle().await;
        member.send(&mqtt_codec::Packet::PingReq).await;
        loop {
            let received = member.receive().await;
            let mqtt_codec::Packet::Publish(publish) = received.packet() else {
                break;
            };
            got.push(
                std::str::from_utf8(publish.payload)
                    .unwrap()
                    .parse()
                    .unwrap(),
            );
            member.acknowledge(&publish).await;
        }
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got, (0..40).collect::<Vec<_>>());
}
