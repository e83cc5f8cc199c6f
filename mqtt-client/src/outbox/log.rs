//! The file of an outbox with the state that its records add up to.

use std::io::{self, Read};
use std::path::Path;

use mqtt_codec::{Packet, ProtocolVersion, decode};

use crate::Message;
use crate::outbox::disk::{Directory, Disk};
use crate::outbox::record::{self, FORMAT, HEADER, Record, Scanned, scan, version};
use crate::outbox::state::State;
use crate::outbox::{Damage, OutboxError};

/// How many bytes that count for nothing the file may hold besides as many as it needs.
const SLACK: u64 = 1 << 20;

/// A message that was read back.
pub(crate) struct Stored {
    pub(crate) key: u64,
    pub(crate) stored_at: u64,
    pub(crate) message: Message,
}

/// The file and its state.
#[derive(Debug)]
pub(crate) struct Log {
    disk: Box<dyn Disk>,
    pub(crate) state: State,
    /// Bytes of whole records in the file, and its header.
    length: u64,
    /// Not all that was appended is synced.
    is_unsynced: bool,
    /// The length at which to think of a replacement again, after one that failed.
    not_before: u64,
    buffer: Vec<u8>,
}

/// Why a write did not happen.
pub(crate) enum Failure {
    /// There is no room; the file is as it was.
    Full(io::Error),
    /// What the file holds is not known any more.
    Broken(io::Error),
}

impl Log {
    /// Reads the file in the directory; cuts what is not whole.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Damage>), OutboxError> {
        let (mut directory, length) = Directory::open(path)?;
        let mut state = State::default();
        let mut reader = directory.reader()?;
        let whole = read(&mut reader, length, &mut state)?;
        drop(reader);
        let mut damage = None;
        if whole < length {
            let bytes = length - whole;
            tracing::warn!(
                outbox = %path.display(),
                "the last {bytes} bytes are not whole and are cut off: they are in the file `damaged`"
            );
            // Without room for the copy there is none.
            let _ = directory.keep_rest(whole);
            directory.truncate(whole)?;
            directory.sync()?;
            damage = Some(Damage { bytes });
        }
        Ok((Self::new(Box::new(directory), state, whole), damage))
    }

    pub(crate) fn new(disk: Box<dyn Disk>, state: State, length: u64) -> Self {
        Self {
            disk,
            state,
            length,
            is_unsynced: false,
            not_before: 0,
            buffer: Vec::new(),
        }
    }

    /// Appends records, all or none of them; the bytes of the messages that they remove.
    pub(crate) fn append(&mut self, records: &[Record<'_>]) -> Result<u64, Failure> {
        if records.is_empty() {
            return Ok(0);
        }
        self.buffer.clear();
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            places.push(self.length + self.buffer.len() as u64);
            record.encode(&mut self.buffer);
        }
        let written = self.disk.append(&self.buffer);
        let length = self.buffer.len() as u64;
        // A large message does not keep its memory.
        self.buffer.clear();
        self.buffer.shrink_to(1 << 16);
        if let Err(error) = written {
            return Err(match self.disk.truncate(self.length) {
                Ok(()) if is_full(&error) => Failure::Full(error),
                _ => Failure::Broken(error),
            });
        }
        self.length += length;
        self.is_unsynced = true;
        let records = records.iter().zip(places);
        Ok(records
            .map(|(record, place)| self.state.apply(place, record))
            .sum())
    }

    /// Makes all that was appended survive a loss of power.
    pub(crate) fn sync(&mut self) -> Result<(), io::Error> {
        if self.is_unsynced {
            self.disk.sync()?;
            self.is_unsynced = false;
        }
        Ok(())
    }

    /// Reads the messages with keys below this one.
    pub(crate) fn messages(&mut self, below: u64) -> Result<Vec<Stored>, OutboxError> {
        let mut messages = Vec::new();
        let mut bytes = Vec::new();
        for (key, entry) in self.state.messages.range(..below) {
            bytes.clear();
            bytes.resize(entry.length as usize, 0);
            self.disk.read(entry.place, &mut bytes)?;
            let (stored_at, packet) = record::message(&bytes).ok_or(OutboxError::Changed)?;
            let (message, _) = parse(packet).ok_or(OutboxError::Changed)?;
            messages.push(Stored {
                key: *key,
                stored_at,
                message,
            });
        }
        Ok(messages)
    }

    /// Replaces the file by one without what counts for nothing, if that is worth it. The cost of that is
    /// less than that of writing what it leaves out was.
    pub(crate) fn compact(&mut self) -> Result<(), io::Error> {
        let least = self.state.least_length();
        if self.length < 2 * least + SLACK || self.length < self.not_before {
            return Ok(());
        }
        match self.copy() {
            Ok((state, length)) => {
                self.disk.replace()?;
                self.state = state;
                self.length = length;
                self.is_unsynced = false;
                Ok(())
            }
            Err(error) => {
                tracing::warn!("the file of the outbox cannot be made shorter: {error}");
                self.disk.abandon();
                self.not_before = self.length + SLACK;
                Ok(())
            }
        }
    }

    fn copy(&mut self) -> io::Result<(State, u64)> {
        self.disk.begin()?;
        let mut state = State::after(self.state.next_key);
        let mut length = HEADER as u64;
        let mut bytes = Vec::new();
        for entry in self.state.messages.values() {
            bytes.clear();
            bytes.resize(entry.length as usize, 0);
            self.disk.read(entry.place, &mut bytes)?;
            let mut is_whole = false;
            let scanned = scan(bytes.as_slice(), 0, bytes.len() as u64, |_, record| {
                is_whole = true;
                state.apply(length, &record);
            })?;
            if !is_whole || scanned != Scanned::Until(bytes.len() as u64) {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.disk.append_other(&bytes)?;
            length += bytes.len() as u64;
        }
        bytes.clear();
        self.state.encode_rest(&mut bytes);
        self.disk.append_other(&bytes)?;
        self.disk.sync_other()?;
        scan(bytes.as_slice(), 0, bytes.len() as u64, |_, record| {
            state.apply(0, &record);
        })?;
        Ok((state, length + bytes.len() as u64))
    }
}

