//! What the records of an outbox add up to: which messages are there and how far each is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mqtt_codec::PacketId;

use crate::outbox::record::{FRAME, PREFIX, Record};

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has no identifier.
    Queued,
    /// Its PUBLISH may have been sent. `order`: of the identifiers being given.
    Sent { packet_id: PacketId, order: u64 },
    /// PUBREC came. `order`: of the PUBRECs.
    Released { packet_id: PacketId, order: u64 },
}

/// A message in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where its record begins.
    pub(crate) place: u64,
    /// Bytes of its record.
    pub(crate) length: u32,
    pub(crate) progress: Progress,
}

/// The state of an outbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) client_id: Option<String>,
    pub(crate) messages: BTreeMap<u64, Entry>,
    pub(crate) received: BTreeSet<PacketId>,
    /// The messages that have an identifier.
    ids: HashMap<PacketId, u64>,
    order: u64,
    /// Above the key of every message so far.
    pub(crate) next_key: u64,
    /// When the last message was stored.
    pub(crate) last_stored_at: u64,
    /// Bytes of the records of all messages.
    pub(crate) size: u64,
}

/// Bytes of a message's record with a packet of this length.
pub(crate) fn record_length(packet: usize) -> usize {
    FRAME + PREFIX + packet
}

impl State {
    /// An empty one whose keys go on with this one.
    pub(crate) fn after(next_key: u64) -> Self {
        Self {
            next_key,
            ..Self::default()
        }
    }

    /// Applies a record that is at this place; the bytes of a message that it removes.
    pub(crate) fn apply(&mut self, place: u64, record: &Record<'_>) -> u64 {
        match *record {
            Record::Message {
                key,
                stored_at,
                packet,
            } => {
                let length = record_length(packet.len());
                let entry = Entry {
                    place,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    progress: Progress::Queued,
                };
                self.size += u64::from(entry.length);
                self.messages.insert(key, entry);
                self.next_key = self.next_key.max(key.saturating_add(1));
                self.last_stored_at = self.last_stored_at.max(stored_at);
            }
            Record::Sent { packet_id, key } => {
                let order = self.next_order();
                if let Some(entry) = self.messages.get_mut(&key) {
                    entry.progress = Progress::Sent { packet_id, order };
                    self.ids.insert(packet_id, key);
                }
            }
            Record::Released { packet_id } => {
                let order = self.next_order();
                let key = self.ids.get(&packet_id);
                if let Some(entry) = key.and_then(|key| self.messages.get_mut(key)) {
                    entry.progress = Progress::Released { packet_id, order };
                }
            }
            Record::Completed { packet_id } => {
                if let Some(key) = self.ids.get(&packet_id) {
                    return self.remove(*key);
                }
            }
            Record::Removed { key } => return self.remove(key),
            Record::Received { packet_id } => {
                self.received.insert(packet_id);
            }
            Record::Forgotten { packet_id } => {
                self.received.remove(&packet_id);
            }
            Record::Session { client_id } => self.client_id = Some(client_id.to_owned()),
            Record::SessionLost => {
                self.ids.clear();
                self.received.clear();
                for entry in self.messages.values_mut() {
                    entry.progress = Progress::Queued;
                }
            }
        }
        0
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn remove(&mut self, key: u64) -> u64 {
        let Some(entry) = self.messages.remove(&key) else {
            return 0;
        };
        if let Progress::Sent { packet_id, .. } | Progress::Released { packet_id, .. } =
            entry.progress
        {
            self.ids.remove(&packet_id);
        }
        let length = u64::from(entry.length);
        self.size -= length;
        length
    }

    /// What is in flight, in the order of the PUBRECs, then of the identifiers being given: with each, its
    /// key and whether its PUBREC came.
    pub(crate) fn in_flight(&self) -> Vec<(PacketId, u64, bool)> {
        let mut released = BTreeMap::new();
        let mut sent = BTreeMap::new();
        for (key, entry) in &self.messages {
            match entry.progress {
                Progress::Queued => {}
                Progress::Sent { packet_id, order } => {
                    sent.insert(order, (packet_id, *key, false));
                }
                Progress::Released { packet_id, order } => {
                    released.insert(order, (packet_id, *key, true));
                }
            }
        }
        released.into_values().chain(sent.into_values()).collect()
    }

    /// The records besides those of messages that make this state of an empty one.
    pub(crate) fn encode_rest(&self, out: &mut Vec<u8>) {
        if let Some(client_id) = &self.client_id {
            Record::Session { client_id }.encode(out);
        }
        for packet_id in &self.received {
            let packet_id = *packet_id;
            Record::Received { packet_id }.encode(out);
        }
        let in_flight = self.in_flight();
        for (packet_id, key, _) in &in_flight {
            let (packet_id, key) = (*packet_id, *key);
            Record::Sent { packet_id, key }.encode(out);
        }
        for (packet_id, _, is_released) in in_flight {
            if is_released {
                Record::Released { packet_id }.encode(out);
            }
        }
    }

    /// About how many bytes a file with this state and nothing else has.
    pub(crate) fn least_length(&self) -> u64 {
        let small = self.received.len() + 2 * self.ids.len() + 1;
        self.size + small as u64 * 32
    }
}
