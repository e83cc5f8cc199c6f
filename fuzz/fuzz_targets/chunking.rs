//! A stream of any bytes, whole and in pieces: the same packets, and the same error at the end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqtt_codec::{DecodeError, Packet, ProtocolVersion, decode};

/// The size limit, in bytes.
const LIMIT: u32 = 1 << 20;

/// The packets at the start of a stream, the number of their bytes, and the error after them.
fn packets(
    stream: &[u8],
    version: ProtocolVersion,
) -> (Vec<Packet<'_>>, usize, Option<DecodeError>) {
    let mut packets = Vec::new();
    let mut end = 0;
    loop {
        match decode(&stream[end..], version, LIMIT) {
            Ok(Some((packet, len))) => {
                packets.push(packet);
                end += len;
            }
            Ok(None) => return (packets, end, None),
            Err(error) => return (packets, end, Some(error)),
        }
    }
}

fuzz_target!(|input: (u8, Vec<u8>, Vec<u8>)| {
    let (version, sizes, stream) = input;
    let version = ProtocolVersion::ALL[usize::from(version) % ProtocolVersion::ALL.len()];
    let expected = packets(&stream, version);

    // What has arrived grows piece by piece; what was decoded is not looked at again.
    let mut sizes = sizes.iter().map(|size| usize::from(*size) + 1);
    let mut arrived = 0;
    let mut decoded = 0;
    let mut found = Vec::new();
    let mut failed = None;
    while arrived < stream.len() && failed.is_none() {
        arrived = stream
            .len()
            .min(arrived + sizes.next().unwrap_or(usize::MAX - arrived));
        let (more, len, error) = packets(&stream[decoded..arrived], version);
        found.extend(more);
        decoded += len;
        failed = error;
    }
    assert_eq!((found, decoded), (expected.0, expected.1));
    // A packet above the limit, or with a bad length, is found as early or earlier than whole.
    assert_eq!(failed, expected.2);
});
