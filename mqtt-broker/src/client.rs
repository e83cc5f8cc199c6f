//! A session as everybody else sees it: its key, its link and the outbox that publishers append to.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwapOption;
use mqtt_codec::{QoS, TopicFilter, TopicName};
use mqtt_session::Outgoing;

use crate::amount::Amount;
use crate::auth::{Access, Proof};
use crate::config::Config;
use crate::counters::{Counters, DropReason};
use crate::delivery::Delivery;
use crate::doorbell::Doorbell;
use crate::expiring::Expiring;
use crate::frames::Frames;
use crate::hub::Bounds;
use crate::hub::cost;
use crate::message::Layout;
use crate::mount;
use crate::store::{Key, Portion, Rest, SessionNumber};
use crate::window::{Taken, Window};

/// Names a session within one broker. Never used again while a route may still know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey(pub(crate) u32);

/// What is at the other end of a session's outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// A connection that reads this layout and packets up to this size.
    Online {
        layout: Layout,
        max_packet_size: u32,
        /// Messages above QoS 0 may come in bundles: the session keeps nothing of what it sends.
        bundles: bool,
    },
    /// No connection; QoS 1 and 2 messages wait.
    Offline,
    /// The session ended.
    Ended,
}

impl Link {
    fn pack(self) -> u64 {
        match self {
            Self::Offline => 0,
            Self::Ended => 1,
            Self::Online {
                layout,
                max_packet_size,
                bundles,
            } => {
                let layout = match layout {
                    Layout::Plain => 2,
                    Layout::Properties => 3,
                };
                u64::from(max_packet_size) << 32 | u64::from(bundles) << 2 | layout
            }
        }
    }

    fn unpack(packed: u64) -> Self {
        let layout = match packed & 3 {
            0 => return Self::Offline,
            1 => return Self::Ended,
            2 => Layout::Plain,
            _ => Layout::Properties,
        };
        Self::Online {
            layout,
            max_packet_size: (packed >> 32) as u32,
            bundles: packed & 4 != 0,
        }
    }
}

/// Why a connection must end although its peer did not ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Another connection uses the same client identifier.
    TakenOver,
    /// The broker stops.
    ShuttingDown,
    /// A new configuration does not let it in.
    NoLongerAdmitted,
    /// What it was let in by has come to its end.
    Expired,
    /// A new configuration bans it.
    Banned,
    /// Memory is short, and it holds much of it.
    OutOfMemory,
}

/// What publishers left for a session's task, or for its next connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Finished QoS 0 packets.
    pub(crate) frames: Frames,
    /// Those of them that expire, in order.
    pub(crate) expiring: Expiring,
    /// QoS 1 and 2 messages, to be turned into packets by the session.
    pub(crate) deliveries: Vec<Delivery>,
    /// Which of them a stored session holds in memory.
    pub(crate) window: Option<Box<Window>>,
    pub(crate) kick: Option<Kick>,
    /// Of the session's task.
    pub(crate) doorbell: Doorbell,
}

impl Outbox {
    /// Adds messages, of which no more are held in memory than `room` bytes where the rest is in the store; empties
    /// the list.
    pub(crate) fn extend_deliveries(&mut self, deliveries: &mut Vec<Delivery>, room: usize) {
        if let Some(window) = &mut self.window {
            deliveries.retain(|one| window.admit(one.key, one.size(), one.group.is_some(), room));
        }
        if self.deliveries.is_empty() {
            core::mem::swap(&mut self.deliveries, deliveries);
        } else {
            self.deliveries.append(deliveries);
        }
    }

    /// Takes the messages out that were chosen by a shared group.
    pub(crate) fn take_group_deliveries(&mut self) -> Vec<Delivery> {
        self.deliveries
            .extract_if(.., |delivery| delivery.group.is_some())
            .collect()
    }
}

/// A number that no stored session has.
const NOT_STORED: SessionNumber = SessionNumber::MAX;

