//! What clients were not let do: counted, and logged without flooding the log.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use mqtt_session::Time;

/// What was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Denial {
    /// A connection: wrong user name or password, or none.
    Login,
    /// A connection: too many logins waited.
    LoginQueue,
    /// A connection: the session of its client identifier belongs to another user.
    Session,
    /// A connection: its client may not publish its will.
    Will,
    /// A message.
    Publish,
    /// A subscription, or one that is no longer allowed when its session is resumed.
    Subscribe,
    /// Any of these, since the service that was to be asked failed.
    Service,
}

impl Denial {
    /// Everything, in the order in which counters are printed.
    pub const ALL: [Self; 7] = [
        Self::Login,
        Self::LoginQueue,
        Self::Session,
        Self::Will,
        Self::Publish,
        Self::Subscribe,
        Self::Service,
    ];

    /// The name under which the counter is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginQueue => "login queue full",
            Self::Session => "session of another user",
            Self::Will => "will",
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::Service => "the service failed",
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each was denied.
#[derive(Debug, Default)]
pub(crate) struct Denials([AtomicU64; Denial::ALL.len()]);

impl Denials {
    pub(crate) fn count(&self, what: Denial) {
        if let Some(counter) = self.0.get(what as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, what: Denial) -> u64 {
        let counter = self.0.get(what as usize);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// Lets a line of the log through from time to time, for one connection.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Option<Box<Pause>>);

/// What is known once there was a line.
#[derive(Debug)]
struct Pause {
    /// When the next line may be written.
    next: Time,
    withheld: u64,
}

impl LogLimit {
    /// Between two lines.
    const PAUSE: Duration = Duration::from_secs(10);

    /// How many were withheld since the last line, if there may be one now.
    pub(crate) fn pass(&mut self, now: Time) -> Option<u64> {
        let next = now + Self::PAUSE;
        let Some(pause) = &mut self.0 else {
            self.0 = Some(Box::new(Pause { next, withheld: 0 }));
            return Some(0);
        };
        if now < pause.next {
            pause.withheld += 1;
            return None;
        }
        pause.next = next;
        Some(core::mem::take(&mut pause.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_not_flooded() {
        let mut limit = LogLimit::default();
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        assert_eq!(limit.pass(at(1)), Some(0));
        for _ in 0..100 {
            assert_eq!(limit.pass(at(2)), None);
        }
        assert_eq!(limit.pass(at(11)), Some(100));
        assert_eq!(limit.pass(at(12)), None);
    }
}
