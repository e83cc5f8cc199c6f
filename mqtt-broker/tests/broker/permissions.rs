//! What clients may do: the allowed arrives, and the denied neither arrives nor leaks on any way.

use mqtt_broker::auth::Denial;
use mqtt_broker::auth::DeniedPublish;
use mqtt_codec::{Packet, PacketType, QoS, ReasonCode, RetainHandling, Will};

use crate::guarded::{Files, denied, login, refused, user, with_user};
use crate::harness::{
    ALL, EVERY_QOS, Peer, V3, V3_1_1, V5, filter, hello, lasting, message, name, settle,
};

/// anna may write below `a` and read below `b`, ben the other way round; carl may do everything.
const ACL: &str = "
user anna
topic write a/#
topic read b/#
user ben
topic read a/#
topic write b/#
user carl
topic #
topic deny secret/#
";

fn retained<'a>(topic: &'a str, payload: &'a str, qos: QoS) -> mqtt_codec::Publish<'a> {
    let mut publish = message(topic, payload, qos);
    publish.retain = true;
    publish
}

/// A denied PUBLISH is refused where the version can say so, dropped and counted in every version.
#[tokio::test(start_paused = true)]
async fn a_denied_publish_does_not_arrive() {
    for version in ALL {
        for qos in EVERY_QOS {
            let files = Files::new(ACL);
            let broker = files.broker();
            let mut carl = login(&broker, version, "carl").await;
            carl.subscribe("#", QoS::ExactlyOnce).await;
            let mut anna = login(&broker, version, "anna").await;
            anna.publish(&message("a/x", "allowed", qos)).await;
            carl.expect_message("a/x", "allowed", qos).await;

            for topic in ["b/x", "c", "a", "secret/x"] {
                let allowed = topic == "a";
                let number = anna.send_publish(&message(topic, "no", qos)).await;
                let reason = match version.has_reason_codes() && !allowed {
                    true => ReasonCode::NOT_AUTHORIZED,
                    false => ReasonCode::SUCCESS,
                };
                match (qos, number) {
                    (QoS::AtLeastOnce, Some(number)) => {
                        anna.expect_ack(PacketType::PubAck, number, reason).await;
                    }
                    (QoS::ExactlyOnce, Some(number)) => {
                        anna.expect_ack(PacketType::PubRec, number, reason).await;
                        if !reason.is_error() {
                            anna.send_ack(PacketType::PubRel, number, reason).await;
                            anna.expect_ack(PacketType::PubComp, number, reason).await;
                        }
                    }
                    _ => {}
                }
                if allowed {
                    carl.expect_message("a", "no", qos).await;
                }
                anna.expect_nothing().await;
                carl.expect_nothing().await;
            }
            assert_eq!(denied(&broker, Denial::Publish), 3);
        }
    }
}

/// Where it is configured, a version that cannot say no ends the connection instead.
#[tokio::test(start_paused = true)]
async fn a_denied_publish_may_end_the_connection() {
    let mut files = Files::new(ACL);
    files.settings.denied_publish = DeniedPublish::Disconnect;
    let broker = files.broker();
    for version in V3 {
        let mut anna = login(&broker, version, "anna").await;
        anna.send_publish(&message("b/x", "no", QoS::AtMostOnce))
            .await;
        anna.expect_nothing().await;
        anna.send_publish(&message("b/x", "no", QoS::AtLeastOnce))
            .await;
        anna.expect_closed().await;
    }
    let mut anna = login(&broker, V5, "anna").await;
    let number = anna
        .send_publish(&message("b/x", "no", QoS::AtLeastOnce))
        .await;
    anna.expect_ack(
        PacketType::PubAck,
        number.unwrap(),
        ReasonCode::NOT_AUTHORIZED,
    )
    .await;
}