/// A session's face to the rest of the broker.
pub(crate) struct Client {
    pub(crate) key: ClientKey,
    /// What the session goes by; it begins with the mount point, if there is one.
    pub(crate) id: Arc<str>,
    /// Bytes of the mount point.
    mount: u16,
    /// The session's number in the store, or [`NOT_STORED`].
    stored: SessionNumber,
    /// The key of the next message that is stored for it.
    next_key: AtomicU64,
    link: AtomicU64,
    /// Bytes of QoS 1 and 2 messages that wait in the outbox, in the session or on the disk, or are in flight.
    queued: AtomicUsize,
    /// How many they are.
    queued_messages: AtomicUsize,
    /// Bytes of those in the queue of the session, as of its last change. Of stored sessions only.
    waiting: AtomicUsize,
    /// Bytes of QoS 0 packets in the outbox, as of its last change.
    backlog: AtomicUsize,
    /// Bytes that its connection has read and not handled.
    unhandled: AtomicU32,
    /// Messages wait because the client has not acknowledged those before them.
    busy: AtomicBool,
    /// The session ends with its connection.
    passing: AtomicBool,
    /// Who its owner is, and what that may do; none: everything.
    pub(crate) access: ArcSwapOption<Access>,
    /// What was dropped on the way to this session, once anything was.
    dropped: OnceLock<Box<Counters>>,
    outbox: Mutex<Outbox>,
}

impl Client {
    pub(crate) fn new(key: ClientKey, id: Arc<str>, stored: Option<SessionNumber>) -> Self {
        Self {
            key,
            mount: mount::split(&id).0.len() as u16,
            id,
            stored: stored.unwrap_or(NOT_STORED),
            next_key: AtomicU64::new(1),
            link: AtomicU64::new(Link::Offline.pack()),
            queued: AtomicUsize::new(0),
            queued_messages: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            backlog: AtomicUsize::new(0),
            unhandled: AtomicU32::new(0),
            busy: AtomicBool::new(false),
            passing: AtomicBool::new(false),
            access: ArcSwapOption::empty(),
            dropped: OnceLock::new(),
            outbox: Mutex::new(Outbox {
                window: stored.map(|_| Box::new(Window::new())),
                ..Outbox::default()
            }),
        }
    }

    /// The session's number in the store, if it outlives its connection and there is a store.
    pub(crate) fn stored(&self) -> Option<SessionNumber> {
        (self.stored != NOT_STORED).then_some(self.stored)
    }

    /// What the topics of this session begin with, unknown to its client.
    pub(crate) fn mount(&self) -> Option<&str> {
        match self.mount {
            0 => None,
            _ => Some(mount::split(&self.id).0),
        }
    }

    /// How many bytes that is.
    pub(crate) fn mount_len(&self) -> u16 {
        self.mount
    }

    /// What the client calls itself.
    pub(crate) fn name(&self) -> &str {
        mount::split(&self.id).1
    }

    /// The same for whoever keeps it.
    pub(crate) fn shared_name(&self) -> Arc<str> {
        match self.mount {
            0 => Arc::clone(&self.id),
            _ => self.name().into(),
        }
    }