/// Reads all whole records of a file into the state; the place behind them.
pub(crate) fn read(
    reader: &mut impl Read,
    length: u64,
    state: &mut State,
) -> Result<u64, OutboxError> {
    let mut header = [0; HEADER];
    if length < HEADER as u64 {
        return Err(OutboxError::NotAnOutbox);
    }
    reader.read_exact(&mut header)?;
    match version(&header) {
        Some(FORMAT) => {}
        Some(version) => return Err(OutboxError::Format { version }),
        None => return Err(OutboxError::NotAnOutbox),
    }
    let scanned = scan(reader, HEADER as u64, length, |place, record| {
        state.apply(place, &record);
    })?;
    match scanned {
        Scanned::Until(place) => Ok(place),
        Scanned::Unknown(_) => Err(OutboxError::NotAnOutbox),
    }
}

/// Whether room may come back by itself.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The packet of a message as it is stored.
pub(crate) fn packet(message: &Message) -> Result<Vec<u8>, crate::Error> {
    let mut publish = crate::outbound::view(message);
    publish.packet_id = mqtt_codec::PacketId::new(1);
    publish.properties.message_expiry_interval = message.property().message_expiry_interval;
    let mut packet = Vec::new();
    publish.encode(ProtocolVersion::V5, &mut packet)?;
    Ok(packet)
}

/// The message of a packet that was stored.
fn parse(packet: &[u8]) -> Option<(Message, usize)> {
    match decode(packet, ProtocolVersion::V5, u32::MAX) {
        Ok(Some((Packet::Publish(publish), length))) => {
            Some((Message::copied(publish.topic?, &publish), length))
        }
        _ => None,
    }
}
