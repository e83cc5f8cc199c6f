//! What one batch of publishes leaves for each session, gathered so that each outbox is locked once.

use std::sync::Arc;

use mqtt_session::{Outgoing, Time};

use crate::amount::Amount;
use crate::client::{Client, Link};
use crate::config::Config;
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::expiring::Expiring;
use crate::frames::Frames;
use crate::hub::Hub;
use crate::hub::publish::Fate;

/// Bytes that a batch gathers before it hands them to the sessions: a fan-out does not stand in memory twice.
const STAGED_BYTES: usize = 1 << 20;
/// What a staged QoS 1 or 2 message takes, by a rough count: its body is shared.
const DELIVERY_BYTES: usize = 64;

/// What waits for one session until the batch ends.
#[derive(Debug)]
pub(crate) struct Slot {
    client: Arc<Client>,
    /// The link as it was when the slot was opened; QoS 0 frames are encoded for it.
    link: Link,
    frames: Frames,
    frame_count: u64,
    expiring: Expiring,
    /// Bytes of QoS 0 frames beyond which the outbox would drop them.
    frame_bound: usize,
    deliveries: Vec<Delivery>,
    delivery_bytes: usize,
    /// QoS 1 and 2 messages that the session can still take.
    room: Amount,
}

impl Slot {
    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Whether there is room in the outbox for the first of more frames. It is not exact: the outbox itself has
    /// the last word.
    fn has_frame_room(&self) -> bool {
        self.frames.len() < self.frame_bound
    }

    /// Makes room for a QoS 1 or 2 message, if the session has it.
    fn reserve(&mut self, size: usize) -> Option<Room<'_>> {
        self.room = self.room.checked_sub(Amount::of_one(size))?;
        self.delivery_bytes += size;
        Some(Room {
            deliveries: &mut self.deliveries,
        })
    }

    /// Hands everything to the outbox and wakes the session's task if it sleeps.
    fn flush(mut self, hub: &Hub, returned: &mut Vec<Returned>) -> Vec<Delivery> {
        let config = &hub.config;
        if self.frames.is_empty() && self.deliveries.is_empty() {
            return core::mem::take(&mut self.deliveries);
        }
        let mut outbox = self.client.outbox();
        let link = self.client.link();
        let frame_loss = match link {
            Link::Ended => Some(DropReason::SessionEnded),
            Link::Offline => Some(DropReason::Offline),
            Link::Online { .. } if link != self.link => Some(DropReason::Offline),
            Link::Online { .. }
                if outbox.frames.len() + self.frames.len() > config.outbox_bytes =>
            {
                let room = config.outbox_bytes.saturating_sub(outbox.frames.len());
                let dropped = self.frames.truncate_frames(room);
                hub.count_drop(Some(&self.client), DropReason::OutboxFull, dropped);
                None
            }
            Link::Online { .. } => None,
        };
        match frame_loss {
            Some(reason) if self.frame_count > 0 => {
                hub.count_drop(Some(&self.client), reason, self.frame_count);
            }
            Some(_) => {}
            None => {
                let (len, kept) = (outbox.frames.len(), self.frames.len());
                outbox.expiring.append(len, &mut self.expiring, kept);
                outbox.frames.append(&mut self.frames);
                self.client.set_backlog(&outbox);
            }
        }
        if !matches!(link, Link::Online { .. }) {
            // The member that a group chose has gone meanwhile.
            let chosen = self
                .deliveries
                .extract_if(.., |delivery| delivery.group.is_some());
            let before = returned.len();
            returned.extend(chosen.map(|delivery| Returned {
                from: Arc::clone(&self.client),
                delivery,
            }));
            let sizes = returned[before..].iter().map(|one| one.delivery.size());
            self.delivery_bytes -= sizes.sum::<usize>();
        }
        if link == Link::Ended {
            hub.count_drop(
                Some(&self.client),
                DropReason::SessionEnded,
                self.deliveries.len() as u64,
            );
            for delivery in self.deliveries.drain(..) {
                if let Some(window) = &mut outbox.window {
                    window.come(delivery.key);
                }
            }
        } else if !self.deliveries.is_empty() {
            self.client.queue_grows(Amount {
                messages: self.deliveries.len(),
                bytes: self.delivery_bytes,
            });
            let room = self.client.window_room(config);
            outbox.extend_deliveries(&mut self.deliveries, room);
        }
        let waker = outbox.mark();
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        core::mem::take(&mut self.deliveries)
    }
}

impl Drop for Slot {
    /// A batch that does not come to its end, because of a panic, leaves no gap in the keys of the session.
    fn drop(&mut self) {
        for delivery in self.deliveries.drain(..) {
            self.client.never_comes(delivery.key);
        }
    }
}

/// The place of one message.
#[must_use = "the session counts on the message"]
pub(crate) struct Room<'a> {
    deliveries: &'a mut Vec<Delivery>,
}

