//! Retained messages of all topics, in shards, and the reading of them for a new subscription.

use std::sync::{Arc, PoisonError, RwLock};

use mqtt_codec::{TopicFilter, TopicName};
use mqtt_router::{RetainedStore, ShardOf, shard_of_filter, shard_of_topic};

use crate::message::Message;

const SHARDS: usize = 16;

/// One message a topic at most.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    shards: [RwLock<RetainedStore<Arc<Message>>>; SHARDS],
}

/// How far the reading of the retained messages for one filter came.
#[derive(Debug)]
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
    /// Stores the message of a topic, or removes the one it has.
    pub(crate) fn set(&self, topic: &str, message: Option<Arc<Message>>) {
        let Ok(name) = TopicName::new(topic) else {
            return;
        };
        let Some(shard) = self.shards.get(shard_of_topic(topic, SHARDS)) else {
            return;
        };
        let mut store = shard.write().unwrap_or_else(PoisonError::into_inner);
        match message {
            Some(message) => drop(store.insert(name, message)),
            None => drop(store.remove(topic)),
        }
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