/// An alias stands for the topic it was given, denied or not.
#[tokio::test(start_paused = true)]
async fn aliases_open_nothing() {
    let files = Files::new(ACL);
    let broker = files.broker();
    let mut carl = login(&broker, V5, "carl").await;
    carl.subscribe("#", QoS::ExactlyOnce).await;
    let mut anna = login(&broker, V5, "anna").await;
    for (topic, arrives) in [("b/x", false), ("a/x", true), ("b/x", false)] {
        let mut first = message(topic, "first", QoS::AtMostOnce);
        first.properties.topic_alias = core::num::NonZeroU16::new(1);
        let mut second = first.clone();
        second.topic = None;
        anna.send_publish(&first).await;
        anna.send_publish(&second).await;
        anna.expect_nothing().await;
        if arrives {
            carl.expect_message(topic, "first", QoS::AtMostOnce).await;
            carl.expect_message(topic, "first", QoS::AtMostOnce).await;
        }
        carl.expect_nothing().await;
    }
}

/// Each filter of a SUBSCRIBE is answered for itself.
#[tokio::test(start_paused = true)]
async fn a_denied_subscription_is_refused() {
    for version in ALL {
        let files = Files::new(ACL);
        let broker = files.broker();
        let mut anna = login(&broker, version, "anna").await;
        let filters = [
            "a/x",
            "b/x",
            "$share/g/a/#",
            "$share/g/b/#",
            "a/+",
            "$SYS/#",
        ];
        let wanted = filters.map(|text| filter(text, QoS::AtLeastOnce));
        let codes = anna.subscribe_with(wanted.to_vec(), None).await;
        let denied_code = match version.has_reason_codes() {
            true => ReasonCode::NOT_AUTHORIZED,
            false => ReasonCode::UNSPECIFIED_ERROR,
        };
        let granted = ReasonCode::GRANTED_QOS_1;
        assert_eq!(
            codes,
            [
                denied_code,
                granted,
                denied_code,
                granted,
                denied_code,
                denied_code
            ]
        );
        assert_eq!(denied(&broker, Denial::Subscribe), 4);
    }
}

/// What a wildcard matches beyond what may be read does not arrive: live, retained or through a group.
#[tokio::test(start_paused = true)]
async fn wildcards_do_not_leak() {
    for version in ALL {
        let files = Files::new(ACL);
        let broker = files.broker();
        let mut carl = login(&broker, version, "carl").await;
        for topic in ["a/kept", "b/kept", "c/kept"] {
            carl.publish(&retained(topic, "old", QoS::AtLeastOnce))
                .await;
        }
        let mut anna = login(&broker, version, "anna").await;
        anna.subscribe("#", QoS::ExactlyOnce).await;
        anna.expect_message("b/kept", "old", QoS::AtLeastOnce).await;
        anna.subscribe("+/kept", QoS::ExactlyOnce).await;
        anna.expect_message("b/kept", "old", QoS::AtLeastOnce).await;
        anna.expect_nothing().await;
        for topic in ["a/x", "b/x", "c/x", "b", "a", "bb/x"] {
            carl.publish(&message(topic, "new", QoS::ExactlyOnce)).await;
        }
        anna.expect_message("b/x", "new", QoS::ExactlyOnce).await;
        anna.expect_message("b", "new", QoS::ExactlyOnce).await;
        anna.expect_nothing().await;
        // Denied though everything else is allowed.
        carl.subscribe("#", QoS::AtMostOnce).await;
        carl.publish(&message("secret/x", "no", QoS::AtMostOnce))
            .await;
        settle().await;
        assert_eq!(denied(&broker, Denial::Publish), 1);
    }
}

