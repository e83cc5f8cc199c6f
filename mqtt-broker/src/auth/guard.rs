//! What one connection was allowed lately: decisions are remembered by topic until the permissions change.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mqtt_codec::TopicName;

use crate::auth::access::Access;
use crate::auth::rule::Verdict;

/// Topics in each of the two generations.
const GENERATION: usize = 128;
/// Bytes of the longest topic that is remembered.
const LONGEST_TOPIC: usize = 256;

type Verdicts = HashMap<Box<str>, Verdict, RandomState>;

/// Decisions about publishing, and the state of the permissions that they were taken in.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    epoch: u64,
    access: Option<Arc<Access>>,
    young: Verdicts,
    old: Verdicts,
}

impl Guard {
    /// For whom somebody is to be asked about what the rules allow, as of the last decision; none: nobody is asked.
    pub(crate) fn asks(&self) -> Option<&Arc<Access>> {
        let access = self.access.as_ref();
        access.filter(|access| access.topics.is_some())
    }

    /// What may be published to `topic`. `access` is read anew when `epoch` is another than before.
    pub(crate) fn publish(
        &mut self,
        topic: TopicName<'_>,
        epoch: u64,
        access: impl FnOnce() -> Option<Arc<Access>>,
    ) -> Verdict {
        if self.epoch != epoch {
            *self = Self {
                epoch,
                access: access(),
                ..Self::default()
            };
        }
        let Some(access) = &self.access else {
            return Verdict::ALLOWED;
        };
        let text = topic.as_str();
        if let Some(verdict) = self.young.get(text) {
            return *verdict;
        }
        let (text, verdict) = match self.old.remove_entry(text) {
            Some(known) => known,
            None if text.len() > LONGEST_TOPIC => return access.publish(topic),
            None => (text.into(), access.publish(topic)),
        };
        if self.young.len() >= GENERATION {
            self.old = core::mem::take(&mut self.young);
        }
        self.young.insert(text, verdict);
        verdict
    }
}
