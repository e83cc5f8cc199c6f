//! A conversation with a program that holds clients of a library.
//!
//! Commands and answers are objects of JSON, one a line. A command has an `id` that its answer
//! repeats, says in `do` what to do, and in `client` with which client, by a number:
//!
//! | do | with | answer |
//! |---|---|---|
//! | `connect` | `host`, `port`, `version` (3, 4, 5), `clientId`, `clean`, `will`, `properties` | `code`, `sessionPresent`, `properties` |
//! | | `path`, `origin` (WebSocket), `authority` (TLS: a file of the root) | |
//! | `reconnect` | | as of `connect` |
//! | `subscribe` | `filters`, each with `filter`, `qos` and options; `properties` | `codes` |
//! | `unsubscribe` | `filters` | `codes` |
//! | `publish` | `topic`, `payloads`, `qos`, `retain`, `properties` | `codes`, once all are acknowledged |
//! | `disconnect` | `code`, `properties` | when the connection has ended |
//! | `cut` | | when the connection is closed, without a DISCONNECT |
//! | `reset` | no client | when every client is gone |
//!
//! An answer with `error` says why it could not be done. A line without `id` is an event of a
//! client: a `message`, or `closed` with the reason code of the broker's DISCONNECT, if there was
//! one. Payloads and correlation data are hexadecimal; properties have the names of MQTT.js.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    library::Library,
    message::{Message, from_hex},
    peer::{Kind, Peer},
};
use crate::process::Running;

/// A running driver program. Each worker has its own.
pub(super) struct Driver {
    conversation: RefCell<Conversation>,
}

struct Conversation {
    process: Running,
    commands: u64,
    clients: u64,
    /// Answers and events that nobody has asked for yet.
    answers: HashMap<u64, Answer>,
    events: HashMap<u64, VecDeque<Event>>,
}

/// What happened to a client.
#[derive(Debug)]
pub(super) enum Event {
    Message(Delivery),
    /// The connection has ended, by a DISCONNECT with this reason code if there was one.
    Closed(Option<u8>),
}

/// A message and the properties it came with.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Message,
    pub(super) properties: Value,
}

impl Driver {
    fn start(library: &Library) -> Result<Self> {
        Ok(Self {
            conversation: RefCell::new(Conversation {
                process: Running::start_to_tell(&mut library.driver())?,
                commands: 0,
                clients: 0,
                answers: HashMap::new(),
                events: HashMap::new(),
            }),
        })
    }

    /// A number for a client that the program does not know yet.
    pub(super) fn new_client(&self) -> u64 {
        let mut conversation = self.conversation.borrow_mut();
        conversation.clients += 1;
        conversation.clients
    }

    /// Gives a command; its number is for [`answer`](Self::answer).
    pub(super) fn command(&self, mut command: Map<String, Value>) -> Result<u64> {
        let mut conversation = self.conversation.borrow_mut();
        conversation.commands += 1;
        let id = conversation.commands;
        command.insert("id".to_owned(), id.into());
        conversation
            .process
            .tell(&Value::Object(command).to_string())?;
        Ok(id)
    }

    /// The answer to the command with this number.
    pub(super) fn answer(&self, id: u64, deadline: Instant) -> Result<Answer> {
        let mut conversation = self.conversation.borrow_mut();
        let answer = conversation.wait(deadline, "answer", |it| it.answers.remove(&id))?;
        match answer.error {
            Some(error) => bail!("{error}"),
            None => Ok(answer),
        }
    }

    /// The next event of a client.
    pub(super) fn event(&self, client: u64, deadline: Instant) -> Result<Event> {
        let mut conversation = self.conversation.borrow_mut();
        conversation.wait(deadline, "event", |it| {
            it.events.get_mut(&client)?.pop_front()
        })
    }

    /// Breaks the connections that a case has left open.
    fn reset(&self, deadline: Instant) -> Result<()> {
        let command = Map::from_iter([("do".to_owned(), "reset".into())]);
        let id = self.command(command)?;
        self.answer(id, deadline)?;
        self.conversation.borrow_mut().events.clear();
        Ok(())
    }
}

