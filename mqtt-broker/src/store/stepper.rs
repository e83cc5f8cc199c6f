//! The work of the threads of a store, done step by step when a simulation says so.

use std::sync::Arc;

use crate::config::Durability;
use crate::counters::Counters;
use crate::store::batches::Taken;
use crate::store::engine::EngineError;
use crate::store::record::{Contents, Op, WallTime};
use crate::store::{Committer, Open, Space, Store};

/// Commits and reads for one [`Store`], which has no threads. It stops for good when it is dropped, as a process does
/// that is killed.
pub(crate) struct Stepper {
    committer: Committer,
    ops: Vec<Op>,
    taken: Option<Taken>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing gathers.
    Idle,
    /// A batch was taken, or is being written: the next gathers.
    Taken,
    Committed,
    /// The store has failed; the next step opens it again.
    Failed,
}

impl Stepper {
    /// Takes what gathers or, if something was taken, commits it.
    pub(crate) fn step(&mut self) -> Step {
        match self.taken.take() {
            Some(taken) => {
                if !self.committer.try_commit(&self.ops, &taken) {
                    self.taken = Some(taken);
                    return Step::Failed;
                }
                self.ops.clear();
                Step::Committed
            }
            None => {
                self.taken = self.committer.shared.batches.take(&mut self.ops);
                if self.taken.is_none() {
                    return Step::Idle;
                }
                Step::Taken
            }
        }
    }

    /// Reads what can be read.
    pub(crate) fn read(&self) {
        let shared = &self.committer.shared;
        shared
            .reading
            .step(shared.batches.durable(), self.committer.clock);
    }
}

impl Store {
    /// Opens a store that somebody else works for.
    pub(crate) fn open_stepped(
        open: Open,
        counters: Arc<Counters>,
        durability: Durability,
        now: WallTime,
        window: usize,
    ) -> Result<(Self, Contents, Stepper), EngineError> {
        let space = Space::unlimited();
        let (store, contents, committer) =
            Self::prepare(open, space, counters, durability, now, window)?;
        let stepper = Stepper {
            committer,
            ops: Vec::new(),
            taken: None,
        };
        Ok((store, contents, stepper))
    }
}
