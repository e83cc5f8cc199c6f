//! A broker on a [`Gate`], which crashes and starts again.
//!
//! Time stands still unless a test lets it pass: while the store's thread works, nobody would know how much of a
//! virtual time had gone by.

use core::time::Duration;
use std::sync::{Arc, Condvar, Mutex};

use mqtt_codec::{Packet, ProtocolVersion, QoS};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};

use super::gate::Gate;
use super::harness::{Peer, V3_1_1, V5, lasting, settle};
use crate::config::{Config, Durability};
use crate::policy::ListenerOptions;
use crate::server::Broker;
use crate::store::{Op, Space, WallTime};

/// What a test that hangs is given, in real time.
const PATIENCE: Duration = Duration::from_secs(30);
/// A version without properties, and the one with them: the store does not tell them apart further.
pub(super) const VERSIONS: [ProtocolVersion; 2] = [V3_1_1, V5];
/// The wall clock at the first start.
pub(super) const START: WallTime = WallTime(1_000_000_000_000);

/// Keeps the runtime from skipping to the next timer when all tasks wait.
struct Stillness(Arc<(Mutex<bool>, Condvar)>);

impl Stillness {
    fn new() -> Self {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&over);
        // While such a task runs, virtual time does not move by itself.
        tokio::task::spawn_blocking(move || {
            let (over, changed) = &*shared;
            let over = over.lock().unwrap();
            drop(changed.wait_timeout_while(over, PATIENCE, |over| !*over));
        });
        Self(over)
    }
}

impl Drop for Stillness {
    fn drop(&mut self) {
        let (over, changed) = &*self.0;
        *over.lock().unwrap() = true;
        changed.notify_all();
    }
}

/// Cuts the power of a gate when a test is over, so that no thread waits for it.
struct Power(Arc<Gate>);

impl Drop for Power {
    fn drop(&mut self) {
        self.0.crash();
    }
}

/// A data directory, and the broker that uses it at the moment.
pub(super) struct Scene {
    _power: Power,
    pub(super) broker: Broker,
    pub(super) gate: Arc<Gate>,
    config: Config,
    directory: TempDir,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
    stillness: Stillness,
}

impl Scene {
    pub(super) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(super) async fn with(config: Config) -> Self {
        let stillness = Stillness::new();
        let directory = TempDir::new().unwrap();
        let gate = Arc::new(Gate::default());
        Self::start(config, directory, gate, START, stillness).await
    }

    async fn start(
        config: Config,
        directory: TempDir,
        gate: Arc<Gate>,
        now: WallTime,
        stillness: Stillness,
    ) -> Self {
        let engine = gate.engine(directory.path());
        let (broker, _) =
            Broker::open_engine(config.clone(), engine, Space::unlimited(), now).unwrap();
        let (stop, stopped) = oneshot::channel();
        let run = broker.clone().run(Vec::new(), async { _ = stopped.await });
        let running = tokio::spawn(run);
        settle().await;
        Self {
            _power: Power(Arc::clone(&gate)),
            broker,
            gate,
            config,
            directory,
            stop,
            running,
            stillness,
        }
    }

    /// What holds from the next start on.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// The broker and what was not committed are gone, and another one starts at that time of the wall clock.
    pub(super) async fn crash_at(self, now: WallTime, peers: impl Sized) -> Self {
        self.gate.crash();
        self.running.abort();
        drop(peers);
        settle().await;
        let store = self.broker.hub.store.as_ref().unwrap();
        store.close();
        drop(self.broker);
        let gate = Arc::new(Gate::default());
        Self::start(self.config, self.directory, gate, now, self.stillness).await
    }

    /// The same, as fast as can be.
    pub(super) async fn crash(self, peers: impl Sized) -> Self {
        self.crash_at(START, peers).await
    }

    /// The broker is shut down with its peers connected, and another one starts at that time of the wall clock.
    pub(super) async fn restart_at(self, now: WallTime, peers: impl Sized) -> Self {
        self.stop.send(()).unwrap();
        settle().await;
        drop(peers);
        self.running.await.unwrap();
        drop(self.broker);
        let gate = Arc::new(Gate::default());
        Self::start(self.config, self.directory, gate, now, self.stillness).await
    }

