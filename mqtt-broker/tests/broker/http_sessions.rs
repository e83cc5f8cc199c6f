//! Sessions whose subscriptions a service is asked about when they are resumed.

use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};

use mqtt_broker::auth::Authority;
use mqtt_broker::settings::Span;
use mqtt_broker::{Broker, Config, MemoryStore};
use mqtt_codec::{Connect, Disconnect, Packet, QoS, ReasonCode, Will};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{advance, pause, resume};

use crate::harness::{Peer, V5, lasting, message, name, settle};
use crate::service::{Answer, Service, about_topics, asking};

const ONE: QoS = QoS::AtLeastOnce;
const DOWN: ReasonCode = ReasonCode::SERVER_UNAVAILABLE;

fn allow(_: &Value) -> Answer {
    Answer::status(204)
}

fn down(_: &Value) -> Answer {
    Answer::status(500)
}

/// Filters that begin with `taken` are denied.
fn narrow(asked: &Value) -> Answer {
    match asked["topic"].as_str().unwrap().starts_with("taken") {
        true => Answer::status(403),
        false => Answer::status(204),
    }
}

async fn scene() -> (Service, Broker) {
    let service = Service::new(allow).await;
    let broker = asking(&about_topics(&service));
    (service, broker)
}

/// Lets so much time pass, and what is due in it happen.
async fn pass(seconds: u64) {
    pause();
    advance(Duration::from_secs(seconds)).await;
    resume();
    settle().await;
}

/// A session has more subscriptions than the service answers in the time of one attempt: what was answered is not asked
/// again in the next.
#[tokio::test]
async fn many_subscriptions_take_several_attempts() {
    const ALL: usize = 40;
    const AT_A_TIME: usize = 10;
    let (service, broker) = scene().await;
    let mut peer = Peer::lasting(&broker, V5, "session").await.0;
    for number in 0..ALL {
        peer.subscribe(&format!("a/{number}"), ONE).await;
    }
    peer.abort().await;
    service.asked();
    let mut settings = about_topics(&service);
    let http = settings.http.as_mut().unwrap();
    http.timeout = Span(Duration::from_millis(50));
    http.topic_cache = Span(Duration::ZERO);
    broker.reload_auth(&settings).unwrap();
    let mut attempts = 0;
    loop {
        attempts += 1;
        assert!(attempts < 100, "each attempt begins anew");
        let left = AtomicUsize::new(AT_A_TIME);
        service.now(move |_| {
            match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            }) {
                Ok(_) => Answer::status(204),
                Err(_) => Answer::Wait,
            }
        });
        let (mut peer, answer) = Peer::connect(&broker, &lasting(V5, "session")).await;
        let connack = answer.connack();
        if connack.reason_code == ReasonCode::SUCCESS {
            assert!(connack.session_present);
            break;
        }
        assert_eq!(connack.reason_code, DOWN);
        peer.expect_closed().await;
        // What is told of a session is not told of another.
        settle().await;
    }
    assert!(attempts > 3, "{attempts}");
    // When it was all told, it is all asked again the next time.
    settle().await;
    service.asked();
    service.now(allow);
    broker.reload_auth(&about_topics(&service)).unwrap();
    assert!(Peer::lasting(&broker, V5, "session").await.1);
    assert_eq!(service.asked().len(), ALL);
}

/// Who is refused has not resumed the session: its will comes when it was due, neither earlier nor never, and so does
/// its end.
#[tokio::test]
async fn a_refusal_changes_nothing_about_will_and_end() {
    let (service, broker) = scene().await;
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", ONE).await;
    let with_will = || {
        let mut connect = lasting(V5, "session");
        let mut will = Will::new(name("will"), b"old");
        will.qos = ONE;
        will.properties.delay_interval = Some(100);
        connect.will = Some(will);
        connect.properties.session_expiry_interval = Some(1_000);
        connect
    };
    let mut without = lasting(V5, "session");
    without.properties.session_expiry_interval = Some(1_000_000);
    let mut peer = Peer::accepted(&broker, &with_will()).await;
    peer.subscribe("a", ONE).await;
    peer.abort().await;
    let refused = async || {
        service.now(down);
        Peer::refused(&broker, &without, DOWN).await;
        settle().await;
        service.now(allow);
    };
    pass(50).await;
    refused().await;
    watcher.expect_nothing().await;
    pass(49).await;
    refused().await;
    watcher.expect_nothing().await;
    pass(1).await;
    watcher.expect_message("will", "old", ONE).await;
    // The session ends 1,000 seconds after its connection has.
    pass(800).await;
    refused().await;
    pass(99).await;
    let peer = Peer::resumed(&broker, &with_will()).await;
    assert!(peer.1);
    peer.0.abort().await;
    refused().await;
    pass(1_000).await;
    watcher.expect_message("will", "old", ONE).await;
    assert!(!Peer::resumed(&broker, &with_will()).await.1);

    // [MQTT-3.1.3-9]: whoever is let in before it is due takes it back, also after refusals.
    Peer::accepted(&broker, &with_will()).await.abort().await;
    settle().await;
    watcher.expect_nothing().await;
    pass(50).await;
    let mut peer = Peer::resumed(&broker, &without).await.0;
    peer.subscribe("a", ONE).await;
    pass(100).await;
    watcher.expect_nothing().await;
    peer.abort().await;
}

