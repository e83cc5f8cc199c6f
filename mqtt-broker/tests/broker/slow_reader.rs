//! Clients that read slower than others publish: what passes what, and what is lost.

use core::time::Duration;

use mqtt_broker::DropReason;
use mqtt_codec::{Connect, Packet, Publish, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    ALL, EVERY_QOS, Peer, V3_1_1, V5, broker, filter, hello, lasting, message, settle,
};

/// A client with a small pipe that does not read.
async fn slow(broker: &mqtt_broker::Broker, connect: &Connect<'_>, text: &str, qos: QoS) -> Peer {
    let mut peer = Peer::open_with(broker, connect.version, 2_000);
    peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
    peer.receive().await;
    peer.subscribe_with(vec![filter(text, qos)], None).await;
    peer
}

/// So much QoS 0 that it fills the outbox.
async fn flood(sender: &mut Peer) {
    let payload = "x".repeat(1_000);
    for _ in 0..2_000 {
        sender
            .send_publish(&message("t/flood", &payload, QoS::AtMostOnce))
            .await;
    }
    sender.expect_nothing().await;
}

/// Answers and messages of QoS 1 and 2 do not wait behind all QoS 0 messages that were there before them.
#[tokio::test(start_paused = true)]
async fn short_packets_and_higher_qos_pass_a_flood() {
    for version in ALL {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let mut receiver = slow(&broker, &hello(version, "receiver"), "t/#", qos).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            flood(&mut sender).await;
            sender.publish(&message("t/wanted", "text", qos)).await;
            receiver.send(&Packet::PingReq).await;
            let (mut before_ping, mut before_message) = (0, 0);
            let (mut pings, mut messages) = (0, 0);
            while pings + messages < 2 {
                let received = receiver.receive().await;
                match received.packet() {
                    Packet::PingResp => pings += 1,
                    Packet::Publish(publish) if publish.qos == qos => messages += 1,
                    _ => {
                        let len = received.bytes().len();
                        before_ping += if pings == 0 { len } else { 0 };
                        before_message += if messages == 0 { len } else { 0 };
                    }
                }
            }
            assert!(before_ping < 400_000, "{before_ping} {version}");
            assert!(before_message < 400_000, "{before_message} {version}");
        }
    }
}

/// While there is always more to write, the client is still read: its PINGREQs keep it alive.
#[tokio::test(start_paused = true)]
async fn a_client_that_gets_very_much_is_heard() {
    let broker = broker();
    let mut sender = Peer::new(&broker, V5, "sender").await;
    let payload = "x".repeat(100);
    for number in 0..2_000 {
        let topic = format!("a/b/c/d/{number}");
        let mut publish = message(&topic, &payload, QoS::AtMostOnce);
        publish.retain = true;
        sender.send_publish(&publish).await;
    }
    sender.expect_nothing().await;

    let (stream, other) = tokio::io::duplex(1 << 20);
    broker.serve(other, "test");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut connect = hello(V3_1_1, "client");
    connect.keep_alive = 2;
    let mut bytes = Packet::Connect(Box::new(connect)).to_vec(V3_1_1).unwrap();
    let filters = (0..32_u32).map(|bits| {
        let levels = ["a", "b", "c", "d"].iter().enumerate();
        let levels = levels.map(|(at, level)| if bits >> at & 1 == 0 { level } else { "+" });
        let last = if bits & 16 == 0 { "#" } else { "+" };
        levels.chain([last]).collect::<Vec<_>>().join("/")
    });
    for (number, text) in filters.enumerate() {
        let number = crate::harness::id(number as u16 + 1);
        let wanted = vec![filter(&text, QoS::AtMostOnce)];
        Packet::Subscribe(mqtt_codec::Subscribe::new(number, wanted))
            .encode(V3_1_1, &mut bytes)
            .unwrap();
    }
    writer.write_all(&bytes).await.unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    let messages = 32 * 2_000;
    while total < messages * payload.len() {
        let count = reader.read(&mut buffer).await.unwrap();
        assert!(count > 0, "closed after {total} bytes");
        total += count;
        // As if reading this had taken so long.
        tokio::time::advance(Duration::from_millis(200)).await;
        writer.write_all(&[0xc0, 0]).await.unwrap();
    }
}

/// QoS 0 messages that were taken from the outbox and not written are counted when the connection ends, as those
/// in the outbox are.
#[tokio::test(start_paused = true)]
async fn what_was_not_written_is_counted() {
    for qos in EVERY_QOS {
        let broker = broker();
        let receiver = slow(&broker, &lasting(V5, "receiver"), "t/#", qos).await;
        let mut sender = Peer::new(&broker, V5, "sender").await;
        for number in 0..100 {
            let payload = format!("{number:0>1000}");
            sender
                .send_publish(&message("t", &payload, QoS::AtMostOnce))
                .await;
        }
        sender.expect_nothing().await;
        receiver.abort().await;
        let lost = broker
            .client_dropped("receiver", DropReason::Offline)
            .unwrap();
        assert!((97..=99).contains(&lost), "{lost}");
    }
}

