//! The loads: who publishes to which topics, who subscribes to what, and what must come of it.

use std::collections::HashMap;

use mqtt_codec::{TopicFilter, TopicName};

/// Topics of each publisher of the load `wild`.
const WILD_TOPICS: usize = 1000;
/// Publishers of the load `wild`.
const WILD_PUBLISHERS: usize = 10;
/// Subscribers of the load `wild`: four kinds of ten. They fit in the bits of a number.
const WILD_SUBSCRIBERS: usize = 40;
/// What a publisher of `wild` adds to the number of its topic each time: it has no factor in common
/// with their number, so that all are visited, and none is near the last.
const WILD_STRIDE: usize = 7;

/// The shape of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As many publishers as subscribers, a topic each.
    Pairs,
    /// One publisher, many subscribers of one topic.
    Fanout,
    /// Many publishers, one subscriber of all.
    Fanin,
    /// Publishers to one shared group.
    Shared,
    /// 10,000 topics and overlapping wildcards.
    Wild,
}

/// A load of some size.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) shape: Shape,
    pub(super) publishers: usize,
    pub(super) subscribers: usize,
    prefix: String,
    /// Filters of each of the last twenty subscribers of `wild` that match nothing.
    background: usize,
    /// The subscribers of each topic of `wild`, as bits.
    audience: Vec<u64>,
    deliveries: u64,
}

/// Where a message stands in the account of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) track: usize,
    pub(super) number: u64,
}

impl Load {
    /// `prefix` must be a valid topic name.
    pub(super) fn new(
        shape: Shape,
        publishers: usize,
        subscribers: usize,
        prefix: &str,
        background: usize,
    ) -> Self {
        let (publishers, subscribers) = match shape {
            Shape::Pairs => (publishers, publishers),
            Shape::Fanout => (1, subscribers),
            Shape::Fanin => (publishers, 1),
            Shape::Shared => (publishers, subscribers),
            Shape::Wild => (WILD_PUBLISHERS, WILD_SUBSCRIBERS),
        };
        let mut load = Self {
            shape,
            publishers,
            subscribers,
            prefix: prefix.to_owned(),
            background,
            audience: Vec::new(),
            deliveries: 0,
        };
        if shape == Shape::Wild {
            load.find_audience();
        }
        load
    }

    fn find_audience(&mut self) {
        let mut exact: HashMap<String, u64> = HashMap::new();
        let mut wild: Vec<(String, u64)> = Vec::new();
        for subscriber in 0..self.subscribers {
            for filter in self.wild_filters(subscriber) {
                if TopicFilter::assume_valid(&filter).has_wildcards() {
                    wild.push((filter, 1 << subscriber));
                } else {
                    *exact.entry(filter).or_default() |= 1 << subscriber;
                }
            }
        }
        for publisher in 0..self.publishers {
            for topic in self.topics(publisher) {
                let mut bits = exact.get(&topic).copied().unwrap_or(0);
                for (filter, subscriber) in &wild {
                    let topic = TopicName::assume_valid(&topic);
                    if TopicFilter::assume_valid(filter).matches(topic) {
                        bits |= subscriber;
                    }
                }
                self.deliveries += u64::from(u64::count_ones(bits));
                self.audience.push(bits);
            }
        }
    }

    /// The topics of a publisher, which its messages go through again and again.
    pub(super) fn topics(&self, publisher: usize) -> Vec<String> {
        let prefix = &self.prefix;
        match self.shape {
            Shape::Pairs => vec![format!("{prefix}/pair/{publisher}")],
            Shape::Fanout => vec![format!("{prefix}/all")],
            Shape::Fanin => vec![format!("{prefix}/in/{publisher}/value")],
            Shape::Shared => vec![format!("{prefix}/shared/{publisher}")],
            Shape::Wild => (0..WILD_TOPICS)
                .map(|step| {
                    let topic = step * WILD_STRIDE % WILD_TOPICS;
                    format!("{prefix}/{publisher}/{}/{}", topic / 100, topic % 100)
                })
                .collect(),
        }
    }

    /// What a subscriber subscribes to.
    pub(super) fn filters(&self, subscriber: usize) -> Vec<String> {
        let prefix = &self.prefix;
        match self.shape {
            Shape::Pairs | Shape::Fanout => self.topics(subscriber),
            Shape::Fanin => vec![format!("{prefix}/in/#")],
            Shape::Shared => vec![format!("$share/group/{prefix}/shared/#")],
            Shape::Wild => {
                let mut filters = self.wild_filters(subscriber);
                if subscriber >= WILD_SUBSCRIBERS / 2 {
                    filters.extend((0..self.background).map(|number| match number % 3 {
                        0 => format!("{prefix}/{}/{number}x/+/none", subscriber % 10),
                        1 => format!("other/{subscriber}/{number}/#"),
                        _ => format!("other/+/{number}/{subscriber}/exact"),
                    }));
                }
                filters
            }
        }
    }

