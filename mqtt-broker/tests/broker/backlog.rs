//! Queues of stored sessions that are longer than what is held of them in memory.

use core::num::NonZeroU16;
use core::ops::Range;
use core::time::Duration;

use mqtt_broker::{Broker, Config, DropReason, Durability};
use mqtt_codec::{Packet, ProtocolVersion, QoS, ReasonCode};

use crate::harness::{ALL, Peer, V3_1_1, V5, lasting, message, name};
use crate::store::{Place, resumed};

/// A broker that holds about so many small messages of a connected session in memory, and one of others.
fn place(messages: usize) -> Place {
    let mut config = Config::default();
    config.durability = Durability::Os;
    config.stored_window_bytes = messages * 250;
    Place::with(config)
}

async fn away(broker: &Broker, version: ProtocolVersion, id: &str, filter: &str) {
    let (mut peer, _) = Peer::lasting(broker, version, id).await;
    peer.subscribe(filter, QoS::ExactlyOnce).await;
    peer.disconnect().await;
}

/// Publishes numbers, each at another QoS than the one before, and waits for all acknowledgements.
async fn publish(sender: &mut Peer, topic: &str, numbers: Range<u32>) {
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce];
    for number in numbers {
        let text = number.to_string();
        let publish = message(topic, &text, qos[number as usize % 2]);
        sender.publish(&publish).await;
    }
}

/// The same at QoS 1 without waiting for each.
async fn publish_at_once(sender: &mut Peer, topic: &str, numbers: Range<u32>) {
    for number in numbers.clone() {
        let text = number.to_string();
        let publish = message(topic, &text, QoS::AtLeastOnce);
        sender.send_publish(&publish).await;
    }
    for _ in numbers {
        assert!(matches!(sender.receive().await.packet(), Packet::PubAck(_)));
    }
}

/// The next messages must be these numbers; they are acknowledged.
async fn expect(peer: &mut Peer, topic: &str, numbers: Range<u32>) {
    for number in numbers {
        let received = peer.receive().await;
        let publish = received.publish();
        assert_eq!(publish.topic, Some(name(topic)));
        assert_eq!(String::from_utf8_lossy(publish.payload), number.to_string());
        peer.acknowledge(&publish).await;
    }
}

/// What waits for a client that was away comes in order and once, whether the broker is restarted meanwhile or not,
/// and messages that come while it is read follow.
#[tokio::test]
async fn a_long_queue_comes_in_order() {
    for version in ALL {
        for restarted in [false, true] {
            let mut place = place(50);
            let mut broker = place.start().await;
            away(&broker, version, "away", "t/#").await;
            // Of what was in flight at QoS 2 more is known after a restart than at QoS 1, and it comes first.
            let (mut second, _) = Peer::lasting(&broker, version, "second").await;
            second.subscribe("t/#", QoS::AtLeastOnce).await;
            second.disconnect().await;
            let mut sender = Peer::new(&broker, version, "sender").await;
            publish(&mut sender, "t", 0..500).await;
            if restarted {
                broker = place.restart(broker, sender).await;
                sender = Peer::new(&broker, version, "sender").await;
            }
            let mut away = resumed(&broker, version, "away").await;
            expect(&mut away, "t", 0..120).await;
            publish(&mut sender, "t", 500..700).await;
            expect(&mut away, "t", 120..690).await;
            publish(&mut sender, "t", 700..710).await;
            expect(&mut away, "t", 690..710).await;
            away.expect_nothing().await;
            away.disconnect().await;
            let mut second = resumed(&broker, version, "second").await;
            expect(&mut second, "t", 0..300).await;
            let broker = place.restart(broker, (sender, second)).await;
            let mut second = resumed(&broker, version, "second").await;
            expect(&mut second, "t", 300..710).await;
            second.expect_nothing().await;
            let mut away = resumed(&broker, version, "away").await;
            away.expect_nothing().await;
            place.stop(broker, (second, away)).await;
        }
    }
}

