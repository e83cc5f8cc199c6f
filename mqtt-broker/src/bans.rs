//! Who is not let in: those whom the configuration names, and for a while addresses that have failed often.

use core::net::{IpAddr, Ipv6Addr};
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use crate::transport::Network;

/// Addresses that are remembered, at most.
const REMEMBERED: usize = 16_384;

/// Who is not let in, and when an address becomes one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BanRules {
    /// Addresses and networks; their connections are closed without an answer. Those that are there when
    /// [`Broker::reconfigure`](crate::Broker::reconfigure) names them end with 0x98, as those of
    /// clients and users: 0x8A is for CONNACK alone.
    pub addresses: Vec<Network>,
    /// Client identifiers, as clients write them; refused with 0x8A.
    pub client_ids: Vec<String>,
    /// User names; refused with 0x8A.
    pub users: Vec<String>,
    /// Failures of an address within [`window`](Self::window) for which it is banned: wrong passwords, handshakes of TLS
    /// and WebSocket that fail, and first packets that are no CONNECT. Of IPv6 the network of 64 bits counts. Default:
    /// no address is banned for its failures.
    pub failures: Option<NonZeroU32>,
    /// Time in which failures count together. Default 1 minute.
    pub window: Duration,
    /// Time that such a ban lasts. Default 10 minutes.
    pub duration: Duration,
}

impl Default for BanRules {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            client_ids: Vec::new(),
            users: Vec::new(),
            failures: None,
            window: Duration::from_secs(60),
            duration: Duration::from_secs(600),
        }
    }
}

impl BanRules {
    /// Whether a client that calls itself so is named.
    pub(crate) fn names_client(&self, client_id: &str, user: Option<&str>) -> bool {
        self.client_ids.iter().any(|one| one == client_id)
            || user.is_some_and(|user| self.users.iter().any(|one| one == user))
    }

    /// Whether an address is named, or its network.
    pub(crate) fn names_address(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.addresses.iter().any(|one| one.contains(address)))
    }
}

/// The failures of an address.
#[derive(Debug)]
struct Record {
    failures: u32,
    /// When the first of them was.
    since: Instant,
    banned_until: Option<Instant>,
}

/// Addresses that have failed lately.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    /// How often the rules have changed.
    changes: AtomicU64,
    records: Mutex<HashMap<IpAddr, Record, RandomState>>,
}

/// Who has one address of IPv6 has the others of its network as well.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Bans {
    /// Which rules hold: another number than before when they have changed, and never 0.
    pub(crate) fn version(&self) -> u64 {
        1 + self.changes.load(Ordering::Acquire)
    }

    /// Takes note that the rules have changed.
    pub(crate) fn rules_have_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether connections from this address are closed.
    pub(crate) fn bans(&self, address: Option<IpAddr>, rules: &BanRules) -> bool {
        if rules.names_address(address) {
            return true;
        }
        let Some(address) = address else { return false };
        if rules.failures.is_none() {
            return false;
        }
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(&key(address));
        let until = record.and_then(|record| record.banned_until);
        until.is_some_and(|until| until > Instant::now())
    }

    /// Takes note of a failure; returns whether the address is banned for it from now on.
    pub(crate) fn note_failure(&self, address: Option<IpAddr>, rules: &BanRules) -> bool {
        let (Some(address), Some(most)) = (address, rules.failures) else {
            return false;
        };
        let now = Instant::now();
        let holds = |record: &Record| match record.banned_until {
            Some(until) => until > now,
            None => now.duration_since(record.since) < rules.window,
        };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let address = key(address);
        if records.len() >= REMEMBERED && !records.contains_key(&address) {
            records.retain(|_, record| holds(record));
            if records.len() >= REMEMBERED {
                // Who is banned stays so; the others begin anew.
                records.retain(|_, record| record.banned_until.is_some());
            }
            if records.len() >= REMEMBERED {
                return false;
            }
        }
        let record = records.entry(address).or_insert(Record {
            failures: 0,
            since: now,
            banned_until: None,
        });
        if !holds(record) {
            *record = Record {
                failures: 0,
                since: now,
                banned_until: None,
            };
        }
        record.failures = record.failures.saturating_add(1);
        if record.failures < most.get() || record.banned_until.is_some() {
            return false;
        }
        record.banned_until = Some(now + rules.duration);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> BanRules {
        BanRules {
            failures: NonZeroU32::new(3),
            ..BanRules::default()
        }
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_often_is_banned_for_a_while() {
        let (bans, rules) = (Bans::default(), rules());
        let bad = address("192.0.2.1");
        assert!(!bans.note_failure(bad, &rules));
        assert!(!bans.note_failure(bad, &rules));
        assert!(!bans.bans(bad, &rules));
        assert!(bans.note_failure(bad, &rules));
        assert!(bans.bans(bad, &rules));
        assert!(!bans.bans(address("192.0.2.2"), &rules));
        assert!(!bans.bans(None, &rules));
        tokio::time::advance(rules.duration).await;
        assert!(!bans.bans(bad, &rules));
        // It begins anew.
        assert!(!bans.note_failure(bad, &rules));
        assert!(!bans.bans(bad, &rules));
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_do_not_count() {
        let (bans, rules) = (Bans::default(), rules());
        let slow = address("192.0.2.1");
        for _ in 0..10 {
            assert!(!bans.note_failure(slow, &rules));
            tokio::time::advance(rules.window / 2).await;
        }
        assert!(!bans.note_failure(address("192.0.2.1"), &BanRules::default()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_of_ipv6_counts_as_one() {
        let (bans, rules) = (Bans::default(), rules());
        for text in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:3"] {
            bans.note_failure(address(text), &rules);
        }
        assert!(bans.bans(address("2001:db8::4"), &rules));
        assert!(!bans.bans(address("2001:db8:0:1::1"), &rules));
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_bans_stay() {
        let (bans, rules) = (Bans::default(), rules());
        let bad = address("192.0.2.1");
        for _ in 0..3 {
            bans.note_failure(bad, &rules);
        }
        for number in 0..2 * REMEMBERED as u32 {
            let address = core::net::Ipv4Addr::from_bits(0x0a00_0000 + number);
            bans.note_failure(Some(address.into()), &rules);
        }
        assert!(bans.records.lock().unwrap().len() <= REMEMBERED);
        assert!(bans.bans(bad, &rules));
    }
}
