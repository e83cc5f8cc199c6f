//! Wills of MQTT 3.1 and 3.1.1.

use core::time::Duration;

use mqtt_codec::{Connect, Packet, ProtocolVersion, QoS, Will};
use tokio::time::sleep;

use crate::harness::{EVERY_QOS, Peer, V3, broker, hello, message, name, settle};
use crate::v3_wire::{CLEAN, WILL, connect};

fn with_will(version: ProtocolVersion, qos: QoS, retain: bool) -> Connect<'static> {
    let mut will = Will::new(name("will"), b"gone");
    will.qos = qos;
    will.retain = retain;
    let mut connect = hello(version, "client");
    connect.will = Some(will);
    connect
}

/// [MQTT3-3.1.2-8] [MQTT3-3.1.2-9] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]: at every QoS and with both values of
/// Will Retain a broken connection publishes the will as it was given.
#[tokio::test(start_paused = true)]
async fn qos_and_retain_of_the_will_count() {
    for version in V3 {
        for qos in EVERY_QOS {
            for retain in [false, true] {
                let broker = broker();
                let mut watcher = Peer::new(&broker, version, "watcher").await;
                watcher.subscribe("will", QoS::ExactlyOnce).await;
                let peer = Peer::accepted(&broker, &with_will(version, qos, retain)).await;
                watcher.expect_nothing().await;
                peer.abort().await;
                let received = watcher.expect_message("will", "gone", qos).await;
                assert!(!received.publish().retain);
                watcher.expect_nothing().await;
                let mut late = Peer::new(&broker, version, "late").await;
                late.subscribe("will", QoS::ExactlyOnce).await;
                if retain {
                    let received = late.expect_message("will", "gone", qos).await;
                    assert!(received.publish().retain);
                }
                late.expect_nothing().await;
            }
        }
    }
}

/// [MQTT3-3.1.2-8] [MQTT3-3.1.2-24] [MQTT3-3.1.0-2]: keep alive, violations, a second CONNECT and another
/// connection of the client publish it too, also where the session goes on.
#[tokio::test(start_paused = true)]
async fn every_end_without_disconnect_publishes_the_will() {
    for version in V3 {
        for clean in [false, true] {
            let broker = broker();
            let mut watcher = Peer::new(&broker, version, "watcher").await;
            watcher.subscribe("will", QoS::ExactlyOnce).await;
            let mut connect = with_will(version, QoS::ExactlyOnce, false);
            connect.clean_start = clean;
            connect.keep_alive = 10;

            let mut silent = Peer::accepted(&broker, &connect).await;
            silent.expect_closed().await;
            watcher
                .expect_message("will", "gone", QoS::ExactlyOnce)
                .await;

            for bytes in [
                &b"\x00\x00"[..],
                b"\x36\x05\0\x01a\0\x01",
                b"\x82\x02\0\x01",
            ] {
                let mut rude = Peer::accepted(&broker, &connect).await;
                rude.send_raw(bytes).await;
                rude.expect_closed().await;
                watcher
                    .expect_message("will", "gone", QoS::ExactlyOnce)
                    .await;
            }

            let mut twice = Peer::accepted(&broker, &connect).await;
            twice
                .send(&Packet::Connect(Box::new(connect.clone())))
                .await;
            twice.expect_closed().await;
            watcher
                .expect_message("will", "gone", QoS::ExactlyOnce)
                .await;

            let mut old = Peer::accepted(&broker, &connect).await;
            let new = Peer::accepted(&broker, &connect).await;
            old.expect_closed().await;
            watcher
                .expect_message("will", "gone", QoS::ExactlyOnce)
                .await;
            new.disconnect().await;
            watcher.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.1.2-10] [MQTT3-3.14.4-3]: DISCONNECT removes the will for good, and so does its publication: a
/// later connection of the session does not have it.
#[tokio::test(start_paused = true)]
async fn a_will_is_removed() {
    for version in V3 {
        for farewell in [false, true] {
            let broker = broker();
            let mut watcher = Peer::new(&broker, version, "watcher").await;
            watcher.subscribe("will", QoS::AtMostOnce).await;
            let mut connect = with_will(version, QoS::AtMostOnce, false);
            connect.clean_start = false;
            let peer = Peer::accepted(&broker, &connect).await;
            if farewell {
                peer.disconnect().await;
            } else {
                peer.abort().await;
                watcher
                    .expect_message("will", "gone", QoS::AtMostOnce)
                    .await;
            }
            connect.will = None;
            Peer::accepted(&broker, &connect).await.abort().await;
            sleep(Duration::from_secs(1_000)).await;
            watcher.expect_nothing().await;
        }
    }
}

/// [MQTT3-3.14.4-3]: DISCONNECT counts although bytes follow it.
#[tokio::test(start_paused = true)]
async fn what_follows_disconnect_does_not_count() {
    for version in V3 {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        let mut peer = Peer::open(&broker, version);
        let mut bytes = connect(version, CLEAN | WILL, &[b"c", b"will", b"gone"]);
        bytes.extend(b"\xe0\x00\x30\x04\0\x01ax\x00\x00");
        peer.send_raw(&bytes).await;
        assert_eq!(peer.rest().await, [0x20, 2, 0, 0]);
        settle().await;
        watcher.expect_nothing().await;
    }
}

/// [MQTT3-3.1.2-12]: without Will Flag nothing is published.
#[tokio::test(start_paused = true)]
async fn without_a_will_nothing_is_published() {
    for version in V3 {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        let mut connect = hello(version, "client");
        connect.keep_alive = 1;
        Peer::accepted(&broker, &connect).await.abort().await;
        let mut silent = Peer::accepted(&broker, &connect).await;
        silent.expect_closed().await;
        watcher.expect_nothing().await;
    }
}

/// A CONNECT that is refused leaves no will, and each new one of a session replaces the last.
#[tokio::test(start_paused = true)]
async fn the_will_is_that_of_the_last_connect() {
    for version in V3 {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("will/#", QoS::AtMostOnce).await;
        for (topic, text) in [("will/1", &b"one"[..]), ("will/2", b"two")] {
            let mut connect = hello(version, "client");
            connect.clean_start = false;
            connect.will = Some(Will::new(name(topic), text));
            Peer::accepted(&broker, &connect).await.abort().await;
            let text = core::str::from_utf8(text).unwrap();
            watcher.expect_message(topic, text, QoS::AtMostOnce).await;
        }
        let mut refused = Peer::open(&broker, version);
        refused
            .send_raw(&connect(version, WILL, &[b"", b"will/3", b"three"]))
            .await;
        assert_eq!(refused.rest().await, [0x20, 2, 0, 2]);
        watcher.expect_nothing().await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("will/4", "x", QoS::AtMostOnce))
            .await;
        watcher.expect_message("will/4", "x", QoS::AtMostOnce).await;
    }
}
