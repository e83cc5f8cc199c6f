//! From a store to lines.

use std::collections::HashSet;
use std::io::{self, Write};

use super::line::{
    Body, Bytes, Content, End, FORMAT, Header, Identifier, InFlight, Line, Queued, Received,
    Retained, Session, Subscription, Will,
};
use super::wall;
use crate::auth::Owner;
use crate::message::Message;
use crate::store::{BodyNumber, Contents, STORE_FORMAT, StoredSession, WallTime};

/// Writes everything that was read with [`CLOCK`](super::CLOCK).
pub(super) fn write(
    contents: &Contents,
    last_commit: Option<WallTime>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut exporter = Exporter {
        out,
        lines: 0,
        bodies: HashSet::new(),
    };
    exporter.put(&Line::Header(Header {
        format: FORMAT,
        store_format: STORE_FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        last_commit: last_commit.map(|at| at.0),
        skipped: contents.skipped,
    }))?;
    for session in &contents.sessions {
        exporter.session(session)?;
    }
    for (message, publisher) in &contents.retained {
        exporter.put(&Line::Retained(Retained {
            expires_at: wall(message),
            publisher: publisher.as_deref().map(str::to_owned),
            message: content(message),
        }))?;
    }
    let lines = exporter.lines;
    exporter.put(&Line::End(End { lines }))?;
    exporter.out.flush()
}

struct Exporter<'w> {
    out: &'w mut dyn Write,
    lines: u64,
    /// Those that were written.
    bodies: HashSet<BodyNumber>,
}

impl Exporter<'_> {
    fn put(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.lines += 1;
        self.out.write_all(b"\n")
    }

    fn session(&mut self, stored: &StoredSession) -> io::Result<()> {
        let session = stored.number;
        let record = &stored.record;
        self.put(&Line::Session(Session {
            session,
            client_id: record.client_id.as_ref().to_owned(),
            user: record.owner.user().map(|user| user.as_ref().to_owned()),
            anonymous: record.owner == Owner::Anonymous,
            expiry_interval: record.expiry_interval,
            expires_at: record.expires_at.map(|at| at.0),
            will: record.will.as_ref().map(|will| Will {
                delay: will.delay,
                due: will.due.map(|at| at.0),
                level: will.level,
                publish: Bytes(will.publish.to_vec()),
            }),
        }))?;
        for (filter, subscription) in &stored.subscriptions {
            let options = subscription.options;
            self.put(&Line::Subscription(Subscription {
                session,
                filter: filter.as_ref().to_owned(),
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                retain_handling: options.retain_handling,
                identifier: subscription.identifier.map(Identifier),
                owed: stored.owed.contains(filter),
            }))?;
        }
        for (key, entry) in &stored.entries {
            if let Some(body) = entry.body
                && self.bodies.insert(body)
            {
                self.put(&Line::Body(Body {
                    body,
                    expires_at: wall(&entry.message),
                    message: content(&entry.message),
                }))?;
            }
            let identifiers = entry.identifiers.as_deref();
            self.put(&Line::Message(Queued {
                session,
                key: *key,
                qos: entry.qos,
                retain: entry.retain,
                expires_at: entry.expires_at.map(|at| at.0),
                identifiers: identifiers
                    .map(|identifiers| identifiers.iter().copied().map(Identifier).collect()),
                group: entry.group.as_deref().map(str::to_owned),
                body: entry.body,
                message: entry.body.is_none().then(|| content(&entry.message)),
            }))?;
        }
        let sent = stored.sent.iter().map(|&(id, key)| (id, Some(key)));
        let released = stored.released.iter().map(|&id| (id, None));
        for (packet_id, key) in sent.chain(released) {
            self.put(&Line::InFlight(InFlight {
                session,
                packet_id,
                key,
            }))?;
        }
        for &packet_id in &stored.received {
            self.put(&Line::Received(Received { session, packet_id }))?;
        }
        Ok(())
    }
}

fn content(message: &Message) -> Content {
    let parts = message.parts();
    Content {
        topic: message.topic().to_owned(),
        qos: message.qos,
        properties: Bytes(parts.properties.to_vec()),
        payload: Bytes(parts.payload.to_vec()),
    }
}
