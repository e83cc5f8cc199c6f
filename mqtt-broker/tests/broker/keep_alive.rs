//! Keep alive: what counts as a sign of life ([MQTT-3.1.2-22]).

use core::time::Duration;

use mqtt_codec::{Packet, QoS};
use tokio::time::{Instant, sleep};

use crate::harness::{ALL, Peer, broker, hello, message};

/// [MQTT-3.1.2-22] [MQTT3-3.1.2-24]: bytes that make no packet do not keep a connection, whether others publish to
/// it meanwhile or not.
#[tokio::test(start_paused = true)]
async fn a_packet_that_never_ends_is_no_sign_of_life() {
    for version in ALL {
        for busy in [false, true] {
            let broker = broker();
            let mut connect = hello(version, "client");
            connect.keep_alive = 10;
            let mut peer = Peer::accepted(&broker, &connect).await;
            peer.subscribe("t", QoS::AtMostOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            let begin = Instant::now();
            let mut bytes = Packet::Publish(message("a", &"x".repeat(100), QoS::AtMostOnce))
                .to_vec(version)
                .unwrap()
                .into_iter();
            while !peer.is_closed().await {
                peer.send_raw(&[bytes.next().unwrap()]).await;
                if busy {
                    sender.publish(&message("t", "x", QoS::AtMostOnce)).await;
                }
                sleep(Duration::from_secs(1)).await;
            }
            let lasted = begin.elapsed().as_secs();
            assert!((15..=17).contains(&lasted), "{lasted} s");
        }
    }
}

/// Who sends a large packet over a slow network cannot send PINGREQ in between, and stays.
#[tokio::test(start_paused = true)]
async fn a_large_packet_may_take_its_time() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("a", QoS::AtMostOnce).await;
        let mut connect = hello(version, "client");
        connect.keep_alive = 10;
        let mut peer = Peer::accepted(&broker, &connect).await;
        let payload = "x".repeat(200_000);
        let bytes = Packet::Publish(message("a", &payload, QoS::AtMostOnce))
            .to_vec(version)
            .unwrap();
        for part in bytes.chunks(2_000) {
            peer.send_raw(part).await;
            sleep(Duration::from_secs(10)).await;
        }
        receiver
            .expect_message("a", &payload, QoS::AtMostOnce)
            .await;
        peer.expect_nothing().await;
    }
}

/// A packet that comes byte by byte arrives whole, whatever its size.
#[tokio::test(start_paused = true)]
async fn packets_arrive_byte_by_byte() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("a", QoS::AtMostOnce).await;
        let mut peer = Peer::new(&broker, version, "client").await;
        for size in [10, 1_000, 70_000] {
            let payload = "x".repeat(size);
            let mut bytes = Packet::Publish(message("a", &payload, QoS::AtMostOnce))
                .to_vec(version)
                .unwrap();
            Packet::PingReq.encode(version, &mut bytes).unwrap();
            let (parts, rest) = bytes.split_at(bytes.len().min(5_000));
            for byte in parts {
                peer.send_raw(&[*byte]).await;
                tokio::task::yield_now().await;
            }
            for part in rest.chunks(999) {
                peer.send_raw(part).await;
                tokio::task::yield_now().await;
            }
            receiver
                .expect_message("a", &payload, QoS::AtMostOnce)
                .await;
            peer.expect(&Packet::PingResp).await;
        }
    }
}
