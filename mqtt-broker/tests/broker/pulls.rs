//! Retained messages on their way to a new subscription, when the client reads slowly, goes, or thinks again.

use core::num::NonZeroU16;
use std::collections::BTreeSet;

use mqtt_broker::Broker;
use mqtt_codec::{ConnectProperties, Packet, QoS};

use crate::harness::{ALL, EVERY_QOS, Peer, V5, broker, filter, lasting, message};

const TOPICS: usize = 300;

async fn with_retained(qos: QoS) -> (Broker, Peer) {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 0..TOPICS {
        let topic = format!("t/{number}");
        let mut publish = message(&topic, "kept", qos);
        publish.retain = true;
        sender.publish(&publish).await;
    }
    (broker, sender)
}

/// Reads until nothing comes any more, acknowledging everything; returns the topics in their order.
async fn topics_until_quiet(peer: &mut Peer) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        crate::harness::settle().await;
        peer.send(&Packet::PingReq).await;
        let before = topics.len();
        loop {
            let received = peer.receive().await;
            match received.packet() {
                Packet::PingResp => break,
                Packet::Publish(publish) => {
                    topics.push(publish.topic.unwrap().as_str().to_owned());
                    peer.acknowledge(&publish).await;
                }
                _ => {}
            }
        }
        if topics.len() == before {
            return topics;
        }
    }
}

fn few_at_a_time() -> mqtt_codec::Connect<'static> {
    let mut connect = lasting(V5, "client");
    connect.properties = ConnectProperties {
        receive_maximum: NonZeroU16::new(5),
        ..connect.properties
    };
    connect
}

/// The retained messages of a subscription belong to the session: those that did not leave before the connection
/// ended come on the next one.
#[tokio::test(start_paused = true)]
async fn retained_messages_wait_for_the_client() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let (broker, _sender) = with_retained(qos).await;
        let mut peer = Peer::accepted(&broker, &few_at_a_time()).await;
        peer.subscribe("t/#", qos).await;
        peer.abort().await;
        let (mut peer, present) = Peer::resumed(&broker, &few_at_a_time()).await;
        assert!(present);
        let topics = topics_until_quiet(&mut peer).await;
        assert_eq!(topics.len(), TOPICS);
        let different: BTreeSet<_> = topics.into_iter().collect();
        assert_eq!(different.len(), TOPICS);
    }
}

/// [MQTT-3.10.4-2]: once UNSUBSCRIBE is answered nothing is added for the subscription.
#[tokio::test(start_paused = true)]
async fn unsubscribe_stops_retained_messages() {
    let (broker, mut sender) = with_retained(QoS::AtLeastOnce).await;
    let mut peer = Peer::accepted(&broker, &few_at_a_time()).await;
    peer.subscribe("t/#", QoS::AtLeastOnce).await;
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(peer.receive().await);
    }
    peer.unsubscribe("t/#").await;
    for received in first {
        peer.acknowledge(&received.publish()).await;
    }
    let rest = topics_until_quiet(&mut peer).await;
    assert!(rest.len() < TOPICS / 2, "{}", rest.len());
    sender.expect_nothing().await;
}

/// [MQTT-3.8.4-3]: to subscribe again sends them again, from the beginning, though not as often as one likes.
#[tokio::test(start_paused = true)]
async fn a_second_subscribe_begins_again() {
    let (broker, _sender) = with_retained(QoS::AtLeastOnce).await;
    let mut peer = Peer::accepted(&broker, &few_at_a_time()).await;
    for _ in 0..20 {
        let number = peer.fresh_id();
        let wanted = vec![filter("t/#", QoS::AtLeastOnce)];
        let subscribe = mqtt_codec::Subscribe::new(number, wanted);
        peer.send(&Packet::Subscribe(subscribe)).await;
    }
    let topics = topics_until_quiet(&mut peer).await;
    assert!(topics.len() < 5 * TOPICS + 200, "{}", topics.len());
    let last: BTreeSet<_> = topics.iter().rev().take(TOPICS).collect();
    assert_eq!(last.len(), TOPICS);
}

/// Several filters of one SUBSCRIBE get theirs, each in turn; one that matches nothing is no hindrance.
#[tokio::test(start_paused = true)]
async fn every_filter_gets_its_own() {
    for version in ALL {
        for qos in EVERY_QOS {
            let (broker, _sender) = with_retained(qos).await;
            let mut peer = Peer::new(&broker, version, "client").await;
            let filters = ["t/+", "none/+", "t/1", "none", "+/2"];
            let filters = filters.iter().map(|text| filter(text, qos)).collect();
            peer.subscribe_with(filters, None).await;
            let topics = topics_until_quiet(&mut peer).await;
            assert_eq!(topics.len(), TOPICS + 2);
        }
    }
}
