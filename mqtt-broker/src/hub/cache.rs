//! Routes that were read lately, kept by each worker and checked against the subscriptions' version.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::TopicName;

use crate::hub::routes::{Route, RouteScratch, RouteVersion, Routes};

/// Topics in each of the two generations of the cache.
const GENERATION: usize = 16_384;
/// Bytes of the topics and routes in each generation, about; one route may reach beyond.
const GENERATION_BYTES: usize = 8 << 20;
/// Bytes of the longest topic that is kept. Few have longer ones, and who sends very many of them is not to
/// drive out those of everybody else.
const LONGEST_TOPIC: usize = 256;

#[derive(Debug)]
struct Entry {
    version: RouteVersion,
    route: Arc<Route>,
}

#[derive(Debug, Default)]
struct Generation {
    entries: HashMap<Box<str>, Entry, RandomState>,
    bytes: usize,
}

impl Generation {
    fn cost(topic: &str, route: &Route) -> usize {
        topic.len() + size_of::<(Box<str>, Entry)>() + route.size()
    }
}

/// A cache of bounded size. What was not asked for while a whole generation filled up is forgotten.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    young: Generation,
    old: Generation,
    scratch: RouteScratch,
    /// Nodes and subscriptions that were read from the trees since this was last asked.
    walked: usize,
}

impl RouteCache {
    /// The route of `topic`, as of now.
    pub(crate) fn route(&mut self, routes: &Routes, topic: TopicName<'_>) -> Arc<Route> {
        let version = routes.version(topic);
        if let Some(entry) = self.young.entries.get_mut(topic.as_str()) {
            if entry.version != version {
                let route = read(routes, topic, &mut self.scratch, &mut self.walked);
                self.young.bytes =
                    (self.young.bytes + route.size()).saturating_sub(entry.route.size());
                *entry = Entry { version, route };
            }
            return Arc::clone(&entry.route);
        }
        if topic.as_str().len() > LONGEST_TOPIC {
            return read(routes, topic, &mut self.scratch, &mut self.walked);
        }
        let (text, entry) = match self.old.entries.remove_entry(topic.as_str()) {
            Some((text, entry)) if entry.version == version => (text, entry),
            _ => {
                let route = read(routes, topic, &mut self.scratch, &mut self.walked);
                (topic.as_str().into(), Entry { version, route })
            }
        };
        if self.young.entries.len() >= GENERATION || self.young.bytes >= GENERATION_BYTES {
            self.old = core::mem::take(&mut self.young);
        }
        let route = Arc::clone(&entry.route);
        self.young.bytes += Generation::cost(&text, &route);
        self.young.entries.insert(text, entry);
        route
    }

    /// How many nodes and subscriptions were read from the trees since this was last asked, for a bound on
    /// the work of one batch.
    pub(crate) fn take_walked(&mut self) -> usize {
        core::mem::take(&mut self.walked)
    }

    /// Forgets everything: the routes belong to another broker.
    pub(crate) fn clear(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }
}

fn read(
    routes: &Routes,
    topic: TopicName<'_>,
    scratch: &mut RouteScratch,
    walked: &mut usize,
) -> Arc<Route> {
    let (route, cost) = routes.route(topic, scratch);
    *walked += cost;
    route
}

#[cfg(test)]
mod tests {
    use mqtt_codec::{SubscriptionOptions, TopicFilter};
    use mqtt_router::Subscription;

    use super::*;

    fn name(topic: &str) -> TopicName<'_> {
        TopicName::new(topic).unwrap()
    }

    /// However many topics come, and however long they are, the memory is bounded.
    #[test]
    fn the_cache_is_bounded() {
        let routes = Routes::new();
        let wanted = Subscription::new(SubscriptionOptions::default());
        for number in 0..1_000 {
            let client = routes.add_client(number.to_string().into(), None);
            routes.subscribe(&client, TopicFilter::new("#").unwrap(), wanted);
        }
        let mut cache = RouteCache::default();
        for number in 0..400 {
            let topic = format!("{number}/{}", "x".repeat(200));
            assert_eq!(cache.route(&routes, name(&topic)).targets.len(), 1_000);
        }
        let longest =
            Generation::cost(&"x".repeat(LONGEST_TOPIC), &cache.route(&routes, name("a")));
        assert!(cache.young.bytes <= GENERATION_BYTES + longest);
        assert!(cache.old.bytes <= GENERATION_BYTES + longest);
        let counted = |generation: &Generation| -> usize {
            let entries = generation.entries.iter();
            entries
                .map(|(topic, entry)| Generation::cost(topic, &entry.route))
                .sum()
        };
        assert_eq!(counted(&cache.young), cache.young.bytes);
        let before = cache.young.entries.len();
        cache.route(&routes, name(&"x".repeat(LONGEST_TOPIC + 1)));
        assert_eq!(cache.young.entries.len(), before);
        assert!(cache.take_walked() >= 1_000 * 400);
        assert_eq!(cache.take_walked(), 0);
    }

    /// A route that changed is read again, and counted as it is now.
    #[test]
    fn changed_routes_are_read_again() {
        let routes = Routes::new();
        let wanted = Subscription::new(SubscriptionOptions::default());
        let mut cache = RouteCache::default();
        assert!(cache.route(&routes, name("a")).is_empty());
        let client = routes.add_client("client".into(), None);
        routes.subscribe(&client, TopicFilter::new("a").unwrap(), wanted);
        assert_eq!(cache.route(&routes, name("a")).targets.len(), 1);
        routes.unsubscribe(&client, TopicFilter::new("a").unwrap());
        assert!(cache.route(&routes, name("a")).is_empty());
        let empty = Generation::cost("a", &Route::default());
        assert_eq!(cache.young.bytes, empty);
    }
}
