//! Limits of connections and of what they send: each with its reason code and its counter.

use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::Arc;

use mqtt_broker::{
    Broker, Config, DropReason, Listener, ListenerOptions, Peer as Address, RefusalReason,
};
use mqtt_codec::{Connect, Packet, PacketType, ProtocolVersion, QoS, ReasonCode, Will};
use tokio::io::duplex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::harness::{Peer, V3_1_1, V5, broker_with, filter, hello, message, name, settle};

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

async fn knock(broker: &Broker, connect: &Connect<'_>) -> (Peer, ReasonCode) {
    let (near, far) = duplex(1 << 16);
    let address = "192.0.2.1:1000".parse::<core::net::SocketAddr>().unwrap();
    broker.serve_with(far, Address::from(address), Arc::default());
    let mut peer = Peer::over(near, connect.version);
    peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
    let reason = peer.receive().await.connack().reason_code;
    (peer, reason)
}

/// What the codes of CONNACK are in a version.
fn told(version: ProtocolVersion, reason: ReasonCode) -> ReasonCode {
    if version.has_reason_codes() {
        reason
    } else {
        ReasonCode::SERVER_UNAVAILABLE
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_limited() {
    for version in [V3_1_1, V5] {
        let broker = broker_with(config(|config| config.max_connections = 2));
        let (first, _) = knock(&broker, &hello(version, "first")).await;
        let (_second, reason) = knock(&broker, &hello(version, "second")).await;
        assert_eq!(reason, ReasonCode::SUCCESS);
        let (mut third, reason) = knock(&broker, &hello(version, "third")).await;
        assert_eq!(reason, told(version, ReasonCode::SERVER_BUSY));
        third.expect_closed().await;
        let counters = broker.counters();
        assert_eq!(counters.refused(RefusalReason::TooManyConnections), 1);
        drop(first);
        settle().await;
        let (_third, reason) = knock(&broker, &hello(version, "third")).await;
        assert_eq!(reason, ReasonCode::SUCCESS);
        let report = counters.report();
        assert!(
            report.contains("refused, too many connections: 1\n"),
            "{report}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_connects_no_faster_than_it_may() {
    let broker = broker_with(config(|config| {
        config.connect_rate_per_address = NonZeroU32::new(2);
    }));
    let mut reasons = Vec::new();
    for _ in 0..3 {
        reasons.push(knock(&broker, &hello(V5, "client")).await.1);
    }
    let exceeded = ReasonCode::CONNECTION_RATE_EXCEEDED;
    assert_eq!(
        reasons,
        [ReasonCode::SUCCESS, ReasonCode::SUCCESS, exceeded]
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        knock(&broker, &hello(V5, "client")).await.1,
        ReasonCode::SUCCESS
    );
    assert_eq!(broker.counters().refused(RefusalReason::TooFast), 1);
}

/// Topics and filters with too many levels are refused, each with its code and counter; what is published before and
/// after is not.
#[tokio::test(start_paused = true)]
async fn levels_are_limited() {
    for version in [V3_1_1, V5] {
        let broker = broker_with(config(|config| config.topic_levels = 3));
        let (mut peer, _) = knock(&broker, &hello(version, "client")).await;
        let codes = [
            ("a/b/c", ReasonCode(1)),
            ("$share/g/a/b/c", ReasonCode(1)),
            ("a/b/c/d", ReasonCode::TOPIC_FILTER_INVALID),
            ("$share/g/a/b/c/#", ReasonCode::TOPIC_FILTER_INVALID),
        ];
        for (text, expected) in codes {
            let found = peer
                .subscribe_with(vec![filter(text, QoS::AtLeastOnce)], None)
                .await;
            let expected = match expected.is_error() && !version.has_reason_codes() {
                true => ReasonCode::UNSPECIFIED_ERROR,
                false => expected,
            };
            assert_eq!(found, [expected], "{text}");
        }
        assert_eq!(broker.counters().subscriptions_refused(), 2);
        let (mut publisher, _) = knock(&broker, &hello(version, "publisher")).await;
        publisher
            .publish(&message("a/b/c", "text", QoS::AtLeastOnce))
            .await;
        publisher
            .publish(&message("a/b/c/d", "deep", QoS::AtMostOnce))
            .await;
        let deep = message("a/b/c/d", "deep", QoS::AtLeastOnce);
        let number = publisher.send_publish(&deep).await.unwrap();
        let reason = match version.has_reason_codes() {
            true => ReasonCode::TOPIC_NAME_INVALID,
            false => ReasonCode::SUCCESS,
        };
        publisher
            .expect_ack(PacketType::PubAck, number, reason)
            .await;
        let dropped = broker.counters().dropped(DropReason::TooManyLevels);
        assert_eq!(dropped, 2);
        for _ in 0..2 {
            peer.expect_message("a/b/c", "text", QoS::AtLeastOnce).await;
        }
        peer.expect_nothing().await;

        let mut connect = hello(version, "another");
        connect.will = Some(Will::new(name("a/b/c/d"), b"gone"));
        let (near, far) = duplex(1 << 16);
        broker.serve(far, "test");
        let mut another = Peer::over(near, version);
        another.send(&Packet::Connect(Box::new(connect))).await;
        if let Some(received) = another.next().await {
            assert!(received.connack().reason_code.is_error());
        }
        assert_eq!(broker.counters().refused(RefusalReason::WillTooDeep), 1);
    }
}

/// A session has no more subscriptions than it may; what it has may be replaced, and made again when one has ended.
#[tokio::test(start_paused = true)]
async fn subscriptions_are_limited() {
    let broker = broker_with(config(|config| config.subscriptions = 2));
    let (mut peer, _) = knock(&broker, &hello(V5, "client")).await;
    peer.subscribe("a", QoS::AtLeastOnce).await;
    peer.subscribe("b", QoS::AtLeastOnce).await;
    let codes = peer
        .subscribe_with(vec![filter("c", QoS::AtMostOnce)], None)
        .await;
    assert_eq!(codes, [ReasonCode::QUOTA_EXCEEDED]);
    assert_eq!(broker.counters().subscriptions_refused(), 1);
    peer.subscribe("b", QoS::ExactlyOnce).await;
    peer.unsubscribe("a").await;
    peer.subscribe("c", QoS::AtMostOnce).await;
    let report = broker.counters().report();
    assert!(
        report.contains("subscriptions beyond a limit: 1\n"),
        "{report}"
    );
}

/// However many connections say nothing, a new one gets in.
#[tokio::test(start_paused = true)]
async fn silent_connections_keep_nobody_out() {
    let broker = broker_with(config(|config| config.max_entering = 10));
    let silent: Vec<_> = (0..100).map(|_| Peer::open(&broker, V5)).collect();
    let (_peer, reason) = knock(&broker, &hello(V5, "client")).await;
    assert_eq!(reason, ReasonCode::SUCCESS);
    settle().await;
    assert_eq!(broker.counters().refused(RefusalReason::PushedOut), 91);
    drop(silent);
}

/// A client that sends too fast is slowed down, and nothing it sent is lost.
#[tokio::test(start_paused = true)]
async fn messages_are_read_no_faster_than_allowed() {
    let broker = broker_with(config(|config| config.message_rate = NonZeroU32::new(10)));
    let (mut peer, _) = knock(&broker, &hello(V5, "client")).await;
    peer.subscribe("topic", QoS::AtMostOnce).await;
    let start = Instant::now();
    let texts: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for text in &texts {
        peer.send_publish(&message("topic", text, QoS::AtMostOnce))
            .await;
    }
    for text in &texts {
        peer.expect_message("topic", text, QoS::AtMostOnce).await;
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(4_900)..Duration::from_millis(5_200)).contains(&took),
        "{took:?}"
    );
    assert!(broker.counters().throttled() > 0);
}

/// The same of one listener.
#[tokio::test(start_paused = true)]
async fn a_listener_limits_its_connections() {
    let broker = broker_with(Config::default());
    let mut options = ListenerOptions::default();
    options.max_connections = Some(0);
    let (_, answer) =
        Peer::connect_through(&broker, &Arc::new(options), &hello(V5, "client")).await;
    assert_eq!(answer.connack().reason_code, ReasonCode::SERVER_BUSY);
    assert_eq!(broker.counters().refused(RefusalReason::ListenerFull), 1);
}

/// What is counted of an address holds for all listeners together, those included that are added while the broker runs.
#[tokio::test]
async fn an_address_has_one_count_at_all_listeners() {
    let broker = broker_with(config(|config| {
        config.max_connections_per_address = 1;
    }));
    let (mut answers, mut peers) = (Vec::new(), Vec::new());
    for client_id in ["first", "second"] {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        broker.listen(listener);
        let stream = TcpStream::connect(address).await.unwrap();
        let mut peer = Peer::over(stream, V5);
        let connect = hello(V5, client_id);
        peer.send(&Packet::Connect(Box::new(connect))).await;
        answers.push(peer.receive().await.connack().reason_code);
        peers.push(peer);
    }
    let full = ReasonCode::QUOTA_EXCEEDED;
    assert_eq!(answers, [ReasonCode::SUCCESS, full]);
}
