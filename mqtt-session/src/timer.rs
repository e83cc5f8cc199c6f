//! Keep alive of both ends: stored instants that are compared when the timer fires, never re-armed.

use alloc::boxed::Box;
use core::time::Duration;

use crate::{Time, Timeout};

/// When the last packets came and went.
#[derive(Debug, Clone)]
pub(crate) struct KeepAlive {
    /// In seconds; 0: none.
    interval: u16,
    received: Time,
    /// Reading is paused since then: what the peer sends is not seen.
    paused: Option<Time>,
    /// What only a client has; boxed, since it is servers that have many connections.
    client: Option<Box<Pinging>>,
}

/// The part of a client, which has to be heard.
#[derive(Debug, Clone)]
struct Pinging {
    /// PINGREQ is to be written.
    is_due: bool,
    sent: Time,
    /// PINGREQ waits for its answer until then.
    answer_due: Option<Time>,
    /// How long to wait for PINGRESP.
    timeout: Option<Duration>,
}

impl KeepAlive {
    pub(crate) const fn server(interval: u16, now: Time) -> Self {
        Self {
            interval,
            received: now,
            paused: None,
            client: None,
        }
    }

    pub(crate) fn client(interval: u16, timeout: Option<Duration>, now: Time) -> Self {
        let pinging = Pinging {
            is_due: false,
            sent: now,
            answer_due: None,
            timeout,
        };
        Self {
            client: Some(Box::new(pinging)),
            ..Self::server(interval, now)
        }
    }

    /// A client learns the interval in force.
    pub(crate) const fn set_interval(&mut self, interval: u16) {
        self.interval = interval;
    }

    const fn interval(&self) -> Option<Duration> {
        match self.interval {
            0 => None,
            secs => Some(Duration::from_secs(secs as u64)),
        }
    }

    pub(crate) const fn received(&mut self, now: Time) {
        self.received = now;
    }

    pub(crate) fn sent(&mut self, now: Time) {
        if let Some(client) = &mut self.client {
            client.sent = now;
        }
    }

    pub(crate) fn answered(&mut self) {
        if let Some(client) = &mut self.client {
            client.answer_due = None;
        }
    }

    pub(crate) fn pause(&mut self, now: Time) {
        self.paused.get_or_insert(now);
    }

    /// The time of the pause does not count.
    pub(crate) fn resume(&mut self, now: Time) {
        if let Some(since) = self.paused.take() {
            let pause = now.saturating_since(since);
            self.received = self.received + pause;
            if let Some(client) = &mut self.client {
                client.answer_due = client.answer_due.map(|due| due + pause);
            }
        }
    }

    /// Whether PINGREQ is to be written now.
    pub(crate) fn is_ping_due(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_due)
    }

    /// The caller wants a PINGREQ, whatever the keep alive. Servers send none.
    pub(crate) fn ping(&mut self) {
        if let Some(client) = &mut self.client {
            client.is_due = true;
        }
    }

    /// PINGREQ was written.
    pub(crate) fn pinged(&mut self, now: Time) {
        let interval = self.interval();
        if let Some(client) = &mut self.client {
            client.is_due = false;
            if client.answer_due.is_none() {
                client.answer_due = client.timeout.or(interval).map(|timeout| now + timeout);
            }
        }
    }

    /// When the peer counts as gone.
    fn deadline(&self) -> Option<Time> {
        match &self.client {
            _ if self.paused.is_some() => None,
            None => Some(self.received + self.interval()? * 3 / 2),
            Some(client) => client.answer_due,
        }
    }

    /// When a client has to say something. None while a PINGREQ waits to be written.
    fn ping_at(&self) -> Option<Time> {
        let client = self.client.as_ref().filter(|client| !client.is_due)?;
        Some(client.sent + self.interval()?)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        match (self.deadline(), self.ping_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) -> Timeout {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            return Timeout::KeepAlive;
        }
        if self.ping_at().is_some_and(|at| at <= now) {
            self.ping();
            return Timeout::Transmit;
        }
        Timeout::Nothing
    }
}
