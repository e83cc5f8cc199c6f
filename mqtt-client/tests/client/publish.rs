//! Publishing: what each receipt waits for.

use mqtt_client::{
    Blame, Error, Message, MessageProperties, ProtocolVersion, QoS, ReasonCode, TryPublishError,
};
use mqtt_codec::{Ack, ConnAck, Packet};
use std::num::{NonZeroU16, NonZeroU32};

use crate::peer::{ack, connect, message, options, try_connect};

#[tokio::test(start_paused = true)]
async fn receipts_resolve_at_each_quality_of_service() {
    for version in ProtocolVersion::ALL {
        let (client, _incoming, mut peer) = connect(options(version)).await;

        let receipt = client
            .publish(message(QoS::AtMostOnce, "zero"))
            .await
            .unwrap();
        assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
        assert_eq!(peer.expect_publish("zero").await, (None, false));

        let receipt = client
            .publish(message(QoS::AtLeastOnce, "one"))
            .await
            .unwrap();
        let (id, _) = peer.expect_publish("one").await;
        peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
        assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);

        let receipt = client
            .publish(message(QoS::ExactlyOnce, "two"))
            .await
            .unwrap();
        let (id, _) = peer.expect_publish("two").await;
        let ack = ack(id.unwrap().get());
        peer.send(Packet::PubRec(ack.clone())).await;
        peer.expect_packet(Packet::PubRel(ack.clone())).await;
        peer.send(Packet::PubComp(ack)).await;
        assert_eq!(receipt.await.unwrap(), ReasonCode::SUCCESS);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_resolves_to_the_reason() {
    let (client, _incoming, mut peer) = connect(options(ProtocolVersion::V5)).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let receipt = client.publish(message(qos, "x")).await.unwrap();
        let (id, _) = peer.expect_publish("x").await;
        let refusal = Ack::new(id.unwrap(), ReasonCode::QUOTA_EXCEEDED);
        peer.send(if qos == QoS::AtLeastOnce {
            Packet::PubAck(refusal)
        } else {
            Packet::PubRec(refusal)
        })
        .await;
        assert_eq!(receipt.await.unwrap(), ReasonCode::QUOTA_EXCEEDED);
    }
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn the_receive_maximum_of_the_server_is_kept() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.receive_maximum = NonZeroU16::new(2);
    let (connected, mut peer) = try_connect(options(ProtocolVersion::V5), connack).await;
    let (client, _incoming) = connected.unwrap();
    let mut receipts = Vec::new();
    for payload in ["a", "b", "c"] {
        receipts.push(
            client
                .publish(message(QoS::AtLeastOnce, payload))
                .await
                .unwrap(),
        );
    }
    let (first, _) = peer.expect_publish("a").await;
    peer.expect_publish("b").await;
    peer.silent().await;
    peer.send(Packet::PubAck(ack(first.unwrap().get()))).await;
    peer.expect_publish("c").await;
}

#[tokio::test(start_paused = true)]
async fn try_publish_gives_the_message_back_when_the_queue_is_full() {
    let (client, _incoming, _peer) = connect(options(ProtocolVersion::V5).queue_capacity(2)).await;
    let _first = client.try_publish(message(QoS::AtMostOnce, "a")).unwrap();
    let _second = client.try_publish(message(QoS::AtMostOnce, "b")).unwrap();
    let refused = message(QoS::AtMostOnce, "c");
    let error = client.try_publish(refused.clone()).map(drop).unwrap_err();
    assert_eq!(error, TryPublishError::Full(Box::new(refused)));
}

#[tokio::test(start_paused = true)]
async fn impossible_messages_are_the_callers_fault() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.maximum_packet_size = NonZeroU32::new(20);
    connack.properties.maximum_qos = Some(QoS::AtLeastOnce);
    let (connected, mut peer) = try_connect(options(ProtocolVersion::V5), connack).await;
    let (client, _incoming) = connected.unwrap();

    let receipt = client
        .publish(message(QoS::AtMostOnce, &"x".repeat(20)))
        .await
        .unwrap();
    assert!(matches!(receipt.await, Err(Error::TooLarge)));
    let receipt = client
        .publish(message(QoS::ExactlyOnce, "x"))
        .await
        .unwrap();
    assert!(matches!(receipt.await, Err(Error::QosNotSupported)));

    let long = MessageProperties {
        content_type: Some("x".repeat(70_000)),
        ..MessageProperties::default()
    };
    let error = client
        .publish(message(QoS::AtMostOnce, "").properties(long))
        .await
        .map(drop)
        .unwrap_err();
    assert_eq!(error.blame(), Blame::Caller, "{error}");
    peer.silent().await;
}

#[tokio::test(start_paused = true)]
async fn topic_aliases_are_used_where_the_server_takes_them() {
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.topic_alias_maximum = Some(1);
    let (connected, mut peer) = try_connect(options(ProtocolVersion::V5), connack).await;
    let (client, _incoming) = connected.unwrap();
    let mut aliases = Vec::new();
    for _ in 0..3 {
        let message = Message::new("a/long/topic/name", "x").unwrap();
        client.publish(message).await.unwrap().await.unwrap();
        aliases.push(
            peer.expect(|packet| match packet {
                Packet::Publish(publish) => (
                    publish.topic.is_some(),
                    publish.properties.topic_alias.is_some(),
                ),
                packet => panic!("{packet:?}"),
            })
            .await,
        );
    }
    assert!(aliases.contains(&(false, true)), "{aliases:?}");
}
