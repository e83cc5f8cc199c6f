//! The memory budget of the whole process: what the broker gives up first when it is nearly used up.
//!
//! The steps are in the order of their harm, and each contains those before it. None of them gives up a message
//! above QoS 0 that was acknowledged and whose session goes on.

use core::cmp::Reverse;
use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::{Instant, interval};

use crate::client::{Client, Kick, Link};
use crate::hub::Hub;

/// How often memory is looked at while there is a budget.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long clients have to let go of what they held before more are disconnected.
const REST: Duration = Duration::from_secs(1);
/// Percent of the budget by which a step is left later than it was taken.
const HYSTERESIS: u64 = 3;
/// Bytes of unsent QoS 0 packets from which on a receiver is slow, and of anything from which on it is worth
/// disconnecting a client.
pub(crate) const SLOW_BYTES: usize = 64 * 1024;

/// Tells how many bytes of memory are taken. By default: what of the process is resident, as the system says it.
#[derive(Clone)]
pub struct MemoryGauge(Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl MemoryGauge {
    /// For programs that know better, such as from their allocator. Asked ten times a second; it must not block.
    /// None: it is not known, and nothing is given up.
    pub fn new(gauge: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self(Arc::new(gauge))
    }
}

impl Default for MemoryGauge {
    fn default() -> Self {
        Self::new(resident)
    }
}

impl fmt::Debug for MemoryGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryGauge")
    }
}

/// Resident memory of this process.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What is given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Step {
    #[default]
    Nothing,
    /// New connections are refused, but for those that resume a session.
    Connections,
    /// QoS 0 packets for receivers that are slow are dropped.
    SlowReceivers,
    /// Who publishes is read one message a second.
    Publishers,
    /// Those who hold most are disconnected.
    Largest,
}

impl Step {
    const ALL: [Self; 4] = [
        Self::Connections,
        Self::SlowReceivers,
        Self::Publishers,
        Self::Largest,
    ];

    /// Percent of the budget from which on it is taken.
    fn percent(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Connections => 80,
            Self::SlowReceivers => 85,
            Self::Publishers => 90,
            Self::Largest => 95,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing is given up any more",
            Self::Connections => "new connections are refused",
            Self::SlowReceivers => "QoS 0 messages to slow receivers are dropped",
            Self::Publishers => "publishers are read one message a second",
            Self::Largest => "the clients that hold most are disconnected",
        }
    }

    /// The step for so much memory, after this one.
    fn next(self, used: u64, budget: u64) -> Self {
        let is_beyond = |step: &Self| {
            let percent = if *step <= self {
                step.percent() - HYSTERESIS
            } else {
                step.percent()
            };
            u128::from(used) * 100 >= u128::from(budget) * u128::from(percent)
        };
        let beyond = Self::ALL.into_iter().rev().find(is_beyond);
        beyond.unwrap_or_default()
    }
}

/// Which step is in force, for all to see.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    step: AtomicU8,
    /// The configuration has changed.
    pub(crate) changed: Notify,
}

impl Pressure {
    fn is_at(&self, step: Step) -> bool {
        self.step.load(Ordering::Relaxed) >= step as u8
    }

    /// Whether new connections are refused, but for those that resume a session.
    pub(crate) fn refuses(&self) -> bool {
        self.is_at(Step::Connections)
    }

    /// Whether those are refused as well who come for a session that there is.
    pub(crate) fn refuses_all(&self) -> bool {
        self.is_at(Step::Largest)
    }

    /// Whether QoS 0 packets for slow receivers are dropped.
    pub(crate) fn drops(&self) -> bool {
        self.is_at(Step::SlowReceivers)
    }

    /// Whether who publishes is held back.
    pub(crate) fn holds(&self) -> bool {
        self.is_at(Step::Publishers)
    }

    fn step(&self) -> Step {
        let number = self.step.load(Ordering::Relaxed);
        let step = Step::ALL.into_iter().find(|step| *step as u8 == number);
        step.unwrap_or_default()
    }
}

/// What the end of a connection frees.
struct Held {
    client: Arc<Client>,
    bytes: usize,
    /// Messages above QoS 0 would go with their session.
    loses: bool,
}

