//! Limits that a reload changes while clients are connected: each holds for what follows.

use core::time::Duration;

use mqtt_broker::{Broker, Config, DropReason};
use mqtt_codec::{PacketType, QoS, ReasonCode};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::harness::{
    Peer, V3_1_1, V5, advance, broker_with, filter, hello, lasting, message, settle,
};
use crate::store::Place;

const ONE: QoS = QoS::AtLeastOnce;
/// How long a thread that looks at the disk may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// As bytes of the buffer between a client and the broker.
const PIPE: usize = 500;

fn changed(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

/// A client that is to read nothing.
async fn deaf(broker: &Broker) -> Peer {
    let mut deaf = Peer::open_with(broker, V5, PIPE);
    deaf.introduce("deaf").await;
    deaf.subscribe("flood", QoS::AtMostOnce).await;
    deaf
}

/// Sends it more than its pipe holds.
async fn flood(broker: &Broker) {
    let mut peer = Peer::new(broker, V5, "publisher").await;
    let text = "x".repeat(4 * PIPE);
    peer.publish(&message("flood", &text, ONE)).await;
    peer.disconnect().await;
}

/// The time that a write may take is that of now, for clients too that were there before.
#[tokio::test(start_paused = true)]
async fn write_timeout() {
    for (config, seconds, is_ended) in [
        (Config::default(), 50, false),
        (
            changed(|it| it.write_timeout = Duration::from_secs(20)),
            30,
            true,
        ),
        (
            changed(|it| it.write_timeout = Duration::from_secs(99)),
            70,
            false,
        ),
    ] {
        let broker = broker_with(Config::default());
        let _deaf = deaf(&broker).await;
        broker.reconfigure(config);
        flood(&broker).await;
        advance(seconds).await;
        let report = broker.counters().report();
        let counted = report.contains("ended, reads nothing: 1\n");
        assert_eq!(counted, is_ended, "{seconds} s: {report}");
    }
}

/// A shutdown waits for as long as is said when it begins: here for a client that does not close its half, which is
/// given a second.
#[tokio::test(start_paused = true)]
async fn shutdown_timeout() {
    for (config, least, most) in [
        (Config::default(), 1_000, 1_500),
        (
            changed(|it| it.shutdown_timeout = Duration::from_millis(200)),
            200,
            300,
        ),
    ] {
        let broker = broker_with(Config::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let run = broker
            .clone()
            .run(Vec::new(), async { drop(stopped.await) });
        let running = tokio::spawn(run);
        let peer = Peer::new(&broker, V5, "client").await;
        broker.reconfigure(config);
        let started = Instant::now();
        stop.send(()).unwrap();
        running.await.unwrap();
        let took = started.elapsed().as_millis();
        assert!((least..=most).contains(&took), "{took} ms");
        drop(peer);
    }
}

/// Clients that come from now on are not read beyond so many unsent answers; those that are there keep their bound.
#[tokio::test(start_paused = true)]
async fn control_bytes() {
    // UNSUBSCRIBE of `a`, which is answered in 6 bytes.
    const UNSUBSCRIBE: [u8; 8] = [0xa2, 0x06, 0x00, 0x01, 0x00, 0x00, 0x01, b'a'];
    let broker = broker_with(Config::default());
    // How many of 5,000 a client can send that reads nothing, in steps of 100.
    let sends = async |client_id: &str| {
        let mut peer = Peer::open_with(&broker, V5, PIPE);
        peer.introduce(client_id).await;
        let some = UNSUBSCRIBE.repeat(100);
        let mut count = 0;
        while count < 5_000 {
            let sent = timeout(Duration::from_secs(1), peer.send_raw(&some)).await;
            if sent.is_err() {
                break;
            }
            count += 100;
        }
        count
    };
    assert_eq!(sends("before").await, 5_000);
    broker.reconfigure(changed(|it| it.control_bytes = 100));
    let count = sends("after").await;
    assert!(count < 1_000, "{count}");
    broker.reconfigure(Config::default());
    assert_eq!(sends("again").await, 5_000);
}

/// What waits for a client that reads nothing is bounded by what is said now, were it there before or not.
#[tokio::test(start_paused = true)]
async fn outbox_bytes() {
    let broker = broker_with(Config::default());
    let mut deaf = deaf(&broker).await;
    flood(&broker).await;
    let mut peer = Peer::new(&broker, V5, "another").await;
    let text = "x".repeat(1_000);
    let mut send = async |count| {
        for _ in 0..count {
            peer.publish(&message("flood", &text, QoS::AtMostOnce))
                .await;
        }
        settle().await;
        broker.client_dropped("deaf", DropReason::OutboxFull)
    };
    assert_eq!(send(10).await, Some(0));
    // Less than waits already, all of which stays.
    broker.reconfigure(changed(|it| it.outbox_bytes = 500));
    let dropped = send(10).await.unwrap();
    assert!((9..=10).contains(&dropped), "{dropped}");
    broker.reconfigure(Config::default());
    assert_eq!(send(10).await, Some(dropped));
    let came = 30 - usize::try_from(dropped).unwrap();
    for expected in core::iter::once(4 * PIPE).chain(core::iter::repeat_n(1_000, came)) {
        assert_eq!(deaf.receive().await.publish().payload.len(), expected);
    }
    deaf.expect_nothing().await;
}

/// Publishes for whoever is away, and tells the code of the answer.
async fn publish(peer: &mut Peer, text: &str) -> ReasonCode {
    let id = peer.send_publish(&message("topic", text, ONE)).await;
    let received = peer.next().await.unwrap();
    match received.packet() {
        mqtt_codec::Packet::PubAck(ack) => {
            assert_eq!(Some(ack.packet_id), id);
            ack.reason_code
        }
        other => panic!("{other:?}"),
    }
}

const TAKEN: ReasonCode = ReasonCode::SUCCESS;
const FULL: ReasonCode = ReasonCode::QUOTA_EXCEEDED;

/// What may wait for a session is what is said now; what waits stays, though it be more.
#[tokio::test(start_paused = true)]
async fn queues() {
    type Set = fn(&mut Config);
    let bounds: [(Set, Set); 2] = [
        (|it| it.queue_messages = 2, |it| it.queue_messages = 4),
        (|it| it.queue_bytes = 500, |it| it.queue_bytes = 1 << 20),
    ];
    for version in [V5, V3_1_1] {
        for (narrow, wide) in bounds {
            let broker = broker_with(Config::default());
            let mut away = Peer::accepted(&broker, &lasting(version, "away")).await;
            away.subscribe_with(vec![filter("topic", ONE)], None).await;
            away.abort().await;
            let mut peer = Peer::accepted(&broker, &hello(V5, "publisher")).await;
            for text in ["1", "2", "3"] {
                assert_eq!(publish(&mut peer, text).await, TAKEN);
            }
            broker.reconfigure(changed(narrow));
            assert_eq!(publish(&mut peer, "beyond").await, FULL);
            broker.reconfigure(changed(wide));
            assert_eq!(publish(&mut peer, "4").await, TAKEN);
            let (mut back, _) = Peer::resumed(&broker, &lasting(version, "away")).await;
            for text in ["1", "2", "3", "4"] {
                back.expect_message("topic", text, ONE).await;
            }
            back.expect_nothing().await;
        }
    }
}

/// The bounds of the directory and of the queues in it are those of now, without another commit in between.
#[tokio::test]
async fn stored() {
    type Set = fn(&mut Config);
    let bounds: [(Set, DropReason); 3] = [
        (|it| it.stored_queue_bytes = 300, DropReason::QueueFull),
        (|it| it.data_directory_bytes = 1, DropReason::DirectoryFull),
        // More than any disk has.
        (|it| it.disk_reserve_bytes = 1 << 60, DropReason::DiskFull),
    ];
    for (narrow, reason) in bounds {
        let mut place = Place::new();
        let broker = place.start().await;
        let (mut away, _) = Peer::lasting(&broker, V5, "away").await;
        away.subscribe("topic", ONE).await;
        away.disconnect().await;
        let mut peer = Peer::new(&broker, V5, "publisher").await;
        assert_eq!(publish(&mut peer, "1").await, TAKEN);
        // What is seen by a thread of its own comes a moment later: it is asked until it is there.
        let mut count = 0;
        let mut until = async |config: Config, wanted: ReasonCode| {
            broker.reconfigure(config);
            let asked = async {
                loop {
                    let told = publish(&mut peer, "next").await;
                    count += usize::from(told == TAKEN);
                    if told == wanted {
                        return;
                    }
                }
            };
            timeout(PATIENCE, asked).await.expect("nothing changes");
        };
        until(changed(narrow), FULL).await;
        assert!(broker.counters().dropped(reason) > 0, "{reason}");
        until(Config::default(), TAKEN).await;
        let (mut back, _) = Peer::lasting(&broker, V5, "away").await;
        back.expect_message("topic", "1", ONE).await;
        for _ in 0..count {
            back.expect_message("topic", "next", ONE).await;
        }
        back.expect_nothing().await;
        let ack = PacketType::PubAck;
        let id = peer.send_publish(&message("nobody", "", ONE)).await;
        let unwanted = ReasonCode::NO_MATCHING_SUBSCRIBERS;
        peer.expect_ack(ack, id.unwrap(), unwanted).await;
        place.stop(broker, (back, peer)).await;
    }
}
