//! A journal as it was at an instant of the run.

use super::super::journal::Journal;

/// What the clients had done and seen up to the instant, itself included. Failures are left out.
pub(super) fn past(journal: &Journal, instant: u64) -> Journal {
    let mut past = journal.clone();
    let forget = |at: &mut Option<u64>| *at = at.filter(|at| *at <= instant);
    past.failures.clear();
    past.established.retain(|(_, at)| *at <= instant);
    for sent in &mut past.sent {
        // Numbers are given in order, so that only the last ones go.
        sent.retain(|sent| sent.at <= instant);
        for sent in sent {
            forget(&mut sent.acknowledged);
            forget(&mut sent.completed);
        }
    }
    for session in &mut past.sessions {
        session.deliveries.retain(|it| it.at <= instant);
        session.released.retain(|(_, at)| *at <= instant);
        for interest in &mut session.interests {
            forget(&mut interest.made);
            forget(&mut interest.leaving);
            forget(&mut interest.left);
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_came_later_is_not_known() {
        let mut journal = Journal::default();
        let publisher = journal.add_publisher();
        let first = journal.send(publisher, &Arc::from("a"), 1, false, 20);
        let instant = journal.now();
        journal.acknowledge(first, 0, true);
        journal.send(publisher, &Arc::from("a"), 1, false, 20);
        let past = past(&journal, instant);
        assert_eq!(past.sent[0].len(), 1);
        assert_eq!(past.sent[0][0].acknowledged, None);
        assert!(journal.sent[0][0].acknowledged.is_some());
    }
}