/// The same with what the store knows: a broker that stops while the service is asked has the old will.
#[tokio::test]
async fn the_store_knows_the_old_will_until_the_client_is_let_in() {
    let service = Service::new(allow).await;
    let store = MemoryStore::new();
    let (broker, running) = stored(&service, &store);
    let mut connect = lasting(V5, "session");
    let will = |text: &'static str| {
        let mut will = Will::new(name("will"), text.as_bytes());
        will.properties.delay_interval = Some(10);
        Some(will)
    };
    connect.will = will("old");
    let mut peer = Peer::accepted(&broker, &connect).await;
    peer.subscribe("a", ONE).await;
    peer.abort().await;
    service.now(|asked| match asked["action"].as_str() {
        Some("publish") => Answer::status(204),
        _ => Answer::Wait,
    });
    let mut waits = Peer::open(&broker, V5);
    connect.will = will("new");
    service.asked();
    waits.send(&Packet::Connect(Box::new(connect))).await;
    service.asked_so_often(2).await;
    running.stop(broker).await;
    waits.expect_closed().await;

    service.now(allow);
    let (broker, running) = stored(&service, &store);
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("will", ONE).await;
    pass(10).await;
    watcher.expect_message("will", "old", QoS::AtMostOnce).await;
    watcher.expect_nothing().await;
    running.stop(broker).await;
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self, broker: Broker) {
        drop(broker);
        settle().await;
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// A broker that holds next to nothing of a queue in memory.
fn stored(service: &Service, store: &MemoryStore) -> (Broker, Running) {
    let mut config = Config::default();
    config.auth = Authority::load(&about_topics(service)).unwrap();
    config.stored_window_bytes = 1_000;
    config.shutdown_timeout = Duration::from_secs(10_000);
    let broker = Broker::open_in_memory(config, store).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let run = broker.clone().run(Vec::new(), async {
        _ = stopped.await;
    });
    let task = tokio::spawn(run);
    (broker, Running { stop, task })
}

/// A client that takes one message at a time.
fn slow() -> Connect<'static> {
    let mut connect = lasting(V5, "session");
    connect.properties.receive_maximum = core::num::NonZeroU16::new(1);
    connect
}

/// What had come by a subscription that is taken away is not delivered, unless it came by another one as well.
async fn takes_what_waits(service: &Service, broker: &Broker) {
    service.now(allow);
    let mut other = Peer::new(broker, V5, "other").await;
    other.subscribe("$share/g/taken/shared", ONE).await;
    let mut peer = Peer::accepted(broker, &slow()).await;
    for text in ["kept/#", "taken/#", "+/both", "$share/g/taken/shared"] {
        peer.subscribe(text, ONE).await;
    }
    peer.abort().await;
    let mut writer = Peer::new(broker, V5, "writer").await;
    for number in 0..30 {
        for topic in ["kept/a", "taken/a", "taken/both"] {
            writer
                .publish(&message(topic, &number.to_string(), ONE))
                .await;
        }
    }
    service.now(narrow);
    let (mut peer, present) = Peer::resumed(broker, &slow()).await;
    assert!(present);
    for number in 0..30 {
        for topic in ["kept/a", "taken/both"] {
            peer.expect_message(topic, &number.to_string(), ONE).await;
        }
    }
    peer.expect_nothing().await;
    writer.publish(&message("taken/a", "late", ONE)).await;
    peer.expect_nothing().await;
    peer.abort().await;
}

#[tokio::test]
async fn what_waits_goes_with_its_subscription() {
    let (service, broker) = scene().await;
    takes_what_waits(&service, &broker).await;
}

