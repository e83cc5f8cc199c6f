//! What the broker's processes and this one used, read from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// Usage of some processes so far.
#[derive(Debug, Clone, Default)]
struct Usage {
    /// User and system time in nanoseconds, in steps of a clock tick; threads that ended included.
    total: u64,
    /// Nanoseconds that each living thread ran, and that it waited for a processor.
    threads: HashMap<u32, (u64, u64)>,
    rss: u64,
    switches: u64,
}

/// Usage of some processes between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Nanoseconds of processor time.
    pub(super) cpu: u64,
    /// Nanoseconds in which a thread was ready and had no processor.
    pub(super) waited: u64,
    /// Resident memory at the end, in bytes.
    pub(super) rss: u64,
    /// How much it has grown, in bytes.
    pub(super) rss_growth: i64,
    pub(super) switches: u64,
}

/// A stretch of time and what was used in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    pub(super) seconds: f64,
    /// Of the broker; all zero where no process was named.
    pub(super) broker: Used,
    /// Of this process.
    pub(super) own: Used,
}

/// A measurement that has begun.
#[derive(Debug)]
pub(super) struct Meter {
    processes: Vec<u32>,
    begin: Instant,
    broker: Usage,
    own: Usage,
}

impl Meter {
    pub(super) fn start(processes: &[u32]) -> Self {
        let own = Usage::read(&[std::process::id()]);
        Self {
            processes: processes.to_vec(),
            broker: Usage::read(processes),
            own,
            begin: Instant::now(),
        }
    }

    pub(super) fn read(&self) -> Reading {
        let seconds = self.begin.elapsed().as_secs_f64();
        let broker = Usage::read(&self.processes);
        let own = Usage::read(&[std::process::id()]);
        Reading {
            seconds,
            broker: self.broker.until(&broker),
            own: self.own.until(&own),
        }
    }
}

impl Usage {
    fn read(processes: &[u32]) -> Self {
        let mut usage = Self::default();
        for process in processes {
            let folder = Path::new("/proc").join(process.to_string());
            let text = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
            usage.total += ticks(&text("stat")) * 1_000_000_000 / ticks_per_second();
            usage.rss += field(&text("status"), "VmRSS:") * 1024;
            let Ok(tasks) = fs::read_dir(folder.join("task")) else {
                continue;
            };
            for task in tasks.flatten() {
                let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                let text = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
                let times = text("schedstat");
                let mut times = times
                    .split_whitespace()
                    .map(|time| time.parse().unwrap_or(0));
                let ran = times.next().unwrap_or(0);
                usage.threads.insert(id, (ran, times.next().unwrap_or(0)));
                let status = text("status");
                usage.switches += field(&status, "voluntary_ctxt_switches:")
                    + field(&status, "nonvoluntary_ctxt_switches:");
            }
        }
        usage
    }

    /// The times of the threads are exact; where one has ended in between, its time is only in
    /// the total.
    fn until(&self, later: &Self) -> Used {
        let mut used = Used {
            rss: later.rss,
            rss_growth: later.rss as i64 - self.rss as i64,
            switches: later.switches.saturating_sub(self.switches),
            ..Used::default()
        };
        for (id, (ran, waited)) in &later.threads {
            let before = self.threads.get(id).copied().unwrap_or_default();
            used.cpu += ran.saturating_sub(before.0);
            used.waited += waited.saturating_sub(before.1);
        }
        let whole = self.threads.keys().all(|id| later.threads.contains_key(id));
        if !whole || later.threads.is_empty() {
            used.cpu = later.total.saturating_sub(self.total);
        }
        used
    }
}

/// Fields 14 and 15 of `/proc/PID/stat`, counted from behind the name in parentheses, which may
/// contain anything.
fn ticks(stat: &str) -> u64 {
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return 0;
    };
    let times = fields.split_whitespace().skip(11).take(2);
    times.map(|time| time.parse().unwrap_or(0)).sum()
}

#[cfg(unix)]
fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

#[cfg(not(unix))]
fn ticks_per_second() -> u64 {
    1
}

/// The first number behind a key of `/proc/PID/status`.
fn field(status: &str, key: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 9 9 20 0";
        assert_eq!(ticks(stat), 300);
        assert_eq!(ticks(""), 0);
        assert_eq!(field("VmHWM:\t 9 kB\nVmRSS:\t  123 kB\n", "VmRSS:"), 123);
        assert_eq!(field("", "VmRSS:"), 0);
    }

    #[test]
    fn a_thread_that_ended_leaves_the_total() {
        let usage = |total, threads: &[(u32, u64)]| Usage {
            total,
            threads: threads.iter().map(|(id, ran)| (*id, (*ran, 0))).collect(),
            ..Usage::default()
        };
        let before = usage(10, &[(1, 5), (2, 5)]);
        assert_eq!(before.until(&usage(30, &[(1, 9), (2, 6), (3, 2)])).cpu, 7);
        assert_eq!(before.until(&usage(30, &[(1, 9)])).cpu, 20);
    }
}
