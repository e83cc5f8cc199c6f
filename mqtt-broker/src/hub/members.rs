//! Messages for shared groups: offered to a member, and to another one when that does not get it.

use std::sync::{Arc, Weak};

use mqtt_session::Time;

use crate::amount::Amount;
use crate::client::{Client, ClientKey, Link};
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::hub::group::{Candidate, Content, Group};
use crate::hub::publish::{Batch, Fate, Passage};
use crate::hub::staging::Returned;
use crate::message::Message;
use crate::store::Op;

/// How often a message is offered again because what a batch has gathered made the last choice a bad one.
pub(crate) const ATTEMPTS: usize = 4;

/// A message that no other member of its group took.
struct Refused {
    group: Weak<Group>,
    message: Arc<Message>,
}

impl Refused {
    fn new(delivery: &Delivery) -> Option<Self> {
        Some(Self {
            group: delivery.group.clone()?,
            message: Arc::clone(delivery.message()?),
        })
    }

    /// Whether nobody takes this one either.
    fn stands_for(&self, delivery: &Delivery, restricted: bool) -> bool {
        let group = delivery.group.as_ref();
        group.is_some_and(|group| group.ptr_eq(&self.group))
            && (!restricted || self.message.topic() == delivery.whole_topic())
    }
}

impl Batch {
    /// Gives a message to a member of a group; false if no member can take it.
    pub(crate) fn deliver_to_member(
        &mut self,
        hub: &Hub,
        group: &Arc<Group>,
        but_not: Option<ClientKey>,
        may_wait: bool,
        passage: &mut Passage<'_>,
    ) -> bool {
        for _ in 0..ATTEMPTS {
            let candidate = Candidate {
                content: Content::Parts(passage.parts),
                qos: passage.qos,
                retain: passage.retain,
                expiry: passage.expiry,
                but_not,
                restricted: hub.permissions() != 0,
                may_wait,
            };
            let (chosen, asked) = group.choose(&candidate, &hub.bounds);
            self.work(asked);
            let Some((client, grant)) = chosen else {
                return false;
            };
            match self.deliver(hub, &client, &grant, Some(group), passage) {
                Fate::Sent => return true,
                // The choice knew nothing of what is staged: from now on it does.
                Fate::Dropped(_) => {
                    self.staging.announce();
                    self.relieve(hub, passage.stored);
                }
            }
        }
        false
    }

    /// Gives messages that a member of shared groups did not get to other members, and returns those that
    /// nobody else can take now. `may_wait`: members that are not connected may keep them.
    pub(crate) fn return_to_groups(
        &mut self,
        hub: &Hub,
        now: Time,
        from: &Client,
        may_wait: bool,
        mut deliveries: Vec<Delivery>,
    ) -> Vec<Delivery> {
        // Whoever could not take one message can take the next ones as little: where members may receive some topics
        // only, the next ones of its topic.
        let restricted = hub.permissions() != 0;
        let mut nobody: Option<Refused> = None;
        deliveries.retain(|delivery| {
            let asked = nobody
                .as_ref()
                .is_some_and(|refused| refused.stands_for(delivery, restricted));
            let taken = !asked && self.offer(hub, now, from, may_wait, delivery);
            if !taken && !asked {
                nobody = Refused::new(delivery);
            }
            !taken
        });
        deliveries
    }

    fn offer(
        &mut self,
        hub: &Hub,
        now: Time,
        from: &Client,
        may_wait: bool,
        delivery: &Delivery,
    ) -> bool {
        let Some(group) = delivery.group.as_ref().and_then(Weak::upgrade) else {
            return false;
        };
        let Some(message) = delivery.message() else {
            return false;
        };
        let mut passage = Passage::again(message, delivery.retain, now);
        let taken = self.deliver_to_member(hub, &group, Some(from.key), may_wait, &mut passage);
        if taken && let Some(number) = from.stored() {
            self.ops
                .push(Op::Dequeued(number, delivery.key, delivery.body));
        }
        taken
    }

    /// Hands over what was staged, and finds others for what chosen members did not get.
    pub(crate) fn settle(&mut self, hub: &Hub) {
        self.hand_over(hub);
        for attempt in 0..ATTEMPTS {
            let returned = self.staging.take_returned();
            if returned.is_empty() {
                return;
            }
            let mut taken = Vec::new();
            for Returned { from, delivery } in returned {
                let has_ended = from.link() == Link::Ended;
                let last = attempt + 1 == ATTEMPTS;
                if last || !self.offer(hub, hub.now(), &from, has_ended, &delivery) {
                    keep(hub, &from, delivery);
                } else {
                    taken.push((from, delivery.key));
                }
            }
            self.hand_over(hub);
            // Not before the store was told: who reads on in the queue must not find them.
            for (from, key) in taken {
                from.never_comes(key);
            }
        }
    }
}

/// Leaves a message with the member that it was chosen for, if its session lasts.
fn keep(hub: &Hub, client: &Client, delivery: Delivery) {
    let mut outbox = client.outbox();
    if client.link() == Link::Ended {
        drop(outbox);
        client.never_comes(delivery.key);
        hub.count_drop(Some(client), DropReason::SessionEnded, 1);
        return;
    }
    client.queue_grows(Amount::of(&delivery));
    let room = client.window_room(&hub.config);
    outbox.extend_deliveries(&mut vec![delivery], room);
    let waker = outbox.doorbell.ring();
    drop(outbox);
    if let Some(waker) = waker {
        waker.wake();
    }
}
