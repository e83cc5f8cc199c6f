//! The verdict on a journal: what each subscriber should have got against what it got.

use std::collections::{HashMap, HashSet};

use super::journal::{Failure, Interest, Journal, MessageId, Promise, Sent, Session};

/// Everything that was promised and not kept, what was seen at once included. The run is over: all that
/// the broker owes has had its time to arrive.
pub(super) fn judge(journal: &Journal) -> Vec<Failure> {
    let mut failures = journal.failures.clone();
    for (id, sent) in messages(journal) {
        if sent.completed.is_none() && sent.refused.is_none() {
            let text = format!("{id} on {} at QoS {}", sent.topic, sent.qos);
            failures.push(Failure {
                promise: Promise::Unanswered,
                text,
            });
        }
    }
    for session in &journal.sessions {
        judge_deliveries(journal, session, &mut failures);
        for (id, sent) in lost(journal, session) {
            let text = format!("{} on {}", about(id, sent), session.name);
            failures.push(Failure {
                promise: Promise::Lost,
                text,
            });
        }
    }
    failures
}

/// How many deliveries are still owed.
pub(super) fn missing(journal: &Journal) -> usize {
    let sessions = journal.sessions.iter();
    sessions.map(|session| lost(journal, session).count()).sum()
}

fn messages(journal: &Journal) -> impl Iterator<Item = (MessageId, &Sent)> {
    journal.sent.iter().enumerate().flat_map(|(index, sent)| {
        sent.iter().enumerate().map(move |(number, sent)| {
            let id = MessageId {
                publisher: index as u16,
                number: number as u32,
            };
            (id, sent)
        })
    })
}

/// The acknowledged messages that a session was subscribed to all the while and has not got. One that
/// clears a retained value names nobody, and is not looked for.
fn lost<'a>(
    journal: &'a Journal,
    session: &'a Session,
) -> impl Iterator<Item = (MessageId, &'a Sent)> {
    let got: HashSet<MessageId> = session.deliveries.iter().map(|it| it.message).collect();
    messages(journal).filter(move |(id, sent)| {
        sent.acknowledged.is_some()
            && sent.length > 0
            && !got.contains(id)
            && session.interests.iter().any(|it| owes(it, sent))
    })
}

/// Whether the subscription stood before the message was sent and until the broker was done with it.
pub(super) fn owes(interest: &Interest, sent: &Sent) -> bool {
    let before = interest.made.is_some_and(|made| made < sent.at);
    let until = interest.leaving.is_none_or(|leaving| {
        let done = sent.completed.filter(|_| sent.refused.is_none());
        done.is_some_and(|done| done < leaving)
    });
    before && until && matches(&interest.filter, &sent.topic)
}

/// Whether the subscription may still have stood when the message was sent, or was made later: a message
/// may take its time.
fn may_deliver(interest: &Interest, sent: &Sent) -> bool {
    interest.left.is_none_or(|left| sent.at < left) && matches(&interest.filter, &sent.topic)
}

fn judge_deliveries(journal: &Journal, session: &Session, failures: &mut Vec<Failure>) {
    let mut times: HashMap<MessageId, u32> = HashMap::new();
    // The highest number of each publisher, topic and QoS; a first delivery goes above it.
    let mut last: HashMap<(u16, &str, u8), u32> = HashMap::new();
    for delivery in &session.deliveries {
        let id = delivery.message;
        let Some(sent) = journal.message(id) else {
            continue;
        };
        let mut fail = |promise, text| failures.push(Failure { promise, text });
        let what = format_args!("{} on {}", about(id, sent), session.name).to_string();
        let count = times.entry(id).or_default();
        *count += 1;
        if *count > 1 {
            if delivery.qos == 2 {
                fail(Promise::Twice, what);
            }
            continue;
        }
        let interests = session.interests.iter();
        let mut levels = interests
            .filter(|it| may_deliver(it, sent))
            .map(|it| it.qos.min(sent.qos))
            .peekable();
        if levels.peek().is_none() {
            fail(Promise::Unsubscribed, what.clone());
        } else if !levels.any(|qos| qos == delivery.qos) {
            fail(Promise::Altered, format!("{what}, at QoS {}", delivery.qos));
        }
        let key = (id.publisher, &*sent.topic, sent.qos);
        match last.get_mut(&key) {
            // One that was sent before the subscription may have been passed over, and count when its
            // publisher sends it again.
            Some(last) if *last > id.number => {
                if session.interests.iter().any(|it| owes(it, sent)) {
                    fail(Promise::Order, format!("{what}, after number {last}"));
                }
            }
            Some(last) => *last = id.number,
            None => _ = last.insert(key, id.number),
        }
    }
}

fn about(id: MessageId, sent: &Sent) -> String {
    format!("{id} (topic {}, QoS {})", sent.topic, sent.qos)
}