impl Conversation {
    /// Reads lines until `take` finds what it looks for.
    fn wait<T>(
        &mut self,
        deadline: Instant,
        what: &str,
        mut take: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T> {
        loop {
            if let Some(found) = take(self) {
                return Ok(found);
            }
            let line = self.process.wait_for(deadline, what, |line| {
                line.starts_with('{').then(|| line.to_owned())
            })?;
            self.file(&line)
                .with_context(|| format!("not understood: {line:.200}"))?;
        }
    }

    /// Puts a line where [`wait`](Self::wait) looks for it.
    fn file(&mut self, line: &str) -> Result<()> {
        let line: Line = serde_json::from_str(line)?;
        if let Some(id) = line.id {
            self.answers.insert(id, line.answer());
        } else {
            let client = line.client.context("neither id nor client")?;
            let event = line.event()?;
            self.events.entry(client).or_default().push_back(event);
        }
        Ok(())
    }
}

/// What a command is answered with; which fields there are depends on the command.
#[derive(Debug, Default)]
pub(super) struct Answer {
    error: Option<String>,
    pub(super) code: Option<u8>,
    pub(super) session_present: Option<bool>,
    pub(super) properties: Value,
    pub(super) codes: Vec<u8>,
}

/// A line of a driver program.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    id: Option<u64>,
    error: Option<String>,
    code: Option<u8>,
    session_present: Option<bool>,
    #[serde(default)]
    properties: Value,
    #[serde(default)]
    codes: Vec<u8>,
    client: Option<u64>,
    message: Option<RawMessage>,
    closed: Option<u8>,
}

#[derive(Deserialize)]
struct RawMessage {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    properties: Value,
}

impl Line {
    fn answer(self) -> Answer {
        Answer {
            error: self.error,
            code: self.code,
            session_present: self.session_present,
            properties: self.properties,
            codes: self.codes,
        }
    }

    fn event(self) -> Result<Event> {
        let Some(raw) = self.message else {
            return Ok(Event::Closed(self.closed));
        };
        Ok(Event::Message(Delivery {
            message: Message {
                topic: raw.topic,
                payload: from_hex(&raw.payload).context("the payload is not hexadecimal")?,
                qos: raw.qos,
                retain: raw.retain,
            },
            properties: raw.properties,
        }))
    }
}

/// The driver programs of one worker, started when a case first needs them.
#[derive(Default)]
pub(super) struct Drivers {
    running: RefCell<Vec<(&'static str, Rc<Driver>)>>,
}

impl Drivers {
    /// The driver of a library.
    pub(super) fn of(&self, peer: &Peer) -> Result<Rc<Driver>> {
        let Kind::Library(library) = &peer.kind else {
            bail!("{} is no library", peer.name);
        };
        let mut running = self.running.borrow_mut();
        if let Some((_, driver)) = running.iter().find(|(name, _)| *name == peer.name) {
            return Ok(Rc::clone(driver));
        }
        let driver = Rc::new(Driver::start(library)?);
        running.push((peer.name, Rc::clone(&driver)));
        Ok(driver)
    }

    /// Sees to it that nothing is left of a case; after a failure the programs are started anew.
    pub(super) fn end_case(&self, passed: bool, deadline: Instant) {
        let mut running = self.running.borrow_mut();
        running.retain(|(_, driver)| passed && driver.reset(deadline).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn answers_are_read() {
        let answer = line(r#"{"id":3,"codes":[0,16]}"#).answer();
        assert_eq!(answer.codes, [0, 16]);
        let answer = line(r#"{"id":3,"error":"no CONNACK"}"#).answer();
        assert_eq!(answer.error.as_deref(), Some("no CONNACK"));
    }

    #[test]
    fn events_are_read() {
        for (text, code) in [("142", Some(142)), ("null", None)] {
            let event = line(&format!(r#"{{"client":2,"closed":{text}}}"#)).event();
            assert!(matches!(event, Ok(Event::Closed(found)) if found == code));
        }
        let text = r#"{"client":2,"message":
            {"topic":"t","payload":"c3a9","qos":1,"retain":false,"properties":{}}}"#;
        let Ok(Event::Message(delivery)) = line(text).event() else {
            panic!("no message");
        };
        assert_eq!(delivery.message, Message::new("t", "é", 1));
    }
}
