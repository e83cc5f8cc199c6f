//! Retained messages on their way to the subscriptions of one session that asked for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::{QoS, SubscriptionIdentifier};

use crate::hub::retained::RetainedCursor;

/// Retained messages still to be sent for one subscription.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) cursor: RetainedCursor,
    /// The granted QoS.
    pub(crate) qos: QoS,
    pub(crate) identifier: Option<SubscriptionIdentifier>,
}

/// The pulls of a session in the order of their SUBSCRIBEs, one for each filter at most. They outlive the
/// connection as the session does.
#[derive(Debug, Default)]
pub(crate) struct Pulls {
    // Boxed: most sessions have none at most times.
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_number: BTreeMap<u64, Pull>,
    numbers: HashMap<Arc<str>, u64, RandomState>,
    next: u64,
}

impl Pulls {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_none()
    }

    /// Begins a pull; one that goes on for the same filter ends.
    pub(crate) fn start(&mut self, pull: Pull) {
        let waiting = self.waiting.get_or_insert_default();
        let number = waiting.next;
        waiting.next += 1;
        let filter = Arc::clone(pull.cursor.filter());
        if let Some(old) = waiting.numbers.insert(filter, number) {
            waiting.by_number.remove(&old);
        }
        waiting.by_number.insert(number, pull);
    }

    /// Ends the pull of a filter, if there is one.
    pub(crate) fn stop(&mut self, filter: &str) {
        let Some(waiting) = &mut self.waiting else {
            return;
        };
        if let Some(number) = waiting.numbers.remove(filter) {
            waiting.by_number.remove(&number);
        }
        self.shrink();
    }

    /// The pull whose turn it is.
    pub(crate) fn first(&mut self) -> Option<&mut Pull> {
        let waiting = self.waiting.as_mut()?;
        waiting.by_number.values_mut().next()
    }

    /// Ends the pull whose turn it is.
    pub(crate) fn finish_first(&mut self) {
        if let Some(waiting) = &mut self.waiting
            && let Some((_, pull)) = waiting.by_number.pop_first()
        {
            waiting.numbers.remove(pull.cursor.filter());
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        self.waiting.take_if(|waiting| waiting.by_number.is_empty());
    }
}
