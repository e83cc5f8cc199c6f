//! Where the changes go. There is [one engine](crate::store::records), on a database in files or in memory; what tests put
//! around it or in its place fails, waits or forgets.

use core::fmt;

use crate::config::Durability;
use crate::store::record::{Clock, Contents, Op, Portion, Span, WallTime};

/// Why an engine failed.
pub(crate) type EngineError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps what it is told. Used by one thread at a time.
pub(crate) trait Engine: fmt::Debug + Send {
    /// The last time that was stored with a commit; `None` in a new store.
    fn last_commit_at(&self) -> Option<WallTime>;

    /// Reads everything back, but of each queue only what is in flight and the messages before it, and further ones
    /// until they take `window` bytes; the rest is counted. Called once, before the first commit.
    fn load(&mut self, clock: Clock, window: usize) -> Result<Contents, EngineError>;

    /// Reads while the engine commits. It is gone before another engine is opened in the place of this one.
    fn reader(&self) -> Box<dyn Reader>;

    /// Makes changes durable, all or none, in order, and says how many records it wrote for them. After an error the
    /// engine is not used again; the same changes are given to the one that is opened in its place, whether this one
    /// kept them or not.
    fn commit(
        &mut self,
        ops: &[Op],
        at: WallTime,
        durability: Durability,
    ) -> Result<usize, EngineError>;

    /// Gives space back that removed records take, if it can. After an error the engine is not used again.
    fn tidy(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Reads the queues of an engine that was loaded, from any thread.
pub(crate) trait Reader: fmt::Debug + Send {
    /// The messages of a range, oldest first: until they take as many bytes as are wanted, but one at least. The
    /// caller has seen that all of the range is committed.
    fn read(&self, range: &Span, clock: Clock) -> Result<Portion, EngineError>;
}
