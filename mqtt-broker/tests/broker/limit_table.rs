//! Every limit that a client can be beyond: what it is told in 5.0 and in 3.1.1, which counter counts it, and which
//! line of the log tells about it. The README of the broker has the same as a table.

use core::future::Future;
use core::num::{NonZeroU16, NonZeroU32};
use core::pin::Pin;
use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex, mpsc};

use mqtt_broker::auth::Authority;
use mqtt_broker::{Broker, Config, ListenerOptions, MemoryStore, Peer as Address};
use mqtt_codec::{
    Connect, Packet, ProtocolVersion, QoS, ReasonCode, Subscribe, SubscriptionIdentifier, Will,
};
use tokio::time::Instant;
use tracing_subscriber::fmt::MakeWriter;

use crate::guarded::{Files, user};
use crate::harness::{
    Peer, V3_1_1, V5, advance, broker_with, filter, hello, id, lasting, message, name, settle,
};

const ONE: QoS = QoS::AtLeastOnce;
const REFUSED: Option<ReasonCode> = Some(ReasonCode::UNSPECIFIED_ERROR);
const UNAVAILABLE: Option<ReasonCode> = Some(ReasonCode::SERVER_UNAVAILABLE);
const QUOTA: Option<ReasonCode> = Some(ReasonCode::QUOTA_EXCEEDED);
/// The version cannot say no, and acknowledges.
const TAKEN: Option<ReasonCode> = Some(ReasonCode::SUCCESS);
/// Nothing is said: the connection is closed, or what is sent comes in time, or not at all.
const NOTHING: Option<ReasonCode> = None;

type Reached<'s> = Pin<Box<dyn Future<Output = Option<ReasonCode>> + 's>>;

struct Row {
    limit: &'static str,
    set: fn(&mut Config, &mut ListenerOptions),
    /// Goes beyond the limit once; returns what the client is told.
    reach: for<'s> fn(&'s Scene) -> Reached<'s>,
    /// What it is told in 5.0, and in 3.1.1 if that has the limit.
    told: (Option<ReasonCode>, Option<Option<ReasonCode>>),
    /// A line of the report, without its number. Behind a semicolon that of 3.1.1, where it is another.
    counter: &'static str,
    /// A part of the line of the log. Behind a semicolon that of 3.1.1, where it is another.
    line: &'static str,
}

/// The part that holds for a version.
fn of_version(text: &'static str, version: ProtocolVersion) -> &'static str {
    match text.split_once("; ") {
        Some((of_5, _)) if version == V5 => of_5,
        Some((_, of_3)) => of_3,
        None => text,
    }
}

/// What a broker logs on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct Scene {
    broker: Broker,
    options: Arc<ListenerOptions>,
    version: ProtocolVersion,
}

impl Scene {
    fn open(&self) -> Peer {
        let address: core::net::SocketAddr = "192.0.2.1:1000".parse().unwrap();
        Peer::open_from(
            &self.broker,
            &self.options,
            Address::from(address),
            self.version,
        )
    }

    /// A client with whatever it is told.
    async fn knock(&self, connect: &Connect<'_>) -> (Peer, Option<ReasonCode>) {
        let mut peer = self.open();
        peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
        let told = told(&mut peer).await;
        (peer, told)
    }

    /// A client that is let in.
    async fn client(&self, id: &str) -> Peer {
        let (peer, told) = self.knock(&hello(self.version, id)).await;
        assert_eq!(told, TAKEN);
        peer
    }

    /// A session without a connection that waits for messages of `topic`.
    async fn away(&self) {
        let (mut peer, told) = self.knock(&lasting(self.version, "away")).await;
        assert_eq!(told, TAKEN);
        peer.subscribe("topic", ONE).await;
        peer.abort().await;
    }
}

/// The code of the next packet; none: the connection is closed.
async fn told(peer: &mut Peer) -> Option<ReasonCode> {
    let received = peer.next().await?;
    Some(match received.packet() {
        Packet::ConnAck(connack) => connack.reason_code,
        Packet::Disconnect(disconnect) => disconnect.reason_code,
        Packet::PubAck(ack) | Packet::PubRec(ack) => ack.reason_code,
        Packet::SubAck(suback) => suback.reason_codes[0],
        other => panic!("{other:?} instead of a verdict"),
    })
}

/// The second of two clients.
fn second<'s>(scene: &'s Scene) -> Reached<'s> {
    Box::pin(async {
        let _first = scene.client("first").await;
        scene.knock(&hello(scene.version, "second")).await.1
    })
}

