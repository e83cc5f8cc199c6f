//! Topic aliases of both directions.

use core::num::NonZeroU16;
use std::collections::HashMap;

use mqtt_broker::Config;
use mqtt_codec::{Packet, Publish, QoS, ReasonCode, UserProperty};

use crate::harness::{EVERY_QOS, Peer, V5, broker, broker_with, hello, lasting, message};

fn with_alias<'a>(topic: Option<&'a str>, alias: u16, payload: &'a str, qos: QoS) -> Publish<'a> {
    let mut publish = message("replaced", payload, qos);
    publish.topic = topic.map(crate::harness::name);
    publish.properties.topic_alias = NonZeroU16::new(alias);
    publish
}

/// [MQTT-3.3.2-12]: every alias from 1 to the announced maximum is accepted, at every QoS, and can be set anew;
/// subscribers see topics and never the sender's alias.
#[tokio::test(start_paused = true)]
async fn every_alias_up_to_the_maximum_is_accepted() {
    for maximum in [1, 16, 100] {
        for qos in EVERY_QOS {
            let mut config = Config::default();
            config.topic_alias_maximum = maximum;
            let broker = broker_with(config);
            let mut receiver = Peer::new(&broker, V5, "receiver").await;
            receiver.subscribe("t/#", qos).await;
            let (mut sender, received) = Peer::connect(&broker, &hello(V5, "sender")).await;
            assert_eq!(
                received.connack().properties.topic_alias_maximum,
                Some(maximum)
            );
            for round in ["first", "second"] {
                for alias in (1..=maximum).rev() {
                    let topic = format!("t/{round}/{alias}");
                    sender
                        .publish(&with_alias(Some(&topic), alias, "set", qos))
                        .await;
                    let received = receiver.expect_message(&topic, "set", qos).await;
                    assert_eq!(received.publish().properties.topic_alias, None);
                }
                for alias in 1..=maximum {
                    let topic = format!("t/{round}/{alias}");
                    sender.publish(&with_alias(None, alias, "used", qos)).await;
                    let received = receiver.expect_message(&topic, "used", qos).await;
                    assert_eq!(received.publish().properties.topic_alias, None);
                }
            }
            sender
                .send_publish(&with_alias(Some("t/x"), maximum + 1, "beyond", qos))
                .await;
            sender
                .expect_disconnect(ReasonCode::TOPIC_ALIAS_INVALID)
                .await;
            receiver.expect_nothing().await;
        }
    }
}

/// Section 3.2.2.3.8: a broker that takes no alias says so by saying nothing, and refuses the first one.
#[tokio::test(start_paused = true)]
async fn without_a_maximum_no_alias_is_accepted() {
    let mut config = Config::default();
    config.topic_alias_maximum = 0;
    let broker = broker_with(config);
    let (mut sender, received) = Peer::connect(&broker, &hello(V5, "sender")).await;
    assert_eq!(received.connack().properties.topic_alias_maximum, None);
    sender
        .send_publish(&with_alias(Some("topic"), 1, "", QoS::AtMostOnce))
        .await;
    sender
        .expect_disconnect(ReasonCode::TOPIC_ALIAS_INVALID)
        .await;
}

/// [MQTT-3.3.2-7]: aliases end with their connection, also where the session goes on, and belong to one client.
#[tokio::test(start_paused = true)]
async fn aliases_do_not_outlive_the_connection() {
    let broker = broker();
    let (mut sender, _) = Peer::lasting(&broker, V5, "sender").await;
    sender
        .publish(&with_alias(Some("topic"), 1, "", QoS::AtLeastOnce))
        .await;
    sender
        .publish(&with_alias(None, 1, "", QoS::AtLeastOnce))
        .await;
    let mut other = Peer::new(&broker, V5, "other").await;
    other
        .send_publish(&with_alias(None, 1, "", QoS::AtMostOnce))
        .await;
    other.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
    sender.abort().await;
    let (mut sender, present) = Peer::lasting(&broker, V5, "sender").await;
    assert!(present);
    sender
        .send_publish(&with_alias(None, 1, "", QoS::AtMostOnce))
        .await;
    sender.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
}