/// A group gives its messages to members that may receive them.
#[tokio::test(start_paused = true)]
async fn shared_subscriptions_do_not_leak() {
    for version in ALL {
        for qos in EVERY_QOS {
            let files = Files::new(ACL);
            let broker = files.broker();
            let mut anna = login(&broker, version, "anna").await;
            let mut ben = login(&broker, version, "ben").await;
            anna.subscribe("$share/all/#", QoS::ExactlyOnce).await;
            ben.subscribe("$share/all/#", QoS::ExactlyOnce).await;
            let mut carl = login(&broker, version, "carl").await;
            for round in 0..4 {
                let payload = round.to_string();
                for topic in ["a/x", "b/x", "c/x"] {
                    carl.publish(&message(topic, &payload, qos)).await;
                }
                ben.expect_message("a/x", &payload, qos).await;
                anna.expect_message("b/x", &payload, qos).await;
            }
            // Nobody else takes what its only reader leaves behind.
            drop(ben);
            settle().await;
            carl.publish(&message("a/x", "last", QoS::AtMostOnce)).await;
            anna.expect_nothing().await;
        }
    }
}

/// A will is checked when it is made and when it is published.
#[tokio::test(start_paused = true)]
async fn wills_do_not_leak() {
    for version in ALL {
        let files = Files::new(ACL);
        let broker = files.broker();
        let mut carl = login(&broker, version, "carl").await;
        carl.subscribe("#", QoS::ExactlyOnce).await;
        let with_will = |topic, retain| {
            let mut connect = user(version, "anna", "one");
            let mut will = Will::new(name(topic), b"dead");
            will.retain = retain;
            connect.will = Some(will);
            connect
        };
        for retain in [false, true] {
            refused(
                &broker,
                &with_will("b/x", retain),
                ReasonCode::NOT_AUTHORIZED,
            )
            .await;
        }
        assert_eq!(denied(&broker, Denial::Will), 2);
        Peer::accepted(&broker, &with_will("a/x", false))
            .await
            .abort()
            .await;
        carl.expect_message("a/x", "dead", QoS::AtMostOnce).await;

        let anna = Peer::accepted(&broker, &with_will("a/x", true)).await;
        files.permit(&broker, &ACL.replace("topic write a/#", "topic write a/y"));
        anna.abort().await;
        carl.expect_nothing().await;
        assert_eq!(denied(&broker, Denial::Will), 3);
        let mut late = Peer::accepted(&broker, &user(version, "carl", "late")).await;
        late.subscribe("#", QoS::AtMostOnce).await;
        late.expect_nothing().await;
    }
}

/// The will of a session that has ended is its owner's still.
#[tokio::test(start_paused = true)]
async fn a_delayed_will_is_checked_when_it_is_due() {
    let files = Files::new(ACL);
    let broker = files.broker();
    let mut carl = login(&broker, V5, "carl").await;
    carl.subscribe("#", QoS::ExactlyOnce).await;
    for narrowed in [false, true] {
        let mut connect = with_user(lasting(V5, "one"), "anna");
        let mut will = Will::new(name("a/x"), b"dead");
        will.properties.delay_interval = Some(100);
        connect.will = Some(will);
        connect.properties.session_expiry_interval = Some(50);
        Peer::accepted(&broker, &connect).await.abort().await;
        if narrowed {
            files.permit(&broker, &ACL.replace("topic write a/#", "topic write a/y"));
        }
        crate::harness::advance(200).await;
        if !narrowed {
            carl.expect_message("a/x", "dead", QoS::AtMostOnce).await;
        }
        carl.expect_nothing().await;
    }
}

