//! What is promised to the groups of shared subscriptions: one member gets a message, and no second one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mqtt_codec::QoS;

use super::model::{Message, Model, Tick, matches};
use super::repeats::Arrived;

/// All groups, by the whole filter.
#[derive(Debug, Default)]
pub(super) struct Groups {
    all: BTreeMap<String, Group>,
}

#[derive(Debug, Default)]
struct Group {
    /// To whom each message came, and how.
    came: HashMap<usize, Vec<(usize, QoS)>>,
    /// QoS 2 messages that may have been sent to sessions which were discarded before they came: nobody else may get
    /// them ([MQTT-4.8.2-5]).
    excused: usize,
    /// When a member's session was last lost that is not on the disk: what was sent before may have been given to it.
    lost: Tick,
}

/// Whether a filter is that of a group.
pub(super) fn is_shared(filter: &str) -> bool {
    filter.starts_with("$share/")
}

/// The filter without the name of a group.
pub(super) fn inner(filter: &str) -> &str {
    match filter.strip_prefix("$share/") {
        Some(shared) => shared.split_once('/').map_or(shared, |(_, inner)| inner),
        None => filter,
    }
}

impl Model {
    /// A session is lost, with what groups may have given to it.
    pub(super) fn lose_to_groups(&mut self, session: usize) {
        let now = self.tick();
        for filter in self.groups_of(session) {
            self.groups.all.entry(filter).or_default().lost = now;
        }
    }

    /// Whether two sessions may be members of one group that a message is for.
    pub(super) fn share_a_group(&self, one: usize, other: usize, number: usize) -> bool {
        let topic = &self.messages[number].topic;
        let asked = &self.sessions[other].asked;
        let mut filters = self.sessions[one].asked.iter();
        filters.any(|it| is_shared(it) && matches(it, topic) && asked.contains(it))
    }

    /// The filters of groups that a session ever asked for.
    fn groups_of(&self, session: usize) -> BTreeSet<String> {
        let asked = self.sessions[session].asked.iter();
        asked.filter(|it| is_shared(it)).cloned().collect()
    }

    /// The session of a member is about to be discarded, with so many messages in flight at most.
    pub(super) fn excuse(&mut self, session: usize, in_flight: u16) {
        for filter in self.groups_of(session) {
            self.groups.all.entry(filter).or_default().excused += usize::from(in_flight);
        }
    }

    /// A message has come to a session, by a group if it is a member of one for its topic.
    pub(super) fn deliver_to_group(&mut self, session: usize, number: usize, qos: QoS) {
        let message = &self.messages[number];
        let mut asked = self.sessions[session].asked.iter();
        let filter = asked.find(|it| is_shared(it) && matches(it, &message.topic));
        let Some(filter) = filter.cloned() else {
            return;
        };
        let group = self.groups.all.entry(filter.clone()).or_default();
        let came = group.came.entry(number).or_default();
        let elsewhere = came.iter().find(|(other, earlier)| {
            let giver = &self.sessions[*other];
            let is_once = match message.qos {
                QoS::AtMostOnce => true,
                // Sent again by its publisher, it is another message.
                QoS::AtLeastOnce => {
                    let arrived = giver.arrived.get(&number);
                    let may_repeat = |it: &Arrived| it.may_go_on(self.ended, giver.discarded);
                    message.times == 1 && !arrived.is_some_and(may_repeat)
                }
                // A session that is not on the disk may get it before anything is stored, and the publisher sends it
                // again to a broker that forgot.
                QoS::ExactlyOnce => {
                    qos == *earlier
                        && qos == QoS::ExactlyOnce
                        && !(giver.forgetful && message.times > 1)
                }
            };
            is_once && *other != session
        });
        let failure = elsewhere.map(|(other, _)| {
            format!(
                "{filter}: message {number} ({:?}) came to session {session}, and to {other} before",
                message.qos
            )
        });
        came.push((session, qos));
        if let Some(text) = failure {
            self.fail(text);
        }
    }

    /// Messages that came to no member of a group that always had one: the first with such a member, and how many.
    pub(super) fn missing_in_groups(&self) -> (Option<(usize, usize)>, usize) {
        let (mut first, mut count) = (None, 0);
        for filter in self.shared_filters() {
            let group = self.groups.all.get(filter);
            let mut excused = group.map_or(0, |group| group.excused);
            let lost = group.map_or(0, |group| group.lost);
            for (number, message) in self.messages.iter().enumerate() {
                let came = group.is_some_and(|group| group.came.contains_key(&number));
                if came || message.sent < lost {
                    continue;
                }
                let Some(member) = self.stable_member(filter, message) else {
                    continue;
                };
                if message.qos == QoS::ExactlyOnce && excused > 0 {
                    excused -= 1;
                    continue;
                }
                first.get_or_insert((member, number));
                count += 1;
            }
        }
        (first, count)
    }

    fn shared_filters(&self) -> BTreeSet<&str> {
        let interests = self.sessions.iter().flat_map(|it| &it.interests);
        let filters = interests.map(|it| it.filter.as_str());
        filters.filter(|it| is_shared(it)).collect()
    }

    /// A session that was a member before a message was sent, and still is, where it is owed to the group.
    fn stable_member(&self, filter: &str, message: &Message) -> Option<usize> {
        let is_owed = message.acknowledged.is_some()
            && message.qos != QoS::AtMostOnce
            && !message.is_short_lived()
            && matches(filter, &message.topic);
        if !is_owed {
            return None;
        }
        self.sessions.iter().position(|session| {
            session.interests.iter().any(|it| {
                !it.void && it.filter == filter && it.from < message.sent && it.until.is_none()
            })
        })
    }
}
