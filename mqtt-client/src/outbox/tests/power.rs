//! Power cuts: a disk that remembers every call is rebuilt as it may be found after each of them, and what it then
//! says was true at the last sync or after it, and nothing else.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::{Step, meaning, perform, step};
use crate::outbox::disk::Disk;
use crate::outbox::log::{self, Log};
use crate::outbox::record::{HEADER, Record, header};
use crate::outbox::state::State;

/// What reached the disk.
#[derive(Debug, Clone)]
enum Call {
    Append(Vec<u8>),
    Sync,
    Truncate(usize),
    /// The other file, synced, in place of the first.
    Replace(Vec<u8>),
}

/// A disk in memory that remembers what was asked of it.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    calls: Vec<Call>,
    file: Vec<u8>,
    other: Vec<u8>,
}

impl Disk for Recorder {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut recording = self.0.lock().unwrap();
        recording.file.extend_from_slice(bytes);
        recording.calls.push(Call::Append(bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().calls.push(Call::Sync);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut recording = self.0.lock().unwrap();
        recording.file.truncate(length as usize);
        recording.calls.push(Call::Truncate(length as usize));
        Ok(())
    }

    fn read(&mut self, place: u64, into: &mut [u8]) -> io::Result<()> {
        let recording = self.0.lock().unwrap();
        let place = place as usize;
        into.copy_from_slice(&recording.file[place..place + into.len()]);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().other = header().to_vec();
        Ok(())
    }

    fn append_other(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().other.extend_from_slice(bytes);
        Ok(())
    }

    fn sync_other(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        let mut recording = self.0.lock().unwrap();
        recording.file = std::mem::take(&mut recording.other);
        let file = recording.file.clone();
        recording.calls.push(Call::Replace(file));
        Ok(())
    }

    fn abandon(&mut self) {
        self.0.lock().unwrap().other.clear();
    }
}

impl Recorder {
    fn holding(bytes: Vec<u8>) -> Self {
        let recording = Recording {
            file: bytes,
            ..Recording::default()
        };
        Self(Arc::new(Mutex::new(recording)))
    }

    fn log(&self) -> Log {
        let bytes = self.0.lock().unwrap().file.clone();
        let mut state = State::default();
        let length = log::read(&mut bytes.as_slice(), bytes.len() as u64, &mut state).unwrap();
        self.0.lock().unwrap().file.truncate(length as usize);
        Log::new(Box::new(self.clone()), state, length)
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }
}

/// The file after some calls: what is safe, and what was written behind it.
fn after(calls: &[Call]) -> (Vec<u8>, Vec<u8>) {
    let mut safe = header().to_vec();
    let mut all = safe.clone();
    for call in calls {
        match call {
            Call::Append(bytes) => all.extend_from_slice(bytes),
            Call::Sync => safe.clone_from(&all),
            Call::Truncate(length) => all.truncate(*length),
            Call::Replace(file) => {
                safe.clone_from(file);
                all.clone_from(file);
            }
        }
    }
    let written = all.split_off(safe.len().min(all.len()));
    (safe, written)
}

/// What may be found of what was written and not synced: any beginning of it, and its length without all its bytes.
fn found(written: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..=written.len())
        .map(|length| written[..length].to_vec())
        .collect();
    for begun in [0, written.len() / 2, written.len().saturating_sub(1)] {
        let mut torn = written.to_vec();
        torn[begun..].fill(0);
        all.push(torn);
    }
    all
}

/// A step, and whether a sync follows.
fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    prop::collection::vec((step(), any::<bool>()), 1..20)
}

/// Cuts the power after each call of a run in which these steps are done.
fn cut(steps: &[(Step, bool)], is_large: bool) {
    let disk = Recorder::holding(header().to_vec());
    let mut log = disk.log();
    // The states, each with the number of calls that it took; and those of them that had to be safe.
    let mut states = vec![(0, meaning(&mut log))];
    let mut safe = vec![(0, 0)];
    let mut synced = |log: &mut Log, states: &[_]| {
        log.sync().unwrap();
        safe.push((disk.calls(), states.len() - 1));
    };
    for (step, is_synced) in steps {
        perform(&mut log, step);
        states.push((disk.calls(), meaning(&mut log)));
        if *is_synced {
            synced(&mut log, &states);
        }
    }
    if is_large {
        // Enough that counts for nothing for another file.
        perform(&mut log, &Step::Message("x".repeat(3 << 20)));
        states.push((disk.calls(), meaning(&mut log)));
        let key = log.state.next_key - 1;
        assert!(log.append(&[Record::Removed { key }]).is_ok());
        states.push((disk.calls(), meaning(&mut log)));
        synced(&mut log, &states);
        log.compact().unwrap();
        assert!(disk.0.lock().unwrap().file.len() < 1 << 20);
        perform(&mut log, &Step::Message("more".to_owned()));
        states.push((disk.calls(), meaning(&mut log)));
        synced(&mut log, &states);
    }
    let calls = disk.0.lock().unwrap().calls.clone();
    for count in 0..=calls.len() {
        let (kept, written) = after(&calls[..count]);
        let (_, least) = *safe.iter().rfind(|(at, _)| *at <= count).unwrap();
        let most = states.iter().rposition(|(at, _)| *at <= count).unwrap();
        let rests = match written.len() < 1_000 {
            true => found(&written),
            false => vec![Vec::new(), written[..written.len() / 2].to_vec(), written],
        };
        for rest in rests {
            let mut bytes = kept.clone();
            bytes.extend_from_slice(&rest);
            assert!(bytes.len() >= HEADER);
            let again = meaning(&mut Recorder::holding(bytes).log());
            let known = &states[least..=most];
            assert!(
                known.iter().any(|(_, state)| *state == again),
                "after {count} calls and {} bytes more: {again:?}",
                rest.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nothing that was synced is missing, and nothing is there that never was.
    #[test]
    fn the_power_is_cut_after_every_call(steps in steps()) {
        cut(&steps, false);
    }
}

/// The same while the file is replaced by a shorter one.
#[test]
fn the_power_is_cut_around_a_replacement() {
    let steps = [
        (Step::Session("c".to_owned()), true),
        (Step::Message("one".to_owned()), true),
        (Step::Message("two".to_owned()), false),
        (Step::Received(4), false),
    ];
    cut(&steps, true);
}

/// A disk that says it has synced and has not is found by this: the judge can tell.
#[test]
fn a_disk_that_lies_is_caught() {
    let steps = [(Step::Message("one".to_owned()), true)];
    let disk = Recorder::holding(header().to_vec());
    let mut log = disk.log();
    let before = meaning(&mut log);
    perform(&mut log, &steps[0].0);
    log.sync().unwrap();
    let mut calls = disk.0.lock().unwrap().calls.clone();
    calls.retain(|call| !matches!(call, Call::Sync));
    let (kept, written) = after(&calls);
    assert!(!written.is_empty());
    assert_eq!(meaning(&mut Recorder::holding(kept).log()), before);
    assert_ne!(meaning(&mut log), before);
}
