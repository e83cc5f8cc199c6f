//! What one batch of publishes leaves for each session, gathered so that each outbox is locked once.

use std::sync::Arc;

use crate::client::{Client, Link};
use crate::config::Config;
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::frames::Frames;
use crate::hub::Hub;
use crate::hub::publish::Fate;

/// What waits for one session until the batch ends.
#[derive(Debug)]
pub(crate) struct Slot {
    client: Arc<Client>,
    /// The link as it was when the slot was opened; QoS 0 frames are encoded for it.
    link: Link,
    frames: Frames,
    frame_count: u64,
    deliveries: Vec<Delivery>,
    delivery_bytes: usize,
    /// Bytes of QoS 1 and 2 messages that the session can still take.
    room: usize,
}

impl Slot {
    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Appends `count` finished QoS 0 frames.
    pub(crate) fn extend_frames(&mut self, frames: &[u8], count: u64) {
        self.frames.extend(frames);
        self.frame_count += count;
    }

    /// The queue of QoS 0 frames, to append one to.
    pub(crate) fn frame(&mut self) -> &mut Frames {
        self.frame_count += 1;
        &mut self.frames
    }

    /// Queues a QoS 1 or 2 message, if the session has room for it.
    pub(crate) fn deliver(&mut self, delivery: Delivery, size: usize) -> Fate {
        if self.room < size {
            return Fate::Dropped(DropReason::QueueFull);
        }
        self.room -= size;
        self.delivery_bytes += size;
        self.deliveries.push(delivery);
        Fate::Sent
    }

    /// Hands everything to the outbox and wakes the session's task if it sleeps.
    fn flush(mut self, hub: &Hub) -> Vec<Delivery> {
        let config = &hub.config;
        if self.frames.is_empty() && self.deliveries.is_empty() {
            return self.deliveries;
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
                hub.count_drop(Some(&self.client), reason, self.frame_count)
            }
            Some(_) => {}
            None => outbox.frames.append(&mut self.frames),
        }
        if link == Link::Ended {
            hub.count_drop(
                Some(&self.client),
                DropReason::SessionEnded,
                self.deliveries.len() as u64,
            );
            self.deliveries.clear();
        } else if !self.deliveries.is_empty() {
            self.client.queue_grows(self.delivery_bytes);
            if outbox.deliveries.is_empty() {
                core::mem::swap(&mut outbox.deliveries, &mut self.deliveries);
            } else {
                outbox.deliveries.append(&mut self.deliveries);
            }
        }
        let waker = outbox.mark();
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        self.deliveries
    }
}

/// The slots of a batch, found by the session's key.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    /// For each session key the number of its slot in this batch plus one, or 0.
    numbers: Vec<u32>,
    slots: Vec<Slot>,
    /// Emptied lists of deliveries, kept for the next batch.
    spare: Vec<Vec<Delivery>>,
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
                    deliveries: self.spare.pop().unwrap_or_default(),
                    delivery_bytes: 0,
                    room: config.queue_bytes.saturating_sub(client.queued()),
                });
                self.numbers[key] = self.slots.len() as u32;
                self.slots.len()
            }
        };
        &mut self.slots[number - 1]
    }

    /// Ends the batch: every session gets its part, and each sleeping one is woken once.
    pub(crate) fn flush(&mut self, hub: &Hub) {
        for slot in self.slots.drain(..) {
            self.numbers[slot.client.key.0 as usize] = 0;
            let list = slot.flush(hub);
            if list.is_empty() && list.capacity() <= SPARE_LEN && self.spare.len() < SPARE_LISTS {
                self.spare.push(list);
            }
        }
    }
}
