//! When the next message is due at a fixed rate.

use std::io;
use std::time::Duration;

use mio::Registry;

/// The shortest period of the timer: above 20,000 messages a second several are due at once.
const SHORTEST: f64 = 50e-6;

/// A clock that makes messages due at a rate, for all publishers together.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    begin: u64,
    issued: u64,
    #[cfg(target_os = "linux")]
    _timer: std::os::fd::OwnedFd,
}

impl Pace {
    /// `now` is in nanoseconds of the run's clock, as all times here are.
    #[cfg(target_os = "linux")]
    pub(super) fn start(per_second: f64, now: u64, registry: &Registry) -> io::Result<Self> {
        use std::os::fd::AsRawFd;

        use rustix::time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        };

        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        let period = Duration::from_secs_f64((1.0 / per_second).max(SHORTEST));
        let period = Timespec {
            tv_sec: period.as_secs() as i64,
            tv_nsec: period.subsec_nanos().into(),
        };
        let period = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &period)?;
        // The poll tells of each expiry, whether or not the last one was read.
        registry.register(
            &mut mio::unix::SourceFd(&timer.as_raw_fd()),
            super::engine::TIMER,
            mio::Interest::READABLE,
        )?;
        Ok(Self {
            per_second,
            begin: now,
            issued: 0,
            _timer: timer,
        })
    }

    /// Where there is no timer that a poll waits for, the poll's own time-out stands in, which is
    /// as coarse as a millisecond.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn start(per_second: f64, now: u64, _: &Registry) -> io::Result<Self> {
        Ok(Self {
            per_second,
            begin: now,
            issued: 0,
        })
    }

    /// How long the poll may wait.
    pub(super) fn timeout(&self, longest: Duration) -> Duration {
        if cfg!(target_os = "linux") {
            longest
        } else {
            longest.min(Duration::from_secs_f64(
                (1.0 / self.per_second).max(SHORTEST),
            ))
        }
    }

    /// The time at which the next message is due, once it is; each is told of once.
    pub(super) fn due(&mut self, now: u64) -> Option<u64> {
        let time = self.begin + ((self.issued + 1) as f64 / self.per_second * 1e9) as u64;
        if time > now {
            return None;
        }
        self.issued += 1;
        Some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_due_once_at_its_time() {
        let poll = mio::Poll::new().unwrap();
        let mut pace = Pace::start(1000.0, 5_000_000, poll.registry()).unwrap();
        assert_eq!(pace.due(5_999_999), None);
        assert_eq!(pace.due(6_000_000), Some(6_000_000));
        assert_eq!(pace.due(6_000_000), None);
        assert_eq!(pace.due(8_500_000), Some(7_000_000));
        assert_eq!(pace.due(8_500_000), Some(8_000_000));
        assert_eq!(pace.due(8_500_000), None);
    }
}
