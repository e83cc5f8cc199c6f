//! How much the store takes by itself: commits of queued messages one after another, with nobody to serve.

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mqtt_codec::QoS;

use super::{CLOCK, ToolError};
use crate::auth::Owner;
use crate::config::Durability;
use crate::message::{Message, Parts};
use crate::store::{Engine, Entry, FjallEngine, Key, Op, SessionNumber, SessionRecord, WallTime};

/// Messages of all topics are alike.
const TOPICS: usize = 10;
const SESSION: SessionNumber = 0;
/// Ticks a second in /proc/self/stat.
const TICKS: f64 = 100.0;

/// What is committed, and for how long.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Load {
    /// Messages of a commit, and how often there is such a commit in proportion to the others. Default: 100.
    pub commits: Vec<(usize, u64)>,
    /// Bytes of the payload of a message. Default 256.
    pub payload: usize,
    /// How long. Default 5 s.
    pub time: Duration,
    /// What a commit waits for. Default disk.
    pub durability: Durability,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            commits: vec![(100, 1)],
            payload: 256,
            time: Duration::from_secs(5),
            durability: Durability::Disk,
        }
    }
}

/// What the store has taken.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Taken {
    /// Commits, one after another.
    pub commits: u64,
    /// Messages in all of them.
    pub messages: u64,
    /// From the first commit to the end of the last.
    pub time: Duration,
    /// What the processors did for it, where the system tells.
    pub processor: Option<Duration>,
}

/// Commits to a new store in `directory`.
pub(super) fn run(directory: &Path, load: &Load) -> Result<Taken, ToolError> {
    let mut engine = FjallEngine::open(directory)?;
    engine.load(CLOCK, usize::MAX).map_err(ToolError::Store)?;
    let record = SessionRecord {
        client_id: "measured".into(),
        owner: Owner::Anybody,
        expiry_interval: u32::MAX,
        expires_at: None,
        will: None,
    };
    let mut commit = |ops: &[Op]| {
        engine
            .commit(ops, WallTime::now(), load.durability)
            .map_err(ToolError::Store)
    };
    commit(&[Op::Session(SESSION, Box::new(record))])?;
    let largest = load.commits.iter().map(|&(size, _)| size).max();
    let mut ops: Vec<Op> = (0..largest.unwrap_or(0))
        .map(|number| queued(number, load.payload))
        .collect();
    let mut sizes = Mix::new(&load.commits);
    let mut key: Key = 0;
    let mut taken = Taken {
        commits: 0,
        messages: 0,
        time: Duration::ZERO,
        processor: None,
    };
    let before = processor_time();
    let started = Instant::now();
    while started.elapsed() < load.time
        && let Some(size) = sizes.next()
    {
        let batch = ops.get_mut(..size).unwrap_or_default();
        for op in batch.iter_mut() {
            if let Op::Queued(_, of, _) = op {
                *of = key;
                key += 1;
            }
        }
        commit(batch)?;
        taken.commits += 1;
        taken.messages += size as u64;
    }
    taken.time = started.elapsed();
    taken.processor = processor_time()
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(taken)
}

fn queued(number: usize, payload: usize) -> Op {
    let topic = format!("measure/{}", number % TOPICS);
    let payload = vec![b'x'; payload];
    let parts = Parts {
        topic: topic.as_bytes(),
        properties: &[],
        payload: &payload,
    };
    let entry = Entry {
        message: Arc::new(Message::new(parts, QoS::AtLeastOnce, None)),
        expires_at: None,
        body: None,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: None,
        group: None,
    };
    Op::Queued(SESSION, 0, Box::new(entry))
}

/// Names each size as often as its weight says, in even succession.
struct Mix<'l> {
    sizes: &'l [(usize, u64)],
    /// What each was owed when the last was named.
    owed: Vec<i128>,
    total: i128,
}

impl<'l> Mix<'l> {
    fn new(sizes: &'l [(usize, u64)]) -> Self {
        Self {
            sizes,
            owed: vec![0; sizes.len()],
            total: sizes.iter().map(|&(_, weight)| i128::from(weight)).sum(),
        }
    }

    fn next(&mut self) -> Option<usize> {
        for (owed, &(_, weight)) in self.owed.iter_mut().zip(self.sizes) {
            *owed += i128::from(weight);
        }
        let pairs = self.owed.iter_mut().zip(self.sizes);
        let (owed, &(size, _)) = pairs.max_by_key(|(owed, _)| **owed)?;
        *owed -= self.total;
        Some(size)
    }
}

/// User and system time of this process; `None` where the system does not tell.
fn processor_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_their_proportion() {
        let sizes = [(1, 1), (2, 2), (7, 1)];
        let mut mix = Mix::new(&sizes);
        let mut named: Vec<usize> = (0..8).filter_map(|_| mix.next()).collect();
        assert_eq!(named[..2], [2, 7]);
        named.sort_unstable();
        assert_eq!(named, [1, 1, 2, 2, 2, 2, 7, 7]);
        assert_eq!(Mix::new(&[]).next(), None);
    }

    #[test]
    fn commits_are_counted_and_the_store_is_not_left() {
        let folder = tempfile::tempdir().unwrap();
        let load = Load {
            commits: vec![(3, 1)],
            time: Duration::from_millis(50),
            ..Load::default()
        };
        let taken = super::super::measure(folder.path(), &load).unwrap();
        assert!(taken.commits > 0);
        assert_eq!(taken.messages, taken.commits * 3);
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }
}
