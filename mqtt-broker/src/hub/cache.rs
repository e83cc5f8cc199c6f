//! Routes that were read lately, kept by each worker and checked against the subscriptions' version.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::TopicName;

use crate::hub::routes::{Route, RoutePlace, RouteScratch, RouteVersion, Routes};

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

/// The topic that was asked for last: the next message is often for the same.
#[derive(Debug, Default)]
struct Last {
    topic: Rc<String>,
    place: RoutePlace,
    version: RouteVersion,
    /// `None`: it is out with whoever asked for it, or there is none.
    route: Option<Arc<Route>>,
}

/// A cache of bounded size. What was not asked for while a whole generation filled up is forgotten.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    last: Last,
    young: Generation,
    old: Generation,
    scratch: RouteScratch,
    /// Nodes and subscriptions that were read from the trees since this was last asked.
    walked: usize,
}

impl RouteCache {
    /// The route of `topic`, as of now. Whoever asked gives it back with [`RouteCache::put_back`] before the next
    /// question: then the same topic is answered without a look-up.
    pub(crate) fn route(&mut self, routes: &Routes, topic: TopicName<'_>) -> Arc<Route> {
        if *self.last.topic == topic.as_str()
            && self.last.version == routes.version(self.last.place)
            && let Some(route) = self.last.route.take()
        {
            return route;
        }
        let place = Routes::place(topic);
        let version = routes.version(place);
        let route = self.look_up(routes, topic, place, version);
        let last = &mut self.last;
        last.route = None;
        if topic.as_str().len() <= LONGEST_TOPIC {
            match Rc::get_mut(&mut last.topic) {
                Some(text) => {
                    text.clear();
                    text.push_str(topic.as_str());
                }
                None => last.topic = Rc::new(topic.as_str().into()),
            }
            (last.place, last.version) = (place, version);
        } else {
            last.topic = Rc::default();
        }
        route
    }

    /// The text of the topic that was asked for last; empty where it is not kept.
    pub(crate) fn last_text(&self) -> Rc<String> {
        Rc::clone(&self.last.topic)
    }

    /// Takes the route back that was asked for last.
    pub(crate) fn put_back(&mut self, route: Arc<Route>) {
        if !self.last.topic.is_empty() {
            self.last.route = Some(route);
        }
    }

    /// The topic that was asked for last, if its route is still `route`.
    pub(crate) fn last_topic(&self, routes: &Routes, route: &Arc<Route>) -> Option<TopicName<'_>> {
        let last = &self.last;
        let known = last.route.as_ref()?;
        (Arc::ptr_eq(known, route) && last.version == routes.version(last.place))
            .then(|| TopicName::assume_valid(&last.topic))
    }

    fn look_up(
        &mut self,
        routes: &Routes,
        topic: TopicName<'_>,
        place: RoutePlace,
        version: RouteVersion,
    ) -> Arc<Route> {
        if let Some(entry) = self.young.entries.get_mut(topic.as_str()) {
            if entry.version != version {
                let route = read(routes, topic, place, &mut self.scratch, &mut self.walked);
                self.young.bytes =
                    (self.young.bytes + route.size()).saturating_sub(entry.route.size());
                *entry = Entry { version, route };
            }
            return Arc::clone(&entry.route);
        }
        if topic.as_str().len() > LONGEST_TOPIC {
            return read(routes, topic, place, &mut self.scratch, &mut self.walked);
        }
        let (text, entry) = match self.old.entries.remove_entry(topic.as_str()) {
            Some((text, entry)) if entry.version == version => (text, entry),
            _ => {
                let route = read(routes, topic, place, &mut self.scratch, &mut self.walked);
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
        self.last = Last::default();
        self.young = Generation::default();
        self.old = Generation::default();
    }
}

fn read(
    routes: &Routes,
    topic: TopicName<'_>,
    place: RoutePlace,
    scratch: &mut RouteScratch,
    walked: &mut usize,
) -> Arc<Route> {
    let (route, cost) = routes.route(topic, place, scratch);
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
