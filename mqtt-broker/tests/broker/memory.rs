//! A memory budget: what is given up when it is nearly used up, in which order, and what never is.

use core::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_broker::{Broker, Config, DropReason, MemoryGauge, MemoryStore, RefusalReason};
use mqtt_codec::{Connect, Packet, PacketType, QoS, ReasonCode};
use tokio::time::Instant;

use crate::harness::{Peer, V3_1_1, V5, advance, broker_with, hello, lasting, message, settle};

const FULL: ReasonCode = ReasonCode::QUOTA_EXCEEDED;
/// More than what the broker holds for a client before it is slow.
const LARGE: usize = 16 * 1024;

/// A broker that believes of its memory what a test says, in thousandths of its budget.
struct Scene {
    used: Arc<AtomicU64>,
    config: Config,
}

impl Scene {
    fn new() -> Self {
        let used = Arc::new(AtomicU64::new(0));
        let mut config = Config::default();
        config.memory = 1_000;
        let gauge = Arc::clone(&used);
        config.memory_gauge = MemoryGauge::new(move || Some(gauge.load(Ordering::Relaxed)));
        Self { used, config }
    }

    fn broker(&self) -> Broker {
        broker_with(self.config.clone())
    }

    /// The same that stores sessions.
    fn storing_broker(&self) -> Broker {
        let broker = Broker::open_in_memory(self.config.clone(), &MemoryStore::new()).unwrap();
        tokio::spawn(broker.clone().run(Vec::new(), core::future::pending()));
        broker
    }

    /// So much is taken from now on, and the broker has seen it.
    async fn set(&self, used: u64) {
        self.used.store(used, Ordering::Relaxed);
        advance(1).await;
    }
}

