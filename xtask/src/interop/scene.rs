//! One case while it runs: its own topics and client identifiers, its clients, its deadline.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    client::Client,
    driver::Drivers,
    message::{Message, compare, to_hex},
    peer::{Address, Kind, Payload, Peer, Publication, Subscription, Version},
    program::has_subscribed,
};
use crate::process::Running;

/// How long one case may take; what hangs is a failure of the case.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a case needs to run.
pub(super) struct Scene<'a> {
    address: &'a Address,
    /// Unique among the cases of this run and of runs before.
    label: String,
    drivers: &'a Drivers,
    deadline: Instant,
}

impl<'a> Scene<'a> {
    /// `run` tells runs against the same broker apart, `number` the cases of a run.
    pub(super) fn new(address: &'a Address, drivers: &'a Drivers, run: u32, number: usize) -> Self {
        Self {
            address,
            label: format!("{run:x}.{number:x}"),
            drivers,
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
        let Kind::Program(program) = &peer.kind else {
            return self.publish_by_library(peer, publication);
        };
        let (mut command, input) = program.publish(publication, self.address);
        Running::start(&mut command, input)?.succeed(self.deadline)
    }

    fn publish_by_library(&self, peer: &Peer, what: Publication) -> Result<()> {
        let options = json!({"clientId": what.client_id});
        let client = self.connect(peer, what.version, "", options)?;
        let mut model = Message::new(&what.topic, "", what.qos);
        model.retain = what.retain;
        let payloads = what.payload.each();
        let sending = client.start_publish(&model, &payloads, json!({}))?;
        client.finish_publish(sending)?;
        client.disconnect()
    }

    /// Starts a subscriber and waits until the broker has answered its subscriptions.
    pub(super) fn subscribe(&self, peer: &Peer, what: &Subscription) -> Result<Subscriber> {
        let Kind::Program(program) = &peer.kind else {
            return self.subscribe_by_library(peer, what);
        };
        let mut process = Running::start(&mut program.subscribe(what, self.address), None)?;
        let mut early = Vec::new();
        // What a resumed session has waiting may come before the SUBACK.
        process.wait_for(self.deadline, "`received SUBACK`", |line| {
            early.extend(Message::parse(line));
            has_subscribed(line).then_some(())
        })?;
        Ok(Subscriber::Program {
            process,
            early: early.into_iter(),
            deadline: self.deadline,
        })
    }

    fn subscribe_by_library(&self, peer: &Peer, what: &Subscription) -> Result<Subscriber> {
        let mut options = json!({"clientId": what.client_id, "clean": !what.persistent});
        if what.persistent {
            options["properties"] = json!({"sessionExpiryInterval": 300});
        }
        if let Some(will) = &what.will {
            options["will"] = will_options(&will.topic, &will.payload, will.qos, will.retain);
        }
        let client = self.connect(peer, what.version, "", options)?;
        for filter in &what.filters {
            client.subscribe(filter, what.qos)?;
        }
        Ok(Subscriber::Library(client))
    }

    /// Connects a client of a library. It has the client identifier `name`, made unique, and a clean
    /// session, unless `options` (of the command `connect`) say otherwise.
    pub(super) fn connect(
        &self,
        peer: &Peer,
        version: Version,
        name: &str,
        options: Value,
    ) -> Result<Client> {
        let mut all = json!({
            "host": self.address.host,
            "port": self.address.port,
            "version": version.level(),
            "clientId": self.client_id(name),
            "clean": true,
        });
        if let (Some(all), Value::Object(options)) = (all.as_object_mut(), options) {
            all.extend(options);
        }
        Client::connect(self.drivers.of(peer)?, self.deadline, version, all)
    }
}

/// A will as the command `connect` takes it.
pub(super) fn will_options(topic: &str, payload: &str, qos: u8, retain: bool) -> Value {
    json!({"topic": topic, "payload": to_hex(payload.as_bytes()), "qos": qos, "retain": retain})
}

/// A subscriber that is connected and has its subscriptions.
pub(super) enum Subscriber {
    Program {
        process: Running,
        early: std::vec::IntoIter<Message>,
        deadline: Instant,
    },
    Library(Client),
}

impl Subscriber {
    /// The next message it receives.
    pub(super) fn receive(&mut self) -> Result<Message> {
        match self {
            Self::Program {
                process,
                early,
                deadline,
            } => match early.next() {
                Some(message) => Ok(message),
                None => process.wait_for(*deadline, "another message", Message::parse),
            },
            Self::Library(client) => Ok(client.receive()?.message),
        }
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

    /// It received the count it waited for; it disconnects, as a program by itself, with exit code 0.
    pub(super) fn end(self) -> Result<()> {
        match self {
            Self::Program {
                mut process,
                deadline,
                ..
            } => process.succeed(deadline),
            Self::Library(client) => client.disconnect(),
        }
    }

    /// Its connection breaks without a DISCONNECT.
    pub(super) fn crash(self) -> Result<()> {
        match self {
            Self::Program { mut process, .. } => process.kill(),
            Self::Library(client) => client.cut(),
        }
    }
}
