//! A reader that does everything at the wrong time: it drops subscriptions and futures, reads slowly, acknowledges
//! out of order or not at all, and loses its link again and again. Nothing that was published is lost by it, and where
//! to take a message is to acknowledge it, nothing of QoS 2 comes twice to one of its subscriptions.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_client::{
    Acknowledge, Client, Error, Filter, Incoming, Message, ProtocolVersion, QoS, Received,
    Subscription,
};

use crate::restarts::{Random, start_paused_for_each_seed};
use crate::simulation::{Fuse, broker, opener, options};

/// What a future comes to, unless it is dropped after so many turns of the runtime.
async fn dropped_after<F: Future>(turns: u64, future: F) -> Option<F::Output> {
    let turns = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        output = future => Some(output),
        () = turns => None,
    }
}

fn name(message: &Received) -> String {
    String::from_utf8_lossy(message.payload()).into_owned()
}

struct Reader {
    client: Client,
    unclaimed: Incoming,
    /// With the messages of QoS 2 that each had.
    subscriptions: Vec<(Subscription, HashSet<String>)>,
    acknowledge: Acknowledge,
    /// Taken, and not acknowledged.
    held: Vec<Received>,
    seen: HashSet<String>,
}

impl Reader {
    fn hold(&mut self, message: Received) {
        self.seen.insert(name(&message));
        self.held.push(message);
    }

    /// Takes some of what is there.
    fn take(&mut self, random: &mut Random) {
        let count = random.below(4);
        for _ in 0..count {
            let place = random.below(self.subscriptions.len() as u64 + 1) as usize;
            let (message, had) = match self.subscriptions.get_mut(place) {
                Some((subscription, had)) => (subscription.try_recv(), Some(had)),
                None => (self.unclaimed.try_recv(), None),
            };
            if let Some(message) = message {
                if let Some(had) = had
                    && self.acknowledge == Acknowledge::WhenTaken
                    && message.quality() == QoS::ExactlyOnce
                {
                    assert!(had.insert(name(&message)), "{} twice", name(&message));
                }
                self.hold(message);
            }
        }
    }

    async fn subscribe(&mut self, turns: u64, random: &mut Random) {
        let text = ["t/#", "t/+", "t/x"][random.below(3) as usize];
        let filter = Filter::new(text).unwrap().qos(QoS::ExactlyOnce);
        match dropped_after(turns, self.client.subscribe(filter)).await {
            Some(Ok(subscription)) => self.subscriptions.push((subscription, HashSet::new())),
            None => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }

    /// Acknowledges one that was taken, whichever, or drops it without that.
    fn part(&mut self, random: &mut Random, acknowledges: bool) {
        if self.held.is_empty() {
            return;
        }
        let place = random.below(self.held.len() as u64) as usize;
        let message = self.held.swap_remove(place);
        if acknowledges {
            message.acknowledge();
        }
    }

    /// Reads and acknowledges everything until it has seen these.
    async fn catch_up(&mut self, names: &HashSet<String>) {
        self.subscriptions.clear();
        self.held.clear();
        let filter = Filter::new("t/#").unwrap().qos(QoS::ExactlyOnce);
        let mut subscription = self.client.subscribe(filter).await.unwrap();
        while !names.is_subset(&self.seen) {
            let message = tokio::select! {
                message = subscription.recv() => message,
                message = self.unclaimed.recv() => message,
            };
            let message = message.unwrap();
            self.seen.insert(name(&message));
            message.acknowledge();
        }
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let version = match seed % 2 {
        0 => ProtocolVersion::V5,
        _ => ProtocolVersion::V3_1_1,
    };
    let place = Arc::new(Mutex::new(broker()));
    let [reading, writing] = [(); 2].map(|()| Fuse::new(usize::MAX));
    let options_of = |id| options(version, id).receive_maximum(4).send_maximum(8);
    let acknowledge = match seed % 4 {
        0 | 1 => Acknowledge::Manually,
        _ => Acknowledge::WhenTaken,
    };
    let client = Client::start_through(
        opener(&place, &reading),
        options_of("r").acknowledge(acknowledge),
    );
    let mut reader = Reader {
        unclaimed: client.unclaimed(),
        client,
        subscriptions: Vec::new(),
        acknowledge,
        held: Vec::new(),
        seen: HashSet::new(),
    };
    // Its session has a subscription from here on, whatever becomes of the handles.
    let first = Filter::new("t/#").unwrap().qos(QoS::ExactlyOnce);
    let first = reader.client.subscribe(first).await.unwrap();
    reader.subscriptions.push((first, HashSet::new()));
    let writer = Client::start_through(opener(&place, &writing), options_of("w"));
    let mut receipts = Vec::new();
    for number in 0..120 {
        match random.below(20) {
            0..8 => {
                let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(2) as usize];
                let name = format!("{qos:?} {number}");
                let message = Message::new("t/x", name.clone()).unwrap().qos(qos);
                let publishing = dropped_after(random.below(3), writer.publish(message));
                if let Some(receipt) = publishing.await {
                    receipts.push((name, receipt.unwrap()));
                }
            }
            8 => writing.burn(random.below(80) as usize + 1),
            9..11 => reading.burn(random.below(80) as usize + 1),
            11..14 => reader.take(&mut random),
            14..16 => reader.part(&mut random, true),
            16 => reader.part(&mut random, false),
            17 if !reader.subscriptions.is_empty() => {
                let count = reader.subscriptions.len() as u64;
                let gone = reader
                    .subscriptions
                    .swap_remove(random.below(count) as usize);
                drop(gone);
            }
            17 | 18 => {
                let turns = random.below(12);
                reader.subscribe(turns, &mut random).await;
            }
            _ => tokio::time::sleep(Duration::from_millis(random.below(30))).await,
        }
    }
    writing.heal();
    let mut names = HashSet::new();
    for (name, receipt) in receipts {
        let outcome = tokio::time::timeout(Duration::from_secs(60), receipt).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("{name} has no end"));
        assert!(
            matches!(&outcome, Ok(reason) if !reason.is_error()),
            "{name}: {outcome:?}"
        );
        names.insert(name);
    }
    // What it did not acknowledge comes again on the next connection.
    reading.cut();
    let caught_up = reader.catch_up(&names);
    let in_time = tokio::time::timeout(Duration::from_secs(600), caught_up).await;
    let missing: Vec<_> = names.difference(&reader.seen).collect();
    assert!(in_time.is_ok(), "missing: {missing:?}");
    for client in [&writer, &reader.client] {
        let ended = client.disconnect().await;
        assert!(matches!(ended, Ok(()) | Err(Error::Io(_))), "{ended:?}");
    }
}

#[test]
fn a_reader_that_does_everything_at_the_wrong_time() {
    start_paused_for_each_seed(run);
}
