//! A store on a disk that waits with each commit until it is told to go on, or loses its power.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::config::Durability;
use crate::store::{Clock, Contents, Engine, EngineError, FjallEngine, Op, Open, Reader, WallTime};

/// What the disk does at the moment, and what it has done.
#[derive(Debug, Default)]
struct State {
    /// Commits wait.
    closed: bool,
    /// So many of them may pass while it is closed.
    tokens: usize,
    /// So many of the next commits fail, and whether they are kept all the same.
    failures: usize,
    keeps_failed: bool,
    /// Nothing succeeds any more.
    crashed: bool,
    /// A commit waits.
    holds: bool,
    /// What was committed.
    commits: Vec<Vec<Op>>,
    /// Whether each commit was to be synced.
    synced: Vec<bool>,
}

/// Holds the commits of a store back, and knows what they were.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// From now on commits wait.
    pub(super) fn close(&self) {
        self.change(|state| {
            state.closed = true;
            state.tokens = 0;
        });
    }

    /// Those that wait go on, and all that follow.
    pub(super) fn open(&self) {
        self.change(|state| state.closed = false);
    }

    /// One commit goes on.
    pub(super) fn let_one_pass(&self) {
        self.change(|state| state.tokens += 1);
    }

    /// So many of the next commits fail, and the store is opened again after each. `kept`: what they said is on the
    /// disk all the same.
    pub(super) fn fail(&self, commits: usize, kept: bool) {
        self.change(|state| {
            state.failures = commits;
            state.keeps_failed = kept;
        });
    }

    /// The power fails: what was not committed by now never is.
    pub(super) fn crash(&self) {
        self.change(|state| state.crashed = true);
    }

    pub(super) fn holds(&self) -> bool {
        self.state().holds
    }

    /// What was committed, commit by commit.
    pub(super) fn commits(&self) -> Vec<Vec<Op>> {
        self.state().commits.clone()
    }

    /// Whether the last commit was to be synced.
    pub(super) fn last_was_synced(&self) -> bool {
        self.state().synced.last().copied().unwrap()
    }

    /// The store of a directory behind this gate.
    pub(super) fn engine(self: &Arc<Self>, directory: &Path) -> Open {
        let gate = Arc::clone(self);
        let directory = PathBuf::from(directory);
        Box::new(move || {
            if gate.state().crashed {
                return Err("no power".into());
            }
            Ok(Box::new(Gated {
                engine: FjallEngine::open(&directory)?,
                gate: Arc::clone(&gate),
            }))
        })
    }
}

#[derive(Debug)]
struct Gated {
    engine: FjallEngine,
    gate: Arc<Gate>,
}

impl Engine for Gated {
    fn last_commit_at(&self) -> Option<WallTime> {
        self.engine.last_commit_at()
    }

    fn load(&mut self, clock: Clock, window: usize) -> Result<Contents, EngineError> {
        self.engine.load(clock, window)
    }

    fn reader(&self) -> Box<dyn Reader> {
        self.engine.reader()
    }

    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError> {
        let mut state = self.gate.state();
        state.holds = true;
        state = self
            .gate
            .changed
            .wait_while(state, |it| it.closed && it.tokens == 0 && !it.crashed)
            .unwrap();
        state.holds = false;
        if state.crashed {
            return Err("no power".into());
        }
        state.tokens = state.tokens.saturating_sub(1);
        if state.failures > 0 {
            state.failures -= 1;
            if state.keeps_failed {
                self.engine.commit(ops, at, Durability::Os)?;
            }
            return Err("the disk fails".into());
        }
        // Whoever dies here is the process, not the machine.
        let records = self.engine.commit(ops, at, Durability::Os)?;
        state.commits.push(ops.to_vec());
        state.synced.push(durability == Durability::Disk);
        Ok(records)
    }
}
