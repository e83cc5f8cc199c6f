#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod arena;
mod edges;
mod level;
mod members;
mod pattern;
mod retained;
mod shard;
mod shared;
mod subscribers;
mod subscription;
mod targets;
mod trie;

pub use crate::retained::{RetainedMatches, RetainedStore};
pub use crate::shard::{ShardOf, shard_of_filter, shard_of_topic};
pub use crate::shared::{Readiness, SharedGroup};
pub use crate::subscription::Subscription;
pub use crate::targets::{Merged, Own, Target, Targets};
pub use crate::trie::SubscriptionTree;
