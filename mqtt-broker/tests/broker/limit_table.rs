//! Every limit that a client can be beyond: what it is told in 5.0 and in 3.1.1, which counter counts it, and which
//! line of the log tells about it. The README of the broker has the same as a table.

mod arrivals;
mod kept;
mod packets;
mod subscriptions;
mod times;

use core::future::Future;
use core::pin::Pin;
use std::io;
use std::sync::{Arc, Mutex};

use mqtt_broker::{Broker, Config, ListenerOptions, MemoryStore, Peer as Address};
use mqtt_codec::{Connect, Packet, ProtocolVersion, QoS, ReasonCode};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Peer, V3_1_1, V5, broker_with, hello, lasting, message, settle};

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

impl Log {
    /// Takes what is logged on this thread, until what this returns is dropped.
    fn collect(&self) -> DefaultGuard {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

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

#[test]
fn each_limit_is_told_counted_and_logged() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true);
    let runtime = runtime.max_blocking_threads(1).build().unwrap();
    runtime.block_on(go_beyond_each_limit());
}

async fn go_beyond_each_limit() {
    let mut wrong = Vec::new();
    let rows = [
        arrivals::rows(),
        packets::rows(),
        subscriptions::rows(),
        kept::rows(),
        times::rows(),
    ];
    for row in rows.into_iter().flatten() {
        let (of_5, of_3) = row.told;
        let versions = [(V5, Some(of_5)), (V3_1_1, of_3)];
        for (version, expected) in versions {
            let Some(expected) = expected else { continue };
            let log = Log::default();
            let _guard = log.collect();
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
            let text = log.text();
            if !text.contains(of_version(row.line, version)) {
                wrong.push(format!("{limit}, {version}: not logged: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
