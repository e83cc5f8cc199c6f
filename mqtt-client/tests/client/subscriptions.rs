//! Subscriptions as streams: which messages they get, when those are acknowledged, what dropping does.

use std::ops::RangeInclusive;

use futures_util::StreamExt;
use mqtt_client::{
    Acknowledge, Client, Error, Filter, Options, PacketId, ProtocolVersion, QoS, ReasonCode,
    SubscribeOptions, Subscription, SubscriptionIdentifier, TopicName,
};
use mqtt_codec::{Packet, PacketType, Publish, SubAck, UnsubAck};

use crate::peer::{Peer, ack, connect, options};

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
const V5: ProtocolVersion = ProtocolVersion::V5;

fn filter(text: &str) -> Filter {
    Filter::new(text).unwrap().qos(QoS::ExactlyOnce)
}

/// Answers the next SUBSCRIBE; returns its identifier.
async fn grant(peer: &mut Peer, expected: &str) -> Option<SubscriptionIdentifier> {
    let (id, count, identifier) = peer
        .expect(|packet| match packet {
            Packet::Subscribe(subscribe) => {
                let filters: Vec<_> = subscribe
                    .filters
                    .iter()
                    .map(|filter| filter.filter.as_str())
                    .collect();
                assert_eq!(filters.join(" "), expected);
                let identifier = subscribe.properties.subscription_identifier;
                (subscribe.packet_id, filters.len(), identifier)
            }
            packet => panic!("{packet:?}"),
        })
        .await;
    let codes = vec![ReasonCode::GRANTED_QOS_2; count];
    peer.send(Packet::SubAck(SubAck::new(id, codes))).await;
    identifier
}

async fn subscribe(
    client: &Client,
    peer: &mut Peer,
    text: &str,
) -> (Subscription, Option<SubscriptionIdentifier>) {
    let (subscription, identifier) =
        tokio::join!(client.subscribe(filter(text)), grant(peer, text));
    (subscription.unwrap(), identifier)
}

/// Expects an UNSUBSCRIBE and answers it.
async fn release(peer: &mut Peer, expected: &str) {
    let id: PacketId = peer
        .expect(|packet| match packet {
            Packet::Unsubscribe(unsubscribe) => {
                assert_eq!(unsubscribe.filters.len(), 1);
                assert_eq!(unsubscribe.filters[0].as_str(), expected);
                unsubscribe.packet_id
            }
            packet => panic!("{packet:?}"),
        })
        .await;
    let codes = match peer.version.has_reason_codes() {
        true => vec![ReasonCode::SUCCESS],
        false => Vec::new(),
    };
    peer.send(Packet::UnsubAck(UnsubAck::new(id, codes))).await;
}

async fn publish(
    peer: &mut Peer,
    (topic, payload): (&str, &str),
    (qos, id): (QoS, u16),
    identifiers: &[Option<SubscriptionIdentifier>],
) {
    let mut publish = Publish::new(TopicName::new(topic).unwrap(), payload.as_bytes());
    publish.qos = qos;
    publish.packet_id = PacketId::new(id);
    publish.properties.subscription_identifiers = identifiers.iter().filter_map(|id| *id).collect();
    peer.send(Packet::Publish(publish)).await;
}

/// Publishes messages of QoS 1 whose payloads and packet identifiers are these numbers, and lets the client read them.
async fn publish_numbers(
    peer: &mut Peer,
    numbers: RangeInclusive<u16>,
    identifier: Option<SubscriptionIdentifier>,
) {
    for number in numbers {
        let text = number.to_string();
        let packet = (QoS::AtLeastOnce, number);
        publish(peer, ("a/b", &text), packet, &[identifier]).await;
    }
    peer.silent().await;
}

/// The payloads that are there.
async fn taken(subscription: &mut Subscription) -> Vec<String> {
    // The event loop has read what was sent when the client has answered a PINGREQ-like pause.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    let mut payloads = Vec::new();
    while let Some(message) = subscription.try_recv() {
        payloads.push(String::from_utf8_lossy(message.payload()).into_owned());
    }
    payloads
}

