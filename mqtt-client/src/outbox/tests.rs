//! Tests of the file: whatever happens to it, what is read back is what was written up to some moment, and a disk
//! that fails is told of truthfully.

mod garbage;
mod power;
mod waiting;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mqtt_codec::{PacketId, QoS};
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::duplex;

use crate::outbox::disk::Disk;
use crate::outbox::log::{self, Failure, Log};
use crate::outbox::record::{HEADER, Record, header};
use crate::outbox::state::State;
use crate::outbox::{Outbox, OutboxError, OutboxOptions};
use crate::{Client, Error, Message, Options, TryPublishError};

/// A disk in memory that fails as it is told.
#[derive(Debug, Clone)]
struct Memory(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    file: Mutex<Vec<u8>>,
    other: Mutex<Vec<u8>>,
    /// Bytes that both files together may have.
    room: AtomicUsize,
    /// Syncs until one fails.
    syncs: AtomicUsize,
    replacements: AtomicUsize,
    gate: Gate,
}

/// Where syncs wait while it is closed.
#[derive(Debug, Default)]
struct Gate {
    /// How many may pass; `None`: all.
    passes: Mutex<Option<usize>>,
    changed: Condvar,
    reached: tokio::sync::Notify,
}

impl Gate {
    fn close(&self) {
        *self.passes.lock().unwrap() = Some(0);
    }

    fn open(&self) {
        *self.passes.lock().unwrap() = None;
        self.changed.notify_all();
    }

    /// Lets one more pass.
    fn pass(&self) {
        if let Some(passes) = &mut *self.passes.lock().unwrap() {
            *passes += 1;
        }
        self.changed.notify_all();
    }

    /// Somebody waits, or has waited since this was asked last.
    async fn reached(&self) {
        self.reached.notified().await;
    }

    fn wait(&self) {
        let mut passes = self.passes.lock().unwrap();
        if passes.is_some() {
            self.reached.notify_one();
        }
        while *passes == Some(0) {
            passes = self.changed.wait(passes).unwrap();
        }
        if let Some(passes) = &mut *passes {
            *passes -= 1;
        }
    }
}

impl Memory {
    fn new() -> Self {
        Self(Arc::new(Contents {
            file: Mutex::new(header().to_vec()),
            other: Mutex::new(Vec::new()),
            room: AtomicUsize::new(usize::MAX),
            syncs: AtomicUsize::new(usize::MAX),
            replacements: AtomicUsize::new(0),
            gate: Gate::default(),
        }))
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.file.lock().unwrap().clone()
    }

    fn log(&self) -> Log {
        let bytes = self.bytes();
        let mut state = State::default();
        let length = log::read(&mut bytes.as_slice(), bytes.len() as u64, &mut state).unwrap();
        self.0.file.lock().unwrap().truncate(length as usize);
        Log::new(Box::new(self.clone()), state, length)
    }

