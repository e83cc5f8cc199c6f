//! Who is not let in: named by the configuration, or banned for failing often.

use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::Arc;

use mqtt_broker::{Broker, Config, RefusalReason};
use mqtt_codec::{Connect, Packet, ReasonCode};
use tokio::io::duplex;

use crate::harness::{Peer, V3_1_1, V5, broker_with, hello};

fn knock_from(broker: &Broker, address: &str) -> Peer {
    let (near, far) = duplex(1 << 16);
    let address: SocketAddr = format!("{address}:1000").parse().unwrap();
    broker.serve_with(far, address.into(), Arc::default());
    Peer::over(near, V5)
}

/// The reason code of CONNACK; none if the connection is closed without an answer.
async fn come(broker: &Broker, address: &str, connect: &Connect<'_>) -> Option<ReasonCode> {
    let mut peer = knock_from(broker, address);
    peer.version = connect.version;
    peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
    let received = peer.next().await?;
    Some(received.connack().reason_code)
}

#[tokio::test(start_paused = true)]
async fn named_addresses_clients_and_users_are_refused() {
    let mut config = Config::default();
    config.bans.addresses = vec!["192.0.2.0/24".parse().unwrap()];
    config.bans.client_ids = vec!["bad".to_owned()];
    config.bans.users = vec!["mallory".to_owned()];
    let broker = broker_with(config);
    let good = Some(ReasonCode::SUCCESS);
    assert_eq!(come(&broker, "192.0.2.7", &hello(V5, "good")).await, None);
    assert_eq!(
        come(&broker, "198.51.100.7", &hello(V5, "good")).await,
        good
    );
    let banned = come(&broker, "198.51.100.7", &hello(V5, "bad")).await;
    assert_eq!(banned, Some(ReasonCode::BANNED));
    let banned = come(&broker, "198.51.100.7", &hello(V3_1_1, "bad")).await;
    assert!(banned.unwrap().is_error());
    let mut connect = hello(V5, "good");
    connect.username = Some("mallory");
    let banned = come(&broker, "198.51.100.7", &connect).await;
    assert_eq!(banned, Some(ReasonCode::BANNED));
    let counters = broker.counters();
    assert_eq!(counters.refused(RefusalReason::Banned), 4);
    assert_eq!(counters.banned(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_often_is_banned_for_a_while() {
    let mut config = Config::default();
    config.bans.failures = NonZeroU32::new(3);
    config.bans.duration = Duration::from_secs(100);
    let broker = broker_with(config);
    for _ in 0..3 {
        let mut peer = knock_from(&broker, "192.0.2.1");
        peer.send_raw(b"GET / HTTP/1.1\r\n\r\n").await;
        peer.rest().await;
    }
    assert_eq!(broker.counters().banned(), 1);
    let hello = hello(V5, "good");
    assert_eq!(come(&broker, "192.0.2.1", &hello).await, None);
    let good = Some(ReasonCode::SUCCESS);
    assert_eq!(come(&broker, "192.0.2.2", &hello).await, good);
    tokio::time::advance(Duration::from_secs(100)).await;
    assert_eq!(come(&broker, "192.0.2.1", &hello).await, good);
    assert_eq!(broker.counters().refused(RefusalReason::Banned), 1);
    let report = broker.counters().report();
    assert!(report.contains("addresses banned: 1\n"), "{report}");
}