/// What is said to a message; what is retained is of another topic each time.
fn publishes<'s>(
    scene: &'s Scene,
    topics: &'static [&'static str],
    qos: QoS,
    retain: bool,
) -> Reached<'s> {
    Box::pin(async move {
        let mut peer = scene.client("publisher").await;
        let mut last = None;
        for topic in topics {
            assert!(last.is_none_or(|last: ReasonCode| !last.is_error()));
            let mut publish = message(topic, "a text of thirty bytes or so", qos);
            publish.retain = retain;
            peer.send_publish(&publish).await;
            last = told(&mut peer).await;
        }
        last
    })
}

/// What is said to the second message for a client that is away.
fn piles_up(scene: &Scene) -> Reached<'_> {
    Box::pin(async {
        scene.away().await;
        publishes(scene, &["topic", "topic"], ONE, false).await
    })
}

/// What is said to the last of some filters.
fn subscribes<'s>(scene: &'s Scene, filters: &'static [&'static str]) -> Reached<'s> {
    Box::pin(async move {
        let mut peer = scene.client("subscriber").await;
        let mut last = None;
        for text in filters {
            assert!(last.is_none_or(|last: ReasonCode| !last.is_error()));
            let codes = peer.subscribe_with(vec![filter(text, ONE)], None).await;
            last = codes.first().copied();
        }
        last
    })
}

/// Messages that come at once take a second or more, and all of them come.
fn floods(scene: &Scene) -> Reached<'_> {
    Box::pin(async {
        let mut peer = scene.client("fast").await;
        peer.subscribe("topic", QoS::AtMostOnce).await;
        let started = Instant::now();
        for _ in 0..30 {
            peer.send_publish(&message("topic", "text", QoS::AtMostOnce))
                .await;
        }
        for _ in 0..30 {
            peer.expect_message("topic", "text", QoS::AtMostOnce).await;
        }
        assert!(started.elapsed() >= Duration::from_secs(1));
        None
    })
}