    /// The same, as fast as can be.
    pub(super) async fn restart(self, peers: impl Sized) -> Self {
        self.restart_at(START, peers).await
    }

    /// Waits until everything is on the disk.
    pub(super) async fn saved(&self) {
        settle().await;
        while !self.is_idle() {
            yield_now().await;
        }
        settle().await;
    }

    fn is_idle(&self) -> bool {
        self.broker.hub.store.as_ref().unwrap().is_idle()
    }

    /// From now on nothing gets to the disk; what has been submitted is there.
    pub(super) async fn hold(&self) {
        self.saved().await;
        self.gate.close();
    }

    /// What waits gets to the disk, and what follows.
    pub(super) async fn release(&self) {
        self.gate.open();
        self.saved().await;
    }

    /// Waits until the disk has been given something that it holds back.
    pub(super) async fn held(&self) {
        while !self.gate.holds() {
            yield_now().await;
        }
        settle().await;
    }

    /// The next commit gets to the disk; false if there is none.
    pub(super) async fn commit_one(&self) -> bool {
        let before = self.gate.commits().len();
        while !self.gate.holds() {
            if self.is_idle() {
                return false;
            }
            yield_now().await;
        }
        self.gate.let_one_pass();
        while self.gate.commits().len() == before {
            yield_now().await;
        }
        // Those who waited for it have been told when the next one is held, or there is none.
        while !self.gate.holds() && !self.is_idle() {
            yield_now().await;
        }
        settle().await;
        true
    }

    /// A client whose session outlives its connection, through a listener with a durability of its own; and whether
    /// the session was there.
    pub(super) async fn through(&self, durability: Durability, id: &str) -> (Peer, bool) {
        let options = ListenerOptions {
            durability: Some(durability),
            ..ListenerOptions::default()
        };
        let connect = lasting(V5, id);
        let (peer, connack) =
            Peer::connect_through(&self.broker, &Arc::new(options), &connect).await;
        (peer, connack.connack().session_present)
    }

    /// Everything that was committed.
    pub(super) fn committed(&self) -> Vec<Op> {
        self.gate.commits().into_iter().flatten().collect()
    }

    /// Lets so much time pass, second by second.
    pub(super) async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            settle().await;
        }
    }

    /// A client whose session is stored, resumed if it was there; and whether it was.
    pub(super) async fn stored(&self, version: ProtocolVersion, id: &str) -> (Peer, bool) {
        Peer::lasting(&self.broker, version, id).await
    }

    /// The same, which must have been there where the version says so.
    pub(super) async fn resumed(&self, version: ProtocolVersion, id: &str) -> Peer {
        let (peer, present) = self.stored(version, id).await;
        assert_eq!(present, version.has_session_present(), "{version} {id}");
        peer
    }

    /// A stored session that subscribed to a filter.
    pub(super) async fn subscriber(
        &self,
        version: ProtocolVersion,
        id: &str,
        filter: &str,
        qos: QoS,
    ) -> Peer {
        let (mut peer, _) = self.stored(version, id).await;
        peer.subscribe(filter, qos).await;
        peer
    }

    /// A stored session that subscribed to a filter and has gone.
    pub(super) async fn away(&self, version: ProtocolVersion, id: &str, filter: &str, qos: QoS) {
        let peer = self.subscriber(version, id, filter, qos).await;
        peer.disconnect().await;
    }

    /// A client whose session ends with the connection.
    pub(super) async fn fleeting(&self, version: ProtocolVersion, id: &str) -> Peer {
        Peer::new(&self.broker, version, id).await
    }

    /// Sends CONNECT of a stored session, to which no CONNACK comes yet.
    pub(super) async fn knock(&self, version: ProtocolVersion, id: &str, clean: bool) -> Peer {
        let mut connect = lasting(version, id);
        connect.clean_start = clean;
        let mut peer = Peer::open(&self.broker, version);
        peer.send(&Packet::Connect(Box::new(connect))).await;
        settle().await;
        peer
    }
}
