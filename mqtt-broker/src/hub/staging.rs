//! What one batch of publishes leaves for each session, gathered so that each outbox is locked once.

use std::sync::Arc;

use mqtt_codec::QoS;
use mqtt_session::{Outgoing, Time};

use crate::amount::Amount;
use crate::bundle::Bundle;
use crate::client::{Client, Link, Outbox};
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::expiring::Expiring;
use crate::frames::Frames;
use crate::hub::Bounds;
use crate::hub::Hub;
use crate::hub::memory::SLOW_BYTES;
use crate::hub::publish::Fate;

/// Bytes that a batch gathers before it hands them to the sessions: a fan-out does not stand in memory twice.
const STAGED_BYTES: usize = 1 << 20;
/// What a staged QoS 1 or 2 message takes, by a rough count: its body is shared.
const DELIVERY_BYTES: usize = 64;

/// QoS 0 packets for one session.
#[derive(Debug)]
struct Packets {
    /// The link as it was when the first of them came: they are encoded for it.
    link: Link,
    frames: Frames,
    count: u64,
    expiring: Expiring,
}

impl Packets {
    /// Moves them to the outbox, whose lock the caller holds.
    fn hand_over(&mut self, hub: &Hub, client: &Client, outbox: &mut Outbox) {
        let bounds = &hub.bounds;
        let link = client.link();
        let is_slow = hub.pressure.drops() && outbox.frames.len() >= SLOW_BYTES;
        let loss = match link {
            Link::Ended => Some(DropReason::SessionEnded),
            Link::Offline => Some(DropReason::Offline),
            Link::Online { .. } if link != self.link => Some(DropReason::Offline),
            Link::Online { .. } if is_slow => Some(DropReason::MemoryFull),
            Link::Online { .. }
                if outbox.frames.len() + self.frames.len() > bounds.outbox_bytes() =>
            {
                let room = bounds.outbox_bytes().saturating_sub(outbox.frames.len());
                let dropped = self.frames.truncate_frames(room);
                hub.count_drop(Some(client), DropReason::OutboxFull, dropped);
                None
            }
            Link::Online { .. } => None,
        };
        match loss {
            Some(reason) if self.count > 0 => hub.count_drop(Some(client), reason, self.count),
            Some(_) => {}
            None => {
                let (len, kept) = (outbox.frames.len(), self.frames.len());
                outbox.expiring.append(len, &mut self.expiring, kept);
                outbox.frames.append(&mut self.frames);
                client.set_backlog(outbox);
            }
        }
        self.frames = Frames::default();
        self.count = 0;
        self.expiring = Expiring::default();
    }
}

/// What waits for one session until the batch ends.
#[derive(Debug)]
pub(crate) struct Slot {
    client: Arc<Client>,
    packets: Packets,
    /// Bytes of QoS 0 frames beyond which the outbox would drop them.
    frame_bound: usize,
    deliveries: Vec<Delivery>,
    /// What they are.
    gathered: Amount,
    /// So many of them the session counts already.
    announced: Amount,
    /// QoS 1 and 2 messages that the session can still take.
    room: Amount,
}

impl Slot {
    /// The link as it was when the slot was opened.
    pub(crate) fn link(&self) -> Link {
        self.packets.link
    }

    /// Whether there is room in the outbox for the first of more frames. It is not exact: the outbox itself has
    /// the last word.
    fn has_frame_room(&self) -> bool {
        self.packets.frames.len() < self.frame_bound
    }

    /// Makes room for a QoS 1 or 2 message, if the session has it.
    fn reserve(&mut self, size: usize) -> Option<Room<'_>> {
        let amount = Amount::of_one(size);
        self.room = self.room.checked_sub(amount)?;
        self.gathered += amount;
        Some(Room {
            deliveries: &mut self.deliveries,
        })
    }

    /// Has the session count the QoS 1 and 2 messages that are gathered for it.
    fn announce(&mut self) {
        self.client.queue_changes(self.announced, self.gathered);
        self.announced = self.gathered;
    }

    /// Hands the QoS 0 packets to the outbox and wakes the session's task if it sleeps.
    fn flush_packets(&mut self, hub: &Hub) {
        if self.packets.frames.is_empty() {
            return;
        }
        let mut outbox = self.client.outbox();
        self.packets.hand_over(hub, &self.client, &mut outbox);
        let waker = outbox.doorbell.ring();
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Hands everything to the outbox and wakes the session's task if it sleeps.
    fn flush(mut self, hub: &Hub, returned: &mut Vec<Returned>) -> Vec<Delivery> {
        if self.packets.frames.is_empty() && self.deliveries.is_empty() {
            return core::mem::take(&mut self.deliveries);
        }
        let mut outbox = self.client.outbox();
        let link = self.client.link();
        self.packets.hand_over(hub, &self.client, &mut outbox);
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
            for one in &returned[before..] {
                self.gathered = self.gathered.saturating_sub(Amount::of(&one.delivery));
            }
        }
        self.client.queue_changes(self.announced, self.gathered);
        if link == Link::Ended {
            hub.count_drop(
                Some(&self.client),
                DropReason::SessionEnded,
                self.gathered.messages as u64,
            );
            for delivery in self.deliveries.drain(..) {
                if let Some(window) = &mut outbox.window {
                    window.come(delivery.key);
                }
            }
        } else if !self.deliveries.is_empty() {
            let room = self.client.window_room(&hub.config);
            outbox.extend_deliveries(&mut self.deliveries, room);
        }
        let waker = outbox.doorbell.ring();
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

/// What a session has room for, of messages that come in bundles.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BundleRoom {
    Has(Amount),
    /// It gets each message as one of its own.
    WantsMessages,
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
    /// Memory is short: receivers that are slow get no QoS 0 packets.
    pub(crate) drops_for_slow: bool,
}

