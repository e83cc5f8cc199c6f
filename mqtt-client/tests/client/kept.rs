//! Brokers that keep their data are stopped, cut off and robbed of their power under clients whose programs die as
//! well, over links that are cut, with wall clocks that jump: no session is lost, so every message of QoS 1 and 2
//! arrives, at QoS 2 once, and every receipt says so, once.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_broker::MemoryStore;
use mqtt_client::{Client, Filter, ProtocolVersion, QoS};

use crate::restarts::{Ledger, Process, Random, folder, start_paused_for_each_seed};
use crate::simulation::{Fuse, opener, options};
use crate::wall::{Pace, Server, WallClock};

/// Who receives everything, in a session that outlives brokers and links.
struct Reader {
    client: Client,
    fuse: Fuse,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Reader {
    async fn start(server: &Server, version: ProtocolVersion) -> Self {
        let fuse = Fuse::new(usize::MAX);
        let client = Client::start_through(opener(&server.place, &fuse), options(version, "r"));
        let filter = Filter::new("t/#").unwrap().qos(QoS::ExactlyOnce);
        let mut subscription = client.subscribe(filter).await.unwrap();
        let counts = Arc::<Mutex<HashMap<String, usize>>>::default();
        tokio::spawn({
            let counts = Arc::clone(&counts);
            async move {
                while let Some(message) = subscription.recv().await {
                    let name = String::from_utf8_lossy(message.payload()).into_owned();
                    *counts.lock().unwrap().entry(name).or_default() += 1;
                }
            }
        });
        Self {
            client,
            fuse,
            counts,
        }
    }

    fn count(&self, name: &str) -> usize {
        self.counts.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

async fn run(seed: u64) {
    let _pace = Pace::new();
    let mut random = Random::new(seed);
    let version = match seed % 2 {
        0 => ProtocolVersion::V5,
        _ => ProtocolVersion::V3_1_1,
    };
    let mut server = Server::new(MemoryStore::with_power_cuts());
    let reader = Reader::start(&server, version).await;
    let ledger = Ledger::default();
    let clock = WallClock::new();
    let mut process = Process::start(folder(), &server.place, &ledger, &clock);
    let mut number = 0;
    for _ in 0..40 {
        match random.below(20) {
            0..9 => {
                process.publish(&ledger, &mut random, number).await;
                number += 1;
            }
            9..11 => process.fuse.burn(random.below(120) as usize + 1),
            11..13 => reader.fuse.burn(random.below(120) as usize + 1),
            // Everybody is told.
            13 => server = server.restart(|_, clock| clock.jump(&mut random)).await,
            // Nobody is told, and what was not synced is gone but for a part.
            14..16 => {
                process.fuse.burn(random.below(60) as usize);
                reader.fuse.burn(random.below(60) as usize);
                tokio::time::sleep(Duration::from_millis(random.below(4))).await;
                process.fuse.cut();
                reader.fuse.cut();
                let kept = random.below(4) as usize;
                server = server
                    .restart(|store, clock| {
                        store.cut_power(kept);
                        clock.jump(&mut random);
                    })
                    .await;
            }
            16 => {
                process.is_alive.store(false, Ordering::Relaxed);
                process.fuse.burn(random.below(150) as usize);
                tokio::time::sleep(Duration::from_millis(5)).await;
                process = process.die(&server.place, &ledger);
            }
            17 => clock.jump(&mut random),
            18 => tokio::time::advance(Duration::from_secs(random.below(7200))).await,
            _ => tokio::time::sleep(Duration::from_millis(random.below(30))).await,
        }
    }
    process.fuse.heal();
    reader.fuse.heal();
    let has_all = || {
        let ledger = ledger.lock().unwrap();
        let mut names = ledger.keys();
        names.all(|name| reader.count(name) > 0)
    };
    let settled = async {
        while !process.outbox.is_empty() || !has_all() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process.client.disconnect().await.unwrap();
        // What would come twice is on its way now.
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let settled = tokio::time::timeout(Duration::from_secs(600), settled).await;
    let left = process.outbox.len();
    for (name, told) in ledger.lock().unwrap().iter() {
        let count = reader.count(name);
        let context = format!("{name} came {count} times, {told:?}, {left} are left");
        assert!(told.is_stored && told.now <= 1, "{context}");
        assert!(count >= 1, "{context}");
        // No session is lost, so nothing is uncertain. A program that dies may not be told any more.
        assert!(told.complete <= 1 && told.uncertain == 0, "{context}");
        assert!(count == 1 || name.starts_with("AtLeastOnce"), "{context}");
    }
    assert!(settled.is_ok(), "{left} messages are left");
    reader.client.disconnect().await.unwrap();
    server.restart(|_, _| {}).await;
}

#[test]
fn brokers_that_die_and_keep_their_data() {
    start_paused_for_each_seed(run);
}
