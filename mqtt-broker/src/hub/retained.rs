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
/// Bytes that a topic takes in the store besides its text, about.
const ENTRY: usize = 64;

type Shard = RwLock<RetainedStore<RetainedMessage>>;

/// A message as it is retained.
#[derive(Clone, Debug)]
pub(crate) struct RetainedMessage {
    pub(crate) message: Arc<Message>,
    /// The client identifier of its publisher, for No Local, as far as it is known.
    pub(crate) publisher: Option<Arc<str>>,
    /// It is in the store.
    pub(crate) stored: bool,
}

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
    filter: Arc<str>,
    shard: usize,
    last_shard: usize,
    /// The last topic looked at in `shard`.
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

    pub(crate) fn filter(&self) -> &Arc<str> {
        &self.filter
    }
}

impl Retained {
    fn shard(&self, topic: TopicName<'_>) -> &Shard {
        &self.shards[shard_of_topic(topic.as_str(), SHARDS) % SHARDS]
    }

    /// Stores the message of a topic in place of the one it has.
    ///
    /// The bounds of the configuration hold to within what other threads store at the same moment. A
    /// message beyond them is refused, and the topic then has none: the one it had is no longer the last.
    pub(crate) fn set(
        &self,
        topic: TopicName<'_>,
        retained: RetainedMessage,
        config: &Config,
    ) -> Result<(), DropReason> {
        let size = Self::cost(topic, &retained.message);
        let mut store = self
            .shard(topic)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let old = store
            .get(topic.as_str())
            .map(|old| Self::cost(topic, &old.message));
        let count = self.count.load(Ordering::Relaxed) + usize::from(old.is_none());
        let bytes = (self.bytes.load(Ordering::Relaxed) + size).saturating_sub(old.unwrap_or(0));
        let refused = if retained.message.size() > config.retained_message_bytes {
            Some(DropReason::RetainedTooLarge)
        } else if count > config.retained_messages || bytes > config.retained_bytes {
            Some(DropReason::RetainedFull)
        } else {
            None
        };
        if let Some(reason) = refused {
            if let Some(old) = store.remove(topic.as_str()) {
                self.forget(topic, &old.message);
            }
            return Err(reason);
        }
        store.insert(topic, retained);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match old {
            Some(old) => self.bytes.fetch_sub(old, Ordering::Relaxed),
            None => self.count.fetch_add(1, Ordering::Relaxed),
        };
        Ok(())
    }

    /// Bytes that a message takes here: the topic is its key as well.
    fn cost(topic: TopicName<'_>, message: &Message) -> usize {
        message.size() + topic.as_str().len() + ENTRY
    }

    /// Whether the message of a topic is in the store.
    pub(crate) fn is_stored(&self, topic: TopicName<'_>) -> bool {
        let store = self
            .shard(topic)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        store.get(topic.as_str()).is_some_and(|kept| kept.stored)
    }

    /// Removes the message of a topic.
    pub(crate) fn clear(&self, topic: TopicName<'_>) {
        let mut store = self
            .shard(topic)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = store.remove(topic.as_str()) {
            self.forget(topic, &old.message);
        }
    }

    /// Removes what has expired; returns the topics.
    pub(crate) fn sweep(&self, now: Time) -> Vec<Box<str>> {
        let mut expired = Vec::new();
        for shard in &self.shards {
            let mut store = shard.write().unwrap_or_else(PoisonError::into_inner);
            store.retain(|topic, RetainedMessage { message, .. }| {
                let keep = !message.is_expired(now);
                if !keep && let Ok(topic) = TopicName::new(topic) {
                    self.forget(topic, message);
                    expired.push(topic.as_str().into());
                }
                keep
            });
        }
        expired
    }

    fn forget(&self, topic: TopicName<'_>, message: &Message) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes
            .fetch_sub(Self::cost(topic, message), Ordering::Relaxed);
    }

    /// Whether a message may match `filter`. Exact where it has no wildcard; where it has one, nothing is
    /// looked at.
    pub(crate) fn may_match(&self, filter: TopicFilter<'_>) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        match TopicName::new(filter.as_str()) {
            Ok(topic) => {
                let store = self.shard(topic).read();
                let store = store.unwrap_or_else(PoisonError::into_inner);
                store.get(topic.as_str()).is_some()
            }
            Err(_) => true,
        }
    }

    /// Reads on: calls `take` for messages that match until it returns false, or `budget` topics were looked
    /// at, which is lowered by as many; returns whether there may be more.
    pub(crate) fn read(
        &self,
        cursor: &mut RetainedCursor,
        budget: &mut usize,
        mut take: impl FnMut(&RetainedMessage) -> bool,
    ) -> bool {
        let filter = Arc::clone(&cursor.filter);
        let Ok(filter) = TopicFilter::new(&filter) else {
            return false;
        };
        while cursor.shard <= cursor.last_shard {
            let Some(shard) = self.shards.get(cursor.shard) else {
                return false;
            };
            if *budget == 0 {
                return true;
            }
            let store = shard.read().unwrap_or_else(PoisonError::into_inner);
            let mut matches = store
                .matches_after(filter, cursor.after.as_deref())
                .with_budget(*budget);
            let takes_more = matches.by_ref().all(|(_, message)| take(message));
            // A shard without a match costs something as well.
            *budget = budget.saturating_sub(matches.looked_at().max(1));
            if let Some(last) = matches.suspended_at() {
                let last = Some(last.into());
                drop(store);
                cursor.after = last;
            } else {
                cursor.shard += 1;
                cursor.after = None;
            }
            if !takes_more {
                return cursor.shard <= cursor.last_shard;
            }
        }
        false
    }
}
