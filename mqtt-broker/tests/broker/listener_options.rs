//! What one listener allows, and another does not.

use std::sync::Arc;

use mqtt_broker::ListenerOptions;
use mqtt_codec::{Packet, QoS, ReasonCode, Will};

use crate::harness::{ALL, Peer, V3_1_1, V5, broker, filter, hello, message, name};

fn options(change: impl FnOnce(&mut ListenerOptions)) -> Arc<ListenerOptions> {
    let mut options = ListenerOptions::default();
    change(&mut options);
    Arc::new(options)
}

/// A version that the listener does not serve is refused, in the client's own version.
#[tokio::test(start_paused = true)]
async fn a_listener_serves_its_versions_only() {
    let broker = broker();
    for served in ALL {
        let options = options(|options| options.versions = vec![served]);
        for version in ALL {
            let (mut peer, answer) =
                Peer::connect_through(&broker, &options, &hello(version, "client")).await;
            let reason = answer.connack().reason_code;
            if version == served {
                assert_eq!(reason, ReasonCode::SUCCESS);
            } else {
                assert_eq!(reason, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION);
                peer.expect_closed().await;
            }
        }
    }
}

/// The lower of the listener's and the broker's maximum holds, for wills, subscriptions and messages.
#[tokio::test(start_paused = true)]
async fn a_listener_has_its_own_maximum_qos() {
    let broker = broker();
    let options = options(|options| options.maximum_qos = Some(QoS::AtLeastOnce));
    let (mut peer, answer) = Peer::connect_through(&broker, &options, &hello(V5, "client")).await;
    assert_eq!(
        answer.connack().properties.maximum_qos,
        Some(QoS::AtLeastOnce)
    );
    let granted = peer
        .subscribe_with(vec![filter("a", QoS::ExactlyOnce)], None)
        .await;
    assert_eq!(granted, [ReasonCode(1)]);
    peer.send_publish(&message("a", "text", QoS::ExactlyOnce))
        .await;
    peer.expect_disconnect(ReasonCode::QOS_NOT_SUPPORTED).await;

    let mut connect = hello(V5, "another");
    let mut will = Will::new(name("will"), b"gone");
    will.qos = QoS::ExactlyOnce;
    connect.will = Some(will);
    let (_, answer) = Peer::connect_through(&broker, &options, &connect).await;
    assert_eq!(answer.connack().reason_code, ReasonCode::QOS_NOT_SUPPORTED);

    let (_, answer) = Peer::connect(&broker, &hello(V5, "client")).await;
    assert_eq!(answer.connack().properties.maximum_qos, None);
}

/// The same of packet sizes, which 5.0 announces and every version enforces.
#[tokio::test(start_paused = true)]
async fn a_listener_has_its_own_packet_size() {
    let broker = broker();
    let options = options(|options| options.max_packet_size = Some(64));
    let payload = "x".repeat(64);
    for version in [V3_1_1, V5] {
        let (mut peer, answer) =
            Peer::connect_through(&broker, &options, &hello(version, "client")).await;
        let announced = answer.connack().properties.maximum_packet_size;
        assert_eq!(
            announced.map(|size| size.get()),
            version.has_properties().then_some(64)
        );
        peer.send(&Packet::Publish(message(
            "a",
            &payload[..40],
            QoS::AtMostOnce,
        )))
        .await;
        peer.expect_nothing().await;
        peer.send(&Packet::Publish(message("a", &payload, QoS::AtMostOnce)))
            .await;
        peer.expect_disconnect(ReasonCode::PACKET_TOO_LARGE).await;
    }
}