/// A reload narrows what live connections get and may send, and widens it.
#[tokio::test(start_paused = true)]
async fn a_reload_holds_for_live_connections() {
    for version in ALL {
        let files = Files::new(ACL);
        let broker = files.broker();
        let mut anna = login(&broker, version, "anna").await;
        anna.subscribe("b/#", QoS::AtMostOnce).await;
        let mut carl = login(&broker, version, "carl").await;
        let narrow = ACL.replace("topic read b/#", "topic read b/x");
        for (acl, arrives) in [(ACL, true), (&narrow, false), (ACL, true)] {
            files.permit(&broker, acl);
            for topic in ["b/x", "b/y"] {
                carl.publish(&message(topic, "text", QoS::AtLeastOnce))
                    .await;
            }
            anna.expect_message("b/x", "text", QoS::AtMostOnce).await;
            if arrives {
                anna.expect_message("b/y", "text", QoS::AtMostOnce).await;
            }
            anna.expect_nothing().await;
        }
        let mut ben = login(&broker, version, "ben").await;
        ben.subscribe("a/#", QoS::AtMostOnce).await;
        let narrow = ACL.replace("topic write a/#", "topic write a/x");
        for (acl, arrives) in [(ACL, true), (&narrow, false), (ACL, true)] {
            files.permit(&broker, acl);
            anna.send_publish(&message("a/x", "x", QoS::AtMostOnce))
                .await;
            anna.send_publish(&message("a/y", "y", QoS::AtMostOnce))
                .await;
            anna.expect_nothing().await;
            ben.expect_message("a/x", "x", QoS::AtMostOnce).await;
            if arrives {
                ben.expect_message("a/y", "y", QoS::AtMostOnce).await;
            }
            ben.expect_nothing().await;
        }
    }
}

/// Permissions that a broker did not have when its clients came hold for them as well.
#[tokio::test(start_paused = true)]
async fn a_reload_can_restrict_who_was_not() {
    let files = Files::new("topic read b\ntopic write b\n");
    let broker = crate::harness::broker();
    let mut one = Peer::new(&broker, V5, "one").await;
    one.subscribe("#", QoS::AtMostOnce).await;
    let mut other = Peer::new(&broker, V5, "other").await;
    other
        .publish(&message("a", "before", QoS::AtLeastOnce))
        .await;
    one.expect_message("a", "before", QoS::AtMostOnce).await;
    let mut settings = files.settings.clone();
    settings.password_file = None;
    broker.reload_auth(&settings).unwrap();
    let number = other
        .send_publish(&message("a", "after", QoS::AtLeastOnce))
        .await;
    let reason = ReasonCode::NOT_AUTHORIZED;
    other
        .expect_ack(PacketType::PubAck, number.unwrap(), reason)
        .await;
    other
        .publish(&message("b", "after", QoS::AtLeastOnce))
        .await;
    one.expect_message("b", "after", QoS::AtMostOnce).await;
    one.expect_nothing().await;
}

/// A session that is resumed keeps nothing that its owner lost meanwhile: no subscription, no message.
#[tokio::test(start_paused = true)]
async fn a_resumed_session_is_checked_again() {
    for version in ALL {
        let files = Files::new(ACL);
        let broker = files.broker();
        let connect = with_user(lasting(version, "one"), "anna");
        let mut anna = Peer::accepted(&broker, &connect).await;
        anna.subscribe("b/x/#", QoS::AtLeastOnce).await;
        anna.subscribe("b/y/#", QoS::AtLeastOnce).await;
        anna.abort().await;
        let mut carl = login(&broker, version, "carl").await;
        carl.publish(&message("b/x/1", "waits", QoS::AtLeastOnce))
            .await;
        carl.publish(&message("b/y/1", "waits", QoS::AtLeastOnce))
            .await;
        files.permit(&broker, &ACL.replace("topic read b/#", "topic read b/y/#"));
        let (mut anna, present) = Peer::resumed(&broker, &connect).await;
        assert_eq!(present, version.has_session_present());
        anna.expect_message("b/y/1", "waits", QoS::AtLeastOnce)
            .await;
        anna.expect_nothing().await;
        assert_eq!(denied(&broker, Denial::Subscribe), 1);
        let dropped = broker.counters();
        assert_eq!(dropped.dropped(mqtt_broker::DropReason::NotAuthorized), 1);
        // The subscription has gone: it does not come back with the permission.
        files.permit(&broker, ACL);
        carl.publish(&message("b/x/1", "no", QoS::AtLeastOnce))
            .await;
        carl.publish(&message("b/y/1", "yes", QoS::AtLeastOnce))
            .await;
        anna.expect_message("b/y/1", "yes", QoS::AtLeastOnce).await;
        anna.expect_nothing().await;
    }
}