impl Room<'_> {
    pub(crate) fn fill(self, delivery: Delivery) {
        self.deliveries.push(delivery);
    }
}

/// A message that a group chose a member for, which that member no longer gets.
#[derive(Debug)]
pub(crate) struct Returned {
    pub(crate) from: Arc<Client>,
    pub(crate) delivery: Delivery,
}

/// The slots of a batch, found by the session's key.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// For each session key the number of its slot in this batch plus one, or 0.
    numbers: Vec<u32>,
    slots: Vec<Slot>,
    /// Bytes in all slots, about.
    bytes: usize,
    /// Emptied lists of deliveries, kept for the next batch.
    spare: Vec<Vec<Delivery>>,
    /// What is to be offered to other members of the groups.
    returned: Vec<Returned>,
}

/// Lists of deliveries that a worker keeps for reuse, and the longest that is worth keeping.
const SPARE_LISTS: usize = 64;
const SPARE_LEN: usize = 1_024;

impl Staging {
    /// The slot of `client` in this batch, opened on first use.
    pub(crate) fn slot(&mut self, client: &Arc<Client>, config: &Config) -> &mut Slot {
        let key = client.key.0 as usize;
        if key >= self.numbers.len() {
            self.numbers.resize((key + 1).next_power_of_two(), 0);
        }
        let number = match self.numbers[key] {
            // A key may pass on to a new session while the batch holds a slot of the old one.
            number
                if number > 0 && Arc::ptr_eq(&self.slots[number as usize - 1].client, client) =>
            {
                number as usize
            }
            _ => {
                self.slots.push(Slot {
                    client: Arc::clone(client),
                    link: client.link(),
                    frames: Frames::default(),
                    frame_count: 0,
                    expiring: Expiring::default(),
                    frame_bound: config.outbox_bytes.saturating_sub(client.backlog()),
                    deliveries: self.spare.pop().unwrap_or_default(),
                    delivery_bytes: 0,
                    room: client.room(config),
                });
                self.numbers[key] = self.slots.len() as u32;
                self.slots.len()
            }
        };
        &mut self.slots[number - 1]
    }

    /// Appends `count` finished QoS 0 frames for `client`, which is connected, unless its outbox is full.
    pub(crate) fn extend_frames(
        &mut self,
        client: &Arc<Client>,
        config: &Config,
        frames: &[u8],
        count: u64,
    ) -> Fate {
        let write = |slot: &mut Frames| slot.extend(frames);
        self.send(client, config, frames.len(), count, None, write)
    }

    /// Lets `write` append `count` QoS 0 frames for `client`, which is connected, unless its outbox is full.
    /// `copied` is what `write` copies, in bytes; with `expires_at` it is one frame that expires then.
    pub(crate) fn send(
        &mut self,
        client: &Arc<Client>,
        config: &Config,
        copied: usize,
        count: u64,
        expires_at: Option<Time>,
        write: impl FnOnce(&mut Frames),
    ) -> Fate {
        let slot = self.slot(client, config);
        if !slot.has_frame_room() {
            return Fate::Dropped(DropReason::OutboxFull);
        }
        slot.frame_count += count;
        if let Some(expires_at) = expires_at {
            slot.expiring.mark(slot.frames.len(), expires_at);
        }
        write(&mut slot.frames);
        self.bytes += copied;
        Fate::Sent
    }

    /// Makes room for a QoS 1 or 2 message for `client`, if its session has it.
    pub(crate) fn reserve(
        &mut self,
        client: &Arc<Client>,
        config: &Config,
        delivery: &Delivery,
    ) -> Option<Room<'_>> {
        self.bytes += DELIVERY_BYTES;
        let size = delivery.size();
        self.slot(client, config).reserve(size)
    }

    /// Whether so much is gathered that it should be handed over before more comes.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= STAGED_BYTES
    }

    /// Hands every session its part, and wakes each sleeping one once.
    pub(crate) fn flush(&mut self, hub: &Hub) {
        self.bytes = 0;
        for slot in self.slots.drain(..) {
            self.numbers[slot.client.key.0 as usize] = 0;
            let list = slot.flush(hub, &mut self.returned);
            if list.is_empty() && list.capacity() <= SPARE_LEN && self.spare.len() < SPARE_LISTS {
                self.spare.push(list);
            }
        }
    }

    /// Takes what the members of groups did not get.
    pub(crate) fn take_returned(&mut self) -> Vec<Returned> {
        core::mem::take(&mut self.returned)
    }

    /// Forgets what a batch left that did not come to its end.
    pub(crate) fn clear(&mut self) {
        self.slots.clear();
        self.numbers.fill(0);
        self.returned.clear();
        self.bytes = 0;
    }

    /// Whether a batch left something that did not come to its end.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.returned.is_empty()
    }
}
