//! Ordered maps of records, which is all that an engine needs of the database below it.

use core::ops::RangeBounds;

pub(crate) use ::fjall::Slice;

use crate::store::engine::EngineError;

/// A key and its value.
pub(crate) type Record = (Slice, Slice);

/// One ordered map. Clones are handles of the same one, and may read while another thread commits.
pub(crate) trait Table: Clone + Send + 'static {
    /// Changes of several tables of one database, made together or not at all.
    type Batch: Batch<Self>;

    /// What it is called in the log.
    fn name(&self) -> &str;

    fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>, EngineError>;

    /// The records of a range, in the order of their keys.
    fn range<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
    ) -> impl Iterator<Item = Result<Record, EngineError>>;

    /// The keys that begin with `prefix`, in order.
    fn keys(&self, prefix: impl AsRef<[u8]>) -> impl Iterator<Item = Result<Slice, EngineError>>;

    /// All records, in the order of their keys.
    fn iter(&self) -> impl Iterator<Item = Result<Record, EngineError>> {
        self.range::<&[u8]>(..)
    }
}

/// Changes that wait to be committed.
pub(crate) trait Batch<T> {
    fn insert(&mut self, table: &T, key: impl Into<Slice>, value: impl Into<Slice>);
    fn remove(&mut self, table: &T, key: impl Into<Slice>);
    /// How many records it changes.
    fn len(&self) -> usize;
}

/// The tables of a store.
#[derive(Clone)]
pub(crate) struct Tables<T> {
    /// Sessions, their subscriptions and identifiers, and what is known of the store itself.
    pub(super) state: T,
    pub(super) queue: T,
    pub(super) bodies: T,
    pub(super) retained: T,
}

impl<T> Tables<T> {
    pub(super) fn all(&self) -> [&T; 4] {
        [&self.state, &self.queue, &self.bodies, &self.retained]
    }
}
