//! One case while it runs: its own topics and client identifiers, its children, its deadline.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    message::{Message, compare},
    peer::{Address, Payload, Peer, Publication, Subscription, Version, has_subscribed},
};
use crate::process::Running;

/// How long one case may take; what hangs is a failure of the case.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a case needs to run.
pub(super) struct Scene<'a> {
    address: &'a Address,
    /// Unique among the cases of this run and of runs before.
    label: String,
    deadline: Instant,
}

impl<'a> Scene<'a> {
    /// `run` tells runs against the same broker apart, `number` the cases of a run.
    pub(super) fn new(address: &'a Address, run: u32, number: usize) -> Self {
        Self {
            address,
            label: format!("{run:x}.{number:x}"),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// A topic of this case alone.
    pub(super) fn topic(&self, name: &str) -> String {
        format!("interop/{}/{name}", self.label)
    }

    /// A client identifier of this case alone, short enough for 3.1 (23 bytes).
    pub(super) fn client_id(&self, name: &str) -> String {
        format!("{name}{}", self.label)
    }

    /// A publication at QoS 0 that a case fills in.
    pub(super) fn publication(&self, version: Version, topic: &str, payload: &str) -> Publication {
        Publication {
            version,
            client_id: self.client_id("p"),
            topic: topic.to_owned(),
            payload: Payload::Text(payload.to_owned()),
            qos: 0,
            retain: false,
            extra: Vec::new(),
        }
    }

    /// A subscription at QoS 2 that a case fills in.
    pub(super) fn subscription(&self, version: Version, filter: &str) -> Subscription {
        Subscription {
            version,
            client_id: self.client_id("s"),
            filters: vec![filter.to_owned()],
            qos: 2,
            count: None,
            persistent: false,
            will: None,
        }
    }

    /// Runs a publisher to its end.
    pub(super) fn publish(&self, peer: &Peer, publication: Publication) -> Result<()> {
        let (mut command, input) = publication.command(peer, self.address);
        Running::start(&mut command, input)?.succeed(self.deadline)
    }

    /// Starts a subscriber and waits until the broker has answered its subscriptions.
    pub(super) fn subscribe(&self, peer: &Peer, what: &Subscription) -> Result<Subscriber> {
        let mut process = Running::start(&mut what.command(peer, self.address), None)?;
        let mut early = Vec::new();
        // What a resumed session has waiting may come before the SUBACK.
        process.wait_for(self.deadline, "`received SUBACK`", |line| {
            early.extend(Message::parse(line));
            has_subscribed(line).then_some(())
        })?;
        Ok(Subscriber {
            process,
            early: early.into_iter(),
            deadline: self.deadline,
        })
    }
}

/// A subscriber that is connected and has its subscriptions.
pub(super) struct Subscriber {
    process: Running,
    early: std::vec::IntoIter<Message>,
    deadline: Instant,
}

impl Subscriber {
    /// The next message it receives.
    pub(super) fn receive(&mut self) -> Result<Message> {
        if let Some(message) = self.early.next() {
            return Ok(message);
        }
        self.process
            .wait_for(self.deadline, "another message", Message::parse)
    }

    /// It must receive exactly these messages, in this order.
    pub(super) fn expect(&mut self, expected: &[Message]) -> Result<()> {
        let mut received = Vec::new();
        for number in 1..=expected.len() {
            received.push(self.receive()?);
            compare(&received, &expected[..number]).map_err(|error| {
                error.context(format!("of {} messages expected", expected.len()))
            })?;
        }
        Ok(())
    }

    /// It received the count it waited for, so it must disconnect and end with exit code 0.
    pub(super) fn end(mut self) -> Result<()> {
        self.process.succeed(self.deadline)
    }

    /// Its connection breaks without a DISCONNECT.
    pub(super) fn crash(mut self) -> Result<()> {
        self.process.kill()
    }
}
