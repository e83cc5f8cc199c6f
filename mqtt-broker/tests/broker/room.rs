//! A data directory that has reached its bound takes nothing new and lets go what it has.

use mqtt_broker::{Config, DropReason};
use mqtt_codec::{PacketType, QoS, ReasonCode};

use crate::harness::{Peer, V3_1_1, V5, message};
use crate::store::{Place, resumed};

fn bounded(bytes: u64) -> Config {
    let mut config = Config::default();
    config.data_directory_bytes = bytes;
    config
}

/// New messages are refused for stored sessions and as retained ones, and counted; a publisher of 5.0 is told where
/// nobody else took it. What was there before is delivered and acknowledged, and gone after a restart.
#[tokio::test]
async fn a_full_directory_lets_queues_drain() {
    let mut place = Place::new();
    let broker = place.start().await;
    let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
    away.subscribe("t", QoS::ExactlyOnce).await;
    away.disconnect().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for text in ["1", "2"] {
        sender.publish(&message("t", text, QoS::ExactlyOnce)).await;
    }
    let broker = place.restart_with(broker, (sender,), bounded(1)).await;

    let mut sender = Peer::new(&broker, V5, "sender").await;
    let number = sender
        .send_publish(&message("t", "refused", QoS::AtLeastOnce))
        .await;
    sender
        .expect_ack(
            PacketType::PubAck,
            number.unwrap(),
            ReasonCode::QUOTA_EXCEEDED,
        )
        .await;
    assert_eq!(broker.counters().dropped(DropReason::DirectoryFull), 1);
    assert_eq!(
        broker.client_dropped("away", DropReason::DirectoryFull),
        Some(1)
    );
    let mut kept = message("r", "refused", QoS::AtLeastOnce);
    kept.retain = true;
    let number = sender.send_publish(&kept).await;
    sender
        .expect_ack(
            PacketType::PubAck,
            number.unwrap(),
            ReasonCode::QUOTA_EXCEEDED,
        )
        .await;
    assert_eq!(broker.counters().dropped(DropReason::DirectoryFull), 2);

    // A session that is not stored needs no room, and 3.1.1 knows no refusal.
    let mut here = Peer::new(&broker, V3_1_1, "here").await;
    here.subscribe("t", QoS::AtLeastOnce).await;
    let mut older = Peer::new(&broker, V3_1_1, "older").await;
    older.publish(&message("t", "3", QoS::AtLeastOnce)).await;
    here.expect_message("t", "3", QoS::AtLeastOnce).await;
    here.subscribe("r", QoS::AtLeastOnce).await;
    here.expect_nothing().await;

    let mut away = resumed(&broker, V5, "away").await;
    for text in ["1", "2"] {
        away.expect_message("t", text, QoS::ExactlyOnce).await;
    }
    away.expect_nothing().await;
    away.disconnect().await;
    let config = Config::default();
    let broker = place
        .restart_with(broker, (sender, here, older), config)
        .await;
    let mut away = resumed(&broker, V5, "away").await;
    away.expect_nothing().await;
    // There is room again.
    let mut sender = Peer::new(&broker, V5, "sender").await;
    sender.publish(&message("t", "4", QoS::ExactlyOnce)).await;
    away.expect_message("t", "4", QoS::ExactlyOnce).await;
    place.stop(broker, (away, sender)).await;
}