    fn grow(&self, file: &Mutex<Vec<u8>>, bytes: &[u8]) -> io::Result<()> {
        let used = self.0.file.lock().unwrap().len() + self.0.other.lock().unwrap().len();
        let left = self.0.room.load(Ordering::Relaxed).saturating_sub(used);
        let mut file = file.lock().unwrap();
        // As a disk does: what there is room for is written.
        file.extend_from_slice(&bytes[..bytes.len().min(left)]);
        match left < bytes.len() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl Disk for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.grow(&self.0.file, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.gate.wait();
        let left = self.0.syncs.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.syncs.store(left - 1, Ordering::Relaxed);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.file.lock().unwrap().truncate(length as usize);
        Ok(())
    }

    fn read(&mut self, place: u64, into: &mut [u8]) -> io::Result<()> {
        let file = self.0.file.lock().unwrap();
        let place = place as usize;
        into.copy_from_slice(&file[place..place + into.len()]);
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        *self.0.other.lock().unwrap() = header().to_vec();
        Ok(())
    }

    fn append_other(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.grow(&self.0.other, bytes)
    }

    fn sync_other(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn replace(&mut self) -> io::Result<()> {
        let other = std::mem::take(&mut *self.0.other.lock().unwrap());
        *self.0.file.lock().unwrap() = other;
        self.0.replacements.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn abandon(&mut self) {
        self.0.other.lock().unwrap().clear();
    }
}

fn message(text: &str) -> Message {
    Message::new("t", text.to_owned())
        .unwrap()
        .qos(QoS::ExactlyOnce)
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// What a test does to a log.
#[derive(Debug, Clone)]
enum Step {
    Message(String),
    Sent(u16, Index),
    Released(u16),
    Completed(u16),
    Removed(Index),
    Received(u16),
    Forgotten(u16),
    Session(String),
    SessionLost,
}

fn step() -> impl Strategy<Value = Step> {
    let number = 1..6_u16;
    prop_oneof![
        4 => "[a-z]{0,30}".prop_map(Step::Message),
        3 => (number.clone(), any::<Index>()).prop_map(|(id, key)| Step::Sent(id, key)),
        2 => number.clone().prop_map(Step::Released),
        2 => number.clone().prop_map(Step::Completed),
        1 => any::<Index>().prop_map(Step::Removed),
        1 => number.clone().prop_map(Step::Received),
        1 => number.prop_map(Step::Forgotten),
        1 => "[a-z]{1,9}".prop_map(Step::Session),
        1 => Just(Step::SessionLost),
    ]
}

/// Does a step, as a client would: an identifier that is in use is not given again.
fn perform(log: &mut Log, step: &Step) {
    let keys: Vec<u64> = log.state.messages.keys().copied().collect();
    let is_used = |id: PacketId| log.state.in_flight().iter().any(|(used, ..)| *used == id);
    let packet;
    let record = match step {
        Step::Message(text) => {
            packet = log::packet(&message(text)).unwrap();
            Record::Message {
                key: log.state.next_key,
                stored_at: 7,
                packet: &packet,
            }
        }
        Step::Sent(number, which) if !keys.is_empty() && !is_used(id(*number)) => {
            let key = keys[which.index(keys.len())];
            if log
                .state
                .in_flight()
                .iter()
                .any(|(_, sent, _)| *sent == key)
            {
                return;
            }
            Record::Sent {
                packet_id: id(*number),
                key,
            }
        }
        Step::Removed(which) if !keys.is_empty() => Record::Removed {
            key: keys[which.index(keys.len())],
        },
        Step::Sent(..) | Step::Removed(_) => return,
        Step::Released(number) => Record::Released {
            packet_id: id(*number),
        },
        Step::Completed(number) => Record::Completed {
            packet_id: id(*number),
        },
        Step::Received(number) => Record::Received {
            packet_id: id(*number),
        },
        Step::Forgotten(number) => Record::Forgotten {
            packet_id: id(*number),
        },
        Step::Session(client_id) => Record::Session { client_id },
        Step::SessionLost => Record::SessionLost,
    };
    assert!(log.append(&[record]).is_ok());
}

/// What a state means, without where it is in the file.
fn meaning(log: &mut Log) -> impl PartialEq + std::fmt::Debug + use<> {
    let messages: Vec<_> = log
        .messages(u64::MAX)
        .unwrap()
        .into_iter()
        .map(|stored| (stored.key, stored.stored_at, stored.message))
        .collect();
    let state = &log.state;
    let session = (state.client_id.clone(), state.received.clone());
    (messages, state.in_flight(), session, state.size)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Cut anywhere, a file gives what it was after some of its records, and takes further ones.
    #[test]
    fn a_file_cut_at_every_byte(steps in prop::collection::vec(step(), 0..24)) {
        let disk = Memory::new();
        let mut log = disk.log();
        let mut ends = vec![(HEADER, meaning(&mut log))];
        for step in &steps {
            perform(&mut log, step);
            ends.push((disk.bytes().len(), meaning(&mut log)));
        }
        let bytes = disk.bytes();
        for cut in HEADER..=bytes.len() {
            *disk.0.file.lock().unwrap() = bytes[..cut].to_vec();
            let mut log = disk.log();
            let (_, expected) = ends.iter().rfind(|(end, _)| *end <= cut).unwrap();
            prop_assert_eq!(&meaning(&mut log), expected);
            perform(&mut log, &Step::Message("more".to_owned()));
            let expected = meaning(&mut log);
            prop_assert_eq!(meaning(&mut disk.log()), expected);
        }
    }

    /// A bit that flips anywhere behind the header never gives what was not there.
    #[test]
    fn a_bit_that_flips(
        steps in prop::collection::vec(step(), 1..24),
        flips in prop::collection::vec((any::<Index>(), 0..8_u32), 32),
    ) {
        let disk = Memory::new();
        let mut log = disk.log();
        let mut states = vec![(HEADER, meaning(&mut log))];
        for step in &steps {
            perform(&mut log, step);
            states.push((disk.bytes().len(), meaning(&mut log)));
        }
        let bytes = disk.bytes();
        if bytes.len() == HEADER {
            return Ok(());
        }
        for (place, bit) in flips {
            let mut damaged = bytes.clone();
            let place = HEADER + place.index(bytes.len() - HEADER);
            damaged[place] ^= 1_u8 << bit;
            *disk.0.file.lock().unwrap() = damaged;
            // Everything up to the record with the bit, and nothing of it or behind it.
            let (_, expected) = states.iter().rfind(|(end, _)| *end <= place).unwrap();
            prop_assert_eq!(&meaning(&mut disk.log()), expected);
        }
    }

    /// A file that was made shorter means the same, also when it is read again.
    #[test]
    fn a_shorter_file_means_the_same(steps in prop::collection::vec(step(), 0..40)) {
        let disk = Memory::new();
        let mut log = disk.log();
        for step in &steps {
            perform(&mut log, step);
        }
        // Something that counts for nothing and is large enough.
        perform(&mut log, &Step::Message("x".repeat(3 << 20)));
        let key = log.state.next_key - 1;
        let removed = log.append(&[Record::Removed { key }]);
        prop_assert!(removed.is_ok());
        let expected = meaning(&mut log);
        log.compact().unwrap();
        prop_assert_eq!(disk.0.replacements.load(Ordering::Relaxed), 1);
        prop_assert!(disk.bytes().len() < 1 << 20);
        prop_assert_eq!(&meaning(&mut log), &expected);
        prop_assert_eq!(&meaning(&mut disk.log()), &expected);
        perform(&mut log, &Step::Message("more".to_owned()));
        let expected = meaning(&mut log);
        prop_assert_eq!(meaning(&mut disk.log()), expected);
    }
}

/// However much passes through, the file stays within twice what is in it and a mebibyte, and a record.
#[test]
fn the_file_does_not_grow_without_end() {
    let disk = Memory::new();
    let mut log = disk.log();
    let text = "x".repeat(10_000);
    for _ in 0..1_000 {
        perform(&mut log, &Step::Message(text.clone()));
        let key = log.state.next_key - 1;
        assert!(log.append(&[Record::Removed { key }]).is_ok());
        log.compact().unwrap();
        assert!(disk.bytes().len() < (1 << 20) + 2 * 11_000);
    }
    assert!(disk.0.replacements.load(Ordering::Relaxed) <= 12);
}

/// Without room nothing is written, not even a part; without room for a shorter file the longer one stays.
#[test]
fn a_full_disk_changes_nothing() {
    let disk = Memory::new();
    let mut log = disk.log();
    perform(&mut log, &Step::Message("a".to_owned()));
    let before = disk.bytes();
    disk.0.room.store(before.len() + 5, Ordering::Relaxed);
    let failed = log.append(&[Record::SessionLost]);
    assert!(matches!(failed, Err(Failure::Full(_))));
    assert_eq!(disk.bytes(), before);
    disk.0.room.store(usize::MAX, Ordering::Relaxed);
    perform(&mut log, &Step::Message("x".repeat(3 << 20)));
    assert!(log.append(&[Record::Removed { key: 1 }]).is_ok());
    let expected = meaning(&mut log);
    disk.0
        .room
        .store(disk.bytes().len() + 30, Ordering::Relaxed);
    log.compact().unwrap();
    assert_eq!(disk.0.replacements.load(Ordering::Relaxed), 0);
    assert!(disk.0.other.lock().unwrap().is_empty());
    assert_eq!(meaning(&mut log), expected);
}

#[test]
fn what_is_no_outbox_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.outbox");
    std::fs::write(&path, b"something else, and long enough").unwrap();
    assert!(matches!(
        Outbox::open(folder.path()),
        Err(OutboxError::NotAnOutbox)
    ));
    assert_eq!(
        std::fs::read(&path).unwrap(),
        b"something else, and long enough"
    );
}

#[test]
fn a_directory_is_locked_and_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    assert!(matches!(
        Outbox::open(folder.path()),
        Err(OutboxError::Locked)
    ));
    drop(outbox);
    // What was begun and not finished, and what was replaced and not removed, goes.
    std::fs::write(folder.path().join("2.unfinished"), b"x").unwrap();
    std::fs::copy(
        folder.path().join("1.outbox"),
        folder.path().join("0.outbox"),
    )
    .unwrap();
    let outbox = Outbox::open(folder.path()).unwrap();
    assert!(outbox.is_empty() && outbox.damage().is_none());
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["1.outbox", "lock"]);
}

/// A client with an outbox over this disk and no server.
fn client(disk: &Memory, capacity: u32) -> (Client, Outbox) {
    let outbox = OutboxOptions::new()
        .capacity(capacity)
        .over(disk.log(), None);
    let options = Options::new("", 0)
        .client_id("c")
        .session_expiry_interval(60)
        .reconnect(crate::Backoff::default())
        .outbox(outbox.clone());
    // A server that never answers.
    let ends = Mutex::new(Vec::new());
    let client = Client::start_through(
        move |_target| {
            let (near, far) = duplex(1 << 16);
            ends.lock().unwrap().push(far);
            std::future::ready(Ok(near))
        },
        options.connect_timeout(Duration::from_secs(1 << 30)),
    );
    (client, outbox)
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_a_message_and_nothing_else() {
    let disk = Memory::new();
    let (client, outbox) = client(&disk, 1 << 20);
    let _first = client.publish(message("one")).await.unwrap();
    disk.0
        .room
        .store(disk.bytes().len() + 60, Ordering::Relaxed);
    let long = "x".repeat(100);
    let error = client.publish(message(&long)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Outbox(OutboxError::Io(_))),
        "{error:?}"
    );
    assert!(!error.is_uncertain());
    let mut refused = client.try_publish(message(&long)).unwrap();
    let accepted = client.try_publish(message("two")).unwrap();
    assert!(matches!(refused.stored().await, Err(Error::Outbox(_))));
    assert!(matches!(refused.await, Err(Error::Outbox(_))));
    disk.0.room.store(usize::MAX, Ordering::Relaxed);
    let _third = client.publish(message("three")).await.unwrap();
    assert_eq!(outbox.len(), 3);
    drop(client);
    let texts: Vec<_> = disk.log().messages(u64::MAX).unwrap();
    let texts: Vec<_> = texts
        .iter()
        .map(|stored| stored.message.payload())
        .collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert!(matches!(accepted.await, Err(Error::Kept(_))));
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_ends_the_client() {
    let disk = Memory::new();
    let (client, _outbox) = client(&disk, 1 << 20);
    let first = client.publish(message("one")).await.unwrap();
    disk.0.syncs.store(0, Ordering::Relaxed);
    let error = client.publish(message("two")).await.unwrap_err();
    // It may be there when the outbox is opened.
    assert!(matches!(&error, Error::Uncertain(_)), "{error:?}");
    let error = client.publish(message("three")).await.unwrap_err();
    assert!(matches!(&error, Error::Outbox(_)), "{error:?}");
    drop(client);
    assert!(matches!(first.await, Err(Error::Kept(_))));
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_holds_publishers_back() {
    let disk = Memory::new();
    let (client, _outbox) = client(&disk, 200);
    let text = "x".repeat(100);
    let _first = client.publish(message(&text)).await.unwrap();
    let second = client.publish(message(&text));
    let waited = tokio::time::timeout(Duration::from_secs(5), second).await;
    assert!(waited.is_err(), "there was no room");
    match client.try_publish(message(&text)) {
        Err(TryPublishError::Full(returned)) => assert_eq!(*returned, message(&text)),
        other => panic!("{other:?}"),
    }
    // A publication that was given up took no room.
    let _small = client.publish(message("small")).await.unwrap();
    let error = client.publish(message(&"x".repeat(300))).await.unwrap_err();
    assert!(matches!(error, Error::Outbox(OutboxError::TooLarge)));
}

#[tokio::test(start_paused = true)]
async fn an_outbox_serves_one_client_with_an_identifier() {
    let disk = Memory::new();
    let (client, outbox) = client(&disk, 1 << 20);
    let _receipt = client.publish(message("one")).await.unwrap();
    let options = Options::new("", 0).client_id("d").outbox(outbox.clone());
    let (near, _far) = duplex(64);
    let error = Client::connect_with(near, options).await.unwrap_err();
    assert!(matches!(error, Error::Outbox(OutboxError::InUse)));
    assert!(matches!(outbox.unfinished(), Err(OutboxError::InUse)));
    let (near, _far) = duplex(64);
    let nameless = Options::new("", 0).outbox(outbox.clone());
    let error = Client::connect_with(near, nameless).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}
