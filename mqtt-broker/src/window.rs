//! Which of the messages that wait for a stored session are in memory: the first of them, up to a bound. The others
//! are in the store alone until those before them have left.
//!
//! A message gets its key, is submitted to the store and then reaches its session; several publishers do this at
//! the same time, so that keys do not come in order. Where messages stay in the store, they do so from one key on:
//! those below it are in memory, wherever they have got to by now. A part of the queue is read up to the first key
//! that has not come yet, so that no message is missed, and none is taken for one that is still to come.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::amount::Amount;
use crate::store::{Key, Portion, Rest};

/// The messages that are in the store alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OnDisk {
    /// The first key that may be one of theirs.
    from: Key,
    amount: Amount,
    /// How many of them were chosen by shared groups.
    shared: usize,
}

/// What is known of the queue of a stored session. It is kept with the outbox, under the same lock.
#[derive(Debug)]
pub(crate) struct Window {
    /// All keys below have come.
    come: Key,
    /// Others that have.
    ahead: BinaryHeap<Reverse<Key>>,
    /// The first key that is above those of all messages that were held in memory.
    above: Key,
    on_disk: Option<OnDisk>,
    /// Bytes of messages in the outbox.
    waiting: usize,
    /// A part of the queue is being read.
    is_reading: bool,
    /// What was read, until the session takes it.
    portion: Option<Portion>,
}

/// What a session takes from its window.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) portion: Option<Portion>,
    /// What was counted and is not there: damaged messages, which the portions leave out.
    pub(crate) missing: Amount,
    /// Whether more messages are on the disk.
    pub(crate) is_on_disk: bool,
}

impl Taken {
    /// Whether nothing was taken, and nothing is left on the disk.
    pub(crate) fn is_nothing(&self) -> bool {
        self.portion.is_none() && self.missing.messages == 0 && !self.is_on_disk
    }
}

impl Window {
    /// The queue of a new session, whose first key is 1.
    pub(crate) fn new() -> Self {
        Self {
            come: 1,
            ahead: BinaryHeap::new(),
            above: 1,
            on_disk: None,
            waiting: 0,
            is_reading: false,
            portion: None,
        }
    }

    /// A queue that was read back, with its last key and what was not read of it. `amount` is what that costs.
    pub(crate) fn restore(&mut self, last: Key, rest: Option<(Rest, Amount)>) {
        self.come = last + 1;
        self.above = last + 1;
        self.on_disk = rest.map(|(rest, amount)| OnDisk {
            from: rest.first,
            amount,
            shared: rest.shared,
        });
    }

    /// A message joins the queue: whether it is held in the outbox. It is if less than `room` bytes wait there, and
    /// nothing before it is on the disk.
    pub(crate) fn admit(&mut self, key: Key, size: usize, shared: bool, room: usize) -> bool {
        if self.on_disk.is_none() && self.waiting >= room && key >= self.above {
            self.on_disk = Some(OnDisk {
                from: self.above,
                amount: Amount::default(),
                shared: 0,
            });
        }
        let held = self.hold(key, size, shared);
        if held {
            self.waiting += size;
        }
        held
    }

    /// The same of a message that the session takes at once, if nothing before it is on the disk.
    pub(crate) fn hold(&mut self, key: Key, size: usize, shared: bool) -> bool {
        self.come(key);
        match &mut self.on_disk {
            Some(on_disk) if key >= on_disk.from => {
                on_disk.amount += Amount::of_one(size);
                on_disk.shared += usize::from(shared);
                false
            }
            _ => {
                self.above = self.above.max(key + 1);
                true
            }
        }
    }

    /// A message will not join the queue: somebody else has it, or nobody.
    pub(crate) fn come(&mut self, key: Key) {
        if key != self.come {
            // One that came before comes again when it is kept by the session that it was taken from.
            if key > self.come {
                self.ahead.push(Reverse(key));
            }
            return;
        }
        self.come += 1;
        while let Some(Reverse(key)) = self.ahead.peek() {
            if *key > self.come {
                break;
            }
            self.come = self.come.max(*key + 1);
            self.ahead.pop();
        }
    }

    /// Whether messages are on the disk alone.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.on_disk.is_some()
    }

    /// How many messages are on the disk alone, and how many of those shared groups chose.
    pub(crate) fn on_disk(&self) -> (Amount, usize) {
        self.on_disk.map_or((Amount::default(), 0), |on_disk| {
            (on_disk.amount, on_disk.shared)
        })
    }

    /// The keys to read next: the first, and the one behind the last. `None` if there are none, or not yet, or if
    /// they are being read. The caller reads them.
    pub(crate) fn read_on(&mut self) -> Option<(Key, Key)> {
        let from = self.on_disk?.from;
        if self.is_reading || self.portion.is_some() || self.come <= from {
            return None;
        }
        self.is_reading = true;
        Some((from, self.come))
    }

    /// What was to be read is there; `wanted`: somebody takes it.
    pub(crate) fn arrive(&mut self, portion: Portion, wanted: bool) {
        self.is_reading = false;
        // The session may have given back to the disk what is before it.
        let follows = self
            .on_disk
            .is_some_and(|on_disk| on_disk.from == portion.from);
        self.portion = Some(portion).filter(|_| wanted && follows);
    }

    /// Forgets what was read and not taken: it is read again.
    pub(crate) fn drop_portion(&mut self) {
        self.portion = None;
    }

    /// The session takes the messages in the outbox, and what was read. `size` tells what a message costs.
    pub(crate) fn take(&mut self, size: impl Fn(&Portion) -> (Amount, usize)) -> Taken {
        self.waiting = 0;
        let mut taken = Taken::default();
        if let Some(on_disk) = &mut self.on_disk
            && let Some(portion) = self.portion.take()
        {
            let (amount, shared) = size(&portion);
            on_disk.from = portion.next;
            on_disk.amount = on_disk.amount.saturating_sub(amount);
            on_disk.shared = on_disk.shared.saturating_sub(shared);
            self.above = self.above.max(portion.next);
            taken.portion = Some(portion);
            if on_disk.from >= self.come && self.ahead.is_empty() {
                taken.missing = on_disk.amount;
                self.on_disk = None;
            }
        }
        taken.is_on_disk = self.on_disk.is_some();
        taken
    }

    /// The session gives messages back to the disk: all that it holds from a key on, which it has not sent.
    pub(crate) fn give_back(&mut self, from: Key, amount: Amount, shared: usize) {
        let on_disk = self.on_disk.get_or_insert(OnDisk {
            from,
            amount: Amount::default(),
            shared: 0,
        });
        on_disk.from = on_disk.from.min(from);
        on_disk.amount += amount;
        on_disk.shared += shared;
        self.portion = None;
    }
}

#[cfg(test)]
mod tests;
