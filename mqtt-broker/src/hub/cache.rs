//! Routes that were read lately, kept by each worker and checked against the subscriptions' version.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::TopicName;

use crate::hub::routes::{Route, RouteScratch, RouteVersion, Routes};

/// Topics in each of the two generations of the cache.
const GENERATION: usize = 16_384;

#[derive(Debug)]
struct Entry {
    version: RouteVersion,
    route: Arc<Route>,
}

type Generation = HashMap<Box<str>, Entry, RandomState>;

/// A cache of fixed size. What was not asked for while a whole generation filled up is forgotten.
#[derive(Debug, Default)]
pub(crate) struct RouteCache {
    young: Generation,
    old: Generation,
    scratch: RouteScratch,
}

impl RouteCache {
    /// The route of `topic`, as of now.
    pub(crate) fn route(&mut self, routes: &Routes, topic: TopicName<'_>) -> Arc<Route> {
        let version = routes.version(topic);
        if let Some(entry) = self.young.get_mut(topic.as_str()) {
            if entry.version != version {
                *entry = Entry {
                    version,
                    route: Arc::new(routes.route(topic, &mut self.scratch)),
                };
            }
            return Arc::clone(&entry.route);
        }
        let (text, entry) = match self.old.remove_entry(topic.as_str()) {
            Some((text, entry)) if entry.version == version => (text, entry),
            _ => {
                let route = Arc::new(routes.route(topic, &mut self.scratch));
                (topic.as_str().into(), Entry { version, route })
            }
        };
        if self.young.len() >= GENERATION {
            self.old = core::mem::take(&mut self.young);
        }
        let route = Arc::clone(&entry.route);
        self.young.insert(text, entry);
        route
    }

    /// Forgets everything: the routes belong to another broker.
    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
