//! A topic's matches are in its own shard and in the wildcard shard.

use mqtt_router::{ShardOf, shard_of_filter, shard_of_topic};
use proptest::prelude::*;

use crate::oracle;

#[test]
fn filters_that_begin_with_a_wildcard_have_their_own_shard() {
    for filter in ["#", "+", "+/a", "+/#"] {
        assert_eq!(shard_of_filter(filter, 8), ShardOf::Wildcard);
    }
    for filter in ["a/#", "/+", "$SYS/#", ""] {
        assert_ne!(shard_of_filter(filter, 8), ShardOf::Wildcard);
    }
}

#[test]
fn first_levels_are_spread() {
    let mut used = [0; 16];
    for number in 0..1_600 {
        used[shard_of_topic(&format!("site{number}/x"), 16)] += 1;
    }
    assert!(
        used.iter().all(|count| (50..150).contains(count)),
        "{used:?}"
    );
    assert_eq!(shard_of_topic("a", 0), 0);
    assert_eq!(shard_of_topic("a", 1), 0);
}

proptest! {
    #[test]
    fn what_matches_is_in_the_topics_shard(
        filter in oracle::filter(),
        topic in oracle::topic(),
        shards in 1_usize..64,
    ) {
        let of_topic = shard_of_topic(&topic, shards);
        prop_assert!(of_topic < shards);
        if oracle::matches(&filter, &topic) {
            match shard_of_filter(&filter, shards) {
                ShardOf::Wildcard => {}
                ShardOf::Level(shard) => prop_assert_eq!(shard, of_topic),
            }
        }
    }
}
