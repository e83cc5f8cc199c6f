//! The router against a naive oracle, at depth, and by named examples of the standard.

mod deep;
mod memory;
mod oracle;
mod retained;
mod shard;
mod shared;
mod targets;
mod trie;