/// A packet that is larger than what a receiver takes is left out; those around it in the same write arrive.
#[tokio::test(start_paused = true)]
async fn only_what_is_too_large_is_left_out() {
    for sender_version in ALL {
        for receiver_version in [V3_1_1, V5] {
            let broker = broker();
            let mut sender = Peer::new(&broker, sender_version, "sender").await;
            let mut small = hello(V5, "small");
            small.properties.maximum_packet_size = core::num::NonZeroU32::new(100);
            let mut small = Peer::accepted(&broker, &small).await;
            small.subscribe("t", QoS::AtMostOnce).await;
            let mut large = Peer::new(&broker, receiver_version, "large").await;
            large.subscribe("t", QoS::AtMostOnce).await;
            let long = "x".repeat(100);
            let mut bytes = Vec::new();
            for payload in ["1", &long, "2"] {
                let publish = Publish::new(crate::harness::name("t"), payload.as_bytes());
                Packet::Publish(publish)
                    .encode(sender_version, &mut bytes)
                    .unwrap();
            }
            sender.send_raw(&bytes).await;
            settle().await;
            for payload in ["1", &long, "2"] {
                large.expect_message("t", payload, QoS::AtMostOnce).await;
            }
            for payload in ["1", "2"] {
                small.expect_message("t", payload, QoS::AtMostOnce).await;
            }
            small.expect_nothing().await;
            assert_eq!(
                broker.client_dropped("small", DropReason::TooLarge),
                Some(1)
            );
        }
    }
}

/// [MQTT3-4.6.0-2] [MQTT3-4.6.0-3]: acknowledgements keep the order of the messages, however slowly they are read and
/// whatever else waits to be sent.
#[tokio::test(start_paused = true)]
async fn acknowledgements_keep_their_order() {
    for version in ALL {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let broker = broker();
            let mut client = slow(&broker, &hello(version, "client"), "t/#", QoS::AtMostOnce).await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            let payload = "x".repeat(700);
            let mut next = 1;
            let mut expected = 1;
            for round in 0..60 {
                for _ in 0..10 {
                    let mut publish = message("mine", "x", qos);
                    publish.packet_id = Some(crate::harness::id(next));
                    client.send(&Packet::Publish(publish)).await;
                    next += 1;
                    for _ in 0..round % 7 * 3 {
                        sender
                            .send_publish(&message("t/flood", &payload, QoS::AtMostOnce))
                            .await;
                    }
                    settle().await;
                }
                // A part of what waits is read, and in the end all.
                while expected < next.saturating_sub(5 * (60 - round)) {
                    let received = client.receive().await;
                    match received.packet() {
                        Packet::PubAck(ack) | Packet::PubRec(ack) => {
                            assert_eq!(ack.packet_id.get(), expected, "{version} {qos:?}");
                            expected += 1;
                        }
                        Packet::Publish(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert!(expected > 500, "{expected}");
        }
    }
}

/// [MQTT-3.3.2-5] [MQTT-3.3.2-6]: a QoS 0 message that waits for a slow reader expires like any other, and says how
/// long it still has.
#[tokio::test(start_paused = true)]
async fn messages_expire_while_they_wait() {
    for sender_version in [V3_1_1, V5] {
        let broker = broker();
        let mut receiver = slow(&broker, &hello(V5, "receiver"), "t/#", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, sender_version, "sender").await;
        let mut timed = Peer::new(&broker, V5, "timed").await;
        for _ in 0..2 {
            flood(&mut sender).await;
        }
        // What has left the outbox makes room for these.
        let mut read = 0;
        while read < 300_000 {
            read += receiver.receive().await.bytes().len();
        }
        for (text, seconds) in [("short", 10), ("long", 100)] {
            let mut publish = message("t/timed", text, QoS::AtMostOnce);
            publish.properties.message_expiry_interval = Some(seconds);
            timed.send_publish(&publish).await;
        }
        timed.expect_nothing().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        loop {
            let received = receiver.receive().await;
            let publish = received.publish();
            if publish.payload != b"long" {
                assert_ne!(publish.payload, b"short");
                continue;
            }
            assert_eq!(publish.properties.message_expiry_interval, Some(70));
            break;
        }
        receiver.expect_nothing().await;
        assert_eq!(
            broker.client_dropped("receiver", DropReason::Expired),
            Some(1)
        );
    }
}
