//! Where an engine under test keeps its records.

use tempfile::TempDir;

use super::CLOCK;
use crate::store::engine::{Engine, EngineError};
use crate::store::fjall::{Fjall, FjallEngine};
use crate::store::memory::{Memory, MemoryStore};
use crate::store::record::Contents;
use crate::store::records::{Database, Records};

/// Outlives the engines that are opened on it, one after another.
pub(super) trait Place: Default {
    type Database: Database;

    fn try_open(&self) -> Result<Records<Self::Database>, EngineError>;

    fn open(&self) -> Records<Self::Database> {
        self.try_open().unwrap()
    }
}

/// Files.
pub(super) struct Directory(TempDir);

impl Default for Directory {
    fn default() -> Self {
        Self(TempDir::new().unwrap())
    }
}

impl Place for Directory {
    type Database = Fjall;

    fn try_open(&self) -> Result<FjallEngine, EngineError> {
        Ok(FjallEngine::open(self.0.path())?)
    }
}

/// The memory of the program.
#[derive(Default)]
pub(super) struct Program(MemoryStore);

impl Place for Program {
    type Database = Memory;

    fn try_open(&self) -> Result<Records<Memory>, EngineError> {
        self.0.open()
    }
}

/// An engine, and all that it has read back.
pub(super) fn open<P: Place>(place: &P) -> (Records<P::Database>, Contents) {
    let mut engine = place.open();
    let contents = engine.load(CLOCK, usize::MAX).unwrap();
    assert_eq!(contents.skipped, 0);
    (engine, contents)
}
