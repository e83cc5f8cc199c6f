//! Wall clocks that are set, forwards and backwards, under clients and brokers: what expires does so when it should.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mqtt_broker::{Broker, Config, MemoryStore};
use mqtt_client::{
    Client, Error, Filter, Message, MessageProperties, Options, Outbox, OutboxOptions,
    ProtocolVersion, QoS, Subscription,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::restarts::{Random, folder};
use crate::simulation::{Fuse, broker, opener, options};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// A wall clock that goes with the virtual time, and that somebody sets.
#[derive(Clone)]
pub(crate) struct WallClock {
    started: Instant,
    /// In seconds.
    offset: Arc<AtomicI64>,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            offset: Arc::new(AtomicI64::new(20_000 * DAY)),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        let offset = self.offset.load(Ordering::Relaxed).unsigned_abs();
        SystemTime::UNIX_EPOCH + Duration::from_secs(offset) + self.started.elapsed()
    }

    /// Sets it forwards, or backwards.
    pub(crate) fn set(&self, seconds: i64) {
        self.offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sets it by up to a year either way.
    pub(crate) fn jump(&self, random: &mut Random) {
        let days = random.below(730) as i64 - 365;
        self.set(days * DAY);
    }

    pub(crate) fn outbox(&self, path: &Path) -> Outbox {
        let clock = self.clone();
        let options = OutboxOptions::new().wall_clock(move || clock.now());
        options.open(path).unwrap()
    }
}

/// A broker whose data outlives it.
pub(crate) struct Server {
    pub(crate) store: MemoryStore,
    pub(crate) place: Arc<Mutex<Broker>>,
    pub(crate) clock: WallClock,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    pub(crate) fn new(store: MemoryStore) -> Self {
        let clock = WallClock::new();
        let (broker, stop, running) = open(&store, &clock);
        Self {
            store,
            place: Arc::new(Mutex::new(broker)),
            clock,
            stop,
            running,
        }
    }

    /// Stops the broker, does something to what it leaves, and starts the next one.
    pub(crate) async fn restart(self, between: impl FnOnce(&MemoryStore, &WallClock)) -> Self {
        // Stopped already, it would have failed.
        let _ = self.stop.send(());
        self.running.await.unwrap();
        between(&self.store, &self.clock);
        let (broker, stop, running) = open(&self.store, &self.clock);
        *self.place.lock().unwrap() = broker;
        Self {
            stop,
            running,
            ..self
        }
    }
}

fn open(store: &MemoryStore, clock: &WallClock) -> (Broker, oneshot::Sender<()>, JoinHandle<()>) {
    store.set_wall_clock(clock.now());
    let broker = Broker::open_in_memory(Config::default(), store).unwrap();
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(broker.clone().run(Vec::new(), async {
        // Stopped or dropped, it ends.
        let _ = stopped.await;
    }));
    (broker, stop, running)
}

/// Virtual time goes on a little at a time, so that the threads of the stores are not left behind by it: without
/// work the runtime would go to the next timer at once, and time out whoever waits for them.
pub(crate) struct Pace(Option<std::sync::mpsc::Sender<()>>);

impl Pace {
    pub(crate) fn new() -> Self {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // As long as this runs time stands still by itself.
        tokio::task::spawn_blocking(move || ended.recv());
        tokio::spawn(async {
            loop {
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                std::thread::yield_now();
                tokio::time::advance(Duration::from_millis(1)).await;
            }
        });
        Self(Some(end))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// A message of QoS 1 that expires after a minute.
fn fleeting(topic: &str, text: &str) -> Message {
    let properties = MessageProperties {
        message_expiry_interval: Some(60),
        ..MessageProperties::default()
    };
    let message = Message::new(topic, text.to_owned()).unwrap();
    message.qos(QoS::AtLeastOnce).properties(properties)
}

async fn connected(server: &Server, options: Options) -> Client {
    let open = opener(&server.place, &Fuse::new(usize::MAX));
    Client::connect_through(open, options).await.unwrap()
}

async fn subscribed(client: &Client, filter: &str) -> Subscription {
    let filter = Filter::new(filter).unwrap().qos(QoS::AtLeastOnce);
    client.subscribe(filter).await.unwrap()
}

/// While a client runs, nothing that it does goes by the wall clock.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_under_a_client() {
    for jump in [365 * DAY, -365 * DAY] {
        let (clock, folder) = (WallClock::new(), folder());
        let place = Arc::new(Mutex::new(broker()));
        let reader = Options::new("", 0).client_id("reader");
        let reader = Client::connect_through(opener(&place, &Fuse::new(usize::MAX)), reader);
        let reader = reader.await.unwrap();
        let mut messages = subscribed(&reader, "t").await;
        let fuse = Fuse::new(usize::MAX);
        let options = options(ProtocolVersion::V5, "c").outbox(clock.outbox(folder.path()));
        let client = Client::connect_through(opener(&place, &fuse), options);
        let client = client.await.unwrap();
        // The link is lost at the first byte, and the message waits for the next one.
        fuse.cut();
        let receipt = client.publish(fleeting("t", "first")).await.unwrap();
        clock.set(jump);
        let second = client.publish(fleeting("t", "second")).await.unwrap();
        for receipt in [receipt, second] {
            assert!(!receipt.await.unwrap().is_error(), "{jump}");
        }
        for text in ["first", "second"] {
            let message = messages.recv().await.unwrap();
            assert_eq!(message.payload()[..], *text.as_bytes(), "{jump}");
            let left = message.property().message_expiry_interval.unwrap();
            assert!((50..=60).contains(&left), "{jump}: {left}");
        }
        // Keep alive and the next attempts to connect go on in their own time.
        pass(600).await;
        fuse.cut();
        let again = client.publish(fleeting("t", "third")).await.unwrap();
        let in_time = tokio::time::timeout(Duration::from_secs(1), again).await;
        assert!(!in_time.unwrap().unwrap().is_error(), "{jump}");
    }
}

/// From one run to the next, a message grows older by the wall clock, and no younger.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_between_two_runs_of_a_program() {
    for (jump, expected) in [
        (0, Some(55)),
        (-365 * DAY, Some(60)),
        (30, Some(25)),
        (HOUR, None),
    ] {
        let (clock, folder) = (WallClock::new(), folder());
        let outbox = clock.outbox(folder.path());
        let refuse = |_| {
            let refused = std::io::ErrorKind::ConnectionRefused;
            std::future::ready(Err::<tokio::io::DuplexStream, _>(refused.into()))
        };
        let run = options(ProtocolVersion::V5, "c").clean_start(true);
        let client = Client::start_through(refuse, run.clone().outbox(outbox.clone()));
        let receipt = client.publish(fleeting("t", "x")).await.unwrap();
        pass(5).await;
        let drained = mqtt_client::DisconnectOptions::new().drain(Duration::ZERO);
        let _ = client.disconnect_with(drained).await;
        assert!(matches!(receipt.await, Err(Error::Kept(_))), "{jump}");
        drop((client, outbox));
        clock.set(jump);
        let outbox = clock.outbox(folder.path());
        let unfinished = outbox.unfinished().unwrap().pop().unwrap();
        let place = Arc::new(Mutex::new(broker()));
        let reader = Options::new("", 0).client_id("reader");
        let reader = Client::connect_through(opener(&place, &Fuse::new(usize::MAX)), reader);
        let reader = reader.await.unwrap();
        let mut messages = subscribed(&reader, "t").await;
        let open = opener(&place, &Fuse::new(usize::MAX));
        let client = Client::connect_through(open, run.outbox(outbox))
            .await
            .unwrap();
        match (unfinished.receipt.await, expected) {
            (Ok(reason), Some(expected)) => {
                assert!(!reason.is_error(), "{jump}");
                let message = messages.recv().await.unwrap();
                let left = message.property().message_expiry_interval.unwrap();
                assert!((expected - 1..=expected).contains(&left), "{jump}: {left}");
            }
            (Err(Error::Expired), None) => {}
            (other, _) => panic!("{jump}: {other:?}"),
        }
        client.disconnect().await.unwrap();
    }
}

/// A session that is to last a minute, with a message that is to last as long, over a restart of the broker: a clock
/// that was set forward has let them end, one that was set back has let no time pass, and they end in theirs.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_between_two_brokers() {
    for (jump, waits, is_there) in [
        (0, 5, true),
        (HOUR, 5, false),
        (-365 * DAY, 5, true),
        (-365 * DAY, 90, false),
        (0, 90, false),
    ] {
        let _pace = Pace::new();
        let context = format!("set by {jump}, {waits} s");
        let server = Server::new(MemoryStore::new());
        let lasting = || {
            let options = Options::new("", 0).client_id("lasting").clean_start(false);
            options.session_expiry_interval(60).adopt_session(true)
        };
        let reader = connected(&server, lasting()).await;
        drop(
            reader
                .subscribe_unclaimed(
                    [Filter::new("t").unwrap().qos(QoS::AtLeastOnce)],
                    mqtt_client::SubscribeOptions::new(),
                )
                .await
                .unwrap(),
        );
        reader.disconnect().await.unwrap();
        let writer = connected(&server, Options::new("", 0).client_id("writer")).await;
        let retained = fleeting("r", "kept").retain(true);
        for message in [fleeting("t", "x"), retained] {
            let receipt = writer.publish(message).await.unwrap();
            assert!(!receipt.await.unwrap().is_error(), "{context}");
        }
        writer.disconnect().await.unwrap();
        pass(5).await;
        let server = server.restart(|_, clock| clock.set(jump)).await;
        pass(waits).await;
        let reader = connected(&server, lasting()).await;
        assert_eq!(reader.server().session_present, is_there, "{context}");
        let mut unclaimed = reader.unclaimed();
        let mut retained = subscribed(&reader, "r").await;
        let next = tokio::time::timeout(Duration::from_secs(1), retained.recv()).await;
        assert_eq!(next.is_ok(), is_there, "{context}");
        let next = tokio::time::timeout(Duration::from_secs(1), unclaimed.recv()).await;
        assert_eq!(next.is_ok(), is_there, "{context}");
        if let Ok(Some(message)) = next {
            let left = message.property().message_expiry_interval.unwrap();
            assert!((45..=60).contains(&left), "{context}: {left}");
        }
        drop(reader);
        server.restart(|_, _| {}).await;
    }
}
