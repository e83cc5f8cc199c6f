//! What the broker counts: every message that did not reach a receiver, with the reason, and what its store
//! wrote.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};

use mqtt_codec::ReasonCode;

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
    /// Memory is short, and the receiver is slow (QoS 0).
    MemoryFull,
}

impl DropReason {
    /// Every reason, in the order in which counters are printed.
    pub const ALL: [Self; 17] = [
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
        Self::MemoryFull,
    ];

    /// Whether it is a limit of the broker: those are logged as well, from time to time.
    pub(crate) fn is_limit(self) -> bool {
        match self {
            Self::OutboxFull
            | Self::QueueFull
            | Self::RetainedFull
            | Self::RetainedTooLarge
            | Self::DirectoryFull
            | Self::DiskFull
            | Self::MemoryFull => true,
            // Too many levels are logged where they are found.
            Self::TooManyLevels
            | Self::Expired
            | Self::TooLarge
            | Self::Offline
            | Self::SessionEnded
            | Self::NoLocal
            | Self::NoSubscription
            | Self::NoMember
            | Self::Unsendable
            | Self::NotAuthorized => false,
        }
    }

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
            Self::MemoryFull => "memory full",
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
    /// The QoS of its will, or that it is retained, is not offered.
    WillNotOffered,
    /// Its address, its client identifier or its user name is banned.
    Banned,
    /// Its first packet was no CONNECT, or a malformed one.
    NoConnect,
    /// After the handshakes and before CONNECT, what should have been frames of WebSocket or records of TLS was none.
    BrokenFrames,
    /// Memory is short.
    MemoryFull,
}

impl RefusalReason {
    /// Every reason, in the order in which counters are printed.
    pub const ALL: [Self; 16] = [
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
        Self::WillNotOffered,
        Self::Banned,
        Self::NoConnect,
        Self::BrokenFrames,
        Self::MemoryFull,
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
            Self::WillNotOffered => "the will uses what is not offered",
            Self::Banned => "banned",
            Self::NoConnect => "no CONNECT",
            Self::BrokenFrames => "broken frames before CONNECT",
            Self::MemoryFull => "memory full",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why the broker ended a connection that it had accepted. Each stands for a limit that the client was beyond, or for
/// something that it may not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// It sent, or asked for, a packet that is larger than packets may be.
    PacketTooLarge,
    /// It had more messages unacknowledged than it may.
    ReceiveMaximum,
    /// It used a topic alias that it has not set, or that is higher than it may be.
    TopicAlias,
    /// It used what the broker has told it not to offer: a QoS, RETAIN, a kind of subscription.
    NotOffered,
    /// It sent a malformed packet.
    Malformed,
    /// It broke the protocol in another way.
    Protocol,
    /// It did what it may not do.
    NotAuthorized,
    /// Nothing came within one and a half times its keep alive.
    KeepAlive,
    /// It read nothing for the write timeout.
    WriteStalled,
    /// What should have been frames of WebSocket or records of TLS was none.
    BrokenFrames,
    /// Another connection came with its client identifier.
    TakenOver,
    /// A new configuration does not let it in any more, or its token has ended.
    NoLongerAdmitted,
    /// Its address, its client identifier or its user name was banned.
    Banned,
}

impl EndReason {
    /// Every reason, in the order in which counters are printed.
    pub const ALL: [Self; 13] = [
        Self::PacketTooLarge,
        Self::ReceiveMaximum,
        Self::TopicAlias,
        Self::NotOffered,
        Self::Malformed,
        Self::Protocol,
        Self::NotAuthorized,
        Self::KeepAlive,
        Self::WriteStalled,
        Self::BrokenFrames,
        Self::TakenOver,
        Self::NoLongerAdmitted,
        Self::Banned,
    ];

    /// What a violation is counted as that a client is told about with this reason code.
    pub(crate) fn of(code: ReasonCode) -> Self {
        match code {
            ReasonCode::PACKET_TOO_LARGE => Self::PacketTooLarge,
            ReasonCode::RECEIVE_MAXIMUM_EXCEEDED => Self::ReceiveMaximum,
            ReasonCode::TOPIC_ALIAS_INVALID => Self::TopicAlias,
            ReasonCode::QOS_NOT_SUPPORTED
            | ReasonCode::RETAIN_NOT_SUPPORTED
            | ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
            | ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED
            | ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED => Self::NotOffered,
            ReasonCode::MALFORMED_PACKET => Self::Malformed,
            ReasonCode::NOT_AUTHORIZED | ReasonCode::BAD_USER_NAME_OR_PASSWORD => {
                Self::NotAuthorized
            }
            _ => Self::Protocol,
        }
    }

