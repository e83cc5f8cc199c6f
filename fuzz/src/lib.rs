//! What several fuzz targets check.

use mqtt_codec::{ProtocolVersion, decode};

/// Decodes the packets of a stream one after the other. Each one must encode, and its encoding
/// must decode to the same packet.
pub fn check_round_trip(mut stream: &[u8], version: ProtocolVersion) {
    while let Ok(Some((packet, len))) = decode(stream, version, u32::MAX) {
        let written = packet.to_vec(version).expect("what decodes, encodes");
        let again = decode(&written, version, u32::MAX);
        assert_eq!(again, Ok(Some((packet, written.len()))));
        stream = stream
            .get(len..)
            .expect("a packet is not longer than its stream");
    }
}
