//! Keep alive of both ends: stored instants that are compared when the timer fires, never re-armed.

use core::time::Duration;

use crate::{Role, Time, Timeout};

/// When the last packets came and went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    role: Role,
    ping_due: bool,
    /// In seconds; 0: none.
    interval: u16,
    received: Time,
    sent: Time,
    /// Reading is paused since then: what the peer sends is not seen.
    paused: Option<Time>,
    /// PINGREQ waits for its answer until then.
    answer_due: Option<Time>,
    /// How long to wait for PINGRESP.
    ping_timeout: Option<Duration>,
}

impl KeepAlive {
    pub(crate) const fn new(
        role: Role,
        interval: u16,
        ping_timeout: Option<Duration>,
        now: Time,
    ) -> Self {
        Self {
            role,
            ping_due: false,
            interval,
            received: now,
            sent: now,
            paused: None,
            answer_due: None,
            ping_timeout,
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

    pub(crate) const fn sent(&mut self, now: Time) {
        self.sent = now;
    }

    pub(crate) const fn answered(&mut self) {
        self.answer_due = None;
    }

    pub(crate) fn pause(&mut self, now: Time) {
        self.paused.get_or_insert(now);
    }

    /// The time of the pause does not count.
    pub(crate) fn resume(&mut self, now: Time) {
        if let Some(since) = self.paused.take() {
            let pause = now.saturating_since(since);
            self.received = self.received + pause;
            self.answer_due = self.answer_due.map(|due| due + pause);
        }
    }

    /// Whether PINGREQ is to be written now.
    pub(crate) const fn ping_due(&self) -> bool {
        self.ping_due
    }

    /// The caller wants a PINGREQ, whatever the keep alive.
    pub(crate) const fn ping(&mut self) {
        self.ping_due = true;
    }

    /// PINGREQ was written.
    pub(crate) fn pinged(&mut self, now: Time) {
        self.ping_due = false;
        let timeout = self.ping_timeout.or(self.interval());
        if self.answer_due.is_none() {
            self.answer_due = timeout.map(|timeout| now + timeout);
        }
    }

    /// When the peer counts as gone.
    fn deadline(&self) -> Option<Time> {
        if self.paused.is_some() {
            return None;
        }
        match self.role {
            Role::Server => self
                .interval()
                .map(|interval| self.received + interval * 3 / 2),
            Role::Client => self.answer_due,
        }
    }

    /// When a client has to say something. None while a PINGREQ waits to be written.
    fn ping_at(&self) -> Option<Time> {
        match self.role {
            Role::Client if !self.ping_due => self.interval().map(|interval| self.sent + interval),
            _ => None,
        }
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
            self.ping_due = true;
            return Timeout::Transmit;
        }
        Timeout::Nothing
    }
}
