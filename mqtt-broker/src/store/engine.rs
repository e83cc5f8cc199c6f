//! Where the changes go: a file engine, or memory for tests.

use core::fmt;

use crate::config::Durability;
use crate::store::record::{Clock, Contents, Op, WallTime};

/// Why an engine failed.
pub(crate) type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps what it is told. Used by one thread at a time.
pub(crate) trait Engine: fmt::Debug + Send {
    /// The last time that was stored with a commit; `None` in a new store.
    fn last_commit_at(&self) -> Option<WallTime>;

    /// Reads everything back. Called once, before the first commit.
    fn load(&mut self, clock: Clock) -> Result<Contents, EngineError>;

    /// Makes changes durable, all or none, in order, and says how many records it wrote for them. After an error the engine is not used again; the same
    /// changes are given to the one that is opened in its place, whether this one kept them or not.
    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError>;
}
