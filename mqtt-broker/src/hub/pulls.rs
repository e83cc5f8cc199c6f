//! Retained messages on their way to the subscriptions of one session that asked for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::{QoS, SubscriptionIdentifier};
use smallvec::SmallVec;

use crate::hub::retained::RetainedCursor;

/// Retained messages still to be sent for one subscription.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) cursor: RetainedCursor,
    /// The granted QoS.
    pub(crate) qos: QoS,
    /// What the client published itself is left out.
    pub(crate) no_local: bool,
    pub(crate) identifier: Option<SubscriptionIdentifier>,
}

/// Pulls of one filter that wait or go on at the same time: each SUBSCRIBE brings the retained messages again
/// ([MQTT-3.8.4-4]), but who sends it very often does not get them as often.
const PER_FILTER: usize = 4;

/// The pulls of a session in the order of their SUBSCRIBEs. They outlive the connection as the session does.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    // Boxed: most sessions have none at most times.
    waiting: Option<Box<Waiting>>,
}

/// The pulls of one filter, oldest first.
type Numbers = SmallVec<[u64; 1]>;

#[derive(Debug, Default)]
struct Waiting {
    by_number: BTreeMap<u64, Pull>,
    numbers: HashMap<Arc<str>, Numbers, RandomState>,
    next: u64,
}

impl Pulls {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Begins a pull. Where there are as many for the same filter as there may be, the oldest one ends.
    pub(crate) fn start(&mut self, pull: Pull) {
        let waiting = self.waiting.get_or_insert_default();
        let number = waiting.next;
        waiting.next += 1;
        let numbers = waiting
            .numbers
            .entry(Arc::clone(pull.cursor.filter()))
            .or_default();
        if numbers.len() >= PER_FILTER {
            waiting.by_number.remove(&numbers.remove(0));
        }
        numbers.push(number);
        waiting.by_number.insert(number, pull);
    }

    /// Ends the pulls of a filter; returns whether there were any.
    pub(crate) fn stop(&mut self, filter: &str) -> bool {
        let Some(waiting) = &mut self.waiting else {
            return false;
        };
        let numbers = waiting.numbers.remove(filter).unwrap_or_default();
        for number in &numbers {
            waiting.by_number.remove(number);
        }
        self.shrink();
        !numbers.is_empty()
    }

    /// The pull whose turn it is.
    pub(crate) fn first(&mut self) -> Option<&mut Pull> {
        let waiting = self.waiting.as_mut()?;
        waiting.by_number.values_mut().next()
    }

    /// Ends the pull whose turn it is; returns its filter if no other pull of that waits.
    pub(crate) fn finish_first(&mut self) -> Option<Arc<str>> {
        let mut done = None;
        if let Some(waiting) = &mut self.waiting
            && let Some((number, pull)) = waiting.by_number.pop_first()
            && let Some(numbers) = waiting.numbers.get_mut(pull.cursor.filter())
        {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                waiting.numbers.remove(pull.cursor.filter());
                done = Some(Arc::clone(pull.cursor.filter()));
            }
        }
        self.shrink();
        done
    }

    fn shrink(&mut self) {
        self.waiting.take_if(|waiting| waiting.by_number.is_empty());
    }
}