/// Whether a filter of this harness matches: no level of its topics is empty or begins with `$`.
fn matches(filter: &str, topic: &str) -> bool {
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (_, Some(level)) if level == wanted => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::journal::content, *};

    /// A subscription to `a/+` at QoS 2, and four messages on `a/b` at this QoS, all acknowledged.
    fn journal(qos: u8) -> Journal {
        let mut journal = Journal::default();
        let publisher = journal.add_publisher();
        let session = journal.add_session("one");
        let interest = Interest {
            filter: "a/+".to_owned(),
            qos: 2,
            made: Some(journal.tick()),
            leaving: None,
            left: None,
        };
        journal.sessions[session].interests.push(interest);
        for _ in 0..4 {
            let id = journal.send(publisher, &Arc::from("a/b"), qos, false, 20);
            journal.acknowledge(id, 0, true);
        }
        journal
    }

    fn deliver(journal: &mut Journal, numbers: &[u32]) {
        for number in numbers {
            let id = MessageId {
                publisher: 0,
                number: *number,
            };
            let qos = journal.message(id).unwrap().qos;
            journal.deliver(0, "a/b", &content(id, 20), qos);
        }
    }

    fn found(qos: u8, numbers: &[u32]) -> Vec<Promise> {
        let mut journal = journal(qos);
        deliver(&mut journal, numbers);
        promises(&journal)
    }

    fn promises(journal: &Journal) -> Vec<Promise> {
        let failures = judge(journal).into_iter();
        failures.map(|failure| failure.promise).collect()
    }

    #[test]
    fn everything_once_and_in_order_is_well() {
        assert_eq!(found(1, &[0, 1, 2, 3]), []);
        assert_eq!(found(2, &[0, 1, 2, 3]), []);
    }

    #[test]
    fn a_lost_message_is_found() {
        assert_eq!(found(1, &[0, 1, 3]), [Promise::Lost]);
        assert_eq!(found(2, &[]), [Promise::Lost; 4]);
        assert_eq!(missing(&journal(1)), 4);
    }

    #[test]
    fn repeats_are_allowed_at_qos_1_only() {
        assert_eq!(found(1, &[0, 1, 0, 1, 2, 3]), []);
        assert_eq!(found(2, &[0, 1, 2, 3, 1]), [Promise::Twice]);
    }

    #[test]
    fn first_deliveries_keep_their_order() {
        assert_eq!(found(1, &[0, 2, 1, 3]), [Promise::Order]);
        assert_eq!(found(2, &[1, 0, 2, 3]), [Promise::Order]);
    }

    #[test]
    fn a_message_from_before_the_subscription_may_come_late() {
        let mut journal = journal(1);
        let made = journal.message(MessageId {
            publisher: 0,
            number: 2,
        });
        let made = made.map(|sent| sent.at);
        journal.sessions[0].interests[0].made = made;
        deliver(&mut journal, &[3, 0, 1]);
        assert_eq!(promises(&journal), []);
        deliver(&mut journal, &[2]);
        assert_eq!(promises(&journal), []);
    }

    #[test]
    fn a_message_at_another_qos_is_found() {
        let mut journal = journal(2);
        deliver(&mut journal, &[0, 1, 2]);
        let id = MessageId {
            publisher: 0,
            number: 3,
        };
        journal.deliver(0, "a/b", &content(id, 20), 1);
        assert_eq!(promises(&journal), [Promise::Altered]);
    }

    #[test]
    fn what_was_not_acknowledged_or_was_refused_may_be_missing() {
        let mut journal = journal(2);
        deliver(&mut journal, &[0, 1, 2, 3]);
        let id = journal.send(0, &Arc::from("a/b"), 2, false, 20);
        assert_eq!(promises(&journal), [Promise::Unanswered]);
        journal.acknowledge(id, 0x97, true);
        assert_eq!(promises(&journal), []);
    }

    #[test]
    fn a_subscription_owes_from_suback_to_unsubscribe() {
        let mut journal = journal(1);
        deliver(&mut journal, &[0, 1, 2, 3]);
        let leaving = journal.tick();
        journal.sessions[0].interests[0].leaving = Some(leaving);
        let between = journal.send(0, &Arc::from("a/b"), 1, false, 20);
        journal.acknowledge(between, 0, true);
        let left = journal.tick();
        journal.sessions[0].interests[0].left = Some(left);
        let after = journal.send(0, &Arc::from("a/b"), 1, false, 20);
        journal.acknowledge(after, 0, true);
        assert_eq!(promises(&journal), []);
        deliver(&mut journal, &[4]);
        assert_eq!(promises(&journal), []);
        deliver(&mut journal, &[5]);
        assert_eq!(promises(&journal), [Promise::Unsubscribed]);
    }

    #[test]
    fn filters_match_as_in_the_standard() {
        assert!(matches("a/b", "a/b"));
        assert!(matches("a/+", "a/b"));
        assert!(matches("a/#", "a/b/c"));
        assert!(matches("a/#", "a"));
        assert!(!matches("a/+", "a/b/c"));
        assert!(!matches("a/+", "a"));
        assert!(!matches("a/b", "a"));
        assert!(!matches("b/#", "a/b"));
    }
}