/// Messages for a client that reads nothing.
fn deafens<'s>(scene: &'s Scene, seconds: u64) -> Reached<'s> {
    Box::pin(async move {
        let mut deaf = Peer::open_with(&scene.broker, scene.version, 500);
        deaf.introduce("deaf").await;
        deaf.subscribe("topic", QoS::AtMostOnce).await;
        let mut peer = scene.client("publisher").await;
        let text = "x".repeat(4_000);
        for _ in 0..40 {
            peer.send_publish(&message("topic", &text, QoS::AtMostOnce))
                .await;
            peer.expect_nothing().await;
        }
        advance(seconds).await;
        drop(deaf);
        None
    })
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "max_connections",
            set: |config, _| config.max_connections = 1,
            reach: second,
            told: (Some(ReasonCode::SERVER_BUSY), Some(UNAVAILABLE)),
            counter: "refused, too many connections",
            line: "reason=too many connections",
        },
        Row {
            limit: "max_connections of a listener",
            set: |_, options| options.max_connections = Some(0),
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (Some(ReasonCode::SERVER_BUSY), Some(UNAVAILABLE)),
            counter: "refused, too many connections of the listener",
            line: "reason=too many connections of the listener",
        },
        Row {
            limit: "max_connections_per_address",
            set: |config, _| config.max_connections_per_address = 1,
            reach: second,
            told: (QUOTA, Some(UNAVAILABLE)),
            counter: "refused, too many connections of the address",
            line: "reason=too many connections of the address",
        },
        Row {
            limit: "connect_rate_per_address",
            set: |config, _| config.connect_rate_per_address = NonZeroU32::new(1),
            reach: second,
            told: (
                Some(ReasonCode::CONNECTION_RATE_EXCEEDED),
                Some(UNAVAILABLE),
            ),
            counter: "refused, address connects too fast",
            line: "reason=address connects too fast",
        },
        Row {
            limit: "connect_timeout",
            set: |config, _| config.connect_timeout = Duration::from_secs(5),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.open();
                    peer.send_raw(&[0x10]).await;
                    told(&mut peer).await
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, no CONNECT in time",
            line: "reason=no CONNECT in time",
        },
        Row {
            limit: "max_entering",
            set: |config, _| config.max_entering = 1,
            reach: |scene| {
                Box::pin(async {
                    let mut first = scene.open();
                    let _second = scene.open();
                    told(&mut first).await
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, pushed out before CONNECT by newer connections",
            line: "reason=pushed out before CONNECT",
        },
        Row {
            limit: "max_connect_size",
            set: |config, _| config.max_connect_size = 64,
            reach: |scene| {
                Box::pin(async {
                    let id = "x".repeat(100);
                    scene.knock(&hello(scene.version, &id)).await.1
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, no CONNECT",
            line: "refused",
        },
        Row {
            limit: "max_packet_size",
            set: |config, _| config.max_packet_size = 30,
            reach: |scene| publishes(scene, &["a"], ONE, false),
            told: (Some(ReasonCode::PACKET_TOO_LARGE), Some(NOTHING)),
            counter: "ended, packet too large",
            line: "disconnected",
        },
        Row {
            limit: "max_packet_size of a listener",
            set: |_, options| options.max_packet_size = Some(30),
            reach: |scene| publishes(scene, &["a"], ONE, false),
            told: (Some(ReasonCode::PACKET_TOO_LARGE), Some(NOTHING)),
            counter: "ended, packet too large",
            line: "disconnected",
        },
        Row {
            limit: "receive_maximum",
            set: |config, _| config.receive_maximum = NonZeroU16::MIN,
            reach: |scene| publishes(scene, &["a", "a"], QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED), None),
            counter: "ended, more unacknowledged than receive maximum",
            line: "disconnected",
        },
        Row {
            limit: "topic_alias_maximum",
            set: |config, _| config.topic_alias_maximum = 2,
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("publisher").await;
                    let mut publish = message("a", "text", ONE);
                    publish.properties.topic_alias = NonZeroU16::new(3);
                    peer.send_publish(&publish).await;
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::TOPIC_ALIAS_INVALID), None),
            counter: "ended, topic alias",
            line: "disconnected",
        },
        Row {
            limit: "maximum_qos",
            set: |config, _| config.maximum_qos = ONE,
            reach: |scene| publishes(scene, &["a"], QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::QOS_NOT_SUPPORTED), Some(NOTHING)),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "retain_available",
            set: |config, _| config.retain_available = false,
            reach: |scene| publishes(scene, &["a"], ONE, true),
            told: (Some(ReasonCode::RETAIN_NOT_SUPPORTED), Some(NOTHING)),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "topic_levels of a message",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| publishes(scene, &["a/b", "a/b/c"], ONE, false),
            told: (Some(ReasonCode::TOPIC_NAME_INVALID), Some(TAKEN)),
            counter: "dropped, too many levels",
            line: "its topic has too many levels",
        },
        Row {
            limit: "topic_levels of a will",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| wills(scene, "a/b/c", QoS::AtMostOnce, false),
            told: (Some(ReasonCode::TOPIC_NAME_INVALID), Some(UNAVAILABLE)),
            counter: "refused, topic of the will has too many levels",
            line: "reason=topic of the will has too many levels",
        },
        Row {
            limit: "maximum_qos of a will",
            set: |config, _| config.maximum_qos = ONE,
            reach: |scene| wills(scene, "a", QoS::ExactlyOnce, false),
            told: (Some(ReasonCode::QOS_NOT_SUPPORTED), Some(NOTHING)),
            counter: "refused, the will uses what is not offered",
            line: "reason=the will uses what is not offered",
        },
        Row {
            limit: "retain_available of a will",
            set: |config, _| config.retain_available = false,
            reach: |scene| wills(scene, "a", ONE, true),
            told: (Some(ReasonCode::RETAIN_NOT_SUPPORTED), Some(NOTHING)),
            counter: "refused, the will uses what is not offered",
            line: "reason=the will uses what is not offered",
        },
        Row {
            limit: "wildcard_subscription_available",
            set: |config, _| config.wildcard_subscription_available = false,
            reach: |scene| asks_for(scene, "a/#", None),
            told: (
                Some(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
                Some(REFUSED),
            ),
            counter: "ended, uses what is not offered; subscriptions beyond a limit",
            line: "disconnected; subscription beyond a limit refused",
        },
        Row {
            limit: "shared_subscription_available",
            set: |config, _| config.shared_subscription_available = false,
            reach: |scene| asks_for(scene, "$share/group/a", None),
            told: (
                Some(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
                Some(REFUSED),
            ),
            counter: "ended, uses what is not offered; subscriptions beyond a limit",
            line: "disconnected; subscription beyond a limit refused",
        },
        Row {
            limit: "subscription_identifiers_available",
            set: |config, _| config.subscription_identifiers_available = false,
            reach: |scene| asks_for(scene, "a", SubscriptionIdentifier::new(5)),
            told: (
                Some(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED),
                None,
            ),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "topic_levels of a filter",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| subscribes(scene, &["a/#", "a/+/#"]),
            told: (Some(ReasonCode::TOPIC_FILTER_INVALID), Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
        Row {
            limit: "subscriptions",
            set: |config, _| config.subscriptions = 1,
            reach: |scene| subscribes(scene, &["a", "a", "b"]),
            told: (QUOTA, Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
        Row {
            limit: "subscription_bytes",
            set: |config, _| config.subscription_bytes = 500,
            reach: |scene| subscribes(scene, &["a", "b"]),
            told: (QUOTA, Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
        Row {
            limit: "queue_messages",
            set: |config, _| config.queue_messages = 1,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "queue_bytes",
            set: |config, _| config.queue_bytes = 400,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "stored_queue_bytes",
            set: |config, _| config.stored_queue_bytes = 400,
            reach: piles_up,
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, queue full",
            line: "messages dropped client_id=\"away\" reason=queue full",
        },
        Row {
            limit: "outbox_bytes",
            set: |config, _| config.outbox_bytes = 2_000,
            reach: |scene| deafens(scene, 1),
            told: (NOTHING, Some(NOTHING)),
            counter: "dropped, outbox full",
            line: "messages dropped client_id=\"deaf\" reason=outbox full",
        },
        Row {
            limit: "write_timeout",
            set: |config, _| config.write_timeout = Duration::from_secs(20),
            reach: |scene| deafens(scene, 30),
            told: (NOTHING, Some(NOTHING)),
            counter: "ended, reads nothing",
            line: "disconnected",
        },
        Row {
            limit: "retained_messages",
            set: |config, _| config.retained_messages = 1,
            reach: |scene| publishes(scene, &["a", "a", "b"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained full",
            line: "messages dropped reason=retained full",
        },
        Row {
            limit: "retained_bytes",
            set: |config, _| config.retained_bytes = 200,
            reach: |scene| publishes(scene, &["a", "b"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained full",
            line: "messages dropped reason=retained full",
        },
        Row {
            limit: "retained_message_bytes",
            set: |config, _| config.retained_message_bytes = 20,
            reach: |scene| publishes(scene, &["a"], ONE, true),
            told: (QUOTA, Some(TAKEN)),
            counter: "dropped, retained too large",
            line: "messages dropped reason=retained too large",
        },
        Row {
            limit: "retained_expiry_maximum",
            set: |config, _| config.retained_expiry_maximum = Some(Duration::from_secs(10)),
            reach: |scene| {
                Box::pin(async {
                    publishes(scene, &["a"], ONE, true).await;
                    advance(61).await;
                    scene
                        .knock(&hello(scene.version, "reader"))
                        .await
                        .0
                        .subscribe("a", ONE)
                        .await;
                    NOTHING
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "dropped, expired",
            line: "retained messages expired messages=1",
        },
        Row {
            limit: "keep alive",
            set: |_, _| {},
            reach: |scene| {
                Box::pin(async {
                    let mut connect = hello(scene.version, "silent");
                    connect.keep_alive = 10;
                    let (mut peer, _) = scene.knock(&connect).await;
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), Some(NOTHING)),
            counter: "ended, keep alive",
            line: "nothing received for one and a half times the keep alive",
        },
        Row {
            limit: "keep_alive_maximum",
            set: |config, _| config.keep_alive_maximum = NonZeroU16::new(10),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("silent").await;
                    let started = Instant::now();
                    let told = told(&mut peer).await;
                    assert_eq!(started.elapsed().as_secs(), 15);
                    told
                })
            },
            // A client of 3.1.1 cannot be told: its own holds.
            told: (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), None),
            counter: "ended, keep alive",
            line: "nothing received for one and a half times the keep alive",
        },
        Row {
            limit: "message_rate",
            set: |config, _| config.message_rate = NonZeroU32::new(10),
            reach: floods,
            told: (NOTHING, Some(NOTHING)),
            counter: "paused, sends too fast",
            line: "not read for a while: sends too fast",
        },
        Row {
            limit: "byte_rate",
            set: |config, _| config.byte_rate = NonZeroU32::new(100),
            reach: floods,
            told: (NOTHING, Some(NOTHING)),
            counter: "paused, sends too fast",
            line: "not read for a while: sends too fast",
        },
        Row {
            limit: "bans of addresses",
            set: |config, _| config.bans.addresses = vec!["192.0.2.0/24".parse().unwrap()],
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (NOTHING, Some(NOTHING)),
            counter: "refused, banned",
            line: "reason=banned",
        },
        Row {
            limit: "bans of client identifiers",
            set: |config, _| config.bans.client_ids = vec!["a".to_owned()],
            reach: |scene| Box::pin(async { scene.knock(&hello(scene.version, "a")).await.1 }),
            told: (
                Some(ReasonCode::BANNED),
                Some(Some(ReasonCode::NOT_AUTHORIZED)),
            ),
            counter: "refused, banned",
            line: "reason=banned",
        },
        Row {
            limit: "bans that come by a reload",
            set: |_, _| {},
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.client("a").await;
                    let mut config = Config::default();
                    config.bans.client_ids = vec!["a".to_owned()];
                    scene.broker.reconfigure(config);
                    told(&mut peer).await
                })
            },
            told: (Some(ReasonCode::ADMINISTRATIVE_ACTION), Some(NOTHING)),
            counter: "ended, banned",
            line: "disconnected",
        },
        Row {
            limit: "bans of those who fail",
            set: |config, _| config.bans.failures = Some(NonZeroU32::MIN),
            reach: |scene| {
                Box::pin(async {
                    let mut peer = scene.open();
                    peer.send_raw(b"GET / HTTP/1.1\r\n\r\n").await;
                    assert_eq!(told(&mut peer).await, NOTHING);
                    scene.knock(&hello(scene.version, "a")).await.1
                })
            },
            told: (NOTHING, Some(NOTHING)),
            counter: "addresses banned",
            line: "address banned: it has failed too often",
        },
        Row {
            limit: "waiting_logins",
            set: |config, _| {
                let mut files = Files::without_permissions();
                files.settings.password_checks = 1;
                files.settings.waiting_logins = 0;
                config.auth = Authority::load(&files.settings).unwrap();
            },
            reach: |scene| {
                Box::pin(async {
                    // There is one thread for checks, which is kept from the first.
                    let (release, kept) = mpsc::channel::<()>();
                    let blocked = tokio::task::spawn_blocking(move || kept.recv());
                    let mut first = scene.open();
                    let login = user(scene.version, "anna", "first");
                    first.send(&Packet::Connect(Box::new(login))).await;
                    settle().await;
                    let login = user(scene.version, "anna", "second");
                    let refused = scene.knock(&login).await.1;
                    drop(release);
                    assert!(blocked.await.unwrap().is_err());
                    assert_eq!(told(&mut first).await, TAKEN);
                    refused
                })
            },
            told: (QUOTA, Some(UNAVAILABLE)),
            counter: "denied, login queue full",
            line: "reason=too many logins wait",
        },
    ]
}

/// What is said to one subscription: SUBACK, or DISCONNECT.
fn asks_for<'s>(
    scene: &'s Scene,
    text: &'static str,
    identifier: Option<SubscriptionIdentifier>,
) -> Reached<'s> {
    Box::pin(async move {
        let mut peer = scene.client("subscriber").await;
        let mut subscribe = Subscribe::new(id(1), vec![filter(text, ONE)]);
        subscribe.properties.subscription_identifier = identifier;
        peer.send(&Packet::Subscribe(subscribe)).await;
        told(&mut peer).await
    })
}

/// What is said to a client with such a will.
fn wills<'s>(scene: &'s Scene, topic: &'static str, qos: QoS, retain: bool) -> Reached<'s> {
    Box::pin(async move {
        let mut connect = hello(scene.version, "a");
        let mut will = Will::new(name(topic), b"gone");
        (will.qos, will.retain) = (qos, retain);
        connect.will = Some(will);
        scene.knock(&connect).await.1
    })
}

#[test]
fn each_limit_is_told_counted_and_logged() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true);
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(go_beyond_each_limit());
}

async fn go_beyond_each_limit() {
    let mut wrong = Vec::new();
    for row in rows() {
        let (of_5, of_3) = row.told;
        let versions = [(V5, Some(of_5)), (V3_1_1, of_3)];
        for (version, expected) in versions {
            let Some(expected) = expected else { continue };
            let log = Log::default();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::DEBUG)
                .with_ansi(false)
                .with_writer(log.clone())
                .finish();
            let _guard = tracing::subscriber::set_default(subscriber);
            let (mut config, mut options) = (Config::default(), ListenerOptions::default());
            (row.set)(&mut config, &mut options);
            let is_stored = config.stored_queue_bytes != Config::default().stored_queue_bytes;
            let broker = if is_stored {
                let broker = Broker::open_in_memory(config, &MemoryStore::new()).unwrap();
                tokio::spawn(broker.clone().run(Vec::new(), core::future::pending()));
                broker
            } else {
                broker_with(config)
            };
            let scene = Scene {
                broker,
                options: Arc::new(options),
                version,
            };
            let found = (row.reach)(&scene).await;
            let limit = row.limit;
            if found != expected {
                wrong.push(format!("{limit}, {version}: told {found:?}"));
            }
            settle().await;
            let report = scene.broker.counters().report();
            let counter = of_version(row.counter, version);
            let counted = report
                .lines()
                .find_map(|line| line.strip_prefix(counter)?.strip_prefix(": "));
            let counted: u64 = counted.map_or(0, |count| count.parse().unwrap());
            if counted == 0 {
                wrong.push(format!("{limit}, {version}: not counted: {report}"));
            }
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            if !text.contains(of_version(row.line, version)) {
                wrong.push(format!("{limit}, {version}: not logged: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is retained goes when its time has come: the publisher's or the broker's, whichever is sooner.
#[tokio::test(start_paused = true)]
async fn retained_messages_last_so_long() {
    let mut config = Config::default();
    config.retained_expiry_maximum = Some(Duration::from_secs(100));
    let broker = broker_with(config);
    for version in [V3_1_1, V5] {
        let mut peer = Peer::new(&broker, version, "publisher").await;
        for (topic, own) in [("none", None), ("later", Some(1_000)), ("sooner", Some(50))] {
            let mut publish = message(topic, "text", ONE);
            publish.retain = true;
            if version.has_properties() {
                publish.properties.message_expiry_interval = own;
            }
            peer.publish(&publish).await;
        }
        advance(40).await;
        for (after, expected) in [(0, 3), (20, 2 + usize::from(version == V3_1_1)), (50, 0)] {
            advance(after).await;
            let mut reader = Peer::new(&broker, V5, "reader").await;
            reader.subscribe("#", ONE).await;
            for _ in 0..expected {
                let received = reader.receive().await;
                let left = received.publish().properties.message_expiry_interval;
                assert!(left.is_some_and(|left| left <= 60), "{left:?}");
                reader.acknowledge(&received.publish()).await;
            }
            reader.expect_nothing().await;
        }
    }
    // Who is there when it is published gets it as it was.
    let mut reader = Peer::new(&broker, V5, "reader").await;
    reader.subscribe("#", ONE).await;
    let mut peer = Peer::new(&broker, V5, "publisher").await;
    let mut publish = message("none", "text", ONE);
    publish.retain = true;
    peer.publish(&publish).await;
    let received = reader.expect_message("none", "text", ONE).await;
    assert_eq!(received.publish().properties.message_expiry_interval, None);
}

/// A session does not outlive its connection for longer, whatever the client asked for, and in any version.
#[tokio::test(start_paused = true)]
async fn sessions_last_so_long() {
    let mut config = Config::default();
    config.session_expiry_maximum = 100;
    let broker = broker_with(config);
    for version in [V3_1_1, V5] {
        for (away, lasts) in [(90, true), (110, false)] {
            let mut connect = lasting(version, "client");
            connect.clean_start = true;
            Peer::accepted(&broker, &connect).await.abort().await;
            connect.clean_start = false;
            Peer::accepted(&broker, &connect).await.abort().await;
            advance(away).await;
            let (peer, present) = Peer::resumed(&broker, &connect).await;
            assert_eq!(present, lasts, "{version}, away for {away} s");
            peer.abort().await;
        }
    }
}

/// A directory that has reached its bound takes no new message: the publisher is told, and it is counted and logged.
#[tokio::test]
async fn a_full_directory_is_told_counted_and_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false);
    let subscriber = subscriber.with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.data_directory_bytes = 1;
    let broker = Broker::open(config, directory.path()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = broker
        .clone()
        .run(Vec::new(), async { drop(stopped.await) });
    let running = tokio::spawn(run);
    for (version, expected) in [(V5, QUOTA), (V3_1_1, TAKEN)] {
        let mut peer = Peer::new(&broker, version, "publisher").await;
        let mut publish = message("a", "text", ONE);
        publish.retain = true;
        peer.send_publish(&publish).await;
        assert_eq!(told(&mut peer).await, expected);
        peer.disconnect().await;
    }
    assert!(
        broker
            .counters()
            .report()
            .contains("dropped, directory full: 2\n")
    );
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("messages dropped reason=directory full"),
        "{text}"
    );
    drop((stop, broker));
    running.await.unwrap();
}
