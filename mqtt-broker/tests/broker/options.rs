//! Subscription options in all combinations: Retain Handling, Retain As Published, No Local, identifiers.

use mqtt_broker::DropReason;
use mqtt_codec::{Packet, Publish, QoS, ReasonCode, RetainHandling, SubscribeFilter};

use crate::harness::{EVERY_QOS, Peer, V5, broker, filter, lasting, message};

const HANDLINGS: [RetainHandling; 3] = [
    RetainHandling::Always,
    RetainHandling::IfNew,
    RetainHandling::Never,
];

fn wanted(
    text: &str,
    handling: RetainHandling,
    retain_as_published: bool,
    no_local: bool,
) -> SubscribeFilter<'_> {
    let mut filter = filter(text, QoS::ExactlyOnce);
    filter.options.retain_handling = handling;
    filter.options.retain_as_published = retain_as_published;
    filter.options.no_local = no_local;
    filter
}

fn retained<'a>(topic: &'a str, payload: &'a str, qos: QoS) -> Publish<'a> {
    let mut publish = message(topic, payload, qos);
    publish.retain = true;
    publish
}

/// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.8.3-3] [MQTT-3.3.1-5]
/// [MQTT-3.3.1-8]: all combinations of the three options, for a new subscription and for one that is made
/// again, with a retained message, a message of another client and one of its own.
#[tokio::test(start_paused = true)]
async fn all_combinations_of_options() {
    for handling in HANDLINGS {
        for retain_as_published in [false, true] {
            for no_local in [false, true] {
                for qos in EVERY_QOS {
                    let broker = broker();
                    let mut other = Peer::new(&broker, V5, "other").await;
                    other.publish(&retained("topic", "kept", qos)).await;
                    let mut peer = Peer::new(&broker, V5, "client").await;
                    for is_new in [true, false] {
                        let filter = wanted("topic", handling, retain_as_published, no_local);
                        let codes = peer.subscribe_with(vec![filter], None).await;
                        assert_eq!(codes, [ReasonCode::GRANTED_QOS_2]);
                        let sent = match handling {
                            RetainHandling::Always => true,
                            RetainHandling::IfNew => is_new,
                            RetainHandling::Never => false,
                        };
                        if sent {
                            // A message that was kept has RETAIN 1, whatever Retain As Published says.
                            let received = peer.expect_message("topic", "kept", qos).await;
                            assert!(received.publish().retain);
                        }
                        peer.expect_nothing().await;
                        for retain in [false, true] {
                            let mut publish = message("topic", "kept", qos);
                            publish.retain = retain;
                            other.publish(&publish).await;
                            let received = peer.expect_message("topic", "kept", qos).await;
                            assert_eq!(received.publish().retain, retain && retain_as_published);
                            peer.expect_nothing().await;
                        }
                    }
                    let number = peer
                        .send_publish(&message("topic", "own", QoS::AtMostOnce))
                        .await;
                    assert_eq!(number, None);
                    if !no_local {
                        peer.expect_message("topic", "own", QoS::AtMostOnce).await;
                    }
                    peer.expect_nothing().await;
                }
            }
        }
    }
}

/// [MQTT-3.3.1-10]: a subscription is new again after UNSUBSCRIBE and with a new session, and not with a resumed
/// one.
#[tokio::test(start_paused = true)]
async fn when_a_subscription_is_new() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender
        .publish(&retained("topic", "kept", QoS::AtLeastOnce))
        .await;
    let subscribe = || vec![wanted("topic", RetainHandling::IfNew, false, false)];
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    peer.subscribe_with(subscribe(), None).await;
    peer.expect_message("topic", "kept", QoS::AtLeastOnce).await;
    peer.unsubscribe("topic").await;
    peer.subscribe_with(subscribe(), None).await;
    peer.expect_message("topic", "kept", QoS::AtLeastOnce).await;
    peer.disconnect().await;
    let (mut peer, present) = Peer::lasting(&broker, V5, "client").await;
    assert!(present);
    peer.subscribe_with(subscribe(), None).await;
    peer.expect_nothing().await;
    peer.disconnect().await;
    let mut connect = lasting(V5, "client");
    connect.clean_start = true;
    let mut peer = Peer::accepted(&broker, &connect).await;
    peer.subscribe_with(subscribe(), None).await;
    peer.expect_message("topic", "kept", QoS::AtLeastOnce).await;
    peer.expect_nothing().await;
}