/// A client that is connected and reads nothing, or does not acknowledge, gets all of it later.
#[tokio::test]
async fn a_client_falls_behind_and_catches_up() {
    let mut place = place(20);
    let broker = place.start().await;
    let mut connect = lasting(V5, "slow");
    connect.properties.receive_maximum = NonZeroU16::new(3);
    let mut slow = Peer::accepted(&broker, &connect).await;
    slow.subscribe("t", QoS::ExactlyOnce).await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    for round in 0..4 {
        publish_at_once(&mut sender, "t", round * 600..round * 600 + 500).await;
        expect(&mut slow, "t", round * 600..round * 600 + 500).await;
        // It keeps up.
        for number in round * 600 + 500..round * 600 + 600 {
            publish(&mut sender, "t", number..number + 1).await;
            expect(&mut slow, "t", number..number + 1).await;
        }
    }
    slow.expect_nothing().await;
    place.stop(broker, (slow, sender)).await;
}

/// Whoever takes the session over while a part of its queue is read goes on where the one before was.
#[tokio::test]
async fn a_takeover_while_the_queue_is_read_loses_nothing() {
    let mut place = place(10);
    let broker = place.start().await;
    away(&broker, V5, "client", "t").await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    publish_at_once(&mut sender, "t", 0..1_000).await;
    let mut client = resumed(&broker, V5, "client").await;
    let mut next = 0;
    for step in 0..50 {
        let count = step % 7;
        expect(&mut client, "t", next..next + count).await;
        next += count;
        if step % 2 == 0 {
            // With what it has not read.
            client.abort().await;
        }
        client = resumed(&broker, V5, "client").await;
    }
    expect(&mut client, "t", next..1_000).await;
    client.expect_nothing().await;
    place.stop(broker, (client, sender)).await;
}

/// Retained messages of a new subscription come, too, while a long queue is read.
#[tokio::test]
async fn retained_messages_come_behind_a_long_queue() {
    let mut place = place(10);
    let broker = place.start().await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 0..200 {
        let topic = format!("kept/{number}");
        let mut retained = message(&topic, "kept", QoS::AtLeastOnce);
        retained.retain = true;
        sender.publish(&retained).await;
    }
    away(&broker, V5, "client", "t").await;
    publish_at_once(&mut sender, "t", 0..300).await;
    let mut client = resumed(&broker, V5, "client").await;
    let filters = vec![crate::harness::filter("kept/#", QoS::AtLeastOnce)];
    let number = client.fresh_id();
    let subscribe = mqtt_codec::Subscribe::new(number, filters);
    client.send(&Packet::Subscribe(subscribe)).await;
    let (mut queued, mut retained) = (0, 0);
    while queued < 400 || retained < 200 {
        let received = client.receive().await;
        let Packet::Publish(publish) = received.packet() else {
            continue;
        };
        if publish.retain {
            retained += 1;
        } else {
            assert_eq!(String::from_utf8_lossy(publish.payload), queued.to_string());
            queued += 1;
            if queued == 250 {
                publish_at_once(&mut sender, "t", 300..400).await;
            }
        }
        client.acknowledge(&publish).await;
    }
    client.expect_nothing().await;
    place.stop(broker, (client, sender)).await;
}