impl Held {
    /// The lower, the sooner it goes. Whoever holds a multiple of what others do goes before them, whatever is lost by
    /// it: nobody is safe by filling memory with what would be lost.
    fn rank(&self) -> (Reverse<u32>, bool, Reverse<usize>) {
        /// Those count as equal who hold up to so many times as much, as a power of two.
        const ALIKE: u32 = 3;
        let size = self.bytes.max(1).ilog2() / ALIKE;
        (Reverse(size), self.loses, Reverse(self.bytes))
    }
}

impl Hub {
    /// Looks at the memory that is taken, and gives up what must be. Never returns.
    pub(crate) async fn run_memory(&self) {
        let mut ticks = interval(INTERVAL);
        let mut shed_at: Option<Instant> = None;
        loop {
            let limits = self.limits.load_full();
            if limits.memory == u64::MAX {
                self.take_step(Step::Nothing, 0, limits.memory);
                self.pressure.changed.notified().await;
                ticks.reset_immediately();
                continue;
            }
            ticks.tick().await;
            if let Some(used) = (limits.memory_gauge.0)() {
                let step = self.pressure.step().next(used, limits.memory);
                self.take_step(step, used, limits.memory);
                if step == Step::Largest && shed_at.is_none_or(|last| last.elapsed() >= REST) {
                    shed_at = Some(Instant::now());
                    self.shed(used, limits.memory);
                }
            }
        }
    }

    fn take_step(&self, step: Step, used: u64, budget: u64) {
        let before = self.pressure.step();
        if step == before {
            return;
        }
        self.pressure.step.store(step as u8, Ordering::Relaxed);
        if step > before {
            self.counters.count_memory_step();
            tracing::warn!(used, budget, "memory: {}", step.name());
        } else {
            tracing::info!(used, budget, "memory: {}", step.name());
        }
    }

    /// Disconnects those who hold most, as many as it takes to come below the step before; among those who hold about
    /// as much first those of whom nothing is lost but QoS 0.
    fn shed(&self, used: u64, budget: u64) {
        let goal = budget / 100 * Step::Publishers.percent();
        let mut excess = used.saturating_sub(goal);
        let clients = self.routes.clients();
        let held = clients.into_iter().filter_map(held_by);
        let mut held: Vec<Held> = held.filter(|held| held.bytes >= SLOW_BYTES).collect();
        held.sort_unstable_by_key(Held::rank);
        for Held { client, bytes, .. } in held {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(bytes as u64);
            self.counters.count_shed();
            tracing::warn!(client_id = %client.name(), bytes, "memory: disconnected");
            client.kick(Kick::OutOfMemory);
        }
        if excess > 0 {
            tracing::warn!(
                used,
                budget,
                "memory: no client holds what would have to go"
            );
        }
    }
}

fn held_by(client: Arc<Client>) -> Option<Held> {
    if !matches!(client.link(), Link::Online { .. }) {
        return None;
    }
    let (queued, loses) = client.held_in_memory();
    Some(Held {
        bytes: queued + client.backlog() + client.unhandled(),
        loses,
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_and_are_left_later() {
        let from = |step: Step, percent: u64| step.next(percent * 10, 1_000);
        assert_eq!(from(Step::Nothing, 79), Step::Nothing);
        assert_eq!(from(Step::Nothing, 80), Step::Connections);
        assert_eq!(from(Step::Connections, 77), Step::Connections);
        assert_eq!(from(Step::Connections, 76), Step::Nothing);
        assert_eq!(from(Step::Nothing, 200), Step::Largest);
        assert_eq!(from(Step::Largest, 92), Step::Largest);
        assert_eq!(from(Step::Largest, 91), Step::Publishers);
        assert_eq!(from(Step::Largest, 0), Step::Nothing);
        assert_eq!(Step::Nothing.next(u64::MAX - 1, u64::MAX), Step::Largest);
    }

    /// What the system says of this process is neither nothing nor nonsense.
    #[test]
    fn resident_memory_is_known() {
        let before = resident().unwrap();
        assert!((1 << 20..1 << 36).contains(&before), "{before}");
        let block = vec![1_u8; 64 << 20];
        let after = resident().unwrap();
        assert!(after >= before + (32 << 20), "{before}, {after}");
        drop(block);
    }
}
