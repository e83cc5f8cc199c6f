//! The ways on which something that is denied could get through. Each shows as well that the allowed does.

use core::num::NonZeroU16;

use mqtt_broker::MemoryStore;
use mqtt_broker::auth::Denial;
use mqtt_codec::{Connect, Packet, Publish, QoS, ReasonCode, RetainHandling, Will};

use crate::harness::{EVERY_QOS, Peer, advance, filter, message, name, settle};
use crate::leaks::scene::Scene;

const ONE: QoS = QoS::AtLeastOnce;

fn kept<'a>(topic: &'a str, payload: &'a str, qos: QoS) -> Publish<'a> {
    let mut publish = message(topic, payload, qos);
    publish.retain = true;
    publish
}

/// Takes what has come until now; returns the topics.
async fn drain(peer: &mut Peer) -> Vec<String> {
    settle().await;
    peer.send(&Packet::PingReq).await;
    let mut topics = Vec::new();
    loop {
        let received = peer.receive().await;
        match received.packet() {
            Packet::PingResp => return topics,
            Packet::Publish(publish) => {
                topics.push(publish.topic.unwrap().as_str().to_owned());
                peer.acknowledge(&publish).await;
            }
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }
}

/// Subscribes, whatever the answer is.
async fn ask(peer: &mut Peer, text: &str, handling: RetainHandling) -> ReasonCode {
    let mut wanted = filter(text, QoS::ExactlyOnce);
    if peer.version.has_properties() {
        wanted.options.retain_handling = handling;
        wanted.options.retain_as_published = true;
    }
    peer.subscribe_with(vec![wanted], None).await[0]
}

/// Subscribes to a filter that may be refused, as the source has it.
async fn ask_for_other(scene: &Scene, peer: &mut Peer, text: &str) {
    let answer = ask(peer, text, RetainHandling::Always).await;
    assert_eq!(answer.is_error(), scene.source.refuses_filters, "{text}");
    if answer.is_error() && scene.version.has_reason_codes() {
        assert_eq!(answer, ReasonCode::NOT_AUTHORIZED, "{text}");
    }
}

pub(super) async fn publishing(scene: &Scene) {
    let (own, other) = (scene.own("x"), scene.other("x"));
    let mut root = scene.root("root").await;
    root.subscribe("#", QoS::ExactlyOnce).await;
    let mut anna = scene.anna().await;
    for qos in EVERY_QOS {
        anna.publish(&message(&own, "allowed", qos)).await;
        root.expect_message(&scene.whole(&own), "allowed", qos)
            .await;
        scene.deny(&mut anna, &message(&other, "no", qos)).await;
        root.expect_nothing().await;
    }
}

pub(super) async fn aliases(scene: &Scene) {
    let (own, other) = (scene.own("x"), scene.other("x"));
    let mut root = scene.root("root").await;
    root.subscribe("#", QoS::ExactlyOnce).await;
    let mut anna = scene.anna().await;
    for topic in [&other, &own, &other] {
        let mut first = message(topic, "text", ONE);
        first.properties.topic_alias = NonZeroU16::new(1);
        let mut second = first.clone();
        second.topic = None;
        for publish in [first, second] {
            if *topic == other {
                scene.deny(&mut anna, &publish).await;
            } else {
                anna.publish(&publish).await;
                root.expect_message(&scene.whole(topic), "text", ONE).await;
            }
            root.expect_nothing().await;
        }
    }
}

pub(super) async fn retaining(scene: &Scene) {
    let (own, other) = (scene.own("x"), scene.other("x"));
    let mut anna = scene.anna().await;
    anna.publish(&kept(&own, "allowed", ONE)).await;
    for qos in EVERY_QOS {
        scene.deny(&mut anna, &kept(&other, "no", qos)).await;
    }
    // Nor is what is there cleared.
    let mut root = scene.root("root").await;
    root.publish(&kept(&scene.whole(&other), "stays", ONE))
        .await;
    scene.deny(&mut anna, &kept(&other, "", ONE)).await;
    root.subscribe(&scene.whole(&own), ONE).await;
    root.expect_message(&scene.whole(&own), "allowed", ONE)
        .await;
    root.subscribe(&scene.whole(&other), ONE).await;
    root.expect_message(&scene.whole(&other), "stays", ONE)
        .await;
    root.expect_nothing().await;
}

pub(super) async fn retained(scene: &Scene) {
    let (own, other) = (scene.own("kept"), scene.other("kept"));
    let mut root = scene.root("root").await;
    for qos in EVERY_QOS {
        root.publish(&kept(&scene.whole(&own), "own", qos)).await;
        root.publish(&kept(&scene.whole(&other), "other", qos))
            .await;
        let mut anna = scene.anna().await;
        for handling in [RetainHandling::IfNew, RetainHandling::Always] {
            for text in ["t/#", "t/+/kept"] {
                ask(&mut anna, text, handling).await;
                anna.expect_message(&own, "own", qos).await;
                anna.expect_nothing().await;
            }
        }
        ask_for_other(scene, &mut anna, &other).await;
        anna.expect_nothing().await;
        // What has changed since comes to the subscriptions that are there.
        root.publish(&kept(&scene.whole(&other), "other", qos))
            .await;
        anna.expect_nothing().await;
        anna.disconnect().await;
    }
}

pub(super) async fn wildcards(scene: &Scene) {
    let (own, other) = (scene.own("x"), scene.other("x"));
    let mut root = scene.root("root").await;
    for text in ["t/#", "t/+/x", "t/+/+", "+/#"] {
        let mut anna = scene.anna().await;
        anna.subscribe(text, QoS::ExactlyOnce).await;
        for qos in EVERY_QOS {
            root.publish(&message(&scene.whole(&other), "other", qos))
                .await;
            root.publish(&message(&scene.whole(&own), "own", qos)).await;
            anna.expect_message(&own, "own", qos).await;
            anna.expect_nothing().await;
        }
        anna.disconnect().await;
    }
    let mut anna = scene.anna().await;
    ask_for_other(scene, &mut anna, &other).await;
    root.publish(&message(&scene.whole(&other), "other", ONE))
        .await;
    anna.expect_nothing().await;
}

pub(super) async fn shared(scene: &Scene) {
    let (own, other, late) = (scene.own("x"), scene.other("x"), scene.own("late/x"));
    let everything = format!("$share/g/{}", scene.whole("t/#"));
    let mut root = scene.root("root").await;
    let mut member = scene.root("member").await;
    let mut anna = scene.anna().await;
    anna.subscribe("$share/g/t/#", QoS::ExactlyOnce).await;
    member.subscribe(&everything, QoS::ExactlyOnce).await;
    let mut anna_got = 0;
    for qos in EVERY_QOS {
        for _ in 0..4 {
            root.publish(&message(&scene.whole(&other), "other", qos))
                .await;
            member
                .expect_message(&scene.whole(&other), "other", qos)
                .await;
        }
        for _ in 0..4 {
            root.publish(&message(&scene.whole(&own), "own", qos)).await;
            let found = drain(&mut anna).await.len();
            anna_got += found;
            assert_eq!(found + drain(&mut member).await.len(), 1);
        }
        anna.expect_nothing().await;
    }
    assert!(anna_got > 0, "anna is a member");
    member.disconnect().await;
    root.publish(&message(&scene.whole(&other), "nobody's", ONE))
        .await;
    anna.expect_nothing().await;

    // What a member leaves behind goes to those who may receive it.
    let mut leaving = scene.root("leaving").await;
    leaving
        .subscribe(&everything.replace("/g/", "/h/"), ONE)
        .await;
    for topic in [&other, &own] {
        root.publish(&message(&scene.whole(topic), "left", ONE))
            .await;
        leaving
            .expect_publish(&scene.whole(topic), "left", ONE)
            .await;
    }
    // Those of the first group are hers.
    drain(&mut anna).await;
    anna.unsubscribe("$share/g/t/#").await;
    anna.subscribe("$share/h/t/#", ONE).await;
    leaving.abort().await;
    anna.expect_message(&own, "left", ONE).await;
    anna.expect_nothing().await;

    // What waits for a member that may not receive it any more goes to others as well.
    for payload in ["first", "second"] {
        root.publish(&message(&scene.whole(&late), payload, ONE))
            .await;
    }
    let first = anna.expect_publish(&late, "first", ONE).await;
    let mut heir = scene.root("heir").await;
    heir.subscribe(&everything.replace("/g/", "/h/"), ONE).await;
    scene.narrow(true);
    anna.acknowledge(&first.publish()).await;
    anna.expect_nothing().await;
    heir.expect_message(&scene.whole(&late), "second", ONE)
        .await;
}

fn with_will<'a>(connect: Connect<'a>, topic: &'a str, retain: bool, delay: u32) -> Connect<'a> {
    let mut connect = connect;
    let mut will = Will::new(name(topic), b"dead");
    will.retain = retain;
    if delay > 0 {
        will.properties.delay_interval = Some(delay);
    }
    connect.will = Some(will);
    connect
}

pub(super) async fn wills(scene: &Scene) {
    let (own, other, late) = (scene.own("will"), scene.other("will"), scene.own("late/x"));
    let mut root = scene.root("root").await;
    root.subscribe("#", QoS::ExactlyOnce).await;
    for retain in [false, true] {
        scene.narrow(false);
        let not = ReasonCode::NOT_AUTHORIZED;
        let denied = with_will(scene.hello(), &other, retain, 0);
        scene.refused("anna", &denied, not).await;
        let allowed = with_will(scene.hello(), &own, retain, 0);
        scene.come(&allowed).await.0.abort().await;
        root.expect_message(&scene.whole(&own), "dead", QoS::AtMostOnce)
            .await;

        let narrowed = with_will(scene.hello(), &late, retain, 0);
        let (anna, _) = scene.come(&narrowed).await;
        scene.narrow(true);
        anna.abort().await;
        root.expect_nothing().await;
        scene.refused("anna", &narrowed, not).await;
    }
    root.disconnect().await;
    let mut root = scene.root("root").await;
    root.subscribe("#", QoS::AtMostOnce).await;
    assert_eq!(drain(&mut root).await, [scene.whole(&own)]);
}

pub(super) async fn delayed_wills(scene: &Scene) {
    let late = scene.own("late/will");
    let mut root = scene.root("root").await;
    root.subscribe("#", QoS::ExactlyOnce).await;
    for expiry in [50, 1_000] {
        for narrowed in [false, true] {
            scene.narrow(false);
            let mut connect = with_will(scene.lasting(), &late, false, 100);
            connect.clean_start = true;
            connect.properties.session_expiry_interval = Some(expiry);
            scene.come(&connect).await.0.abort().await;
            scene.narrow(narrowed);
            root.expect_nothing().await;
            advance(200).await;
            if !narrowed {
                root.expect_message(&scene.whole(&late), "dead", QoS::AtMostOnce)
                    .await;
            }
            root.expect_nothing().await;
        }
    }
}

pub(super) async fn resumed(scene: &Scene) {
    let (own, other, late) = (scene.own("x"), scene.other("x"), scene.own("late/x"));
    let mut root = scene.root("root").await;
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    for text in [&own, &late] {
        anna.subscribe(text, ONE).await;
    }
    anna.abort().await;
    let publish_all = async |root: &mut Peer, payload: &str| {
        for topic in [&late, &other, &own] {
            root.publish(&message(&scene.whole(topic), payload, ONE))
                .await;
        }
    };
    publish_all(&mut root, "waits").await;
    scene.narrow(true);
    let (mut anna, present) = scene.come(&scene.lasting()).await;
    assert_eq!(present, scene.version.has_session_present());
    assert_eq!(scene.denied(Denial::Subscribe), 1);
    assert_eq!(scene.kept_from_reader(), 1);
    anna.expect_message(&own, "waits", ONE).await;
    anna.expect_nothing().await;
    // The subscription has gone: it does not come back with the permission.
    scene.narrow(false);
    publish_all(&mut root, "again").await;
    anna.expect_message(&own, "again", ONE).await;
    anna.expect_nothing().await;

    // A wildcard stays, and brings less.
    anna.subscribe("t/#", ONE).await;
    anna.abort().await;
    publish_all(&mut root, "third").await;
    scene.narrow(true);
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    assert_eq!(scene.kept_from_reader(), 2);
    anna.expect_message(&own, "third", ONE).await;
    publish_all(&mut root, "fourth").await;
    anna.expect_message(&own, "fourth", ONE).await;
    anna.expect_nothing().await;
}

pub(super) async fn restarted(scene: &Scene) {
    let store = MemoryStore::new();
    let (own, other, late) = (scene.own("x"), scene.other("x"), scene.own("late/x"));
    let (scene, running) = scene.with_store(&store, false);
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    anna.subscribe("t/#", ONE).await;
    anna.subscribe(&late, ONE).await;
    anna.abort().await;
    let mut root = scene.root("root").await;
    for number in 0..30 {
        for topic in [&late, &other, &own] {
            let payload = number.to_string();
            root.publish(&message(&scene.whole(topic), &payload, ONE))
                .await;
        }
    }
    drop(root);
    running.stop().await;

    let (scene, running) = scene.with_store(&store, true);
    let (mut anna, present) = scene.come(&scene.lasting()).await;
    assert_eq!(present, scene.version.has_session_present());
    assert_eq!(scene.denied(Denial::Subscribe), 1);
    for number in 0..30 {
        anna.expect_message(&own, &number.to_string(), ONE).await;
    }
    anna.expect_nothing().await;
    drop(anna);
    running.stop().await;
}

pub(super) async fn other_users(scene: &Scene) {
    let (own, will) = (scene.own("x"), scene.own("will"));
    let mut root = scene.root("root").await;
    root.subscribe(&scene.whole(&will), ONE).await;
    let connect = with_will(scene.lasting(), &will, false, 0);
    let (mut anna, _) = scene.come(&connect).await;
    anna.subscribe(&own, ONE).await;
    let not_valid = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
    let mut clean = scene.lasting();
    clean.clean_start = true;
    for connect in [&clean, &scene.lasting()] {
        scene.refused("ben", connect, not_valid).await;
    }
    anna.expect_nothing().await;
    root.expect_nothing().await;
    anna.abort().await;
    root.expect_message(&scene.whole(&will), "dead", QoS::AtMostOnce)
        .await;
    root.publish(&message(&scene.whole(&own), "hers", ONE))
        .await;
    for connect in [&clean, &scene.lasting()] {
        scene.refused("ben", connect, not_valid).await;
    }
    assert_eq!(scene.denied(Denial::Session), 4);
    let (mut anna, present) = scene.come(&scene.lasting()).await;
    assert_eq!(present, scene.version.has_session_present());
    anna.expect_message(&own, "hers", ONE).await;
}

pub(super) async fn narrowed(scene: &Scene) {
    let (own, late) = (scene.own("x"), scene.own("late/x"));
    let mut root = scene.root("root").await;
    root.subscribe("#", ONE).await;
    let mut anna = scene.anna().await;
    anna.subscribe("t/#", QoS::ExactlyOnce).await;
    let mut publisher = scene.root("publisher").await;
    for (topic, payload) in [(&late, "first"), (&late, "second"), (&own, "third")] {
        publisher
            .publish(&message(&scene.whole(topic), payload, ONE))
            .await;
    }
    let first = anna.expect_publish(&late, "first", ONE).await;
    drain(&mut root).await;
    scene.narrow(true);
    // The one is on its way; those that wait are not.
    anna.acknowledge(&first.publish()).await;
    anna.expect_message(&own, "third", ONE).await;
    anna.expect_nothing().await;
    assert_eq!(scene.kept_from_reader(), 1);
    for qos in EVERY_QOS {
        publisher
            .publish(&message(&scene.whole(&late), "no", qos))
            .await;
        anna.expect_nothing().await;
    }
    drain(&mut root).await;
    anna.unsubscribe("t/#").await;
    for qos in EVERY_QOS {
        scene.deny(&mut anna, &message(&late, "no", qos)).await;
        root.expect_nothing().await;
        anna.publish(&message(&own, "yes", qos)).await;
        assert_eq!(drain(&mut root).await, [scene.whole(&own)]);
    }
    anna.subscribe("t/#", ONE).await;
    scene.narrow(false);
    publisher
        .publish(&message(&scene.whole(&late), "back", ONE))
        .await;
    anna.expect_message(&late, "back", ONE).await;
}

pub(super) async fn narrowed_then_resumed(scene: &Scene) {
    let late = scene.own("late/x");
    let mut root = scene.root("root").await;
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    anna.subscribe(&late, ONE).await;
    for payload in ["first", "second"] {
        root.publish(&message(&scene.whole(&late), payload, ONE))
            .await;
    }
    for payload in ["first", "second"] {
        anna.expect_message(&late, payload, ONE).await;
    }
    scene.narrow(true);
    anna.abort().await;
    let (anna, _) = scene.come(&scene.lasting()).await;
    assert_eq!(scene.denied(Denial::Subscribe), 1);
    anna.abort().await;
    scene.narrow(false);
    root.publish(&message(&scene.whole(&late), "third", ONE))
        .await;
    let (mut anna, _) = scene.come(&scene.lasting()).await;
    anna.expect_nothing().await;
}

pub(super) async fn responses(scene: &Scene) {
    let own = scene.own("x");
    let mut root = scene.root("root").await;
    root.subscribe("#", ONE).await;
    let mut anna = scene.anna().await;
    anna.subscribe(&own, ONE).await;
    let answer_to = |topic| {
        let mut publish = message(topic, "question", ONE);
        publish.properties.response_topic = Some(name("reply"));
        publish
    };
    anna.publish(&answer_to(&own)).await;
    let seen = root
        .expect_message(&scene.whole(&own), "question", ONE)
        .await;
    let seen = seen.publish().properties.response_topic.unwrap();
    assert_eq!(seen.as_str(), scene.whole("reply"));
    let echo = anna.expect_message(&own, "question", ONE).await;
    let echo = echo.publish().properties.response_topic.unwrap();
    assert_eq!(echo.as_str(), "reply");
    // One that is nowhere behind the mount point is none that she could use.
    root.send_publish(&answer_to(&scene.whole(&own))).await;
    let seen = anna.expect_message(&own, "question", ONE).await;
    let seen = seen
        .publish()
        .properties
        .response_topic
        .map(|topic| topic.as_str().to_owned());
    let expected = (!scene.has_mount()).then(|| "reply".to_owned());
    assert_eq!(seen, expected);
    // A response topic is no permission.
    scene
        .deny(&mut anna, &message("reply", "answer", ONE))
        .await;
}
