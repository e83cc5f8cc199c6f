//! Limits of what a client subscribes to.

use mqtt_codec::{Packet, ReasonCode, Subscribe, SubscriptionIdentifier};

use super::{ONE, QUOTA, REFUSED, Reached, Row, Scene, told};
use crate::harness::{filter, id};

/// The rows.
pub(super) fn rows() -> Vec<Row> {
    vec![
        Row {
            limit: "wildcard_subscription_available",
            set: |config, _| config.wildcard_subscription_available = false,
            reach: |scene| asks_for(scene, "a/#", None),
            told: (
                Some(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED),
                Some(REFUSED),
            ),
            counter: "ended, uses what is not offered; subscriptions beyond a limit",
            line: "disconnected; subscription beyond a limit refused",
        },
        Row {
            limit: "shared_subscription_available",
            set: |config, _| config.shared_subscription_available = false,
            reach: |scene| asks_for(scene, "$share/group/a", None),
            told: (
                Some(ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED),
                Some(REFUSED),
            ),
            counter: "ended, uses what is not offered; subscriptions beyond a limit",
            line: "disconnected; subscription beyond a limit refused",
        },
        Row {
            limit: "subscription_identifiers_available",
            set: |config, _| config.subscription_identifiers_available = false,
            reach: |scene| asks_for(scene, "a", SubscriptionIdentifier::new(5)),
            told: (
                Some(ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED),
                None,
            ),
            counter: "ended, uses what is not offered",
            line: "disconnected",
        },
        Row {
            limit: "topic_levels of a filter",
            set: |config, _| config.topic_levels = 2,
            reach: |scene| subscribes(scene, &["a/#", "a/+/#"]),
            told: (Some(ReasonCode::TOPIC_FILTER_INVALID), Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
        Row {
            limit: "subscriptions",
            set: |config, _| config.subscriptions = 1,
            reach: |scene| subscribes(scene, &["a", "a", "b"]),
            told: (QUOTA, Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
        Row {
            limit: "subscription_bytes",
            set: |config, _| config.subscription_bytes = 500,
            reach: |scene| subscribes(scene, &["a", "b"]),
            told: (QUOTA, Some(REFUSED)),
            counter: "subscriptions beyond a limit",
            line: "subscription beyond a limit refused",
        },
    ]
}

/// What is said to the last of some filters.
fn subscribes<'s>(scene: &'s Scene, filters: &'static [&'static str]) -> Reached<'s> {
    Box::pin(async move {
        let mut peer = scene.client("subscriber").await;
        let mut last = None;
        for text in filters {
            assert!(last.is_none_or(|last: ReasonCode| !last.is_error()));
            let codes = peer.subscribe_with(vec![filter(text, ONE)], None).await;
            last = codes.first().copied();
        }
        last
    })
}

/// What is said to one subscription: SUBACK, or DISCONNECT.
fn asks_for<'s>(
    scene: &'s Scene,
    text: &'static str,
    identifier: Option<SubscriptionIdentifier>,
) -> Reached<'s> {
    Box::pin(async move {
        let mut peer = scene.client("subscriber").await;
        let mut subscribe = Subscribe::new(id(1), vec![filter(text, ONE)]);
        subscribe.properties.subscription_identifier = identifier;
        peer.send(&Packet::Subscribe(subscribe)).await;
        told(&mut peer).await
    })
}