#[tokio::test(start_paused = true)]
async fn identifiers_decide_which_subscription_a_message_is_for() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let (mut wide, wide_id) = subscribe(&client, &mut peer, "a/#").await;
    let (mut narrow, narrow_id) = subscribe(&client, &mut peer, "a/b").await;
    assert!(wide_id.is_some() && narrow_id.is_some() && wide_id != narrow_id);
    let zero = (QoS::AtMostOnce, 0);
    publish(&mut peer, ("a/b", "both"), zero, &[wide_id, narrow_id]).await;
    publish(&mut peer, ("a/b", "wide"), zero, &[wide_id]).await;
    publish(&mut peer, ("a/b", "narrow"), zero, &[narrow_id]).await;
    // Of an earlier run: the identifier is not known, or stands for another filter now.
    let unknown = SubscriptionIdentifier::new(99);
    publish(&mut peer, ("a/c", "old"), zero, &[unknown]).await;
    publish(&mut peer, ("a/d", "reused"), zero, &[narrow_id]).await;
    assert_eq!(taken(&mut wide).await, ["both", "wide", "old", "reused"]);
    assert_eq!(taken(&mut narrow).await, ["both", "narrow"]);
}

/// Where the server sends a copy for each subscription, those of one that went are not for another, which has its own.
#[tokio::test(start_paused = true)]
async fn copies_for_a_subscription_that_went_are_for_nobody() {
    let (client, mut incoming, mut peer) = connect(options(V5)).await;
    let (mut wide, wide_id) = subscribe(&client, &mut peer, "a/#").await;
    let (narrow, narrow_id) = subscribe(&client, &mut peer, "a/b").await;
    drop(narrow);
    let request = peer.expect(|packet| match packet {
        Packet::Unsubscribe(unsubscribe) => unsubscribe.packet_id,
        packet => panic!("{packet:?}"),
    });
    let request = request.await;
    let once = |id| (QoS::AtLeastOnce, id);
    publish(&mut peer, ("a/b", "copy"), once(1), &[wide_id]).await;
    publish(&mut peer, ("a/b", "copy"), once(2), &[narrow_id]).await;
    publish(
        &mut peer,
        ("a/b", "zero"),
        (QoS::AtMostOnce, 0),
        &[narrow_id],
    )
    .await;
    assert_eq!(taken(&mut wide).await, ["copy"]);
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
    assert_eq!(incoming.try_recv(), None);

    // From now on the identifier is one that this client knows nothing of.
    let codes = vec![ReasonCode::SUCCESS];
    peer.send(Packet::UnsubAck(UnsubAck::new(request, codes)))
        .await;
    publish(&mut peer, ("a/b", "old"), once(3), &[narrow_id]).await;
    assert_eq!(taken(&mut wide).await, ["old"]);
}

