//! What is in a store, in numbers.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use crate::message::Message;
use crate::shown::Shown;
use crate::store::{Contents, STORE_FORMAT, StoredSession};

/// One line.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Session(&'a Session),
    Totals(&'a Totals),
}

/// Times are milliseconds since the Unix epoch.
#[derive(Debug, Serialize)]
struct Session {
    client_id: String,
    /// Seconds; `None`: for ever.
    expiry_interval: Option<u32>,
    expires_at: Option<u64>,
    subscriptions: usize,
    /// Messages that wait or are in flight, and the bytes of their topics, properties and payloads.
    queued: usize,
    queued_bytes: usize,
    /// QoS 2 messages on their way to the client.
    in_flight: usize,
    /// Identifiers of QoS 2 messages from the client.
    received: usize,
    will: Option<Will>,
}

#[derive(Debug, Serialize)]
struct Will {
    /// Seconds.
    delay: u32,
    due: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Totals {
    sessions: usize,
    subscriptions: usize,
    queued: usize,
    queued_bytes: usize,
    retained: usize,
    retained_bytes: usize,
    /// Damaged records.
    skipped: u64,
    /// Bytes.
    size_on_disk: u64,
    format: u16,
}

/// What a store holds.
#[derive(Debug)]
pub(super) struct Summary {
    /// By client identifier.
    sessions: Vec<Session>,
    totals: Totals,
}

impl Summary {
    pub(super) fn new(contents: &Contents, size_on_disk: u64) -> Self {
        let mut sessions: Vec<_> = contents.sessions.iter().map(Session::new).collect();
        sessions.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        let sum = |of: fn(&Session) -> usize| sessions.iter().map(of).sum();
        let totals = Totals {
            sessions: sessions.len(),
            subscriptions: sum(|session| session.subscriptions),
            queued: sum(|session| session.queued),
            queued_bytes: sum(|session| session.queued_bytes),
            retained: contents.retained.len(),
            retained_bytes: contents.retained.iter().map(|it| bytes(&it.0)).sum(),
            skipped: contents.skipped,
            size_on_disk,
            format: STORE_FORMAT,
        };
        Self { sessions, totals }
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let sessions = self.sessions.iter().map(Line::Session);
        for line in sessions.chain([Line::Totals(&self.totals)]) {
            serde_json::to_writer(&mut *out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    pub(super) fn write_table(&self, out: &mut dyn Write) -> io::Result<()> {
        if !self.sessions.is_empty() {
            let rows = self.sessions.iter().map(Session::row);
            write_aligned(out, HEADINGS, rows.collect())?;
            writeln!(out)?;
        }
        let totals = &self.totals;
        writeln!(out, "sessions       {}", totals.sessions)?;
        writeln!(out, "subscriptions  {}", totals.subscriptions)?;
        let (count, bytes) = (totals.queued, totals.queued_bytes);
        writeln!(out, "queued         {count} ({bytes} bytes)")?;
        let (count, bytes) = (totals.retained, totals.retained_bytes);
        writeln!(out, "retained       {count} ({bytes} bytes)")?;
        if totals.skipped > 0 {
            writeln!(out, "damaged        {}", totals.skipped)?;
        }
        writeln!(out, "on disk        {} bytes", totals.size_on_disk)?;
        writeln!(out, "format         {}", totals.format)
    }
}

const HEADINGS: [&str; COLUMNS] = [
    "CLIENT",
    "EXPIRY",
    "EXPIRES AT",
    "SUBSCRIPTIONS",
    "QUEUED",
    "BYTES",
    "IN FLIGHT",
    "RECEIVED",
    "WILL",
];
const COLUMNS: usize = 9;

impl Session {
    fn new(stored: &StoredSession) -> Self {
        let record = &stored.record;
        let entries = stored.entries.iter();
        Self {
            client_id: record.client_id.as_ref().to_owned(),
            expiry_interval: Some(record.expiry_interval).filter(|it| *it != u32::MAX),
            expires_at: record.expires_at.map(|at| at.0),
            subscriptions: stored.subscriptions.len(),
            queued: stored.queued(),
            queued_bytes: entries.map(|(_, entry)| bytes(&entry.message)).sum(),
            in_flight: stored.sent.len() + stored.released.len(),
            received: stored.received.len(),
            will: record.will.as_ref().map(|will| Will {
                delay: will.delay,
                due: will.due.map(|at| at.0),
            }),
        }
    }

    fn row(&self) -> [String; COLUMNS] {
        let none = || "-".to_owned();
        let expiry = |seconds| format!("{seconds} s");
        [
            Shown(&self.client_id).to_string(),
            self.expiry_interval.map_or("never".into(), expiry),
            self.expires_at.map_or_else(none, date),
            self.subscriptions.to_string(),
            self.queued.to_string(),
            self.queued_bytes.to_string(),
            self.in_flight.to_string(),
            self.received.to_string(),
            self.will.as_ref().map_or_else(none, |will| match will.due {
                Some(due) => date(due),
                None => format!("after {} s", will.delay),
            }),
        ]
    }
}

fn bytes(message: &Message) -> usize {
    let parts = message.parts();
    parts.topic.len() + parts.properties.len() + parts.payload.len()
}

/// As RFC 3339 says, to the second.
fn date(millis: u64) -> String {
    let seconds = i64::try_from(millis / 1_000).ok();
    let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{millis} ms"), |time| time.to_string())
}

fn write_aligned(
    out: &mut dyn Write,
    headings: [&str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
) -> io::Result<()> {
    let mut widths = headings.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let rows = core::iter::once(headings.map(str::to_owned)).chain(rows);
    for row in rows {
        let cells = row.iter().zip(widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}  "))
            .collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
