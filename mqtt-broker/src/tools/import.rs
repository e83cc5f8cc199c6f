//! From lines to a store.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;

use mqtt_codec::{
    FixedHeader, PacketId, ProtocolVersion, Publish, QoS, SubscriptionOptions, TopicFilter,
    TopicName,
};

use super::line::{BadLine, Content, FORMAT, Header, Line, Queued, Session, Subscription};
use super::{CLOCK, ToolError};
use crate::auth::Owner;
use crate::config::Durability;
use crate::message::{Envelope, Layout, Message, Parts};
use crate::store::{
    BodyNumber, Engine, Entry, Key, Op, SessionNumber, SessionRecord, WallTime, WillRecord,
};
use crate::will::StoredWill;

/// Changes of one commit, in bytes.
const BATCH: usize = 4 << 20;
/// Numbers of sessions, bodies and messages are below, so that the store can count on from them.
const NUMBERS: u64 = 1 << 62;

/// Puts the lines into an empty store that has been loaded.
pub(super) fn read(input: &mut dyn BufRead, engine: &mut dyn Engine) -> Result<(), ToolError> {
    let mut importer = Importer::default();
    let mut text = Vec::new();
    let mut number = 0;
    loop {
        text.clear();
        number += 1;
        let bad = |bad: BadLine| ToolError::Line {
            line: number,
            key: bad.key,
            problem: bad.problem,
        };
        if input
            .read_until(b'\n', &mut text)
            .map_err(ToolError::Read)?
            == 0
        {
            importer.finish().map_err(bad)?;
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        Line::parse(&text)
            .and_then(|line| importer.add(line))
            .map_err(bad)?;
        if importer.bytes >= BATCH {
            importer.commit(engine)?;
        }
    }
    importer.commit(engine)
}

#[derive(Default)]
struct Importer {
    header: Option<Header>,
    lines: u64,
    ended: bool,
    ops: Vec<Op>,
    /// Of the changes.
    bytes: usize,
    sessions: HashSet<SessionNumber>,
    clients: HashSet<Arc<str>>,
    bodies: HashMap<BodyNumber, (Arc<Message>, Option<WallTime>)>,
    /// Bodies that were stored with a message.
    stored: HashSet<BodyNumber>,
    filters: HashSet<(SessionNumber, Box<str>)>,
    keys: HashSet<(SessionNumber, Key)>,
    in_flight: HashSet<(SessionNumber, PacketId)>,
    received: HashSet<(SessionNumber, PacketId)>,
    topics: HashSet<Box<str>>,
}

impl Importer {
    fn commit(&mut self, engine: &mut dyn Engine) -> Result<(), ToolError> {
        let at = self.header.as_ref().and_then(|header| header.last_commit);
        let at = WallTime(at.unwrap_or_default());
        let committed = engine.commit(&self.ops, at, Durability::Disk);
        committed.map_err(ToolError::Store)?;
        self.ops.clear();
        self.bytes = 0;
        Ok(())
    }

    fn add(&mut self, line: Line) -> Result<(), BadLine> {
        if self.ended {
            return Err(BadLine::new("", "follows the end"));
        }
        if self.header.is_none() != matches!(line, Line::Header(_)) {
            let problem = "the header is the first line and no other";
            return Err(BadLine::new("kind", problem));
        }
        match line {
            Line::Header(header) => self.header(header)?,
            Line::Session(line) => self.session(line)?,
            Line::Subscription(line) => self.subscription(line)?,
            Line::Body(line) => {
                let number = below("body", line.body)?;
                let expires_at = line.expires_at.map(WallTime);
                let message = message(&line.message, expires_at)?;
                let known = self.bodies.insert(number, (message, expires_at));
                once("body", known.is_none())?;
            }
            Line::Message(line) => self.message(line)?,
            Line::InFlight(line) => {
                self.known(line.session)?;
                let new = self.in_flight.insert((line.session, line.packet_id));
                once("packet_id", new)?;
                self.push(match line.key {
                    Some(key) => Op::Sent(line.session, line.packet_id, key),
                    None => Op::Released(line.session, line.packet_id),
                });
            }
            Line::Received(line) => {
                self.known(line.session)?;
                let new = self.received.insert((line.session, line.packet_id));
                once("packet_id", new)?;
                self.push(Op::Received(line.session, line.packet_id));
            }
            Line::Retained(line) => {
                let expires_at = line.expires_at.map(WallTime);
                let message = message(&line.message, expires_at)?;
                once("message.topic", self.topics.insert(message.topic().into()))?;
                let publisher = line.publisher.map(Into::into);
                self.push(Op::Retained(message, expires_at, publisher));
            }
            Line::End(line) => {
                if line.lines != self.lines {
                    let problem = format_args!("there are {} before it", self.lines);
                    return Err(BadLine::new("lines", problem));
                }
                self.ended = true;
            }
        }
        self.lines += 1;
        Ok(())
    }

    fn push(&mut self, op: Op) {
        self.bytes += op.size();
        self.ops.push(op);
    }

    fn finish(&self) -> Result<(), BadLine> {
        if self.ended {
            Ok(())
        } else {
            Err(BadLine::new(
                "",
                "the line of kind \"end\" is missing: the export is not complete",
            ))
        }
    }

    fn header(&mut self, header: Header) -> Result<(), BadLine> {
        if header.format != FORMAT {
            let problem = format_args!("{}; this broker reads {FORMAT}", header.format);
            return Err(BadLine::new("format", problem));
        }
        self.header = Some(header);
        Ok(())
    }

    fn session(&mut self, line: Session) -> Result<(), BadLine> {
        let number = below("session", line.session)?;
        once("session", self.sessions.insert(number))?;
        let client_id: Arc<str> = line.client_id.into();
        // Those that have ended but for their messages have none.
        if !client_id.is_empty() {
            once("client_id", self.clients.insert(Arc::clone(&client_id)))?;
        }
        let will = line.will.map(|will| WillRecord {
            delay: will.delay,
            due: will.due.map(WallTime),
            level: will.level,
            publish: will.publish.0.into(),
        });
        if will
            .as_ref()
            .is_some_and(|will| StoredWill::from_record(will).is_none())
        {
            let problem = "not a PUBLISH of MQTT 5.0 at a known level";
            return Err(BadLine::new("will", problem));
        }
        let owner = match (line.user, line.anonymous) {
            (None, false) => Owner::Anybody,
            (None, true) => Owner::Anonymous,
            (Some(user), false) => Owner::User(user.into()),
            (Some(_), true) => {
                return Err(BadLine::new("anonymous", "it belongs to a user"));
            }
        };
        let record = SessionRecord {
            client_id,
            owner,
            expiry_interval: line.expiry_interval,
            expires_at: line.expires_at.map(WallTime),
            will,
        };
        self.push(Op::Session(number, Box::new(record)));
        Ok(())
    }

    fn subscription(&mut self, line: Subscription) -> Result<(), BadLine> {
        self.known(line.session)?;
        TopicFilter::new(&line.filter).map_err(|error| BadLine::new("filter", error))?;
        let filter: Box<str> = line.filter.into();
        let new = self.filters.insert((line.session, filter.clone()));
        once("filter", new)?;
        let subscription = mqtt_router::Subscription {
            options: SubscriptionOptions {
                qos: line.qos,
                no_local: line.no_local,
                retain_as_published: line.retain_as_published,
                retain_handling: line.retain_handling,
            },
            identifier: line.identifier.map(|identifier| identifier.0),
        };
        if line.owed {
            self.push(Op::Owes(line.session, filter.clone(), true));
        }
        let op = Op::Subscribed(line.session, filter, subscription);
        self.push(op);
        Ok(())
    }

    fn message(&mut self, line: Queued) -> Result<(), BadLine> {
        self.known(line.session)?;
        let key = below("key", line.key)?;
        once("key", self.keys.insert((line.session, key)))?;
        if let Some(group) = &line.group {
            TopicFilter::new(group).map_err(|error| BadLine::new("group", error))?;
        }
        let expires_at = line.expires_at.map(WallTime);
        let message = match (line.body, &line.message) {
            (Some(body), None) => {
                let (message, expires_at) = self
                    .bodies
                    .get(&body)
                    .ok_or_else(|| BadLine::new("body", "no line above has it"))?;
                // The store keeps a body that comes with the first message of it, in one commit.
                let message = Arc::clone(message);
                if self.stored.insert(body) {
                    let op = Op::Body(body, Arc::clone(&message), *expires_at);
                    self.push(op);
                }
                message
            }
            (None, Some(content)) => message(content, expires_at)?,
            _ => return Err(BadLine::new("", "either body or message is needed")),
        };
        let identifiers = line
            .identifiers
            .map(|identifiers| identifiers.into_iter().map(|it| it.0).collect());
        let entry = Entry {
            message,
            expires_at,
            body: line.body,
            qos: line.qos,
            retain: line.retain,
            identifiers,
            group: line.group.map(Into::into),
        };
        let op = Op::Queued(line.session, key, Box::new(entry));
        self.push(op);
        Ok(())
    }

    fn known(&self, session: SessionNumber) -> Result<(), BadLine> {
        if self.sessions.contains(&session) {
            Ok(())
        } else {
            Err(BadLine::new("session", "no line above has it"))
        }
    }
}

fn below(key: &str, number: u64) -> Result<u64, BadLine> {
    if number < NUMBERS {
        Ok(number)
    } else {
        Err(BadLine::new(key, "too large"))
    }
}

fn once(key: &str, new: bool) -> Result<(), BadLine> {
    if new {
        Ok(())
    } else {
        Err(BadLine::new(key, "a line above has it already"))
    }
}

/// The message, if a client could have sent it.
fn message(content: &Content, expires_at: Option<WallTime>) -> Result<Arc<Message>, BadLine> {
    TopicName::new(&content.topic).map_err(|error| BadLine::new("message.topic", error))?;
    let parts = Parts {
        topic: content.topic.as_bytes(),
        properties: &content.properties.0,
        payload: &content.payload.0,
    };
    check_properties(&parts).map_err(|problem| BadLine::new("message.properties", problem))?;
    let expires_at = expires_at.map(|at| CLOCK.time(at));
    Ok(Arc::new(Message::new(parts, content.qos, expires_at)))
}

/// Whether they can be part of every PUBLISH that carries the message.
fn check_properties(parts: &Parts<'_>) -> Result<(), String> {
    if parts.properties.is_empty() {
        return Ok(());
    }
    let mut packet = Vec::new();
    let bare = Parts {
        payload: b"",
        ..*parts
    };
    bare.encode(
        &Envelope::at_most_once(Layout::Properties, false, None),
        &mut packet,
    );
    let header = FixedHeader::parse(&packet).map_err(|error| error.to_string())?;
    let header = header.ok_or("too long")?;
    let body = packet.get(usize::from(header.header_len)..);
    let publish = Publish::decode(header.flags, body.unwrap_or_default(), ProtocolVersion::V5)
        .map_err(|error| error.to_string())?;
    let properties = publish.properties;
    if publish.qos == QoS::AtMostOnce
        && publish.payload.is_empty()
        && properties.message_expiry_interval.is_none()
        && properties.topic_alias.is_none()
        && properties.subscription_identifiers.is_empty()
    {
        Ok(())
    } else {
        Err("an expiry interval, a topic alias or a subscription identifier among them".to_owned())
    }
}