/// To subscribe a filter again changes its identifier: copies with the one before are for its readers all the same.
#[tokio::test(start_paused = true)]
async fn copies_for_a_subscription_that_is_made_again_are_its_own() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let (mut wide, wide_id) = subscribe(&client, &mut peer, "a/#").await;
    let (mut narrow, narrow_id) = subscribe(&client, &mut peer, "a/b").await;
    let server = async {
        let request = peer.expect(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.packet_id,
            packet => panic!("{packet:?}"),
        });
        let request = request.await;
        let zero = (QoS::AtMostOnce, 0);
        publish(&mut peer, ("a/b", "copy"), zero, &[wide_id]).await;
        publish(&mut peer, ("a/b", "copy"), zero, &[narrow_id]).await;
        let codes = vec![ReasonCode::GRANTED_QOS_2];
        peer.send(Packet::SubAck(SubAck::new(request, codes))).await;
        publish(&mut peer, ("a/b", "old"), zero, &[narrow_id]).await;
    };
    let (again, ()) = tokio::join!(client.subscribe(filter("a/b")), server);
    let mut again = again.unwrap();
    for reader in [&mut wide, &mut narrow, &mut again] {
        assert_eq!(taken(reader).await, ["copy", "old"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_identifiers_every_matching_subscription_gets_each_copy() {
    let (client, mut incoming, mut peer) = connect(options(V3)).await;
    let (mut wide, identifier) = subscribe(&client, &mut peer, "a/#").await;
    assert_eq!(identifier, None);
    let (mut narrow, _) = subscribe(&client, &mut peer, "a/b").await;
    let zero = (QoS::AtMostOnce, 0);
    publish(&mut peer, ("a/b", "x"), zero, &[]).await;
    publish(&mut peer, ("a/c", "y"), zero, &[]).await;
    publish(&mut peer, ("b", "z"), zero, &[]).await;
    assert_eq!(taken(&mut wide).await, ["x", "y"]);
    assert_eq!(taken(&mut narrow).await, ["x"]);
    assert_eq!(incoming.next().await.unwrap().payload()[..], *b"z");
}

#[tokio::test(start_paused = true)]
async fn a_message_of_two_readers_is_acknowledged_when_both_have_it() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let (mut first, first_id) = subscribe(&client, &mut peer, "a/#").await;
    let (mut second, second_id) = subscribe(&client, &mut peer, "a/b").await;
    let identifiers = [first_id, second_id];
    publish(&mut peer, ("a/b", "x"), (QoS::AtLeastOnce, 7), &identifiers).await;
    let message = first.recv().await.unwrap();
    message.acknowledge();
    message.clone().acknowledge();
    peer.silent().await;
    second.next().await.unwrap();
    peer.expect_packet(Packet::PubAck(ack(7))).await;

    // One that goes does not hold the others up.
    publish(&mut peer, ("a/b", "y"), (QoS::AtLeastOnce, 8), &identifiers).await;
    first.recv().await.unwrap();
    drop(second);
    peer.expect(|packet| assert!(matches!(packet, Packet::Unsubscribe(_))))
        .await;
    peer.expect_packet(Packet::PubAck(ack(8))).await;
}

#[tokio::test(start_paused = true)]
async fn several_filters_are_one_stream() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let request = client.subscribe_with([filter("a"), filter("+")], SubscribeOptions::new());
    let (subscription, identifier) = tokio::join!(request, grant(&mut peer, "a +"));
    let mut subscription = subscription.unwrap();
    assert_eq!(subscription.reason_codes().len(), 2);
    let identifiers = [identifier, identifier];
    publish(&mut peer, ("a", "once"), (QoS::AtMostOnce, 0), &identifiers).await;
    assert_eq!(taken(&mut subscription).await, ["once"]);
}

#[tokio::test(start_paused = true)]
async fn the_last_reader_of_a_filter_unsubscribes_it() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let (first, _) = subscribe(&client, &mut peer, "a").await;
    let (mut second, id) = subscribe(&client, &mut peer, "a").await;
    publish(&mut peer, ("a", "x"), (QoS::AtLeastOnce, 1), &[id]).await;
    drop(first);
    peer.silent().await;
    assert_eq!(taken(&mut second).await, ["x"]);
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    publish(&mut peer, ("a", "y"), (QoS::AtLeastOnce, 2), &[id]).await;
    let (outcome, ()) = tokio::join!(second.unsubscribe(), release(&mut peer, "a"));
    outcome.unwrap();
    assert_eq!(second.recv().await.unwrap().payload()[..], *b"y");
    assert_eq!(second.recv().await, None);
    peer.expect_packet(Packet::PubAck(ack(2))).await;
}

fn persistent() -> Options {
    options(V5).session_expiry_interval(60)
}

#[tokio::test(start_paused = true)]
async fn a_session_that_stays_keeps_its_subscriptions() {
    let (client, mut incoming, mut peer) = connect(persistent()).await;
    let (subscription, id) = subscribe(&client, &mut peer, "a").await;
    publish(&mut peer, ("a", "x"), (QoS::AtLeastOnce, 1), &[id]).await;
    peer.silent().await;
    drop(subscription);
    publish(&mut peer, ("a", "y"), (QoS::AtLeastOnce, 2), &[id]).await;
    publish(&mut peer, ("b", "z"), (QoS::AtLeastOnce, 3), &[id]).await;
    peer.silent().await;
    let (mut again, _) = subscribe(&client, &mut peer, "a").await;
    assert_eq!(taken(&mut again).await, ["x", "y"]);
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
    assert_eq!(incoming.recv().await.unwrap().payload()[..], *b"z");
    peer.expect_packet(Packet::PubAck(ack(3))).await;
}

/// What a reader had not taken when it was dropped goes to one that came after it, who had no copy, and nothing is
/// acknowledged that nobody took.
#[tokio::test(start_paused = true)]
async fn what_a_dropped_reader_had_not_taken_goes_to_those_who_came_later() {
    let v3 = options(V3).clean_start(false);
    for options in [persistent(), v3] {
        let (client, _incoming, mut peer) = connect(options).await;
        let (first, id) = subscribe(&client, &mut peer, "a/#").await;
        publish(&mut peer, ("a/b", "x"), (QoS::AtLeastOnce, 1), &[id]).await;
        peer.silent().await;
        let (second, id) = subscribe(&client, &mut peer, "a/#").await;
        // A copy for each, which neither takes.
        publish(&mut peer, ("a/b", "y"), (QoS::ExactlyOnce, 2), &[id]).await;
        peer.silent().await;
        drop(first);
        peer.silent().await;
        let (mut third, _) = subscribe(&client, &mut peer, "a/#").await;
        drop(second);
        assert_eq!(taken(&mut third).await, ["x", "y"]);
        let mut answers = Vec::new();
        for _ in 0..2 {
            answers.push(peer.expect(|packet| packet.packet_type()).await);
        }
        answers.sort();
        assert_eq!(answers, [PacketType::PubAck, PacketType::PubRec]);
    }
}

