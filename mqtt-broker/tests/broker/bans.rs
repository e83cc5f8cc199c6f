//! Who is not let in: named by the configuration, or banned for failing often.

use core::net::SocketAddr;
use core::num::NonZeroU32;
use core::time::Duration;
use std::sync::Arc;

use mqtt_broker::{BanRules, Broker, Config, EndReason, RefusalReason};
use mqtt_codec::{Connect, Packet, QoS, ReasonCode, Will};
use tokio::io::duplex;

use crate::guarded::{Files, user};
use crate::harness::{Peer, V3_1_1, V5, broker_with, hello, message, name, settle};

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
    assert_eq!(banned, Some(ReasonCode::NOT_AUTHORIZED));
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

/// A client of this address that is let in.
async fn client(broker: &Broker, address: &str, connect: &Connect<'_>) -> Peer {
    let mut peer = knock_from(broker, address);
    peer.version = connect.version;
    peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
    let reason = peer.receive().await.connack().reason_code;
    assert_eq!(reason, ReasonCode::SUCCESS);
    peer
}

fn with_bans(config: &Config, change: impl FnOnce(&mut BanRules)) -> Config {
    let mut config = config.clone();
    change(&mut config.bans);
    config
}

/// Whom a reload bans is disconnected, by address, client identifier and user name; nobody else is, and it stays so
/// when the same is read again.
#[tokio::test(start_paused = true)]
async fn a_reload_ends_connections_that_it_bans() {
    let config = Config::default();
    for version in [V3_1_1, V5] {
        let broker = broker_with(config.clone());
        let mut near = client(&broker, "192.0.2.7", &hello(version, "near")).await;
        let mut bad = client(&broker, "198.51.100.1", &hello(version, "bad")).await;
        let mut connect = hello(version, "named");
        connect.username = Some("mallory");
        let mut named = client(&broker, "198.51.100.1", &connect).await;
        let mut good = client(&broker, "198.51.100.1", &hello(version, "good")).await;
        let banned = with_bans(&config, |bans| {
            bans.addresses = vec!["192.0.2.0/24".parse().unwrap()];
        });
        broker.reconfigure(banned.clone());
        near.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
            .await;
        let banned = with_bans(&banned, |bans| bans.client_ids.push("bad".to_owned()));
        broker.reconfigure(banned.clone());
        bad.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
            .await;
        named.expect_nothing().await;
        let banned = with_bans(&banned, |bans| bans.users.push("mallory".to_owned()));
        broker.reconfigure(banned.clone());
        named
            .expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
            .await;
        broker.reconfigure(banned);
        good.expect_nothing().await;
        let counters = broker.counters();
        assert_eq!(counters.ended(EndReason::Banned), 3);
        assert_eq!(counters.refused(RefusalReason::Banned), 0);
        assert!(counters.report().contains("ended, banned: 3\n"));
        // They stay out, and come back when the bans have gone.
        let answer = come(&broker, "198.51.100.1", &hello(version, "bad")).await;
        assert!(answer.unwrap().is_error());
        broker.reconfigure(config.clone());
        client(&broker, "198.51.100.1", &hello(version, "bad")).await;
    }
}

/// The user of a session is who was let in, and the user name that CONNECT had besides.
#[tokio::test(start_paused = true)]
async fn a_banned_user_is_disconnected_whatever_let_it_in() {
    let files = Files::without_permissions();
    let config = files.config();
    let broker = broker_with(config.clone());
    let mut anna = client(&broker, "192.0.2.7", &user(V5, "anna", "one")).await;
    let mut ben = client(&broker, "192.0.2.7", &user(V5, "ben", "anna")).await;
    broker.reconfigure(with_bans(&config, |bans| {
        bans.users.push("anna".to_owned())
    }));
    anna.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
        .await;
    ben.expect_nothing().await;
}

/// A ban that comes between CONNECT and CONNACK holds as well, and the will of who is banned is published as that of
/// anybody whose connection the broker ends.
#[tokio::test(start_paused = true)]
async fn a_ban_holds_for_who_is_on_the_way_in() {
    let config = Config::default();
    let broker = broker_with(config.clone());
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("will", QoS::AtMostOnce).await;
    let mut early = knock_from(&broker, "192.0.2.7");
    settle().await;
    let mut connect = hello(V5, "late");
    connect.will = Some(Will::new(name("will"), b"gone"));
    let mut late = client(&broker, "192.0.2.8", &connect).await;
    broker.reconfigure(with_bans(&config, |bans| {
        bans.addresses = vec!["192.0.2.0/24".parse().unwrap()];
    }));
    late.expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
        .await;
    reader.expect_message("will", "gone", QoS::AtMostOnce).await;
    early
        .send(&Packet::Connect(Box::new(hello(V5, "early"))))
        .await;
    let reason = early.receive().await.connack().reason_code;
    assert_eq!(reason, ReasonCode::SUCCESS);
    early
        .expect_disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
        .await;
    early
        .send_publish(&message("will", "no", QoS::AtMostOnce))
        .await;
    reader.expect_nothing().await;
}

/// An address that is banned for failures keeps the connections that it has: who shares it has not failed.
#[tokio::test(start_paused = true)]
async fn a_ban_for_failures_ends_nothing() {
    let mut config = Config::default();
    config.bans.failures = NonZeroU32::new(1);
    let broker = broker_with(config);
    let mut good = client(&broker, "192.0.2.1", &hello(V5, "good")).await;
    let mut bad = knock_from(&broker, "192.0.2.1");
    bad.send_raw(b"GET / HTTP/1.1\r\n\r\n").await;
    bad.rest().await;
    assert_eq!(come(&broker, "192.0.2.1", &hello(V5, "other")).await, None);
    good.expect_nothing().await;
}