/// [MQTT-3.8.3-3]: No Local goes by client identifier, also when the message waited in the session; a retained
/// message of the client itself is not sent to it.
#[tokio::test(start_paused = true)]
async fn no_local_goes_by_client_identifier() {
    let broker = broker();
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    peer.subscribe_with(
        vec![wanted("topic", RetainHandling::Always, false, true)],
        None,
    )
    .await;
    peer.abort().await;
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    for qos in EVERY_QOS {
        peer.publish(&message("topic", "own", qos)).await;
    }
    peer.expect_nothing().await;
    let mut other = Peer::new(&broker, V5, "other").await;
    for qos in EVERY_QOS {
        other.publish(&message("topic", "other", qos)).await;
        peer.expect_message("topic", "other", qos).await;
    }
    // Options are those of the last SUBSCRIBE.
    peer.subscribe("topic", QoS::AtMostOnce).await;
    peer.send_publish(&message("topic", "own", QoS::AtMostOnce))
        .await;
    peer.expect_message("topic", "own", QoS::AtMostOnce).await;
}

/// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]: a message that several subscriptions match comes
/// with the highest QoS and all identifiers, whatever mixture of options; each subscription counts with No Local
/// and Retain As Published of its own.
#[tokio::test(start_paused = true)]
async fn overlaps_with_identifiers_and_options() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut other = Peer::new(&broker, V5, "other").await;
        let mut peer = Peer::new(&broker, V5, "client").await;
        for (text, granted, identifier, no_local) in [
            ("a/b/c", QoS::AtMostOnce, Some(1), false),
            ("a/+/c", QoS::ExactlyOnce, Some(268_435_455), true),
            ("a/#", QoS::AtLeastOnce, None, false),
            ("#", QoS::AtMostOnce, Some(128), false),
            ("a/b", QoS::ExactlyOnce, Some(5), false),
        ] {
            let mut wanted = filter(text, granted);
            wanted.options.no_local = no_local;
            peer.subscribe_with(vec![wanted], identifier).await;
        }
        other.publish(&message("a/b/c", "other", qos)).await;
        let received = peer.expect_message("a/b/c", "other", qos).await;
        assert_eq!(received.identifiers(), [1, 128, 268_435_455]);
        peer.expect_nothing().await;
        // Its own message does not match the subscription with No Local.
        let mut own = Peer::new(&broker, V5, "sender").await;
        own.publish(&message("a/x", "x", qos)).await;
        let received = peer
            .expect_message("a/x", "x", qos.min(QoS::AtLeastOnce))
            .await;
        assert_eq!(received.identifiers(), [128]);
        peer.send_publish(&message("a/b/c", "own", QoS::AtMostOnce))
            .await;
        let received = peer.expect_message("a/b/c", "own", QoS::AtMostOnce).await;
        assert_eq!(received.identifiers(), [1, 128]);
        peer.expect_nothing().await;
    }
}

/// [MQTT-3.3.4-4]: one identifier of two matching subscriptions; identifiers of a shared and an ordinary
/// subscription; none for who gave none; replaced and removed by a new SUBSCRIBE.
#[tokio::test(start_paused = true)]
async fn identifiers_belong_to_subscriptions() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut peer = Peer::new(&broker, V5, "client").await;
    peer.subscribe_with(
        vec![filter("a", QoS::AtMostOnce), filter("b", QoS::AtMostOnce)],
        Some(7),
    )
    .await;
    let mut bare = Peer::new(&broker, V5, "bare").await;
    bare.subscribe("#", QoS::AtMostOnce).await;
    for (topic, identifiers) in [("a", &[7][..]), ("b", &[7])] {
        sender.publish(&message(topic, "", QoS::AtMostOnce)).await;
        let received = peer.expect_message(topic, "", QoS::AtMostOnce).await;
        assert_eq!(received.identifiers(), identifiers);
        let received = bare.expect_message(topic, "", QoS::AtMostOnce).await;
        assert!(received.identifiers().is_empty());
    }
    peer.subscribe_with(vec![filter("a", QoS::AtMostOnce)], Some(8))
        .await;
    peer.subscribe_with(vec![filter("b", QoS::AtMostOnce)], None)
        .await;
    for (topic, identifiers) in [("a", &[8][..]), ("b", &[])] {
        sender.publish(&message(topic, "", QoS::AtMostOnce)).await;
        let received = peer.expect_message(topic, "", QoS::AtMostOnce).await;
        assert_eq!(received.identifiers(), identifiers);
    }
}

/// [MQTT-3.3.4-3]: identifiers are part of the session: they come with what waited and what is sent again.
#[tokio::test(start_paused = true)]
async fn identifiers_outlive_the_connection() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    peer.subscribe_with(vec![filter("topic", QoS::ExactlyOnce)], Some(9))
        .await;
    sender
        .publish(&message("topic", "sent", QoS::ExactlyOnce))
        .await;
    peer.expect_publish("topic", "sent", QoS::ExactlyOnce).await;
    peer.abort().await;
    sender
        .publish(&message("topic", "waited", QoS::AtLeastOnce))
        .await;
    let (mut peer, _) = Peer::lasting(&broker, V5, "client").await;
    sender
        .publish(&message("topic", "new", QoS::AtMostOnce))
        .await;
    for _ in 0..3 {
        let received = peer.receive().await;
        assert_eq!(received.identifiers(), [9]);
        peer.acknowledge(&received.publish()).await;
    }
}

