//! What may come again: at QoS 1 a message whose acknowledgement the broker may not have, or may have forgotten.

use mqtt_codec::QoS;

use super::model::{Model, Tick};

/// How far a message is that came to a session at QoS 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// When it came last.
    came: Tick,
    /// On which connection of its client.
    connection: u64,
    /// When the broker was known to have PUBACK.
    received: Option<Tick>,
    /// PUBACK is known to be stored, for good.
    is_stored: bool,
}

impl Arrived {
    /// Whether it may go to another member of the group: a broker has ended since it came, which forgets what was sent,
    /// or its session was discarded.
    pub(super) fn may_go_on(&self, ended: Tick, discarded: Tick) -> bool {
        ended.max(discarded) > self.came
    }

    /// Whether it is over, and no broker can know otherwise. `crashed`: when one last had no time to store what it knew.
    fn is_over(&self, crashed: Tick) -> bool {
        self.is_stored || self.received.is_some_and(|received| received > crashed)
    }
}

impl Model {
    /// A message has come to a session at this QoS, on this connection of it.
    pub(super) fn check_repeats(
        &mut self,
        session: usize,
        number: usize,
        qos: QoS,
        connection: u64,
    ) {
        let Some(message) = self.messages.get(number) else {
            return;
        };
        if qos != QoS::AtLeastOnce || message.qos != QoS::AtLeastOnce {
            return;
        }
        // Sent again by its publisher, it is another message.
        if message.times == 1 {
            let mut failures = Vec::new();
            for (other, kept) in self.sessions.iter().enumerate() {
                let Some(arrived) = kept.arrived.get(&number) else {
                    continue;
                };
                let is_same_group = other == session || self.share_a_group(other, session, number);
                if is_same_group && arrived.is_over(self.crashed) {
                    failures.push(format!("was acknowledged by {other}: {arrived:?}"));
                }
                if other == session && arrived.connection == connection {
                    failures.push("came before on the same connection".to_owned());
                }
            }
            for text in failures {
                self.fail(format!(
                    "session {session}: message {number} came again, and {text}"
                ));
            }
        }
        let came = self.tick();
        let arrived = self.sessions[session].arrived.entry(number).or_default();
        *arrived = Arrived {
            came,
            connection,
            ..Arrived::default()
        };
    }

    /// The broker has PUBACK for these, and if that `is_stored` will have it for good.
    pub(super) fn settle_acknowledged(
        &mut self,
        session: usize,
        numbers: impl Iterator<Item = usize>,
        is_stored: bool,
    ) {
        let now = self.tick();
        for number in numbers {
            if let Some(arrived) = self.sessions[session].arrived.get_mut(&number) {
                arrived.received.get_or_insert(now);
                arrived.is_stored |= is_stored;
            }
        }
    }
}
