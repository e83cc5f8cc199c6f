//! A stream gives the same packets, however it is cut.

use bytes::BytesMut;
use mqtt_codec::{Frame, Packet, ProtocolVersion, decode};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::generate::{self, Static};

fn stream() -> impl Strategy<Value = (ProtocolVersion, Vec<Static>)> {
    generate::version()
        .prop_flat_map(|version| (Just(version), vec(generate::packet(version), 1..6)))
}

/// The packets of whole bytes, decoded one after the other.
fn whole(bytes: &[u8], version: ProtocolVersion) -> Vec<Packet<'_>> {
    let mut rest = bytes;
    let mut packets = Vec::new();
    while let Some((packet, len)) = decode(rest, version, u32::MAX).unwrap() {
        packets.push(packet);
        rest = &rest[len..];
    }
    assert_eq!(rest, b"");
    packets
}

proptest! {
    #[test]
    fn any_split_gives_the_same_packets(
        (version, packets) in stream(),
        sizes in vec(1..50_usize, 1..20),
    ) {
        let mut bytes = Vec::new();
        for packet in &packets {
            packet.encode(version, &mut bytes).unwrap();
        }
        let expected = whole(&bytes, version);
        prop_assert_eq!(expected.len(), packets.len());

        let mut sizes = sizes.iter().cycle();
        let mut rest = &bytes[..];
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (chunk, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = later;
            buffer.extend_from_slice(chunk);
            while let Some(frame) = Frame::split_from(&mut buffer, version, u32::MAX).unwrap() {
                frames.push(frame);
            }
        }
        prop_assert!(buffer.is_empty());
        let split: Vec<_> = frames.iter().map(|frame| frame.packet(version).unwrap()).collect();
        prop_assert_eq!(split, expected);
    }

    #[test]
    fn no_beginning_of_a_packet_is_an_error((version, packet) in generate::any_packet()) {
        let bytes = packet.to_vec(version).unwrap();
        // Long payloads are all alike.
        for len in (0..bytes.len().min(200)).chain([bytes.len() - 1]) {
            prop_assert_eq!(decode(&bytes[..len], version, u32::MAX), Ok(None));
        }
    }
}
