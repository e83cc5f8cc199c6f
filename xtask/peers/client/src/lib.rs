//! What the programs have in common: their arguments, and what they print.
//!
//! `PROGRAM publish|receive|echo PORT QOS SIZE COUNT`. `publish` publishes COUNT messages and waits for
//! the last acknowledgement. `receive` prints `ready` when it has subscribed, and publishes a credit each time
//! it has taken a batch, so that nothing waits long enough to be dropped. `echo` publishes to itself, one
//! message after the other. Each ends with a line of what it took.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Bytes of messages for one credit.
const CREDIT_BYTES: usize = 128 * 1024;

/// Where messages go.
pub const TOPIC: &str = "bench/messages";
/// Where credits go.
pub const CREDITS: &str = "bench/credits";
/// Messages of QoS 1 and 2 without an acknowledgement.
pub const WINDOW: u16 = 100;

/// The arguments.
pub struct Arguments {
    pub mode: String,
    pub port: u16,
    pub qos: u8,
    pub size: usize,
    pub count: usize,
}

impl Arguments {
    pub fn read() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        Some(Self {
            mode: arguments.next()?,
            port: arguments.next()?.parse().ok()?,
            qos: arguments.next()?.parse().ok()?,
            size: arguments.next()?.parse().ok()?,
            count: arguments.next()?.parse().ok()?,
        })
    }

    /// Messages for one credit.
    pub fn batch(&self) -> usize {
        (CREDIT_BYTES / self.size.max(1)).clamp(1, 1000)
    }
}

/// Time and processor time since the start.
pub struct Meter {
    start: Instant,
    processor: Duration,
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

impl Meter {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            processor: processor_time(),
        }
    }

    /// Prints messages a second and microseconds of processor time for each.
    pub fn report(&self, count: usize) {
        let elapsed = self.start.elapsed().as_secs_f64();
        let processor = (processor_time() - self.processor).as_secs_f64();
        println!(
            "result {:.1} {:.4}",
            count as f64 / elapsed,
            processor * 1e6 / count as f64
        );
    }
}

/// Prints the median and the 99th percentile of round trips, in microseconds.
pub fn report_latency(mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_secs_f64() * 1e6;
    println!("latency {:.1} {:.1}", at(50), at(99));
}