/// A QoS 2 message repeated with its alias is still the same message, and retained under its topic.
#[tokio::test(start_paused = true)]
async fn an_alias_works_with_everything_else() {
    let broker = broker();
    let mut receiver = Peer::new(&broker, V5, "receiver").await;
    receiver.subscribe("topic", QoS::ExactlyOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender
        .publish(&with_alias(Some("topic"), 2, "1", QoS::AtMostOnce))
        .await;
    receiver.expect_message("topic", "1", QoS::AtMostOnce).await;
    let mut publish = with_alias(None, 2, "2", QoS::ExactlyOnce);
    publish.retain = true;
    publish.packet_id = Some(sender.fresh_id());
    sender.send(&Packet::Publish(publish.clone())).await;
    sender.receive().await;
    publish.dup = true;
    sender.publish(&publish).await;
    receiver
        .expect_message("topic", "2", QoS::ExactlyOnce)
        .await;
    receiver.expect_nothing().await;
    let mut late = Peer::new(&broker, V5, "late").await;
    late.subscribe("#", QoS::AtMostOnce).await;
    late.expect_message("topic", "2", QoS::AtMostOnce).await;
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11] [MQTT-3.3.2-7] [MQTT-3.3.2-8]: the broker sends no alias
/// above the client's maximum and none without one; each alias that it uses was set before on this connection,
/// and stands for the right topic.
#[tokio::test(start_paused = true)]
async fn the_broker_keeps_to_the_aliases_of_a_client() {
    for maximum in [None, Some(0), Some(1), Some(3), Some(u16::MAX)] {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut connect = lasting(V5, "receiver");
            connect.properties.topic_alias_maximum = maximum;
            let mut sender = Peer::new(&broker, V5, "sender").await;
            let mut receiver = Peer::accepted(&broker, &connect).await;
            receiver.subscribe("#", qos).await;
            for _ in 0..2 {
                let mut aliases: HashMap<u16, String> = HashMap::new();
                for number in 0..30 {
                    let topic = format!("a/long/enough/topic/{}", number * number % 7);
                    sender.publish(&message(&topic, "text", qos)).await;
                    let received = receiver.receive().await;
                    let publish = received.publish();
                    let said = publish.topic.map(|topic| topic.as_str().to_owned());
                    let meant = match (publish.properties.topic_alias, said) {
                        (None, said) => said.expect("neither topic nor alias"),
                        (Some(alias), said) => {
                            assert!(alias.get() <= maximum.unwrap_or(0), "alias {alias}");
                            if let Some(said) = said {
                                aliases.insert(alias.get(), said);
                            }
                            aliases[&alias.get()].clone()
                        }
                    };
                    assert_eq!(meant, topic);
                    receiver.acknowledge(&publish).await;
                }
                receiver.abort().await;
                receiver = Peer::accepted(&broker, &connect).await;
            }
        }
    }
}

/// [MQTT-3.3.2-7] [MQTT-4.4.0-1]: what is sent again on a new connection names its topic, or an alias that was
/// set on the new connection.
#[tokio::test(start_paused = true)]
async fn redelivery_uses_no_old_alias() {
    let broker = broker();
    let mut connect = lasting(V5, "receiver");
    connect.properties.topic_alias_maximum = Some(10);
    let mut receiver = Peer::accepted(&broker, &connect).await;
    receiver.subscribe("#", QoS::AtLeastOnce).await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for _ in 0..4 {
        sender
            .publish(&message("a/long/enough/topic", "text", QoS::AtLeastOnce))
            .await;
        receiver.receive().await;
    }
    receiver.abort().await;
    connect.properties.topic_alias_maximum = None;
    let mut receiver = Peer::accepted(&broker, &connect).await;
    for _ in 0..4 {
        let received = receiver
            .expect_message("a/long/enough/topic", "text", QoS::AtLeastOnce)
            .await;
        assert_eq!(received.publish().properties.topic_alias, None);
        assert!(received.publish().dup);
    }
}

/// An alias in place of the topic, together with properties that are forwarded: the message arrives whole.
#[tokio::test(start_paused = true)]
async fn an_alias_goes_with_other_properties() {
    for qos in EVERY_QOS {
        let broker = broker();
        let mut receiver = Peer::new(&broker, V5, "receiver").await;
        receiver.subscribe("t", qos).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        sender.publish(&with_alias(Some("t"), 1, "set", qos)).await;
        receiver.expect_message("t", "set", qos).await;
        let mut publish = with_alias(None, 1, "used", qos);
        publish.properties.content_type = Some("text/plain");
        publish.properties.user_properties.push(UserProperty {
            name: "a",
            value: "b",
        });
        sender.publish(&publish).await;
        let received = receiver.expect_message("t", "used", qos).await;
        let properties = received.publish().properties;
        assert_eq!(properties.content_type, Some("text/plain"));
        assert_eq!(
            properties.user_properties,
            publish.properties.user_properties
        );
    }
}