/// [MQTT-3.8.4-3] [MQTT-3.8.4-4]: a subscription that is replaced loses no message, changes the QoS of those to
/// come and leaves other filters that match the same topics alone.
#[tokio::test(start_paused = true)]
async fn replacing_loses_nothing() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let mut peer = Peer::new(&broker, V5, "client").await;
    peer.subscribe("topic/#", QoS::ExactlyOnce).await;
    let mut expected = Vec::new();
    for round in 0..30_u32 {
        let granted = [QoS::AtLeastOnce, QoS::ExactlyOnce][round as usize % 2];
        let text = round.to_string();
        // Before, together with and after the SUBSCRIBE, which is not awaited.
        sender
            .publish(&message("topic/x", &text, QoS::AtLeastOnce))
            .await;
        let number = peer.fresh_id();
        let subscribe = mqtt_codec::Subscribe::new(number, vec![filter("topic/#", granted)]);
        peer.send(&Packet::Subscribe(subscribe)).await;
        sender
            .publish(&message("topic/x", &format!("{text}+"), QoS::AtLeastOnce))
            .await;
        expected.extend([text.clone(), format!("{text}+")]);
    }
    let mut got = Vec::new();
    let mut subacks = 0;
    while got.len() < expected.len() || subacks < 30 {
        let received = peer.receive().await;
        match received.packet() {
            Packet::SubAck(_) => subacks += 1,
            Packet::Publish(publish) => {
                got.push(String::from_utf8_lossy(publish.payload).into_owned());
                peer.acknowledge(&publish).await;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(got, expected);
    peer.expect_nothing().await;
}

/// [MQTT-3.8.4-8]: published and granted QoS, in all combinations, for live and for retained messages.
#[tokio::test(start_paused = true)]
async fn the_lower_qos_wins() {
    for published in EVERY_QOS {
        for granted in EVERY_QOS {
            let broker = broker();
            let mut sender = Peer::new(&broker, V5, "sender").await;
            let mut peer = Peer::new(&broker, V5, "client").await;
            peer.subscribe("topic", granted).await;
            sender.publish(&retained("topic", "text", published)).await;
            let lower = published.min(granted);
            peer.expect_message("topic", "text", lower).await;
            peer.subscribe("topic", granted).await;
            let received = peer.expect_message("topic", "text", lower).await;
            assert!(received.publish().retain);
            peer.expect_nothing().await;
        }
    }
}

/// [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-13]: an empty retained message is passed on like any other, with its
/// RETAIN where the subscription asks for it, and nothing is kept of it, whether there was something or not.
#[tokio::test(start_paused = true)]
async fn empty_retained_messages_are_passed_on() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut peer = Peer::new(&broker, V5, "client").await;
        let filter = wanted("topic", RetainHandling::Always, true, false);
        peer.subscribe_with(vec![filter], None).await;
        for payload in ["", "kept", "", ""] {
            sender.publish(&retained("topic", payload, qos)).await;
            let received = peer.expect_message("topic", payload, qos).await;
            assert!(received.publish().retain);
        }
        let mut late = Peer::new(&broker, V5, "late").await;
        late.subscribe("#", QoS::ExactlyOnce).await;
        late.expect_nothing().await;
    }
}

/// [MQTT-3.8.3-3]: No Local keeps a client's own messages from it, retained ones included; those that it does not get
/// are counted under that name.
#[tokio::test(start_paused = true)]
async fn no_local_is_counted_and_holds_for_retained_messages() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut client = Peer::new(&broker, V5, "client").await;
        let mut other = Peer::new(&broker, V5, "other").await;
        for (peer, topic) in [(&mut client, "t/mine"), (&mut other, "t/theirs")] {
            let mut publish = message(topic, "kept", qos);
            publish.retain = true;
            peer.publish(&publish).await;
        }
        let mut wanted = filter("t/#", qos);
        wanted.options.no_local = true;
        client.subscribe_with(vec![wanted], None).await;
        client.expect_message("t/theirs", "kept", qos).await;
        client.publish(&message("t/mine", "again", qos)).await;
        client.expect_nothing().await;
        assert_eq!(
            broker.client_dropped("client", DropReason::NoLocal),
            Some(2)
        );
        assert_eq!(broker.counters().report(), "dropped, no local: 2\n");
    }
}