    /// A `#` behind a `+`, two `+`, ten filters with `+`, or a hundred topics. No two filters of a
    /// subscriber overlap: what would come then is the broker's choice in 3.1.1.
    fn wild_filters(&self, subscriber: usize) -> Vec<String> {
        let prefix = &self.prefix;
        let number = subscriber % 10;
        match subscriber / 10 {
            0 => vec![format!("{prefix}/+/{number}/#")],
            1 => vec![format!("{prefix}/{number}/+/+")],
            2 => (0..10)
                .map(|last| format!("{prefix}/+/+/{}", number * 10 + last))
                .collect(),
            _ => (0..100)
                .map(|last| format!("{prefix}/{number}/{number}/{last}"))
                .collect(),
        }
    }

    /// How many deliveries a message causes on average.
    pub(super) fn deliveries_per_message(&self) -> f64 {
        match self.shape {
            Shape::Pairs | Shape::Fanin | Shape::Shared => 1.0,
            Shape::Fanout => self.subscribers as f64,
            Shape::Wild => self.deliveries as f64 / self.audience.len() as f64,
        }
    }

    /// How many deliveries the message of this number must cause.
    #[inline]
    pub(super) fn deliveries(&self, publisher: usize, number: u64) -> u64 {
        match self.shape {
            Shape::Pairs | Shape::Fanin | Shape::Shared => 1,
            Shape::Fanout => self.subscribers as u64,
            Shape::Wild => self.audience(publisher, number).count_ones().into(),
        }
    }

    #[inline]
    fn audience(&self, publisher: usize, number: u64) -> u64 {
        let step = (number % WILD_TOPICS as u64) as usize;
        self.audience
            .get(publisher * WILD_TOPICS + step)
            .copied()
            .unwrap_or(0)
    }

    /// How many tracks the account has.
    pub(super) fn tracks(&self) -> usize {
        match self.shape {
            Shape::Pairs | Shape::Fanin => self.publishers,
            Shape::Fanout => self.subscribers,
            Shape::Shared => self.publishers * self.subscribers,
            Shape::Wild => self.audience.len() * self.subscribers,
        }
    }

    /// Where a subscriber's message belongs in the account; `None` where it had not to come to it.
    /// Order is promised for the messages of one publisher to one topic.
    #[inline]
    pub(super) fn place(&self, subscriber: usize, publisher: usize, number: u64) -> Option<Place> {
        let track = match self.shape {
            Shape::Pairs => {
                return (publisher == subscriber).then_some(Place {
                    track: publisher,
                    number,
                });
            }
            Shape::Fanin => publisher,
            Shape::Fanout => subscriber,
            Shape::Shared => subscriber * self.publishers + publisher,
            Shape::Wild => {
                if self.audience(publisher, number) >> subscriber & 1 == 0 {
                    return None;
                }
                let step = (number % WILD_TOPICS as u64) as usize;
                return Some(Place {
                    track: (publisher * WILD_TOPICS + step) * WILD_SUBSCRIBERS + subscriber,
                    number: number / WILD_TOPICS as u64,
                });
            }
        };
        Some(Place { track, number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Shape; 5] = [
        Shape::Pairs,
        Shape::Fanout,
        Shape::Fanin,
        Shape::Shared,
        Shape::Wild,
    ];

    /// What the account expects is what the filters say, a filter at a time.
    #[test]
    fn expectations_agree_with_the_filters() {
        for shape in SHAPES {
            let load = Load::new(shape, 3, 4, "bench", 50);
            let filters: Vec<_> = (0..load.subscribers).map(|s| load.filters(s)).collect();
            for publisher in 0..load.publishers {
                for (number, topic) in load.topics(publisher).iter().enumerate().step_by(61) {
                    let mut deliveries = 0;
                    for (subscriber, filters) in filters.iter().enumerate() {
                        let hits = filters
                            .iter()
                            .filter(|filter| {
                                TopicFilter::new(filter)
                                    .unwrap()
                                    .matches(TopicName::new(topic).unwrap())
                            })
                            .count();
                        assert!(hits <= 1, "{topic} comes twice to {subscriber}");
                        let place = load.place(subscriber, publisher, number as u64);
                        assert_eq!(place.is_some(), hits == 1, "{shape:?} {topic} {subscriber}");
                        deliveries += hits as u64;
                    }
                    let expected = load.deliveries(publisher, number as u64);
                    match shape {
                        // One member of the group, of all that match.
                        Shape::Shared => assert_eq!(expected, 1),
                        _ => assert_eq!(expected, deliveries),
                    }
                }
            }
        }
    }

    #[test]
    fn a_track_takes_the_messages_of_one_publisher_to_one_topic() {
        let load = Load::new(Shape::Wild, 0, 0, "bench", 0);
        let hit = (0..40).find(|s| load.place(*s, 4, 5).is_some()).unwrap();
        let first = load.place(hit, 4, 5).unwrap();
        let second = load.place(hit, 4, 1005).unwrap();
        assert_eq!((first.number, second.number), (0, 1));
        assert_eq!(first.track, second.track);
        assert!(first.track < load.tracks());
        assert!((2.0..4.0).contains(&load.deliveries_per_message()));
    }
}