/// A message that expires on the disk is not sent, is counted, and leaves nothing behind.
#[tokio::test]
async fn what_expires_on_the_disk_is_dropped() {
    let mut place = place(10);
    let broker = place.start().await;
    away(&broker, V5, "client", "t").await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    for number in 0..200 {
        let text = (number / 2).to_string();
        let mut publish = message("t", &text, QoS::AtLeastOnce);
        publish.properties.message_expiry_interval = (number % 2 == 1).then_some(1);
        sender.publish(&publish).await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let mut client = resumed(&broker, V5, "client").await;
    expect(&mut client, "t", 0..100).await;
    client.expect_nothing().await;
    let dropped = broker.client_dropped("client", DropReason::Expired);
    assert_eq!(dropped, Some(100));
    let broker = place.restart(broker, (client, sender)).await;
    let mut client = resumed(&broker, V5, "client").await;
    client.expect_nothing().await;
    place.stop(broker, client).await;
}

/// How many messages the session takes until it is full; the publisher is told.
async fn fill(broker: &Broker, version: ProtocolVersion) -> u32 {
    let mut sender = Peer::new(broker, version, "sender").await;
    for number in 0.. {
        let text = number.to_string();
        let publish = message("t", &text, QoS::AtLeastOnce);
        sender.send_publish(&publish).await;
        match sender.receive().await.packet() {
            Packet::PubAck(ack) if ack.reason_code == ReasonCode::SUCCESS => {}
            Packet::PubAck(ack) => {
                assert_eq!(ack.reason_code, ReasonCode::QUOTA_EXCEEDED);
                return number;
            }
            other => panic!("{other:?}"),
        }
    }
    unreachable!()
}

/// The bounds of a session count what is on the disk, in messages and in bytes, before and after a restart, and as
/// much fits when all of it was sent.
#[tokio::test]
async fn what_is_on_the_disk_counts() {
    for by_messages in [false, true] {
        let mut config = Config::default();
        config.durability = Durability::Os;
        config.stored_window_bytes = 2_000;
        if by_messages {
            config.queue_messages = 123;
        } else {
            config.stored_queue_bytes = 30_000;
        }
        let mut place = Place::with(config);
        let mut broker = place.start().await;
        away(&broker, V5, "client", "t").await;
        let mut fits = None;
        for _ in 0..3 {
            let number = fill(&broker, V5).await;
            assert_eq!(*fits.get_or_insert(number), number);
            assert!(number > 50 && (!by_messages || number == 123), "{number}");
            let full = broker.client_dropped("client", DropReason::QueueFull);
            assert_eq!(full, Some(1));
            broker = place.restart(broker, ()).await;
            assert_eq!(fill(&broker, V5).await, 0, "it is full still");
            let mut client = resumed(&broker, V5, "client").await;
            expect(&mut client, "t", 0..number).await;
            client.expect_nothing().await;
            client.disconnect().await;
            broker = place.restart(broker, ()).await;
        }
        place.stop(broker, ()).await;
    }
}

/// The bound in messages holds for sessions in memory, too.
#[tokio::test(start_paused = true)]
async fn messages_in_memory_are_counted() {
    let mut config = Config::default();
    config.queue_messages = 7;
    let broker = crate::harness::broker_with(config);
    away(&broker, V5, "client", "t").await;
    for _ in 0..2 {
        assert_eq!(fill(&broker, V5).await, 7);
        let mut client = resumed(&broker, V5, "client").await;
        expect(&mut client, "t", 0..7).await;
        client.expect_nothing().await;
        client.disconnect().await;
    }
    let dropped = broker.client_dropped("client", DropReason::QueueFull);
    assert_eq!(dropped, Some(2));
}

/// A session that ends drops what it had on the disk, counted, and the next one of the client has nothing of it.
#[tokio::test]
async fn a_session_that_ends_drops_what_is_on_the_disk() {
    let mut place = place(10);
    let broker = place.start().await;
    away(&broker, V5, "client", "t").await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    publish_at_once(&mut sender, "t", 0..300).await;
    Peer::new(&broker, V5, "client").await.disconnect().await;
    let ended = broker.counters().dropped(DropReason::SessionEnded);
    assert_eq!(ended, 300);
    away(&broker, V5, "client", "t").await;
    publish_at_once(&mut sender, "t", 0..50).await;
    let broker = place.restart(broker, sender).await;
    let mut client = resumed(&broker, V5, "client").await;
    expect(&mut client, "t", 0..50).await;
    client.expect_nothing().await;
    place.stop(broker, client).await;
}

/// Publishing, consuming, coming and going, and restarts in any order: each message comes once, and in order.
#[tokio::test]
async fn nothing_is_lost_in_a_random_walk() {
    for seed in 1..=4_u64 {
        let mut random = seed;
        let mut below = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let mut place = place(8);
        let mut broker = place.start().await;
        away(&broker, V5, "a", "t").await;
        away(&broker, V3_1_1, "b", "t").await;
        let names = [("a", V5), ("b", V3_1_1)];
        let mut sender = Peer::new(&broker, V5, "sender").await;
        let mut peers = [None, None];
        let mut next = [0, 0];
        let mut published = 0;
        for _ in 0..150 {
            let who = below(2) as usize;
            let (id, version) = names[who];
            match below(20) {
                0..8 => {
                    let count = below(30) as u32;
                    publish_at_once(&mut sender, "t", published..published + count).await;
                    published += count;
                }
                8..14 => {
                    if let Some(peer) = &mut peers[who] {
                        let count = below(40) as u32;
                        let until = published.min(next[who] + count);
                        expect(peer, "t", next[who]..until).await;
                        next[who] = until;
                    }
                }
                14..17 => peers[who] = Some(resumed(&broker, version, id).await),
                17 | 18 => {
                    if let Some(peer) = peers[who].take() {
                        peer.abort().await;
                    }
                }
                _ => {
                    let gone = (sender, core::mem::take(&mut peers));
                    broker = place.restart(broker, gone).await;
                    sender = Peer::new(&broker, V5, "sender").await;
                }
            }
        }
        for (who, (id, version)) in names.into_iter().enumerate() {
            let mut peer = resumed(&broker, version, id).await;
            expect(&mut peer, "t", next[who]..published).await;
            peer.expect_nothing().await;
            peer.disconnect().await;
        }
        place.stop(broker, (sender, peers)).await;
    }
}

/// A member of a shared group with a long queue, whose session ends; the numbers that were queued for it.
async fn end_member(broker: &Broker, version: ProtocolVersion) -> u32 {
    away(broker, version, "gone", "$share/group/t").await;
    let mut sender = Peer::new(broker, version, "sender").await;
    publish(&mut sender, "t", 0..200).await;
    away(broker, version, "stays", "$share/group/t").await;
    // What only the member itself subscribed to is lost with its session.
    Peer::new(broker, version, "gone").await.disconnect().await;
    sender.disconnect().await;
    200
}

/// Takes numbers in any order until all are there, each once.
async fn expect_all(peer: &mut Peer, count: u32) {
    let mut seen = vec![false; count as usize];
    while seen.contains(&false) {
        let received = peer.receive().await;
        let publish = received.publish();
        let number: usize = String::from_utf8_lossy(publish.payload).parse().unwrap();
        assert!(!core::mem::replace(&mut seen[number], true), "{number}");
        peer.acknowledge(&publish).await;
    }
}

/// What a member of a shared group has on the disk when its session ends goes to another member, and a restart in
/// between costs nothing.
#[tokio::test]
async fn a_shared_group_gets_back_what_is_on_the_disk() {
    for version in [V3_1_1, V5] {
        for restarted in [false, true] {
            let mut place = place(10);
            let broker = if restarted {
                // Nobody looks after sessions that end.
                let broker = place.open();
                let count = end_member(&broker, version).await;
                assert_eq!(count, 200);
                drop(broker);
                place.start().await
            } else {
                let broker = place.start().await;
                end_member(&broker, version).await;
                broker
            };
            let mut stays = resumed(&broker, version, "stays").await;
            expect_all(&mut stays, 200).await;
            stays.expect_nothing().await;
            assert_eq!(broker.counters().dropped(DropReason::SessionEnded), 0);
            let broker = place.restart(broker, stays).await;
            let mut stays = resumed(&broker, version, "stays").await;
            stays.expect_nothing().await;
            place.stop(broker, stays).await;
        }
    }
}

/// Messages of a group that nobody else is in are lost with the session of their member, and counted.
#[tokio::test]
async fn a_group_without_members_gets_nothing_back() {
    let mut place = place(10);
    let broker = place.start().await;
    away(&broker, V5, "gone", "$share/group/t").await;
    let mut sender = Peer::new(&broker, V5, "sender").await;
    publish_at_once(&mut sender, "t", 0..200).await;
    Peer::new(&broker, V5, "gone").await.disconnect().await;
    while broker.counters().dropped(DropReason::SessionEnded) < 200 {
        tokio::task::yield_now().await;
    }
    let broker = place.restart(broker, sender).await;
    away(&broker, V5, "gone", "$share/group/t").await;
    let mut gone = resumed(&broker, V5, "gone").await;
    gone.expect_nothing().await;
    assert_eq!(broker.counters().dropped(DropReason::SessionEnded), 0);
    place.stop(broker, gone).await;
}
