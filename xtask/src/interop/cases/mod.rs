//! The cases: who publishes, who subscribes, in which version, and what must arrive.

mod basics;
mod connections;
mod expiry;
mod flow;
mod options;
mod properties;

use anyhow::Result;

use super::{
    message::Message,
    peer::{Peer, Version},
    scene::Scene,
};

const QOS: [u8; 3] = [0, 1, 2];

type Action = Box<dyn Fn(&Scene<'_>) -> Result<()> + Send + Sync>;

/// One thing that is tried.
pub(super) struct Case {
    /// What is tried.
    pub(super) group: &'static str,
    /// Between which clients.
    pub(super) who: String,
    /// In which versions and at which QoS.
    pub(super) how: String,
    /// The clients that take part.
    pub(super) peers: [&'static str; 2],
    action: Action,
}

impl Case {
    /// The whole name, by which `--case` selects.
    pub(super) fn name(&self) -> String {
        format!("{}: {}, {}", self.group, self.who, self.how)
    }

    pub(super) fn run(&self, scene: &Scene<'_>) -> Result<()> {
        (self.action)(scene)
    }
}

/// Every case between the clients.
pub(super) fn all(peers: &'static [Peer]) -> Vec<Case> {
    let mut cases = Vec::new();
    for publisher in peers {
        for subscriber in peers {
            let mut pair = Pair {
                publisher,
                subscriber,
                cases: &mut cases,
            };
            pair.basics();
            if publisher.is_library() && subscriber.is_library() {
                for version in Version::ALL {
                    pair.flow(version);
                    pair.connections(version);
                }
                pair.properties();
                pair.options();
                pair.expiry();
            }
        }
    }
    cases.sort_by_key(|case| case.group);
    cases
}

/// Adds the cases between two clients, or of one with itself.
struct Pair<'a> {
    publisher: &'static Peer,
    subscriber: &'static Peer,
    cases: &'a mut Vec<Case>,
}

impl Pair<'_> {
    fn add(
        &mut self,
        group: &'static str,
        how: impl Into<String>,
        action: impl Fn(&Scene<'_>, &Peer, &Peer) -> Result<()> + Send + Sync + 'static,
    ) {
        let (publisher, subscriber) = (self.publisher, self.subscriber);
        self.cases.push(Case {
            group,
            who: format!("{} -> {}", publisher.name, subscriber.name),
            how: how.into(),
            peers: [publisher.name, subscriber.name],
            action: Box::new(move |scene| action(scene, publisher, subscriber)),
        });
    }
}

fn numbered(count: usize) -> Vec<String> {
    (1..=count)
        .map(|number| format!("message {number}"))
        .collect()
}

fn messages(topic: &str, payloads: &[impl AsRef<str>], qos: u8) -> Vec<Message> {
    payloads
        .iter()
        .map(|payload| Message::new(topic, payload.as_ref(), qos))
        .collect()
}
