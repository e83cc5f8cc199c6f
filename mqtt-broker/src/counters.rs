//! What the broker counts: every message that did not reach a receiver, with the reason, and what its store
//! wrote.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::auth::{Denial, Denials};

/// Why a message did not reach a receiver. Whoever drops a message must name one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The receiver's unsent bytes passed their bound (QoS 0).
    OutboxFull,
    /// The receiver's session holds as much as it may (QoS 1 and 2).
    QueueFull,
    /// The Message Expiry Interval passed before delivery began.
    Expired,
    /// The packet would be larger than the receiver's Maximum Packet Size.
    TooLarge,
    /// QoS 0 for a receiver that is not connected.
    Offline,
    /// The receiver's session ended while the message waited for it.
    SessionEnded,
    /// The receiver published it itself, and its subscriptions have No Local.
    NoLocal,
    /// No subscription matched.
    NoSubscription,
    /// No member of a shared group could take it.
    NoMember,
    /// The receiver's connection could not carry it.
    Unsendable,
    /// It is not retained: retained messages take as much as they may.
    RetainedFull,
    /// It is not retained: it is larger than a retained message may be.
    RetainedTooLarge,
    /// Its topic has more levels than a topic may have.
    TooManyLevels,
    /// It waited for a client that may not receive it any more, or is retained and this client may not
    /// receive it.
    NotAuthorized,
    /// The directory of the store takes as much as it may.
    DirectoryFull,
    /// The disk of the store is full, but for its reserve.
    DiskFull,
}

impl DropReason {
    /// Every reason, in the order in which counters are printed.
    pub const ALL: [Self; 16] = [
        Self::OutboxFull,
        Self::QueueFull,
        Self::Expired,
        Self::TooLarge,
        Self::Offline,
        Self::SessionEnded,
        Self::NoLocal,
        Self::NoSubscription,
        Self::NoMember,
        Self::Unsendable,
        Self::RetainedFull,
        Self::RetainedTooLarge,
        Self::TooManyLevels,
        Self::NotAuthorized,
        Self::DirectoryFull,
        Self::DiskFull,
    ];

    /// The name under which the counter is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::OutboxFull => "outbox full",
            Self::QueueFull => "queue full",
            Self::Expired => "expired",
            Self::TooLarge => "too large",
            Self::Offline => "offline",
            Self::SessionEnded => "session ended",
            Self::NoLocal => "no local",
            Self::NoSubscription => "no subscription",
            Self::NoMember => "no group member",
            Self::Unsendable => "unsendable",
            Self::RetainedFull => "retained full",
            Self::RetainedTooLarge => "retained too large",
            Self::TooManyLevels => "too many levels",
            Self::NotAuthorized => "not authorized",
            Self::DirectoryFull => "directory full",
            Self::DiskFull => "disk full",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a connection was not served. Each stands for a limit, or for input that is no MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalReason {
    /// As many clients are connected as may be.
    TooManyConnections,
    /// The same of one listener.
    ListenerFull,
    /// The same of one address.
    AddressFull,
    /// Its address connects faster than it may.
    TooFast,
    /// It was slower than those that came after it, which needed its place.
    PushedOut,
    /// It did not come to the end of CONNECT in time.
    TimedOut,
    /// It should have come from a proxy that is trusted.
    UntrustedProxy,
    /// It should have begun with a header of the PROXY protocol.
    Proxy,
    /// Its TLS handshake failed.
    Tls,
    /// It opened no WebSocket.
    WebSocket,
    /// The topic of its will has more levels than a topic may have.
    WillTooDeep,
    /// Its address, its client identifier or its user name is banned.
    Banned,
    /// Its first packet was no CONNECT, or a malformed one.
    NoConnect,
}

impl RefusalReason {
    /// Every reason, in the order in which counters are printed.
    pub const ALL: [Self; 13] = [
        Self::TooManyConnections,
        Self::ListenerFull,
        Self::AddressFull,
        Self::TooFast,
        Self::PushedOut,
        Self::TimedOut,
        Self::UntrustedProxy,
        Self::Proxy,
        Self::Tls,
        Self::WebSocket,
        Self::WillTooDeep,
        Self::Banned,
        Self::NoConnect,
    ];

    /// The reason with its own name.
    pub(crate) fn in_words(self) -> (Self, String) {
        (self, self.name().to_owned())
    }

