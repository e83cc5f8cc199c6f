//! Who may be connected: how many, from where, how fast, and how many may still be on their way in.

use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use mqtt_codec::ReasonCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::bans::Bans;
use crate::config::Config;
use crate::counters::RefusalReason;
use crate::policy::{ListenerOptions, Peer};

/// Addresses whose rate of connecting is remembered without a connection of theirs, at most.
const REMEMBERED: usize = 16_384;

/// Counts of all connections.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    total: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, Visits, RandomState>>,
    entering: Mutex<Entering>,
    pub(crate) bans: Bans,
}

/// Connections of one address.
#[derive(Debug)]
struct Visits {
    connected: usize,
    /// When the address will have used up nothing of its rate.
    rested_at: Instant,
}

/// Connections that have no CONNECT accepted yet, by age.
#[derive(Debug, Default)]
struct Entering {
    next: u64,
    by_age: BTreeMap<u64, Arc<Notify>>,
}

/// A connection that has no CONNECT accepted yet. When there are too many, the oldest has to go: who is in
/// earnest is through before it comes to that, and who is slow cannot keep others out.
#[derive(Debug)]
pub(crate) struct Entrant {
    gate: Arc<Gate>,
    number: u64,
    pushed_out: Arc<Notify>,
}

impl Entrant {
    /// Resolves when others need the place.
    pub(crate) async fn pushed_out(&self) {
        self.pushed_out.notified().await;
    }
}

impl Drop for Entrant {
    fn drop(&mut self) {
        let entering = self.gate.entering.lock();
        let mut entering = entering.unwrap_or_else(PoisonError::into_inner);
        entering.by_age.remove(&self.number);
    }
}

/// What the connections of one listener have in common.
#[derive(Debug, Default)]
pub(crate) struct Doorway {
    connected: AtomicUsize,
    asks: ArcSwap<Asks>,
}

/// What a listener asks of those who are connected through it, as of its last change.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// Only those may be connected who have shown who they are.
    pub(crate) who: bool,
    pub(crate) certificate: AsksCertificate,
    /// Only connections over TLS.
    pub(crate) encryption: bool,
    /// Which configuration of authentication holds.
    pub(crate) realm: Option<Arc<str>>,
}

/// Whether a listener asks for certificates of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AsksCertificate {
    /// Not any more: a certificate that was shown says nothing.
    No,
    /// A client may show one.
    #[default]
    May,
    /// A client without one is not let in.
    Must,
}

impl Doorway {
    pub(crate) fn new(asks: Asks) -> Self {
        Self {
            connected: AtomicUsize::new(0),
            asks: ArcSwap::from_pointee(asks),
        }
    }

    /// From now on this is asked.
    pub(crate) fn set_asks(&self, asks: Asks) {
        self.asks.store(Arc::new(asks));
    }
}

/// A connection that is counted among those of its address, let in or not; not any more when dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    gate: Arc<Gate>,
    peer: Peer,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(address) = self.peer.ip() else {
            return;
        };
        let mut addresses = self.gate.addresses();
        if let Entry::Occupied(mut visits) = addresses.entry(address) {
            visits.get_mut().connected -= 1;
            if visits.get().connected == 0 && visits.get().rested_at <= Instant::now() {
                visits.remove();
            }
        }
    }
}

/// The place of a client that is connected; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    visit: Visit,
    doorway: Arc<Doorway>,
    /// It came through TLS.
    pub(crate) is_encrypted: bool,
}

impl Place {
    /// Who has it.
    pub(crate) fn peer(&self) -> &Peer {
        &self.visit.peer
    }