/// Lists of deliveries that a worker keeps for reuse, and the longest that is worth keeping.
const SPARE_LISTS: usize = 64;
const SPARE_LEN: usize = 1_024;

impl Staging {
    /// The slot of `client` in this batch, opened on first use.
    pub(crate) fn slot(&mut self, client: &Arc<Client>, bounds: &Bounds) -> &mut Slot {
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
                let backlog = client.backlog();
                let bound = match self.drops_for_slow && backlog >= SLOW_BYTES {
                    true => 0,
                    false => bounds.outbox_bytes(),
                };
                self.slots.push(Slot {
                    client: Arc::clone(client),
                    packets: Packets {
                        link: client.link(),
                        frames: Frames::default(),
                        count: 0,
                        expiring: Expiring::default(),
                    },
                    frame_bound: bound.saturating_sub(backlog),
                    deliveries: self.spare.pop().unwrap_or_default(),
                    gathered: Amount::default(),
                    announced: Amount::default(),
                    room: client.room(bounds),
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
        bounds: &Bounds,
        frames: &[u8],
        count: u64,
    ) -> Fate {
        let write = |slot: &mut Frames| slot.extend(frames);
        self.send(client, bounds, frames.len(), count, None, write)
    }

    /// Lets `write` append `count` QoS 0 frames for `client`, which is connected, unless its outbox is full.
    /// `copied` is what `write` copies, in bytes; with `expires_at` it is one frame that expires then.
    pub(crate) fn send(
        &mut self,
        client: &Arc<Client>,
        bounds: &Bounds,
        copied: usize,
        count: u64,
        expires_at: Option<Time>,
        write: impl FnOnce(&mut Frames),
    ) -> Fate {
        let drops_for_slow = self.drops_for_slow;
        let slot = self.slot(client, bounds);
        if !slot.has_frame_room() {
            let is_slow = drops_for_slow && slot.frame_bound == 0;
            return Fate::Dropped(match is_slow {
                true => DropReason::MemoryFull,
                false => DropReason::OutboxFull,
            });
        }
        let packets = &mut slot.packets;
        packets.count += count;
        if let Some(expires_at) = expires_at {
            packets.expiring.mark(packets.frames.len(), expires_at);
        }
        write(&mut packets.frames);
        self.bytes += copied;
        Fate::Sent
    }

    /// The QoS 1 and 2 messages that `client` can still take; none, unless it takes bundles.
    pub(crate) fn bundle_room(&mut self, client: &Arc<Client>, bounds: &Bounds) -> BundleRoom {
        let slot = self.slot(client, bounds);
        match slot.link() {
            Link::Online { bundles: true, .. } => BundleRoom::Has(slot.room),
            Link::Online { bundles: false, .. } | Link::Offline => BundleRoom::WantsMessages,
            Link::Ended => BundleRoom::Has(Amount::default()),
        }
    }

    /// Adds as many messages of a bundle for `client` as its session has room for; returns how many that leaves
    /// out.
    pub(crate) fn push_bundle(
        &mut self,
        client: &Arc<Client>,
        bounds: &Bounds,
        mut bundle: Bundle,
        qos: QoS,
    ) -> u64 {
        self.bytes += DELIVERY_BYTES;
        let slot = self.slot(client, bounds);
        let room = slot.room;
        let bytes = room.bytes.saturating_sub(Delivery::cost(0));
        let dropped = bundle.truncate(room.messages, bytes);
        if bundle.len() > 0 {
            let delivery = Delivery::bundle(bundle, qos);
            let amount = Amount::of(&delivery);
            slot.room = room.saturating_sub(amount);
            slot.gathered += amount;
            slot.deliveries.push(delivery);
        }
        dropped
    }

    /// Makes room for a QoS 1 or 2 message for `client`, if its session has it.
    pub(crate) fn reserve(
        &mut self,
        client: &Arc<Client>,
        bounds: &Bounds,
        delivery: &Delivery,
    ) -> Option<Room<'_>> {
        self.bytes += DELIVERY_BYTES;
        let size = delivery.size();
        self.slot(client, bounds).reserve(size)
    }

    /// Has the sessions count the QoS 1 and 2 messages that are gathered for them.
    pub(crate) fn announce(&mut self) {
        self.slots.iter_mut().for_each(Slot::announce);
    }

    /// Hands the QoS 0 packets to their sessions; what is above waits for the end of its unit.
    pub(crate) fn flush_packets(&mut self, hub: &Hub) {
        self.bytes = 0;
        for slot in &mut self.slots {
            slot.flush_packets(hub);
        }
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
        for slot in self.slots.drain(..) {
            slot.client.queue_changes(slot.announced, Amount::default());
        }
        self.numbers.fill(0);
        self.returned.clear();
        self.bytes = 0;
    }

    /// Whether a batch left something that did not come to its end.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.returned.is_empty()
    }
}
