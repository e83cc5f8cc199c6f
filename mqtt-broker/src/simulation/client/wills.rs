//! The will of a client: what is promised of it when a connection ends, when the client is back, and when it leaves for
//! good.

use core::time::Duration;

use mqtt_codec::{Disconnect, Packet, QoS, ReasonCode};
use tokio::time::Instant;

use super::{Client, KEEP_ALIVE, Next, SHORT_DELAY, WILL_DELAY};
use crate::simulation::conversation::Conversation;

/// So much later than it is due a will comes at most where nothing fails but the broker once.
const LATE: Duration = Duration::from_secs(10);
/// A client that is back so soon is back in time, however late the broker heard of its end.
const SOON: Duration = Duration::from_secs(30);
/// The end of a connection takes so long to come to the broker, where it comes.
const TRAVELS: Duration = Duration::from_secs(1);

impl Client {
    /// Its will may come before it is back.
    pub(super) fn has_short_delay(&self) -> bool {
        self.will_delay
            .is_some_and(|it| (1..WILL_DELAY).contains(&it))
    }

    /// A connection has ended, and its will with it.
    pub(super) fn leave_will(&mut self, talk: &Conversation) {
        talk.link.leave();
        let Some(number) = talk.will else {
            return;
        };
        // What waits for the end of this connection begins to wait no earlier.
        self.waiting_wills.push((number, talk.heard));
        if self.is_gone {
            return;
        }
        let delay = Duration::from_secs(self.will_delay.unwrap_or_default().into());
        let mut model = self.world.model();
        model.due_from(number, talk.sent_after(talk.heard) + delay);
        if !talk.is_will_kept || talk.is_farewell {
            return;
        }
        if delay.is_zero() {
            model.acknowledge(number);
        }
        let link = &talk.link;
        let ended = if link.is_cut() {
            TRAVELS
        } else if link.is_slow() {
            // Nobody knows when the broker has read all of it.
            return;
        } else if link.is_half_open() {
            // Section 3.1.2.10.
            TRAVELS + Duration::from_secs(KEEP_ALIVE.into()) * 3 / 2
        } else {
            TRAVELS
        };
        model.promise_will(number, self.index, Instant::now() + ended, delay);
        if self.has_short_delay() {
            self.world.left.notify_waiters();
        }
    }

    /// The client is back: no will of an earlier connection that still waits is published.
    pub(super) fn call_back_wills(&mut self, talk: &Conversation) {
        let earlier = core::mem::take(&mut self.waiting_wills);
        if self.will_delay < Some(WILL_DELAY) {
            return;
        }
        let now = Instant::now();
        let mut model = self.world.model();
        for (number, since) in earlier {
            if Some(number) != talk.will && now - since < SOON {
                model.call_back(number);
            }
        }
    }

    /// In the end a client with a will leaves for good, when it is known that the will is stored: then it must come when
    /// it is due.
    pub(super) async fn depart(&mut self, talk: &mut Conversation) -> Option<Next> {
        let (Some(number), Some(delay)) = (talk.will, self.will_delay) else {
            return Some(Next::Goes);
        };
        if !self.world.departs() || !self.outgoing.is_empty() {
            return Some(Next::Goes);
        }
        if !talk.is_will_kept {
            let topic = format!("t/{}/2", self.index);
            let said = self.publish_new(&topic, QoS::ExactlyOnce, false, None, talk);
            return said.await.then_some(Next::Goes);
        }
        talk.is_farewell = true;
        self.is_gone = true;
        // Before it is said: the broker may hear it at once.
        let now = Instant::now();
        let mut due = Some(delay);
        let mut bye = None;
        if self.random.once_in(4) {
            due = None;
            bye = Some(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION));
        } else if delay >= WILL_DELAY {
            // The session ends before, and the will comes with its end (section 3.1.3.2.2).
            let ends = 1 + self.random.below(SHORT_DELAY - 1) as u32;
            let mut words = Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL);
            words.properties.session_expiry_interval = Some(ends);
            due = Some(ends);
            bye = Some(words);
        }
        {
            let mut model = self.world.model();
            model.departing -= 1;
            match due {
                None => model.call_back(number),
                Some(seconds) => {
                    let due = now + Duration::from_secs(seconds.into());
                    model.due_from(number, due);
                    model.due_until(number, due + LATE);
                }
            }
        }
        if let Some(bye) = bye {
            talk.say(self.version, &Packet::Disconnect(bye)).await;
        }
        Some(Next::Leaves)
    }
}
