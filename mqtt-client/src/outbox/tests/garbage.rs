//! Files that no outbox wrote: each is refused, or what is whole of it is used, and it works on from there.

use std::fs;

use mqtt_codec::PacketId;
use proptest::prelude::*;

use super::{Step, id, message, perform};
use crate::outbox::log::{self, Log};
use crate::outbox::record::{HEADER, Record, header};
use crate::outbox::{Outbox, OutboxError};

/// Records with valid checksums in an order that no client would write them in.
#[derive(Debug, Clone)]
enum Wild {
    Message(u64, u64, Vec<u8>),
    Sent(PacketId, u64),
    Released(PacketId),
    Completed(PacketId),
    Removed(u64),
    Received(PacketId),
    Forgotten(PacketId),
    Session(String),
    Lost,
    /// No record at all.
    Bytes(Vec<u8>),
}

impl Wild {
    fn encode(&self, out: &mut Vec<u8>) {
        let record = match self {
            Self::Message(key, stored_at, packet) => Record::Message {
                key: *key,
                stored_at: *stored_at,
                packet,
            },
            Self::Sent(packet_id, key) => Record::Sent {
                packet_id: *packet_id,
                key: *key,
            },
            Self::Released(packet_id) => Record::Released {
                packet_id: *packet_id,
            },
            Self::Completed(packet_id) => Record::Completed {
                packet_id: *packet_id,
            },
            Self::Removed(key) => Record::Removed { key: *key },
            Self::Received(packet_id) => Record::Received {
                packet_id: *packet_id,
            },
            Self::Forgotten(packet_id) => Record::Forgotten {
                packet_id: *packet_id,
            },
            Self::Session(client_id) => Record::Session { client_id },
            Self::Lost => Record::SessionLost,
            Self::Bytes(bytes) => {
                out.extend_from_slice(bytes);
                return;
            }
        };
        record.encode(out);
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..5_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2 - 1)]
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{0,9}".prop_map(|text| log::packet(&message(&text)).unwrap()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn wild() -> impl Strategy<Value = Wild> {
    let packet_id = (1..4_u16).prop_map(id);
    prop_oneof![
        3 => (number(), number(), packet()).prop_map(|(key, at, packet)| Wild::Message(key, at, packet)),
        2 => (packet_id.clone(), number()).prop_map(|(id, key)| Wild::Sent(id, key)),
        1 => packet_id.clone().prop_map(Wild::Released),
        1 => packet_id.clone().prop_map(Wild::Completed),
        1 => number().prop_map(Wild::Removed),
        1 => packet_id.clone().prop_map(Wild::Received),
        1 => packet_id.prop_map(Wild::Forgotten),
        1 => ".{0,5}".prop_map(Wild::Session),
        1 => Just(Wild::Lost),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Wild::Bytes),
    ]
}

/// Opens a directory with this file, and uses what it gives.
fn open(bytes: &[u8]) -> Result<(), OutboxError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("1.outbox");
    fs::write(&path, bytes).unwrap();
    let opened = Outbox::open(folder.path());
    let Ok(outbox) = opened else {
        // What is not understood is left as it is.
        assert_eq!(fs::read(&path).unwrap(), bytes);
        return opened.map(drop);
    };
    let cut = outbox.damage().map_or(0, |damage| damage.bytes as usize);
    assert_eq!(fs::read(&path).unwrap(), bytes[..bytes.len() - cut]);
    let unfinished = outbox.unfinished().map(|left| left.len());
    if let Ok(count) = unfinished {
        assert_eq!(count, outbox.len());
    }
    drop(outbox);
    // What was cut off was kept, and is not cut off again.
    if cut > 0 {
        let kept = fs::read(folder.path().join("damaged")).unwrap();
        assert_eq!(kept, bytes[bytes.len() - cut..]);
    }
    let (mut log, damage) = Log::open(folder.path())?;
    assert!(damage.is_none());
    let count = log.state.messages.len();
    perform(&mut log, &Step::Message("more".to_owned()));
    drop(log);
    let (log, damage) = Log::open(folder.path())?;
    assert!(damage.is_none());
    assert_eq!(log.state.messages.len(), count + 1);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(open(&bytes), Err(OutboxError::NotAnOutbox)));
    }

    #[test]
    fn bytes_behind_a_header_are_cut_off(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut file = header().to_vec();
        file.extend_from_slice(&bytes);
        prop_assert!(open(&file).is_ok());
    }

    #[test]
    fn records_in_any_order_do_no_harm(records in prop::collection::vec(wild(), 0..20)) {
        let mut file = header().to_vec();
        for record in &records {
            record.encode(&mut file);
        }
        prop_assert!(file.len() >= HEADER);
        // A key that was never counted up to is refused, anything else is used as far as it is whole.
        let opened = open(&file);
        prop_assert!(matches!(opened, Ok(()) | Err(OutboxError::NotAnOutbox)), "{:?}", opened);
    }
}