    /// The name under which the counter is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::PacketTooLarge => "packet too large",
            Self::ReceiveMaximum => "more unacknowledged than receive maximum",
            Self::TopicAlias => "topic alias",
            Self::NotOffered => "uses what is not offered",
            Self::Malformed => "malformed packet",
            Self::Protocol => "protocol error",
            Self::NotAuthorized => "not authorized",
            Self::KeepAlive => "keep alive",
            Self::WriteStalled => "reads nothing",
            Self::BrokenFrames => "broken frames",
            Self::TakenOver => "taken over",
            Self::NoLongerAdmitted => "not let in any more",
            Self::Banned => "banned",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Counters of one broker, readable at any time.
#[derive(Debug, Default)]
pub struct Counters {
    dropped: [AtomicU64; DropReason::ALL.len()],
    refused: [AtomicU64; RefusalReason::ALL.len()],
    ended: [AtomicU64; EndReason::ALL.len()],
    throttled: AtomicU64,
    subscriptions_refused: AtomicU64,
    banned: AtomicU64,
    sessions_expired: AtomicU64,
    denials: Denials,
    asked: AtomicU64,
    asks_failed: AtomicU64,
    /// When the next line of the log about a limit may be written, in seconds since the broker started.
    next_lines: [AtomicU64; DropReason::ALL.len()],
    memory_steps: AtomicU64,
    held: AtomicU64,
    shed: AtomicU64,
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

    /// Accepted connections that the broker ended for `reason` since the start.
    pub fn ended(&self, reason: EndReason) -> u64 {
        self.ended[reason as usize].load(Ordering::Relaxed)
    }

    /// How many addresses were banned for their failures.
    pub fn banned(&self) -> u64 {
        self.banned.load(Ordering::Relaxed)
    }

    /// How many sessions ended since their clients were away for too long.
    pub fn sessions_expired(&self) -> u64 {
        self.sessions_expired.load(Ordering::Relaxed)
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

    /// How often the broker had to give up more since memory was short; see [`Config::memory`](crate::Config::memory).
    pub fn memory_steps(&self) -> u64 {
        self.memory_steps.load(Ordering::Relaxed)
    }

    /// How often a client was not read for a second after it published since memory was short.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// How many clients were disconnected since memory was short.
    pub fn shed(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
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
        let ended = EndReason::ALL
            .iter()
            .map(|&reason| (format!("ended, {reason}"), self.ended(reason)));
        let throttled = [
            ("paused, sends too fast".to_owned(), self.throttled()),
            (
                "subscriptions beyond a limit".to_owned(),
                self.subscriptions_refused(),
            ),
            ("addresses banned".to_owned(), self.banned()),
            ("sessions expired".to_owned(), self.sessions_expired()),
            ("memory short".to_owned(), self.memory_steps()),
            ("paused, memory short".to_owned(), self.held()),
            ("disconnected, memory short".to_owned(), self.shed()),
            ("asked of the service".to_owned(), self.asked()),
            (
                "asked of the service, failed".to_owned(),
                self.asks_failed(),
            ),
        ];
        let others = refused
            .chain(ended)
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

    /// Whether a line may be written about messages dropped for this reason: one in ten seconds. `now`: seconds since
    /// the broker started.
    pub(crate) fn may_log(&self, reason: DropReason, now: u64) -> bool {
        const PAUSE: u64 = 10;
        let next = &self.next_lines[reason as usize];
        let due = next.load(Ordering::Relaxed);
        now >= due
            && next
                .compare_exchange(due, now + PAUSE, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
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

    pub(crate) fn count_end(&self, reason: EndReason) {
        self.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_subscription_refused(&self) {
        self.subscriptions_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_ban(&self) {
        self.banned.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_session_expired(&self) {
        self.sessions_expired.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_memory_step(&self) {
        self.memory_steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_held(&self) {
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
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
