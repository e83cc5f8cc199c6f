//! The broker that is measured, and its store by itself.

use std::{
    fmt, fs,
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::process::{Running, processor_time};

/// How long the broker may take to serve, and to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an acknowledgement waits for, and whether the session that takes the messages is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    durability: &'static str,
    online: bool,
}

impl Mode {
    /// What is compared with the store alone.
    pub(super) const DISK: Self = Self {
        durability: "disk",
        online: false,
    };
    pub(super) const ALL: [Self; 4] = [
        Self::DISK,
        Self {
            durability: "disk",
            online: true,
        },
        Self {
            durability: "os",
            online: false,
        },
        // A session in memory does not hold what a run sends it.
        Self {
            durability: "memory",
            online: true,
        },
    ];

    pub(super) const fn online(self) -> bool {
        self.online
    }

    pub(super) fn name(self) -> String {
        let session = if self.online { "online" } else { "offline" };
        format!("{}, session {session}", self.durability)
    }
}

/// The path of `mqtt-broker`.
pub(super) struct Program(pub(super) PathBuf);

/// A broker that serves.
pub(super) struct Broker {
    process: Running,
    pub(super) address: SocketAddr,
}

impl Program {
    pub(super) fn start(&self, data: &Path, mode: Mode) -> Result<Broker> {
        let mut command = Command::new(&self.0);
        command.args(["--listen", "127.0.0.1:0", "--log-level", "warn"]);
        if mode.durability == "memory" {
            command.arg("--in-memory");
        } else {
            command.arg("--data-dir").arg(data);
            command.args(["--durability", mode.durability]);
        }
        let mut process = Running::start(&mut command, None)?;
        let deadline = Instant::now() + PATIENCE;
        let address = process.wait_for(deadline, "a line `listening on tcp://`", |line| {
            line.strip_prefix("listening on tcp://")?.parse().ok()
        })?;
        Ok(Broker { process, address })
    }

    /// The store by itself, with commits of these sizes.
    pub(super) fn alone(
        &self,
        folder: &Path,
        commits: &Commits,
        payload: usize,
        seconds: u64,
    ) -> Result<Alone> {
        let data = folder.join("alone");
        let mut command = Command::new(&self.0);
        command.args(["store", "bench", "--data-dir"]).arg(&data);
        command.args(["--payload", &payload.to_string()]);
        command.args(["--seconds", &seconds.to_string()]);
        for size in &commits.sizes {
            let changes = (size.changes + size.count / 2) / size.count;
            command.args(["--commit", &format!("{changes}:{}", size.count)]);
        }
        let output = command.output().context("cannot start mqtt-broker")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "mqtt-broker store bench: {said}");
        remove(&data)?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let value = |name: &str| -> Result<f64> {
            let mut lines = printed.lines();
            let text = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let text = text.with_context(|| format!("no {name} in {printed}"))?;
            Ok(text.parse()?)
        };
        Ok(Alone {
            commits: value("commits")?,
            messages: value("messages")?,
            seconds: value("seconds")?,
            processor: value("processor seconds")?,
        })
    }
}

impl Broker {
    pub(super) fn processor_time(&self) -> Result<Duration> {
        processor_time(self.process.id())
    }

    /// Ends it; returns what its store has committed.
    pub(super) fn end(&mut self) -> Result<Commits> {
        let deadline = Instant::now() + PATIENCE;
        self.process.terminate(deadline)?;
        Ok(Commits::read(&self.process.last_lines(deadline)))
    }
}

/// What the store has taken by itself.
pub(super) struct Alone {
    commits: f64,
    messages: f64,
    seconds: f64,
    processor: f64,
}

impl Alone {
    pub(super) fn rate(&self) -> f64 {
        self.messages / self.seconds
    }

    pub(super) fn commit_rate(&self) -> f64 {
        self.commits / self.seconds
    }

    /// Microseconds for a message.
    pub(super) fn processor(&self) -> f64 {
        self.processor * 1e6 / self.messages
    }
}

/// Commits that the broker has counted, by size.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Commits {
    sizes: Vec<Size>,
}

#[derive(Debug, PartialEq, Eq)]
struct Size {
    /// The fewest changes of such a commit.
    least: u64,
    count: u64,
    changes: u64,
}

impl Commits {
    /// From what it prints when it ends.
    fn read(lines: &[String]) -> Self {
        let sizes = lines.iter().filter_map(|line| {
            let rest = line.strip_prefix("store, commits of ")?;
            let (least, rest) = rest.split_once(" or more changes: ")?;
            let (count, changes) = rest.split_once(", with ")?;
            Some(Size {
                least: least.parse().ok()?,
                count: count.parse().ok()?,
                changes: changes.parse().ok()?,
            })
        });
        Self {
            sizes: sizes.collect(),
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.sizes.iter().map(|size| size.count).sum()
    }

    pub(super) fn mean(&self) -> f64 {
        let changes: u64 = self.sizes.iter().map(|size| size.changes).sum();
        changes as f64 / self.count() as f64
    }
}

impl fmt::Display for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("changes of a commit:")?;
        let all = self.count() as f64;
        for size in &self.sizes {
            let share = size.count as f64 * 100.0 / all;
            write!(f, " {}+: {share:.0}%", size.least)?;
        }
        Ok(())
    }
}

/// Removes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let lines = [
            "dropped, queue full: 3",
            "store, commits of 64 or more changes: 2, with 150",
            "store, commits of 128 or more changes: 1, with 150",
            "store, records written: 303",
        ];
        let commits = Commits::read(&lines.map(str::to_owned));
        assert_eq!((commits.count(), commits.mean()), (3, 100.0));
        assert_eq!(
            commits.to_string(),
            "changes of a commit: 64+: 67% 128+: 33%"
        );
    }
}
