//! Messages with several readers: when all have them, and who had them when they come again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mqtt_codec::{PacketId, QoS};
use mqtt_session::Token;

use crate::control::{Handle, HandleId};
use crate::{Message, Received};

/// The part of one of several readers in a message.
#[derive(Debug)]
pub(crate) struct Share {
    /// It has taken the message.
    has_taken: AtomicBool,
    /// It has acknowledged the message, or is gone.
    done: AtomicBool,
    all: Arc<Readers>,
}

/// All readers of a message.
#[derive(Debug)]
struct Readers {
    /// How many have yet to acknowledge it.
    left: AtomicUsize,
    /// One has taken it.
    has_taken: AtomicBool,
}

impl Share {
    /// One for each reader.
    pub(crate) fn of_each(readers: usize) -> impl Iterator<Item = Arc<Self>> {
        let all = Arc::new(Readers {
            left: AtomicUsize::new(readers),
            has_taken: AtomicBool::new(false),
        });
        std::iter::repeat_with(move || {
            Arc::new(Self {
                has_taken: AtomicBool::new(false),
                done: AtomicBool::new(false),
                all: Arc::clone(&all),
            })
        })
        .take(readers)
    }

    /// The reader has it in hand.
    pub(crate) fn took(&self) {
        self.has_taken.store(true, Ordering::Relaxed);
        self.all.has_taken.store(true, Ordering::Release);
    }

    /// The reader acknowledges it, or goes; whether it is the last who does. With the post locked, so that it is either in time
    /// for the connection or not done at all.
    pub(crate) fn give(&self) -> bool {
        !self.done.swap(true, Ordering::Relaxed)
            && self.all.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether the reader has it for good. What it did with the post locked is seen with the post locked, or after that.
    fn has_it(&self) -> bool {
        self.done.load(Ordering::Relaxed) && self.has_taken.load(Ordering::Relaxed)
    }

    /// Whether no other reader has taken it, or may yet.
    pub(crate) fn is_last_hope(&self) -> bool {
        self.all.left.load(Ordering::Acquire) == 1 && !self.all.has_taken.load(Ordering::Relaxed)
    }
}

/// Who had which message of QoS 2, of those that some of their readers have not acknowledged: if the connection is
/// lost the server sends them again, and who had one does not get it twice.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    messages: HashMap<PacketId, Entry>,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    /// Who had it when it came again.
    had: Vec<HandleId>,
    /// Who was to get it then.
    readers: Vec<(HandleId, Arc<Share>)>,
}

impl Ledger {
    /// Who had this message, if it comes again. Nobody else asks for it.
    pub(crate) fn take(&mut self, message: &Received, comes_again: bool) -> Vec<HandleId> {
        if self.messages.is_empty() {
            return Vec::new();
        }
        let entry = message.packet_id().and_then(|id| self.messages.remove(&id));
        // Its identifier may also have come back for another message, if the server has given this one up.
        let Some(mut entry) = entry.filter(|entry| comes_again && entry.is_of(message)) else {
            return Vec::new();
        };
        let readers = entry.readers.into_iter();
        let have_it = readers.filter(|(_, share)| share.has_it());
        entry.had.extend(have_it.map(|(id, _)| id));
        entry.had
    }

    /// Each of these readers gets its copy of a message, and these had it.
    pub(crate) fn note(&mut self, readers: &[Handle], copies: &[Received], had: Vec<HandleId>) {
        let Some(first) = copies.first() else {
            return;
        };
        let (QoS::ExactlyOnce, Some(id)) = (first.quality(), first.packet_id()) else {
            return;
        };
        let shares = copies.iter().filter_map(Received::share);
        let ids = readers.iter().map(|reader| reader.id);
        let entry = Entry {
            message: Message::clone(first),
            had,
            readers: ids.zip(shares.cloned()).collect(),
        };
        self.messages.insert(id, entry);
    }

    /// A message does not come again.
    pub(crate) fn forget(&mut self, token: Token) {
        if token.qos() == QoS::ExactlyOnce
            && !self.messages.is_empty()
            && let Some(id) = token.packet_id()
        {
            self.messages.remove(&id);
        }
    }

    /// The server has forgotten them all.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
    }
}

impl Entry {
    fn is_of(&self, message: &Received) -> bool {
        self.message.topic() == message.topic() && self.message.payload() == message.payload()
    }
}
