//! Retained messages of all topics, in shards, and the reading of them for a new subscription.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use mqtt_codec::{TopicFilter, TopicName};
use mqtt_router::{RetainedStore, ShardOf, shard_of_filter, shard_of_topic};
use mqtt_session::Time;

use crate::config::Config;
use crate::counters::DropReason;
use crate::message::Message;

const SHARDS: usize = 16;

type Shard = RwLock<RetainedStore<Arc<Message>>>;

/// One message a topic at most.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    shards: [Shard; SHARDS],
    count: AtomicUsize,
    bytes: AtomicUsize,
}

/// How far the reading of the retained messages for one filter came.
#[derive(Clone, Debug)]
pub(crate) struct RetainedCursor {
    filter: Box<str>,
    shard: usize,
    last_shard: usize,
    /// The last topic read in `shard`.
    after: Option<Box<str>>,
}

impl RetainedCursor {
    /// Before the first message that matches `filter`.
    pub(crate) fn new(filter: TopicFilter<'_>) -> Self {
        let (shard, last_shard) = match shard_of_filter(filter.as_str(), SHARDS) {
            ShardOf::Wildcard => (0, SHARDS - 1),
            ShardOf::Level(number) => (number, number),
        };
        Self {
            filter: filter.as_str().into(),
            shard,
            last_shard,
            after: None,
        }
    }
}

impl Retained {
    fn shard(&self, topic: TopicName<'_>) -> &Shard {
        &self.shards[shard_of_topic(topic.as_str(), SHARDS) % SHARDS]
    }

    /// Stores the message of a topic in place of the one it has.
    ///
    /// The bounds of the configuration hold to within what other threads store at the same moment. A
    /// message beyond them is refused; the one that the topic has stays.
    pub(crate) fn set(
        &self,
        topic: TopicName<'_>,
        message: Arc<Message>,
        config: &Config,
    ) -> Result<(), DropReason> {
        let size = message.size();
        if size > config.retained_message_bytes {
            return Err(DropReason::RetainedTooLarge);
        }
        let mut store = self
            .shard(topic)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let old = store.get(topic.as_str()).map(|old| old.size());
        let count = self.count.load(Ordering::Relaxed) + usize::from(old.is_none());
        let bytes = (self.bytes.load(Ordering::Relaxed) + size).saturating_sub(old.unwrap_or(0));
        if count > config.retained_messages || bytes > config.retained_bytes {
            return Err(DropReason::RetainedFull);
        }
        store.insert(topic, message);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match old {
            Some(old) => self.bytes.fetch_sub(old, Ordering::Relaxed),
            None => self.count.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }

    /// Removes the message of a topic.
    pub(crate) fn clear(&self, topic: TopicName<'_>) {
        let mut store = self
            .shard(topic)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = store.remove(topic.as_str()) {
            self.forget(&old);
        }
    }

    /// Removes what has expired; returns how many messages that were.
    pub(crate) fn sweep(&self, now: Time) -> u64 {
        let mut expired = 0;
        for shard in &self.shards {
            let mut store = shard.write().unwrap_or_else(PoisonError::into_inner);
            store.retain(|_, message| {
                let keep = message.expires_at.is_none_or(|end| end > now);
                if !keep {
                    self.forget(message);
                    expired += 1;
                }
                keep
            });
        }
        expired
    }

    fn forget(&self, message: &Message) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(message.size(), Ordering::Relaxed);
    }

    /// Whether any message is left to read.
    pub(crate) fn has_match(&self, cursor: &RetainedCursor) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.read(&mut cursor.clone(), |_| false)
    }

    /// Reads on: calls `take` for messages that match until it returns false; returns whether there may
    /// be more.
    pub(crate) fn read(
        &self,
        cursor: &mut RetainedCursor,
        mut take: impl FnMut(&Arc<Message>) -> bool,
    ) -> bool {
        let Ok(filter) = TopicFilter::new(&cursor.filter) else {
            return false;
        };
        while cursor.shard <= cursor.last_shard {
            let Some(shard) = self.shards.get(cursor.shard) else {
                return false;
            };
            let store = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (topic, message) in store.matches_after(filter, cursor.after.as_deref()) {
                if !take(message) {
                    cursor.after = Some(topic.into());
                    return true;
                }
            }
            cursor.shard += 1;
            cursor.after = None;
        }
        false
    }
}
