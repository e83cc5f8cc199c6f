//! What is promised of a Message Expiry Interval: nothing comes after it, and what comes tells how much of it is left.

use core::time::Duration;

use tokio::time::Instant;

use super::model::Model;

/// Times are told in whole seconds.
const ROUNDED: Duration = Duration::from_secs(1);

/// How a message came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// Its Message Expiry Interval.
    pub(super) left: Option<u32>,
    /// The version of the session has properties.
    pub(super) has_properties: bool,
    /// It may have been sent before.
    pub(super) dup: bool,
    /// The broker sent it no earlier.
    pub(super) sent_after: Instant,
}

impl Model {
    /// A message has come to a session.
    pub(super) fn check_expiry(&mut self, session: usize, number: usize, arrival: Arrival) {
        let Some(message) = self.messages.get(number) else {
            return;
        };
        let now = Instant::now();
        let mut failures = Vec::new();
        let Some(interval) = message.expiry else {
            if arrival.left.is_some() {
                self.fail(format!(
                    "session {session}: message {number} never expires, and came with {arrival:?}"
                ));
            }
            return;
        };
        let whole = Duration::from_secs(interval.into());
        // What began before that may go on after it (section 3.3.2.3.3).
        if let Some(arrived) = message.arrived
            && !arrival.dup
            && arrived + whole < arrival.sent_after
        {
            failures.push(format!("after {:?}", arrival.sent_after - arrived));
        }
        match arrival.left {
            None if arrival.has_properties => failures.push("without its interval".to_owned()),
            None => {}
            Some(left) => {
                let rest = Duration::from_secs(left.into());
                if left > interval {
                    failures.push(format!("with a longer one of {left} s"));
                }
                if message.begun + whole > now + rest + ROUNDED {
                    failures.push(format!("with {left} s left, too few"));
                }
                // Nothing is left of the interval of what is sent again after it.
                if let Some(arrived) = message.arrived
                    && left > 0
                    && arrived + whole + ROUNDED < arrival.sent_after + rest
                {
                    failures.push(format!("with {left} s left, too many"));
                }
            }
        }
        for text in failures {
            self.fail(format!(
                "session {session}: message {number}, which expires after {interval} s, came {text}"
            ));
        }
    }

    /// Acknowledged messages with an interval that is shorter than a run: how many never came to anybody.
    pub(super) fn expired(&self) -> usize {
        let short = self
            .messages
            .iter()
            .enumerate()
            .filter(|(_, it)| it.acknowledged.is_some() && it.is_short_lived());
        let came = |number: &usize| {
            let mut sessions = self.sessions.iter();
            sessions.any(|session| session.came.contains_key(number))
        };
        short.filter(|(number, _)| !came(number)).count()
    }
}