    /// A key for a message that is stored for this session: later ones are greater.
    pub(crate) fn new_key(&self) -> Key {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// The key of the next message that is stored for this session.
    pub(crate) fn next_key(&self) -> Key {
        self.next_key.load(Ordering::Relaxed)
    }

    /// Keys up to this one were used before the session was read back, and so much of its queue was not read.
    pub(crate) fn restore_queue(&self, last: Key, rest: Option<Rest>) {
        self.next_key.fetch_max(last + 1, Ordering::Relaxed);
        let rest = rest.map(|rest| {
            let bytes = Delivery::cost(0) * rest.messages + rest.bytes;
            let messages = rest.messages;
            (rest, Amount { messages, bytes })
        });
        if let Some((_, amount)) = rest {
            self.queue_grows(amount);
        }
        if let Some(window) = &mut self.outbox().window {
            window.restore(last, rest);
        }
    }

    /// Whether the session may take a message at once that was not in the outbox; else it waits on the disk.
    pub(crate) fn holds(&self, delivery: &Delivery) -> bool {
        let mut outbox = self.outbox();
        let size = delivery.size();
        let shared = delivery.group.is_some();
        let held = outbox
            .window
            .as_mut()
            .is_none_or(|window| window.hold(delivery.key, size, shared));
        if !held {
            self.queue_grows(Amount::of_one(size));
        }
        held
    }

    /// A message that has a key will not join the queue.
    pub(crate) fn never_comes(&self, key: Key) {
        let waker = {
            let mut outbox = self.outbox();
            let Some(window) = &mut outbox.window else {
                return;
            };
            window.come(key);
            if window.is_on_disk() {
                outbox.doorbell.ring()
            } else {
                None
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The keys of a part of the queue that the caller reads, for a session that has ended.
    pub(crate) fn read_on(&self) -> Option<(Key, Key)> {
        self.outbox().window.as_mut()?.read_on()
    }

    /// Takes the part that was read.
    pub(crate) fn take_portion(&self, portion: Portion) -> Taken {
        let mut outbox = self.outbox();
        outbox
            .window
            .as_mut()
            .map_or_else(Taken::default, |window| {
                window.arrive(portion, true);
                window.take(cost)
            })
    }

    /// The messages that are on the disk alone, and how many of them shared groups chose.
    pub(crate) fn on_disk(&self) -> (Amount, usize) {
        let outbox = self.outbox();
        outbox
            .window
            .as_ref()
            .map_or_else(Default::default, |window| window.on_disk())
    }

    /// A part of the queue was read from the disk.
    pub(crate) fn arrive(&self, portion: Portion) {
        let waker = {
            let mut outbox = self.outbox();
            let wanted = matches!(self.link(), Link::Online { .. });
            let Some(window) = &mut outbox.window else {
                return;
            };
            window.arrive(portion, wanted);
            outbox.doorbell.ring()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Bytes of messages that may wait in memory: where the session is stored, the others stay in the store alone.
    pub(crate) fn window_room(&self, config: &Config) -> usize {
        let window = match self.link() {
            Link::Online { .. } => config.stored_window_bytes,
            Link::Offline | Link::Ended => config.offline_window_bytes(),
        };
        window.saturating_sub(self.waiting.load(Ordering::Relaxed))
    }

    /// Takes note of how many bytes wait in the queue of the session.
    pub(crate) fn set_waiting(&self, bytes: usize) {
        if self.stored().is_some() {
            self.waiting.store(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn link(&self) -> Link {
        Link::unpack(self.link.load(Ordering::Relaxed))
    }

    /// Bytes of QoS 0 packets that wait in the outbox, known without its lock.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Takes note of how many bytes of QoS 0 packets are in the outbox, whose lock the caller holds.
    pub(crate) fn set_backlog(&self, outbox: &Outbox) {
        self.backlog.store(outbox.frames.len(), Ordering::Relaxed);
    }

    /// Bytes that its connection has read and not handled: of packets that are not whole, or that wait.
    pub(crate) fn unhandled(&self) -> usize {
        self.unhandled.load(Ordering::Relaxed) as usize
    }

    /// Takes note of how many these are.
    pub(crate) fn set_unhandled(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.unhandled.load(Ordering::Relaxed) != bytes {
            self.unhandled.store(bytes, Ordering::Relaxed);
        }
    }

    /// Takes note whether the session ends with its connection.
    pub(crate) fn set_passing(&self, passing: bool) {
        self.passing.store(passing, Ordering::Relaxed);
    }

    /// Bytes of messages above QoS 0 that leave memory when the connection ends, and whether they are lost then.
    pub(crate) fn held_in_memory(&self) -> (usize, bool) {
        if self.stored().is_some() {
            return (self.waiting.load(Ordering::Relaxed), false);
        }
        match self.passing.load(Ordering::Relaxed) {
            true => {
                let queued = self.queued().bytes;
                (queued, queued > 0)
            }
            // They stay.
            false => (0, false),
        }
    }

    /// Whether messages wait in the session because too many are unacknowledged.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        if self.is_busy() != busy {
            self.busy.store(busy, Ordering::Relaxed);
        }
    }

    /// What was dropped on the way to this session, if anything was.
    pub(crate) fn dropped(&self) -> Option<&Counters> {
        self.dropped.get().map(|counters| &**counters)
    }

    pub(crate) fn count_drop(&self, reason: DropReason, messages: u64) {
        if messages > 0 {
            self.dropped
                .get_or_init(Box::default)
                .count_drop(reason, messages);
        }
    }

    /// The outbox. Held for a few instructions, never across an await or a socket.
    pub(crate) fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the link under the outbox's lock, so that whoever holds the lock sees the final word.
    /// QoS 0 packets do not wait for another connection; returns how many are lost by this.
    #[must_use]
    pub(crate) fn set_link(&self, link: Link) -> u64 {
        let mut outbox = self.outbox();
        self.link.store(link.pack(), Ordering::Relaxed);
        if matches!(link, Link::Online { .. }) {
            return 0;
        }
        outbox.doorbell.reset();
        let mut lost = core::mem::take(&mut outbox.frames);
        outbox.expiring = Expiring::default();
        if let Some(window) = &mut outbox.window {
            window.drop_portion();
        }
        self.set_backlog(&outbox);
        lost.count_frames()
    }

    /// Ends the link for good; returns how many QoS 0 packets are lost by this, and the messages that
    /// still waited in the outbox.
    #[must_use]
    pub(crate) fn end(&self) -> (u64, Vec<Delivery>) {
        let frames = self.set_link(Link::Ended);
        (frames, core::mem::take(&mut self.outbox().deliveries))
    }

    /// QoS 1 and 2 messages that the session can still take.
    pub(crate) fn room(&self, bounds: &Bounds) -> Amount {
        let bytes = if self.stored().is_some() {
            bounds.stored_queue_bytes()
        } else {
            bounds.queue_bytes()
        };
        let messages = bounds.queue_messages();
        Amount { messages, bytes }.saturating_sub(self.queued())
    }

    /// QoS 1 and 2 messages that wait for this session's acknowledgement.
    pub(crate) fn queued(&self) -> Amount {
        Amount {
            messages: self.queued_messages.load(Ordering::Relaxed),
            bytes: self.queued.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn queue_grows(&self, by: Amount) {
        self.queue_changes(Amount::default(), by);
    }

    /// Corrects the count by what the session's owner found: what was counted as `was` is `is` now.
    pub(crate) fn queue_changes(&self, was: Amount, is: Amount) {
        change(&self.queued, was.bytes, is.bytes);
        change(&self.queued_messages, was.messages, is.messages);
    }

    /// The highest QoS at which it gets messages of a topic; none: it gets none.
    pub(crate) fn may_receive(&self, topic: TopicName<'_>) -> Option<QoS> {
        match &*self.access.load() {
            Some(access) => access.receive(topic),
            None => Some(QoS::ExactlyOnce),
        }
    }

    /// Whether messages of a topic, as the broker knows it, are kept from it.
    pub(crate) fn is_denied(&self, topic: &str) -> bool {
        self.may_receive(TopicName::assume_valid(topic)).is_none()
    }

    /// The highest QoS at which it may subscribe; none: it may not.
    pub(crate) fn may_subscribe(&self, filter: TopicFilter<'_>) -> Option<QoS> {
        match &*self.access.load() {
            Some(access) => access.subscribe(filter),
            None => Some(QoS::ExactlyOnce),
        }
    }

    /// Its connection has ended: what had let it in is not kept for as long as the session lasts.
    pub(crate) fn forget_token(&self) {
        let has_token = |access: &Arc<Access>| matches!(access.proof, Proof::Token(_));
        if self.access.load().as_ref().is_none_or(|it| !has_token(it)) {
            return;
        }
        self.access.rcu(|access| {
            let mut access = Access::clone(access.as_deref()?);
            access.proof = Proof::None;
            Some(Arc::new(access))
        });
    }

    /// Whether it may publish such messages.
    pub(crate) fn may_publish(&self, topic: TopicName<'_>, qos: QoS, retain: bool) -> bool {
        match &*self.access.load() {
            Some(access) => access.publish(topic).allows(qos, retain),
            None => true,
        }
    }

    /// Lets the task of the connection, if there is one, look at everything again.
    pub(crate) fn wake(&self) {
        let waker = self.outbox().doorbell.owner();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells the connection, if there is one, that it must end.
    pub(crate) fn kick(&self, why: Kick) {
        let waker = {
            let mut outbox = self.outbox();
            outbox.kick = Some(why);
            outbox.doorbell.owner()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn change(count: &AtomicUsize, was: usize, is: usize) {
    if was > is {
        count.fetch_sub(was - is, Ordering::Relaxed);
    } else if is > was {
        count.fetch_add(is - was, Ordering::Relaxed);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("key", &self.key)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allocator has blocks of 256 and of 320 bytes; an `Arc` adds its two counts.
    #[test]
    fn a_session_takes_no_more_than_its_block() {
        let size = size_of::<Client>() + 2 * size_of::<usize>();
        assert!(size <= 256, "{size}");
    }
}