/// The same of messages that are on the disk alone, and after a restart in between.
#[tokio::test]
async fn what_is_on_the_disk_goes_with_its_subscription() {
    let service = Service::new(allow).await;
    let store = MemoryStore::new();
    let (broker, running) = stored(&service, &store);
    takes_what_waits(&service, &broker).await;
    running.stop(broker).await;
    // The subscription is gone from the store as well.
    service.now(allow);
    let (broker, running) = stored(&service, &store);
    let mut writer = Peer::new(&broker, V5, "writer").await;
    writer.publish(&message("taken/a", "x", ONE)).await;
    writer.publish(&message("kept/a", "x", ONE)).await;
    let (mut peer, present) = Peer::resumed(&broker, &slow()).await;
    assert!(present);
    peer.expect_message("kept/a", "x", ONE).await;
    peer.expect_nothing().await;
    peer.subscribe("taken/#", ONE).await;
    peer.abort().await;
    for number in 0..30 {
        writer
            .publish(&message("taken/a", &number.to_string(), ONE))
            .await;
    }
    writer.publish(&message("kept/a", "last", ONE)).await;
    service.now(narrow);
    // A broker that stops before all of it was read.
    let (peer, _) = Peer::resumed(&broker, &slow()).await;
    peer.abort().await;
    running.stop(broker).await;
    let (broker, running) = stored(&service, &store);
    let mut peer = Peer::resumed(&broker, &slow()).await.0;
    peer.expect_message("kept/a", "last", ONE).await;
    peer.expect_nothing().await;
    peer.abort().await;
    running.stop(broker).await;
}

/// Whoever waits for the service on the way to its session makes room for whoever comes for it next, and for others
/// when it goes.
#[tokio::test]
async fn who_waits_for_a_session_makes_room() {
    let service = Service::new(allow).await;
    let mut config = Config::default();
    config.auth = Authority::load(&about_topics(&service)).unwrap();
    config.max_connections = 2;
    let broker = Broker::new(config);
    tokio::spawn(broker.clone().run(Vec::new(), core::future::pending()));
    let mut peer = Peer::lasting(&broker, V5, "session").await.0;
    peer.subscribe("a", ONE).await;
    peer.abort().await;
    service.asked();
    service.now(|_| Answer::Wait);
    let mut first = Peer::open(&broker, V5);
    let connect = lasting(V5, "session");
    first.send(&Packet::Connect(Box::new(connect))).await;
    service.asked_so_often(1).await;
    service.now(allow);
    let (second, present) = Peer::lasting(&broker, V5, "session").await;
    assert!(present);
    first.expect_closed().await;
    second.abort().await;

    service.asked();
    service.now(|_| Answer::Wait);
    for _ in 0..4 {
        let mut gone = Peer::open(&broker, V5);
        let connect = lasting(V5, "session");
        gone.send(&Packet::Connect(Box::new(connect))).await;
        service.asked_so_often(1).await;
        gone.abort().await;
    }
    service.now(allow);
    assert!(Peer::lasting(&broker, V5, "session").await.1);
}

/// [MQTT-3.14.4-3]: a client that is taken over has said DISCONNECT, though a packet before it waits for the service.
#[tokio::test]
async fn a_farewell_counts_behind_what_waits() {
    let (service, broker) = scene().await;
    let mut watcher = Peer::new(&broker, V5, "watcher").await;
    watcher.subscribe("#", ONE).await;
    for takes_back in [true, false] {
        service.now(allow);
        let mut connect = lasting(V5, "session");
        connect.will = Some(Will::new(name("will"), b"x"));
        let mut peer = Peer::accepted(&broker, &connect).await;
        service.asked();
        service.now(|asked| match asked["topic"].as_str() {
            Some("slow") => Answer::Wait,
            _ => Answer::status(204),
        });
        peer.send_publish(&message("slow", "1", ONE)).await;
        service.asked_so_often(1).await;
        peer.send_publish(&message("behind", "1", ONE)).await;
        let reason = match takes_back {
            true => ReasonCode::NORMAL_DISCONNECTION,
            false => ReasonCode::DISCONNECT_WITH_WILL,
        };
        peer.send(&Packet::Disconnect(Disconnect::new(reason)))
            .await;
        settle().await;
        let (next, _) = Peer::lasting(&broker, V5, "session").await;
        peer.expect_closed().await;
        if !takes_back {
            watcher.expect_message("will", "x", QoS::AtMostOnce).await;
        }
        watcher.expect_nothing().await;
        next.disconnect().await;
    }
}
