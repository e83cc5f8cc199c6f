//! Programs with an outbox that die and come back, over links that are cut, with brokers that forget, in virtual
//! time that jumps. A run is the same for the same seed but for what the disk had reached; a failure names its seed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_broker::Broker;
use mqtt_client::{
    Client, Error, Message, Outbox, ProtocolVersion, QoS, Receipt, Target, Uncertain,
};
use tempfile::TempDir;

use crate::simulation::{Cut, Fuse, Watcher, broker, opener, options, watcher};
use crate::wall::WallClock;

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What the program was told of a message, by all its runs together.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// `publish` returned.
    pub(crate) is_stored: bool,
    pub(crate) complete: usize,
    pub(crate) uncertain: usize,
    /// How often the present run was told.
    pub(crate) now: usize,
}

pub(crate) type Ledger = Arc<Mutex<HashMap<String, Told>>>;

/// One run of the program.
pub(crate) struct Process {
    pub(crate) client: Client,
    pub(crate) outbox: Outbox,
    folder: TempDir,
    pub(crate) is_alive: Arc<AtomicBool>,
    pub(crate) fuse: Fuse,
    clock: WallClock,
}

fn follow(ledger: &Ledger, is_alive: &Arc<AtomicBool>, name: String, receipt: Receipt) {
    let (ledger, is_alive) = (Arc::clone(ledger), Arc::clone(is_alive));
    tokio::spawn(async move {
        let outcome = receipt.await;
        if !is_alive.load(Ordering::Relaxed) {
            return;
        }
        let mut ledger = ledger.lock().unwrap();
        let told = ledger.entry(name).or_default();
        told.now += 1;
        match outcome {
            Ok(reason) if !reason.is_error() => told.complete += 1,
            Err(Error::Uncertain(_)) => told.uncertain += 1,
            // The client was told to end, at the end.
            Err(Error::Kept(_)) => {}
            other => panic!("{other:?}"),
        }
    });
}

impl Process {
    pub(crate) fn start(
        folder: TempDir,
        place: &Arc<Mutex<Broker>>,
        ledger: &Ledger,
        clock: &WallClock,
    ) -> Self {
        let outbox = clock.outbox(folder.path());
        let is_alive = Arc::new(AtomicBool::new(true));
        for told in ledger.lock().unwrap().values_mut() {
            told.now = 0;
        }
        for unfinished in outbox.unfinished().unwrap() {
            let name = text(&unfinished.message);
            follow(ledger, &is_alive, name, unfinished.receipt);
        }
        let fuse = Fuse::new(usize::MAX);
        let open = opener(place, &fuse);
        let alive = Arc::clone(&is_alive);
        let open = move |target: Target| {
            let opened = match alive.load(Ordering::Relaxed) {
                true => open(target).into_inner(),
                false => Err(std::io::ErrorKind::ConnectionRefused.into()),
            };
            std::future::ready::<std::io::Result<Cut>>(opened)
        };
        let options = options(ProtocolVersion::V5, "c")
            .clean_start(true)
            .adopt_session(false)
            .when_uncertain(Uncertain::Tell)
            .outbox(outbox.clone());
        Self {
            client: Client::start_through(open, options),
            outbox,
            folder,
            is_alive,
            fuse,
            clock: clock.clone(),
        }
    }

    /// Publishes a message of QoS 1 or 2 that the ledger knows by this number.
    pub(crate) async fn publish(&self, ledger: &Ledger, random: &mut Random, number: u32) {
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2) as usize];
        let name = format!("{qos:?} {number}");
        let message = Message::new("t/x", name.clone()).unwrap().qos(qos);
        let receipt = self.client.publish(message).await.unwrap();
        let mut told = ledger.lock().unwrap();
        told.entry(name.clone()).or_default().is_stored = true;
        drop(told);
        follow(ledger, &self.is_alive, name, receipt);
    }

    /// Dies here and now. What comes back has what was in the files, and nothing else.
    pub(crate) fn die(self, place: &Arc<Mutex<Broker>>, ledger: &Ledger) -> Self {
        let folder = folder();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        self.is_alive.store(false, Ordering::Relaxed);
        self.fuse.cut();
        Self::start(folder, place, ledger, &self.clock)
    }
}

/// A folder in memory where there is one: what these tests do to the files does not need a disk, which may be slow.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