/// A client that takes one unacknowledged message and acknowledges nothing: the others wait with the broker.
fn hesitant(mut connect: Connect<'_>) -> Connect<'_> {
    connect.properties.receive_maximum = NonZeroU16::new(1);
    connect
}

/// Sends so many large messages.
async fn send(writer: &mut Peer, topic: &str, qos: QoS, count: usize) {
    let payload = "x".repeat(LARGE);
    for _ in 0..count {
        writer.publish(&message(topic, &payload, qos)).await;
    }
}

/// The first step: nobody comes in any more; who is there stays, and notices nothing.
#[tokio::test(start_paused = true)]
async fn first_nobody_new_is_let_in() {
    let scene = Scene::new();
    let broker = scene.broker();
    scene.set(799).await;
    let mut old = Peer::new(&broker, V5, "old").await;
    old.subscribe("#", QoS::AtLeastOnce).await;
    scene.set(800).await;
    Peer::refused(&broker, &hello(V5, "a"), FULL).await;
    // 3.1.1 has one code for what is not there and what is not enough.
    Peer::refused(&broker, &hello(V3_1_1, "a"), ReasonCode::SERVER_UNAVAILABLE).await;
    assert_eq!(broker.counters().refused(RefusalReason::MemoryFull), 2);
    assert_eq!(broker.counters().memory_steps(), 1);
    old.send_publish(&message("t", "x", QoS::AtMostOnce)).await;
    old.expect_message("t", "x", QoS::AtMostOnce).await;
    scene.set(771).await;
    Peer::refused(&broker, &hello(V5, "a"), FULL).await;
    scene.set(769).await;
    Peer::new(&broker, V5, "a").await;
    // A budget that a reload takes away, or makes larger, holds no more.
    scene.set(900).await;
    Peer::refused(&broker, &hello(V5, "b"), FULL).await;
    let mut other = scene.config.clone();
    other.memory = u64::MAX;
    broker.reconfigure(other);
    advance(1).await;
    Peer::new(&broker, V5, "b").await;
    broker.reconfigure(scene.config.clone());
    advance(1).await;
    Peer::refused(&broker, &hello(V5, "c"), FULL).await;
}

/// The second: receivers that are slow lose messages of QoS 0, and only those.
#[tokio::test(start_paused = true)]
async fn then_slow_receivers_lose_what_is_not_acknowledged() {
    let scene = Scene::new();
    let broker = scene.broker();
    let mut slow = Peer::open_with(&broker, V5, 1_024);
    slow.introduce("slow").await;
    slow.subscribe("t", QoS::AtLeastOnce).await;
    let mut fast = Peer::new(&broker, V5, "fast").await;
    fast.subscribe("t", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    let payload = "x".repeat(LARGE);
    // The connection takes some of it, and more than 64 KiB wait behind it: so far nothing is lost.
    send(&mut writer, "t", QoS::AtMostOnce, 24).await;
    settle().await;
    scene.set(849).await;
    send(&mut writer, "t", QoS::AtMostOnce, 1).await;
    settle().await;
    assert_eq!(broker.counters().dropped(DropReason::MemoryFull), 0);
    scene.set(850).await;
    send(&mut writer, "t", QoS::AtMostOnce, 3).await;
    send(&mut writer, "t", QoS::AtLeastOnce, 2).await;
    settle().await;
    assert_eq!(broker.counters().dropped(DropReason::MemoryFull), 3);
    assert_eq!(
        broker.client_dropped("slow", DropReason::MemoryFull),
        Some(3)
    );
    for _ in 0..28 {
        fast.expect_message("t", &payload, QoS::AtMostOnce).await;
    }
    for _ in 0..2 {
        fast.expect_message("t", &payload, QoS::AtLeastOnce).await;
    }
    let mut kept = [0, 0];
    while kept != [25, 2] {
        let received = slow.receive().await;
        slow.acknowledge(&received.publish()).await;
        kept[received.publish().qos as usize] += 1;
    }
    slow.expect_nothing().await;
    // Who reads again is not slow any more.
    send(&mut writer, "t", QoS::AtMostOnce, 1).await;
    slow.expect_message("t", &payload, QoS::AtMostOnce).await;
}

/// The third: publishers are held back, whatever they publish; what they sent is taken all the same, in order, and
/// who only receives goes on as before.
#[tokio::test(start_paused = true)]
async fn then_publishers_are_slowed_down() {
    let scene = Scene::new();
    let broker = scene.broker();
    let mut reader = Peer::accepted(&broker, &hesitant(hello(V5, "reader"))).await;
    reader.subscribe("#", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    scene.set(900).await;
    let start = Instant::now();
    let mut numbers = Vec::new();
    for number in 0..5 {
        let qos = if number == 2 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        numbers.push(writer.send_publish(&message("t", "x", qos)).await);
    }
    for (seconds, number) in numbers.into_iter().enumerate() {
        if let Some(number) = number {
            writer
                .expect_ack(PacketType::PubAck, number, ReasonCode::SUCCESS)
                .await;
            let past = start.elapsed().as_millis() as u64;
            let due = seconds as u64 * 1_000;
            assert!((due..due + 10).contains(&past), "{seconds}: {past}");
        }
    }
    assert_eq!(broker.counters().held(), 5);
    assert_eq!(broker.counters().throttled(), 0);
    let start = Instant::now();
    let mut messages = 0;
    while messages < 5 {
        let received = reader.receive().await;
        reader.acknowledge(&received.publish()).await;
        messages += 1;
    }
    reader.send(&Packet::PingReq).await;
    reader.expect(&Packet::PingResp).await;
    assert_eq!(start.elapsed().as_millis(), 0);
    // Pings and the like of the publisher wait for their turn, and its keep alive for its pings.
    scene.set(800).await;
    let start = Instant::now();
    for _ in 0..100 {
        writer.publish(&message("u", "x", QoS::AtLeastOnce)).await;
    }
    assert_eq!(start.elapsed().as_millis(), 0);
}

/// The last: the largest go, as few as it takes, first those that lose nothing by it.
#[tokio::test(start_paused = true)]
async fn at_last_the_largest_go() {
    let scene = Scene::new();
    let broker = scene.storing_broker();
    let mut stored = Peer::accepted(&broker, &hesitant(lasting(V5, "stored"))).await;
    stored.subscribe("kept", QoS::AtLeastOnce).await;
    let mut passing = Peer::accepted(&broker, &hesitant(hello(V5, "passing"))).await;
    passing.subscribe("passing", QoS::AtLeastOnce).await;
    let mut small = Peer::accepted(&broker, &hesitant(hello(V5, "small"))).await;
    small.subscribe("small", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    let payload = "x".repeat(LARGE);
    send(&mut writer, "kept", QoS::AtLeastOnce, 8).await;
    send(&mut writer, "passing", QoS::AtLeastOnce, 16).await;
    send(&mut writer, "small", QoS::AtLeastOnce, 2).await;
    stored
        .expect_publish("kept", &payload, QoS::AtLeastOnce)
        .await;
    passing
        .expect_publish("passing", &payload, QoS::AtLeastOnce)
        .await;
    small
        .expect_publish("small", &payload, QoS::AtLeastOnce)
        .await;
    scene.set(949).await;
    assert_eq!(broker.counters().shed(), 0);

    // Though another holds more, whoever loses nothing goes first.
    scene.set(950).await;
    stored.expect_disconnect(FULL).await;
    assert_eq!(broker.counters().shed(), 1);
    scene.set(0).await;
    let (mut stored, present) = Peer::resumed(&broker, &hesitant(lasting(V5, "stored"))).await;
    assert!(present);
    for _ in 0..8 {
        stored
            .expect_message("kept", &payload, QoS::AtLeastOnce)
            .await;
    }
    stored.expect_nothing().await;
    passing.expect_nothing().await;

    scene.set(2_000).await;
    passing.expect_disconnect(FULL).await;
    // Nobody is left who is worth it, and those who are there stay.
    advance(10).await;
    small.expect_nothing().await;
    stored.expect_nothing().await;
    writer.expect_nothing().await;
    assert_eq!(broker.counters().shed(), 2);
    let report = broker.counters().report();
    for line in ["memory short: ", "disconnected, memory short: 2\n"] {
        assert!(report.contains(line), "{report}");
    }
}

/// Who comes back for a session makes it smaller: it is let in as long as nobody has to go.
#[tokio::test(start_paused = true)]
async fn who_resumes_a_session_is_let_in_longer() {
    let scene = Scene::new();
    let broker = scene.broker();
    let mut reader = Peer::lasting(&broker, V5, "reader").await.0;
    reader.subscribe("t", QoS::AtLeastOnce).await;
    reader.abort().await;
    let mut old = Peer::lasting(&broker, V3_1_1, "old").await.0;
    old.subscribe("t", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    send(&mut writer, "t", QoS::AtLeastOnce, 8).await;
    old.abort().await;
    scene.set(949).await;
    Peer::refused(&broker, &lasting(V5, "stranger"), FULL).await;
    // A new session in place of the one that is there is a new one.
    let mut clean = lasting(V5, "reader");
    clean.clean_start = true;
    Peer::refused(&broker, &clean, FULL).await;
    let payload = "x".repeat(LARGE);
    for (version, name) in [(V5, "reader"), (V3_1_1, "old")] {
        let (mut peer, present) = Peer::lasting(&broker, version, name).await;
        assert!(present);
        for _ in 0..8 {
            peer.expect_message("t", &payload, QoS::AtLeastOnce).await;
        }
        peer.abort().await;
    }
    scene.set(950).await;
    Peer::refused(&broker, &lasting(V5, "reader"), FULL).await;
    assert_eq!(broker.counters().refused(RefusalReason::MemoryFull), 3);
}

/// What a client has sent of a packet that is not whole is held for it as well.
#[tokio::test(start_paused = true)]
async fn packets_that_are_not_whole_count() {
    let scene = Scene::new();
    let broker = scene.broker();
    let payload = "x".repeat(4 * LARGE + 1_000);
    let bytes = Packet::Publish(message("t", &payload, QoS::AtMostOnce))
        .to_vec(V5)
        .unwrap();
    let mut small = Peer::new(&broker, V5, "small").await;
    small.send_raw(&bytes[..1_000]).await;
    let mut large = Peer::new(&broker, V5, "large").await;
    large.send_raw(&bytes[..bytes.len() - 1]).await;
    settle().await;
    scene.set(950).await;
    large.expect_disconnect(FULL).await;
    assert_eq!(broker.counters().shed(), 1);
    scene.set(0).await;
    small.send_raw(&bytes[1_000..]).await;
    small.expect_nothing().await;
    // What was handled counts no more.
    scene.set(950).await;
    small.expect_nothing().await;
    assert_eq!(broker.counters().shed(), 1);
}

/// Nobody is safe by holding what would be lost: whoever holds many times as much as the others goes first.
#[tokio::test(start_paused = true)]
async fn who_holds_many_times_as_much_goes_first() {
    let scene = Scene::new();
    let broker = scene.storing_broker();
    let mut hog = Peer::accepted(&broker, &hesitant(hello(V5, "hog"))).await;
    hog.subscribe("hog", QoS::AtLeastOnce).await;
    let mut stored = Peer::accepted(&broker, &hesitant(lasting(V5, "stored"))).await;
    stored.subscribe("kept", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    send(&mut writer, "hog", QoS::AtLeastOnce, 120).await;
    send(&mut writer, "kept", QoS::AtLeastOnce, 6).await;
    let payload = "x".repeat(LARGE);
    hog.expect_publish("hog", &payload, QoS::AtLeastOnce).await;
    stored
        .expect_publish("kept", &payload, QoS::AtLeastOnce)
        .await;
    scene.set(950).await;
    hog.expect_disconnect(FULL).await;
    assert_eq!(broker.counters().shed(), 1);
    scene.set(0).await;
    stored.expect_nothing().await;
}

/// A client that is held back for what it publishes still takes what others send it: its acknowledgements count,
/// before and behind the message that waits.
#[tokio::test(start_paused = true)]
async fn who_is_held_back_still_acknowledges() {
    let scene = Scene::new();
    let broker = scene.broker();
    let mut both = Peer::accepted(&broker, &hesitant(hello(V5, "both"))).await;
    both.subscribe("t", QoS::ExactlyOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    for text in ["a", "b", "c", "d"] {
        writer.publish(&message("t", text, QoS::AtLeastOnce)).await;
    }
    writer.publish(&message("t", "e", QoS::ExactlyOnce)).await;
    scene.set(900).await;
    let start = Instant::now();
    both.expect_message("t", "a", QoS::AtLeastOnce).await;
    let mut held = Vec::new();
    for text in ["1", "2", "3"] {
        held.push(
            both.send_publish(&message("u", text, QoS::AtLeastOnce))
                .await,
        );
    }
    // One acknowledgement stands before a message, the others behind those that wait.
    let nobody = ReasonCode::NO_MATCHING_SUBSCRIBERS;
    let mut held = held.into_iter().flatten();
    both.expect_ack(PacketType::PubAck, held.next().unwrap(), nobody)
        .await;
    both.expect_message("t", "b", QoS::AtLeastOnce).await;
    for text in ["c", "d"] {
        both.expect_message("t", text, QoS::AtLeastOnce).await;
    }
    both.expect_message("t", "e", QoS::ExactlyOnce).await;
    assert_eq!(start.elapsed().as_millis(), 0);
    for (seconds, number) in held.enumerate() {
        both.expect_ack(PacketType::PubAck, number, nobody).await;
        let past = start.elapsed().as_millis() as u64;
        let due = (seconds as u64 + 1) * 1_000;
        assert!((due..due + 10).contains(&past), "{seconds}: {past}");
    }
    both.expect_nothing().await;
}

/// The end of a stream does not overtake what was sent before it, and neither does what follows it.
#[tokio::test(start_paused = true)]
async fn what_is_held_back_is_taken_all_the_same() {
    let scene = Scene::new();
    let broker = scene.broker();
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("u", QoS::AtLeastOnce).await;
    let mut writer = Peer::new(&broker, V5, "writer").await;
    scene.set(900).await;
    let large = "x".repeat(3 * LARGE);
    for text in ["1", &large, "3"] {
        writer
            .send_publish(&message("u", text, QoS::AtMostOnce))
            .await;
    }
    writer.abort().await;
    for text in ["1", &large, "3"] {
        reader.expect_message("u", text, QoS::AtMostOnce).await;
    }
}