/// A user who is refused the session of another gets nothing of it, though both may read the topic.
#[tokio::test(start_paused = true)]
async fn messages_of_a_session_are_not_for_another_user() {
    let acl = "user anna\ntopic read b/#\nuser ben\ntopic read b/#\nuser carl\ntopic #\n";
    let files = Files::new(acl);
    let broker = files.broker();
    let connect = with_user(lasting(V5, "one"), "anna");
    let mut anna = Peer::accepted(&broker, &connect).await;
    anna.subscribe("b/#", QoS::AtLeastOnce).await;
    anna.abort().await;
    let mut carl = login(&broker, V5, "carl").await;
    carl.publish(&message("b/x", "for anna", QoS::AtLeastOnce))
        .await;
    let other = with_user(lasting(V5, "one"), "ben");
    refused(&broker, &other, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID).await;
    let (mut anna, _) = Peer::resumed(&broker, &connect).await;
    anna.expect_message("b/x", "for anna", QoS::AtLeastOnce)
        .await;
}

/// CVE-2017-7650: identifiers and user names do not become wildcards.
#[tokio::test(start_paused = true)]
async fn names_are_no_wildcards() {
    let mut files = Files::new("pattern readwrite d/%c/#\npattern readwrite u/%u/#\n");
    files.settings.allow_anonymous = Some(true);
    let broker = files.broker();
    let mut one = Peer::new(&broker, V5, "dev1").await;
    one.publish(&message("d/dev1/x", "own", QoS::AtLeastOnce))
        .await;
    for id in ["#", "+", "+/#", "dev1/x", "/"] {
        let mut peer = Peer::new(&broker, V5, id).await;
        let topic = format!("d/{id}/#").replace("/#/#", "/#");
        for wanted in ["d/#", "d/+/#", "#", "d/dev1/#", topic.as_str()] {
            if mqtt_codec::TopicFilter::new(wanted).is_err() {
                continue;
            }
            let codes = peer
                .subscribe_with(vec![filter(wanted, QoS::AtMostOnce)], None)
                .await;
            assert_eq!(
                codes,
                [ReasonCode::NOT_AUTHORIZED],
                "{id} subscribes to {wanted}"
            );
        }
        one.publish(&message("d/dev1/x", "own", QoS::AtLeastOnce))
            .await;
        peer.expect_nothing().await;
    }
    // Nobody without a user name has a topic of a user.
    let codes = one
        .subscribe_with(vec![filter("u/#", QoS::AtMostOnce)], None)
        .await;
    assert_eq!(codes, [ReasonCode::NOT_AUTHORIZED]);
}