/// Publishes, and fails in every way, as the seed says; then lets everything come to its end and compares what was
/// told with what arrived.
async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut brokers: Vec<(Broker, Watcher)> = Vec::new();
    let first = broker();
    let place = Arc::new(Mutex::new(first.clone()));
    let watch = watcher(&first).await;
    brokers.push((first, watch));
    let ledger = Ledger::default();
    let mut process = Process::start(folder(), &place, &ledger, &WallClock::new());
    let mut number = 0;
    for _ in 0..40 {
        match random.below(17) {
            0..8 => {
                process.publish(&ledger, &mut random, number).await;
                number += 1;
            }
            8..10 => process.fuse.burn(random.below(120) as usize + 1),
            10 => {
                let next = broker();
                let watch = watcher(&next).await;
                brokers.push((next.clone(), watch));
                *place.lock().unwrap() = next;
                process.fuse.cut();
                // Until the client knows: a server that has made a session anew, and whose word of that is lost,
                // cannot be told from one that has kept it. A link on which nothing flows is not cut.
                let nudge = Message::new("nudge", "").unwrap();
                drop(process.client.publish(nudge).await.unwrap());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            11 => process = process.die(&place, &ledger),
            12 => {
                // In the middle of an exchange: what is behind the cut never comes.
                process.is_alive.store(false, Ordering::Relaxed);
                process.fuse.burn(random.below(150) as usize);
                tokio::time::sleep(Duration::from_millis(5)).await;
                process = process.die(&place, &ledger);
            }
            13 => tokio::time::advance(Duration::from_secs(random.below(7200))).await,
            14 => process.clock.jump(&mut random),
            _ => tokio::time::sleep(Duration::from_millis(random.below(30))).await,
        }
    }
    process.fuse.heal();
    let settled = async {
        while !process.outbox.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(600), settled).await;
    assert!(
        settled.is_ok(),
        "{} messages are left",
        process.outbox.len()
    );
    process.client.disconnect().await.unwrap();
    // Time for what is on its way to the watchers.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let has_lost = brokers.len() > 1;
    for (name, told) in ledger.lock().unwrap().iter() {
        let count: usize = brokers.iter().map(|(_, watch)| watch.count(name)).sum();
        let context = format!("{name} came {count} times, {told:?}");
        assert!(told.is_stored, "{context}");
        assert!(told.now <= 1, "{context}");
        if name.starts_with("AtLeastOnce") {
            assert!(count >= 1 && told.uncertain == 0, "{context}");
            continue;
        }
        assert!(count <= 1, "{context}");
        assert!(told.complete == 0 || count == 1, "{context}");
        assert!(has_lost || (count == 1 && told.uncertain == 0), "{context}");
    }
}

/// Each of some seeds, or `TERNMQ_SEED=N` alone, in a runtime of its own whose time is virtual.
pub(crate) fn start_paused_for_each_seed<F: Future<Output = ()>>(run: impl Fn(u64) -> F) {
    let seeds = match std::env::var("TERNMQ_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 1..41,
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(run(seed));
        }));
        assert!(outcome.is_ok(), "again with TERNMQ_SEED={seed}");
    }
}

#[test]
fn programs_that_die_and_come_back() {
    start_paused_for_each_seed(run);
}

/// What is left of a file that was cut is used, and said.
#[tokio::test(start_paused = true)]
async fn a_torn_end_is_reported() {
    let place = Arc::new(Mutex::new(broker()));
    let ledger = Ledger::default();
    let process = Process::start(folder(), &place, &ledger, &WallClock::new());
    process.is_alive.store(false, Ordering::Relaxed);
    process.fuse.cut();
    let mut receipts = Vec::new();
    for name in ["one", "two"] {
        let message = Message::new("t/x", name).unwrap().qos(QoS::AtLeastOnce);
        receipts.push(process.client.publish(message).await.unwrap());
    }
    let torn = folder();
    let file = "1.outbox";
    let bytes = fs::read(process.folder.path().join(file)).unwrap();
    let end = last_record(&bytes, b"two");
    fs::write(torn.path().join(file), &bytes[..end]).unwrap();
    let outbox = Outbox::open(torn.path()).unwrap();
    assert!(outbox.damage().is_some_and(|damage| damage.bytes > 0));
    let names: Vec<_> = outbox.unfinished().unwrap();
    let names: Vec<_> = names.iter().map(|left| text(&left.message)).collect();
    assert_eq!(names, ["one"]);
    assert!(exists(torn.path(), "damaged"));
}

/// The place in the middle of a text in the file.
fn last_record(bytes: &[u8], text: &[u8]) -> usize {
    let place = bytes.windows(text.len()).rposition(|window| window == text);
    place.unwrap() + 1
}

fn exists(folder: &Path, name: &str) -> bool {
    folder.join(name).exists()
}
