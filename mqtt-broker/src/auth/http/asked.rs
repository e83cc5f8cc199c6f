//! What a service said lately about the topics of one connection.

use core::time::Duration;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use mqtt_codec::{QoS, TopicFilter, TopicName};
use mqtt_session::Time;

use crate::auth::http::topics::Reply;
use crate::auth::rule::Action;

/// Answers in each of the two generations.
const GENERATION: usize = 128;
/// The same after a packet that asked for more than that.
const LARGEST_GENERATION: usize = 4_096;
/// Bytes of the longest topic of which the answer is remembered.
const LONGEST_TOPIC: usize = 1_024;

/// What a client wants to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    action: Action,
    qos: Option<QoS>,
    retain: bool,
    text: Box<str>,
}

impl Question {
    pub(crate) fn publish(topic: TopicName<'_>, qos: QoS, retain: bool) -> Self {
        Self {
            action: Action::Publish,
            qos: Some(qos),
            retain,
            text: topic.as_str().into(),
        }
    }

    /// `qos`: none where it is not known any more.
    pub(crate) fn subscribe(filter: TopicFilter<'_>, qos: Option<QoS>) -> Self {
        Self {
            action: Action::Subscribe,
            qos,
            retain: false,
            text: filter.as_str().into(),
        }
    }

    /// The topic or filter.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn action(&self) -> Action {
        self.action
    }

    pub(super) fn qos(&self) -> Option<QoS> {
        self.qos
    }

    pub(super) fn retain(&self) -> bool {
        self.retain
    }

    /// The group of a shared subscription, and the topic or filter.
    pub(super) fn parts(&self) -> (Option<&str>, &str) {
        let filter = match self.action {
            Action::Publish => return (None, &self.text),
            Action::Subscribe | Action::Receive => TopicFilter::new(&self.text),
        };
        match filter.ok().and_then(|filter| filter.shared()) {
            Some(shared) => (Some(shared.group), shared.filter.as_str()),
            None => (None, &self.text),
        }
    }
}

type Answers = HashMap<Question, (Time, Reply), RandomState>;

/// Answers, each for its time. Those that are not asked for fall out.
#[derive(Debug)]
pub(crate) struct Asked {
    young: Answers,
    old: Answers,
    /// Answers in each of them.
    generation: usize,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            young: Answers::default(),
            old: Answers::default(),
            generation: GENERATION,
        }
    }
}

impl Asked {
    pub(crate) fn get(&mut self, question: &Question, now: Time) -> Option<Reply> {
        let is_young = |(until, _): &(Time, Reply)| now < *until;
        if let Some((_, reply)) = self.young.get(question).filter(|it| is_young(it)) {
            return Some(*reply);
        }
        let known = self.old.remove(question).filter(is_young)?;
        self.insert(question.clone(), known);
        Some(known.1)
    }

    /// Takes note of what was said.
    pub(crate) fn put(&mut self, question: Question, reply: Reply, now: Time, lasts: Duration) {
        if reply.is_said() && !lasts.is_zero() && question.text.len() <= LONGEST_TOPIC {
            self.insert(question, (now + lasts, reply));
        }
    }

    /// Makes room for so many answers: whoever sends a packet again of which not all was answered in time is to come
    /// further than before.
    pub(crate) fn make_room(&mut self, answers: usize) {
        self.generation = answers.clamp(GENERATION, LARGEST_GENERATION);
    }

    fn insert(&mut self, question: Question, entry: (Time, Reply)) {
        if self.young.len() >= self.generation {
            self.old = core::mem::take(&mut self.young);
        }
        self.young.insert(question, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: usize) -> Question {
        let text = format!("a/{number}");
        Question::publish(TopicName::new(&text).unwrap(), QoS::AtMostOnce, false)
    }

    /// An answer holds for its time, whether it is asked for in between or not, and others fall out.
    #[test]
    fn an_answer_ends_in_time() {
        let at = |seconds| Time::ZERO + Duration::from_secs(seconds);
        let mut asked = Asked::default();
        let lasts = Duration::from_secs(10);
        asked.put(question(0), Reply::Denied, at(0), lasts);
        for number in 1..100 {
            asked.put(question(number), Reply::Allowed, at(1), lasts);
        }
        for number in 100..GENERATION + 50 {
            asked.put(question(number), Reply::Allowed, at(1), lasts);
            assert_eq!(asked.get(&question(0), at(9)), Some(Reply::Denied));
        }
        assert_eq!(asked.get(&question(0), at(10)), None);
        assert_eq!(
            asked.get(&question(GENERATION), at(10)),
            Some(Reply::Allowed)
        );
        for number in 0..5 * GENERATION {
            asked.put(question(number), Reply::Allowed, at(1), lasts);
        }
        assert!(asked.young.len() + asked.old.len() <= 2 * GENERATION);
        asked.put(question(7_000), Reply::Failed, at(1), lasts);
        asked.put(question(7_001), Reply::Allowed, at(1), Duration::ZERO);
        assert_eq!(asked.get(&question(7_000), at(1)), None);
        assert_eq!(asked.get(&question(7_001), at(1)), None);
    }

    #[test]
    fn a_shared_filter_has_two_parts() {
        let filter = TopicFilter::new("$share/group/a/#").unwrap();
        let question = Question::subscribe(filter, None);
        assert_eq!(question.parts(), (Some("group"), "a/#"));
    }
}