/// The TOML form: to subscribe is not to receive, and QoS and RETAIN have limits.
#[tokio::test(start_paused = true)]
async fn roles_have_limits() {
    let roles = r##"
[roles.device]
publish = ["up/%u/#", { topic = "alarm", qos = 1, retain = false }]
subscribe = [{ topic = "down/#", qos = 1 }]
receive = [{ topic = "down/%u/#", qos = 1 }, { topic = "down/all", qos = 0 }]
deny_publish = ["up/+/config"]

[roles.operator]
publish = ["#"]
subscribe = ["#"]

[groups.devices]
users = ["anna", "ben"]
roles = ["device"]

[users.carl]
roles = ["operator"]
"##;
    let files = Files::with_roles(roles);
    let broker = files.broker();
    let mut carl = login(&broker, V5, "carl").await;
    carl.subscribe("up/#", QoS::ExactlyOnce).await;
    carl.subscribe("alarm", QoS::ExactlyOnce).await;
    carl.publish(&retained("down/all", "kept", QoS::ExactlyOnce))
        .await;
    carl.publish(&retained("down/ben/x", "kept", QoS::ExactlyOnce))
        .await;
    let mut anna = login(&broker, V5, "anna").await;

    let not = ReasonCode::NOT_AUTHORIZED;
    for (text, qos, retain, code) in [
        ("up/anna/x", QoS::ExactlyOnce, true, ReasonCode::SUCCESS),
        ("up/anna/config", QoS::AtLeastOnce, false, not),
        ("up/ben/x", QoS::AtLeastOnce, false, not),
        ("alarm", QoS::AtLeastOnce, false, ReasonCode::SUCCESS),
        ("alarm", QoS::ExactlyOnce, false, not),
        ("alarm", QoS::AtLeastOnce, true, not),
    ] {
        let mut publish = message(text, "text", qos);
        publish.retain = retain;
        if code.is_error() {
            let number = anna.send_publish(&publish).await.unwrap();
            let ack = match qos {
                QoS::ExactlyOnce => PacketType::PubRec,
                _ => PacketType::PubAck,
            };
            anna.expect_ack(ack, number, code).await;
        } else {
            anna.publish(&publish).await;
            carl.expect_message(text, "text", qos).await;
        }
        carl.expect_nothing().await;
    }

    let wanted = vec![
        filter("down/#", QoS::ExactlyOnce),
        filter("#", QoS::ExactlyOnce),
        filter("+/anna/x", QoS::ExactlyOnce),
    ];
    let codes = anna.subscribe_with(wanted, None).await;
    assert_eq!(codes, [ReasonCode::GRANTED_QOS_1, not, not]);
    anna.expect_message("down/all", "kept", QoS::AtMostOnce)
        .await;
    anna.expect_nothing().await;
    for topic in ["down/anna/x", "down/ben/x", "down/all"] {
        carl.publish(&message(topic, "text", QoS::ExactlyOnce))
            .await;
    }
    anna.expect_message("down/anna/x", "text", QoS::AtLeastOnce)
        .await;
    anna.expect_message("down/all", "text", QoS::AtMostOnce)
        .await;
    anna.expect_nothing().await;
}

/// Who may not be told about retained messages is not, however it asks for them.
#[tokio::test(start_paused = true)]
async fn retain_handling_opens_nothing() {
    let files = Files::new(ACL);
    let broker = files.broker();
    let mut carl = login(&broker, V5, "carl").await;
    carl.publish(&retained("a/kept", "old", QoS::AtLeastOnce))
        .await;
    let mut anna = login(&broker, V5, "anna").await;
    for handling in [RetainHandling::Always, RetainHandling::IfNew] {
        let mut wanted = filter("+/kept", QoS::AtLeastOnce);
        wanted.options.retain_handling = handling;
        wanted.options.retain_as_published = true;
        anna.subscribe_with(vec![wanted], None).await;
        anna.expect_nothing().await;
    }
}

/// Decisions are kept for a connection: not so many that they grow, and none beyond a reload.
#[tokio::test(start_paused = true)]
async fn many_topics_are_decided_alike() {
    let files = Files::new("user anna\ntopic write a/+/x\n");
    let broker = files.broker();
    let mut anna = login(&broker, V3_1_1, "anna").await;
    for round in 0..2 {
        for number in 0..1_000 {
            let allowed = format!("a/{number}/x");
            let wrong = format!("a/{number}/y");
            anna.send_publish(&message(&allowed, "", QoS::AtMostOnce))
                .await;
            anna.send_publish(&message(&wrong, "", QoS::AtMostOnce))
                .await;
        }
        anna.expect_nothing().await;
        assert_eq!(denied(&broker, Denial::Publish), 1_000 * (round + 1));
    }
}

/// AUTH is no way around: without a method it is an error as before.
#[tokio::test(start_paused = true)]
async fn auth_without_a_method_is_an_error() {
    let files = Files::new(ACL);
    let broker = files.broker();
    let mut anna = login(&broker, V5, "anna").await;
    let auth = mqtt_codec::Auth::new(ReasonCode::REAUTHENTICATE, "SCRAM-SHA-256");
    anna.send(&Packet::Auth(auth)).await;
    anna.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
    let mut connect = hello(V5, "x");
    connect.properties.authentication_method = Some("unknown");
    refused(&broker, &connect, ReasonCode::BAD_AUTHENTICATION_METHOD).await;
}
