//! Which of several trees a filter or a topic belongs to, by its first level, so that one lock or
//! one version need not cover all subscriptions.

use core::hash::BuildHasher;

use foldhash::fast::FixedState;

/// The tree a filter belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShardOf {
    /// The tree of filters that begin with `+` or `#`. It is asked for every topic, besides the
    /// topic's own.
    Wildcard,
    /// The tree of this number, below the number of shards.
    Level(usize),
}

/// The shard of a filter among `shards`. For a shared subscription, give the filter inside it.
///
/// Numbers are the same throughout one run of a program, and not to be stored.
#[must_use]
pub fn shard_of_filter(filter: &str, shards: usize) -> ShardOf {
    match first_level(filter) {
        b"+" | b"#" => ShardOf::Wildcard,
        level => ShardOf::Level(shard(level, shards)),
    }
}

/// The shard of the filters that match `topic` and begin with a text, among `shards`.
#[must_use]
pub fn shard_of_topic(topic: &str, shards: usize) -> usize {
    shard(first_level(topic), shards)
}

fn first_level(text: &str) -> &[u8] {
    let bytes = text.as_bytes();
    // First levels are short: shorter than what a vectorised search needs to pay.
    let end = bytes.iter().position(|byte| *byte == b'/');
    bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default()
}

fn shard(level: &[u8], shards: usize) -> usize {
    // The high half is the better mixed one.
    let hash = FixedState::default().hash_one(level) >> 32;
    let shards = shards.max(1) as u64;
    // Below 2^32 * shards >> 32, that is, below `shards`, for any sensible number of them.
    ((u128::from(hash) * u128::from(shards)) >> 32) as usize
}