/// What a dropped reader had not taken arrived before what others have: those read it first, be it that they have
/// begun to.
#[tokio::test(start_paused = true)]
async fn what_a_dropped_reader_had_not_taken_goes_before_what_arrived_later() {
    let (client, _incoming, mut peer) = connect(persistent()).await;
    let (first, id) = subscribe(&client, &mut peer, "a/#").await;
    publish_numbers(&mut peer, 1..=3, id).await;
    let (mut second, id) = subscribe(&client, &mut peer, "a/#").await;
    publish_numbers(&mut peer, 4..=6, id).await;
    assert_eq!(second.recv().await.unwrap().payload()[..], *b"4");
    drop(first);
    peer.silent().await;
    publish(&mut peer, ("a/b", "7"), (QoS::AtLeastOnce, 7), &[id]).await;
    assert_eq!(taken(&mut second).await, ["1", "2", "3", "5", "6", "7"]);
    for number in 1..=7 {
        peer.expect_packet(Packet::PubAck(ack(number))).await;
    }
}

/// A message for two readers that have both just gone is kept for the next one.
#[tokio::test(start_paused = true)]
async fn a_message_for_readers_that_have_all_gone_waits() {
    let (client, _incoming, mut peer) = connect(persistent()).await;
    let (first, _) = subscribe(&client, &mut peer, "a/#").await;
    let (second, id) = subscribe(&client, &mut peer, "a/#").await;
    publish(&mut peer, ("a/b", "x"), (QoS::AtLeastOnce, 1), &[id]).await;
    peer.silent().await;
    // The event loop reads the message before it hears of this.
    publish(&mut peer, ("a/b", "y"), (QoS::AtLeastOnce, 2), &[id]).await;
    drop((first, second));
    peer.silent().await;
    let (mut third, _) = subscribe(&client, &mut peer, "a/#").await;
    assert_eq!(taken(&mut third).await, ["x", "y"]);
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
}

/// Who asked is told what was wrong with the answer, and not only that the connection has ended.
#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_is_the_servers_fault() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let server = async {
        let id = peer.expect(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.packet_id,
            packet => panic!("{packet:?}"),
        });
        let codes = vec![ReasonCode::GRANTED_QOS_0; 2];
        let suback = SubAck::new(id.await, codes);
        peer.send(Packet::SubAck(suback)).await;
    };
    let (outcome, ()) = tokio::join!(client.subscribe(filter("a")), server);
    assert!(
        matches!(outcome, Err(Error::Unexpected("SUBACK"))),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_is_an_error() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let server = async {
        let id = peer
            .expect(|packet| match packet {
                Packet::Subscribe(subscribe) => subscribe.packet_id,
                packet => panic!("{packet:?}"),
            })
            .await;
        let codes = vec![ReasonCode::NOT_AUTHORIZED];
        peer.send(Packet::SubAck(SubAck::new(id, codes))).await;
    };
    let (outcome, ()) = tokio::join!(client.subscribe(filter("a")), server);
    assert!(matches!(
        outcome,
        Err(Error::SubscriptionRefused {
            reason: ReasonCode::NOT_AUTHORIZED
        })
    ));
    // Nothing is to be unsubscribed.
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_stops_waiting_leaves_nothing_behind() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let request = client.subscribe(filter("a"));
    assert!(futures_util::FutureExt::now_or_never(request).is_none());
    // Its stream is gone before the request was carried out.
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_by_hand_from_another_task() {
    let options = options(V5).acknowledge(Acknowledge::Manually);
    let (client, _incoming, mut peer) = connect(options).await;
    let (mut subscription, id) = subscribe(&client, &mut peer, "a").await;
    publish(&mut peer, ("a", "1"), (QoS::AtLeastOnce, 1), &[id]).await;
    publish(&mut peer, ("a", "2"), (QoS::AtLeastOnce, 2), &[id]).await;
    let first = subscription.recv().await.unwrap();
    let second = subscription.recv().await.unwrap();
    tokio::spawn(async move { second.acknowledge() });
    peer.silent().await;
    tokio::spawn(async move { first.acknowledge() });
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
}