    /// What its listener asks now.
    pub(crate) fn asks(&self) -> Arc<Asks> {
        self.doorway.asks.load_full()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.visit.gate.total.fetch_sub(1, Ordering::Relaxed);
        self.doorway.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    fn addresses(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Visits, RandomState>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was just accepted by a listener; returns it, and how many had to go for it.
    pub(crate) fn enter(self: &Arc<Self>, limit: usize) -> (Entrant, usize) {
        let pushed_out = Arc::new(Notify::new());
        let mut entering = self.entering.lock().unwrap_or_else(PoisonError::into_inner);
        let number = entering.next;
        entering.next += 1;
        let mut gone = 0;
        while entering.by_age.len() >= limit.max(1)
            && let Some((_, oldest)) = entering.by_age.pop_first()
        {
            oldest.notify_one();
            gone += 1;
        }
        entering.by_age.insert(number, Arc::clone(&pushed_out));
        drop(entering);
        let entrant = Entrant {
            gate: Arc::clone(self),
            number,
            pushed_out,
        };
        (entrant, gone)
    }

    /// Whether an address connects faster than it may. Counts this time, unless it is too fast.
    pub(crate) fn is_too_fast(&self, address: Option<IpAddr>, config: &Config) -> bool {
        let (Some(address), Some(rate)) = (address, config.connect_rate_per_address) else {
            return false;
        };
        let now = Instant::now();
        let step = Duration::from_secs(1) / rate.get();
        let mut addresses = self.addresses();
        if addresses.len() >= REMEMBERED {
            // Those that have rested are as if they had never been here.
            addresses.retain(|_, visits| visits.connected > 0 || visits.rested_at > now);
        }
        let visits = addresses.entry(address).or_insert(Visits {
            connected: 0,
            rested_at: now,
        });
        let next = visits.rested_at.max(now) + step;
        // A second's worth may come at once.
        if next > now + Duration::from_secs(1) {
            return true;
        }
        visits.rested_at = next;
        false
    }

    /// A client that says who it is comes from its address.
    pub(crate) fn visit(
        self: &Arc<Self>,
        peer: &Peer,
        config: &Config,
    ) -> Result<Visit, RefusalReason> {
        // Counted even where there is no limit, since a limit may come while there are connections.
        if let Some(address) = peer.ip() {
            let mut addresses = self.addresses();
            let visits = addresses.entry(address).or_insert_with(|| Visits {
                connected: 0,
                rested_at: Instant::now(),
            });
            if visits.connected >= config.max_connections_per_address {
                return Err(RefusalReason::AddressFull);
            }
            visits.connected += 1;
        }
        Ok(Visit {
            gate: Arc::clone(self),
            peer: peer.clone(),
        })
    }

    /// A place for a client that is let in otherwise: who has not shown who it is takes none from others.
    pub(crate) fn admit(
        &self,
        visit: Visit,
        config: &Config,
        options: &ListenerOptions,
        doorway: &Arc<Doorway>,
    ) -> Result<Place, RefusalReason> {
        let most = options.max_connections.unwrap_or(usize::MAX);
        take_one(&self.total, config.max_connections)
            .map_err(|()| RefusalReason::TooManyConnections)?;
        if take_one(&doorway.connected, most).is_err() {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(RefusalReason::ListenerFull);
        }
        Ok(Place {
            visit,
            doorway: Arc::clone(doorway),
            is_encrypted: false,
        })
    }
}

fn take_one(count: &AtomicUsize, limit: usize) -> Result<(), ()> {
    let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
        (count < limit).then_some(count + 1)
    });
    taken.map(drop).map_err(drop)
}

/// What CONNACK says to those who are refused for a limit.
pub(crate) fn refusal_code(reason: RefusalReason) -> ReasonCode {
    match reason {
        RefusalReason::Banned => ReasonCode::BANNED,
        RefusalReason::TooFast => ReasonCode::CONNECTION_RATE_EXCEEDED,
        RefusalReason::TooManyConnections | RefusalReason::ListenerFull => ReasonCode::SERVER_BUSY,
        _ => ReasonCode::QUOTA_EXCEEDED,
    }
}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;
    use core::num::NonZeroU32;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1));

    #[tokio::test(start_paused = true)]
    async fn places_are_limited_and_given_back() {
        let gate = Arc::new(Gate::default());
        let listener = Arc::<Doorway>::default();
        let config = Config {
            max_connections: 3,
            max_connections_per_address: 1,
            ..Config::default()
        };
        let options = ListenerOptions {
            max_connections: Some(2),
            ..ListenerOptions::default()
        };
        let admit_at = |peer: &Peer, doorway: &Arc<Doorway>| {
            gate.admit(gate.visit(peer, &config)?, &config, &options, doorway)
        };
        let admit = |peer: &Peer| admit_at(peer, &listener);
        let (distant, local) = (
            Peer::from(SocketAddr::from((ADDRESS, 1883))),
            Peer::named("local"),
        );
        let first = admit(&distant).unwrap();
        assert_eq!(admit(&distant).unwrap_err(), RefusalReason::AddressFull);
        let second = admit(&local).unwrap();
        assert_eq!(admit(&local).unwrap_err(), RefusalReason::ListenerFull);
        let another = Arc::<Doorway>::default();
        let third = admit_at(&local, &another).unwrap();
        let full = admit_at(&local, &another).unwrap_err();
        assert_eq!(full, RefusalReason::TooManyConnections);
        drop((first, second, third));
        assert_eq!(gate.total.load(Ordering::Relaxed), 0);
        assert_eq!(listener.connected.load(Ordering::Relaxed), 0);
        assert!(gate.addresses().is_empty());
        assert!(admit(&distant).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_too_fast_has_to_wait() {
        let gate = Gate::default();
        let config = Config {
            connect_rate_per_address: NonZeroU32::new(5),
            ..Config::default()
        };
        let come = || !gate.is_too_fast(Some(ADDRESS), &config);
        assert!((0..5).all(|_| come()));
        assert!(!come());
        tokio::time::advance(Duration::from_millis(200)).await;
        assert!(come());
        assert!(!come());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!((0..5).all(|_| come()));
        assert!(!come());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_entrant_is_pushed_out() {
        let gate = Arc::new(Gate::default());
        let (first, gone) = gate.enter(2);
        assert_eq!(gone, 0);
        let (second, _) = gate.enter(2);
        let (third, gone) = gate.enter(2);
        assert_eq!(gone, 1);
        first.pushed_out().await;
        drop(second);
        let (_fourth, gone) = gate.enter(2);
        assert_eq!(gone, 0);
        drop(third);
    }
}