    /// The name under which the counter is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooManyConnections => "too many connections",
            Self::ListenerFull => "too many connections of the listener",
            Self::AddressFull => "too many connections of the address",
            Self::TooFast => "address connects too fast",
            Self::PushedOut => "pushed out before CONNECT by newer connections",
            Self::TimedOut => "no CONNECT in time",
            Self::UntrustedProxy => "not from a trusted proxy",
            Self::Proxy => "no PROXY header",
            Self::Tls => "TLS handshake failed",
            Self::WebSocket => "WebSocket handshake failed",
            Self::WillTooDeep => "topic of the will has too many levels",
            Self::Banned => "banned",
            Self::NoConnect => "no CONNECT",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counters of one broker, readable at any time.
#[derive(Debug, Default)]
pub struct Counters {
    dropped: [AtomicU64; DropReason::ALL.len()],
    refused: [AtomicU64; RefusalReason::ALL.len()],
    throttled: AtomicU64,
    subscriptions_refused: AtomicU64,
    banned: AtomicU64,
    denials: Denials,
    asked: AtomicU64,
    asks_failed: AtomicU64,
    commits: [Commits; SIZES],
    records: AtomicU64,
}

/// Sizes of commits that are counted apart: with from 1, 2, 4, 8... changes.
const SIZES: usize = 20;

/// The commits of about one size.
#[derive(Debug, Default)]
struct Commits {
    count: AtomicU64,
    changes: AtomicU64,
}

impl Counters {
    /// Messages dropped for `reason` since the start, counted once for each receiver.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Ordering::Relaxed)
    }

    /// Connections that were not served for `reason` since the start.
    pub fn refused(&self, reason: RefusalReason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// How many addresses were banned for their failures.
    pub fn banned(&self) -> u64 {
        self.banned.load(Ordering::Relaxed)
    }

    /// How many subscriptions were refused since they were beyond a limit: of their number, their bytes or the
    /// levels of their filter.
    pub fn subscriptions_refused(&self) -> u64 {
        self.subscriptions_refused.load(Ordering::Relaxed)
    }

    /// How often a client was not read for a while because it sent faster than it may.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// How many requests were made to services that are asked by HTTP.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// How many of them had no answer that means anything, or no turn in time.
    pub fn asks_failed(&self) -> u64 {
        self.asks_failed.load(Ordering::Relaxed)
    }

    /// How often clients were not let do this since the start.
    pub fn denied(&self, what: Denial) -> u64 {
        self.denials.get(what)
    }

    /// Every counter that is not zero, one a line.
    #[must_use]
    pub fn report(&self) -> String {
        let refused = RefusalReason::ALL
            .iter()
            .map(|&reason| (format!("refused, {reason}"), self.refused(reason)));
        let throttled = [
            ("paused, sends too fast".to_owned(), self.throttled()),
            (
                "subscriptions beyond a limit".to_owned(),
                self.subscriptions_refused(),
            ),
            ("addresses banned".to_owned(), self.banned()),
            ("asked of the service".to_owned(), self.asked()),
            (
                "asked of the service, failed".to_owned(),
                self.asks_failed(),
            ),
        ];
        let others = refused
            .chain(throttled)
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| format!("{name}: {count}\n"));
        let lines = DropReason::ALL
            .iter()
            .filter_map(|&reason| match self.dropped(reason) {
                0 => None,
                count => Some(format!("dropped, {reason}: {count}\n")),
            });
        let denied = Denial::ALL
            .iter()
            .filter_map(|&what| match self.denied(what) {
                0 => None,
                count => Some(format!("denied, {what}: {count}\n")),
            });
        let mut report: String = lines.chain(others).chain(denied).collect();
        for (size, commits) in self.commits.iter().enumerate() {
            let count = commits.count.load(Ordering::Relaxed);
            if count > 0 {
                let changes = commits.changes.load(Ordering::Relaxed);
                let least = 1_u64 << size;
                _ = writeln!(
                    report,
                    "store, commits of {least} or more changes: {count}, with {changes}"
                );
            }
        }
        match self.records.load(Ordering::Relaxed) {
            0 => {}
            records => _ = writeln!(report, "store, records written: {records}"),
        }
        report
    }

    pub(crate) fn count_commit(&self, changes: usize, records: usize) {
        let size = changes.max(1).ilog2() as usize;
        if let Some(commits) = self.commits.get(size.min(SIZES - 1)) {
            commits.count.fetch_add(1, Ordering::Relaxed);
            commits.changes.fetch_add(changes as u64, Ordering::Relaxed);
        }
        self.records.fetch_add(records as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_refusal(&self, reason: RefusalReason) {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_subscription_refused(&self) {
        self.subscriptions_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ban(&self) {
        self.banned.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_asked(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ask_failed(&self) {
        self.asks_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_denial(&self, what: Denial) {
        self.denials.count(what);
    }

    pub(crate) fn count_drop(&self, reason: DropReason, messages: u64) {
        if messages > 0 {
            self.dropped[reason as usize].fetch_add(messages, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_reported_by_their_size() {
        let counters = Counters::default();
        assert_eq!(counters.report(), "");
        for changes in [0, 1, 4, 7, 1 << 30] {
            counters.count_commit(changes, 1);
        }
        let report = "store, commits of 1 or more changes: 2, with 1\n\
            store, commits of 4 or more changes: 2, with 11\n\
            store, commits of 524288 or more changes: 1, with 1073741824\n\
            store, records written: 5\n";
        assert_eq!(counters.report(), report);
    }
}
