//! The time of the wall clock, by which messages in the outbox expire while no client runs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Where the time comes from.
#[derive(Clone)]
pub(crate) struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    pub(crate) fn new(clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(clock))
    }

    /// Milliseconds since 1970; before that, none.
    pub(crate) fn milliseconds(&self) -> u64 {
        let since = (self.0)().duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
    }
}

/// That of the system.
impl Default for WallClock {
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}
