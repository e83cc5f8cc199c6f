//! What is retained: what a subscription is to bring of it, and what the store must have.

use std::collections::{BTreeMap, BTreeSet};

use super::groups;
use super::model::{Message, Model, matches};

/// A retained message that a subscription is to bring, or a later one of its topic.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) filter: String,
    pub(super) topic: String,
    pub(super) number: usize,
    /// SUBACK has come.
    pub(super) promised: bool,
}

impl Model {
    /// SUBSCRIBE is about to be sent: what is retained by now is to come.
    pub(super) fn asks(&mut self, session: usize, filter: &str) {
        if groups::is_shared(filter) {
            // Section 4.8.2: nothing that is retained comes for it.
            return self.sessions[session].asked.push(filter.to_owned());
        }
        let mut retained: BTreeMap<&str, usize> = BTreeMap::new();
        for (number, message) in self.messages.iter().enumerate() {
            let is_retained = message.retain && message.acknowledged.is_some();
            if is_retained && matches(filter, &message.topic) {
                retained.insert(&message.topic, number);
            }
        }
        let wanted = retained.into_iter().map(|(topic, number)| Wanted {
            filter: filter.to_owned(),
            topic: topic.to_owned(),
            number,
            promised: false,
        });
        let session = &mut self.sessions[session];
        session.asked.push(filter.to_owned());
        session.wanted.retain(|it| it.filter != filter);
        session.wanted.extend(wanted);
    }

    /// A retained message has come, for a subscription.
    pub(super) fn deliver_retained(&mut self, session: usize, number: usize, topic: &str) {
        let kept = &mut self.sessions[session];
        let mut asked = kept.asked.iter();
        let was_asked = asked.any(|filter| !groups::is_shared(filter) && matches(filter, topic));
        // One that is older may be on its way since an earlier subscription.
        kept.wanted
            .retain(|it| it.topic != topic || it.number > number);
        let is_known = self.messages.get(number);
        let is_known = is_known.is_some_and(|it| it.retain && it.topic == topic);
        if !is_known || !was_asked {
            self.fail(format!(
                "session {session}: {number} ({topic}) was not retained, or was not asked for"
            ));
        }
        self.retained_delivered += 1;
    }

    /// Whether nothing may be retained, since this message or a later one of its topic expires.
    pub(super) fn may_have_expired(&self, topic: &str, number: usize) -> bool {
        let later = self.messages[number..].iter();
        let mut later = later.filter(|it| it.retain && it.topic == topic);
        later.any(Message::is_short_lived)
    }

    /// All topics to which something retained was published.
    pub(super) fn retained_topics(&self) -> BTreeSet<String> {
        let retained = self.messages.iter().filter(|it| it.retain);
        retained.map(|it| it.topic.clone()).collect()
    }

    /// Compares the retained message of a topic with what must be there.
    pub(super) fn retained(&mut self, topic: &str, found: Option<usize>) {
        let of_topic = self.messages.iter().enumerate();
        let mut of_topic = of_topic.filter(|(_, it)| it.retain && it.topic == topic);
        let owed = of_topic.rfind(|(_, it)| it.acknowledged.is_some());
        let Some((owed, _)) = owed else { return };
        match found {
            Some(found) if found >= owed => {}
            None if self.may_have_expired(topic, owed) => {}
            other => self.fail(format!(
                "{topic}: {other:?} is retained, and {owed} was acknowledged"
            )),
        }
    }
}
