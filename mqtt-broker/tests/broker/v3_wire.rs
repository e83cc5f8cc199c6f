//! Packets of 3.1 and 3.1.1 as bytes, for what no encoder would write.

use mqtt_codec::ProtocolVersion;

/// Connect flags.
pub(crate) const CLEAN: u8 = 0x02;
pub(crate) const WILL: u8 = 0x04;
pub(crate) const WILL_RETAIN: u8 = 0x20;
pub(crate) const PASSWORD: u8 = 0x40;
pub(crate) const USER: u8 = 0x80;

/// Bytes after their length in two bytes: a string or binary data.
pub(crate) fn field(bytes: &[u8]) -> Vec<u8> {
    let mut field = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    field.extend(bytes);
    field
}

/// A packet with this first byte and the parts one after the other.
pub(crate) fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut packet = vec![first];
    let mut rest = body.len();
    loop {
        let low = (rest % 128) as u8;
        rest /= 128;
        packet.push(low | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// CONNECT with a keep alive of 0, the flags as they are, and these fields for a payload.
pub(crate) fn connect(version: ProtocolVersion, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    connect_as(version.name().as_bytes(), version.level(), flags, fields)
}

/// The same with any protocol name and level.
pub(crate) fn connect_as(name: &[u8], level: u8, flags: u8, fields: &[&[u8]]) -> Vec<u8> {
    let payload: Vec<u8> = fields.iter().flat_map(|bytes| field(bytes)).collect();
    packet(0x10, &[&field(name), &[level, flags, 0, 0], &payload])
}

/// PUBLISH; a QoS above 0 in `first` takes an identifier.
pub(crate) fn publish(first: u8, topic: &[u8], identifier: &[u8], payload: &[u8]) -> Vec<u8> {
    packet(first, &[&field(topic), identifier, payload])
}

/// SUBSCRIBE of one filter with these options.
pub(crate) fn subscribe(identifier: u16, filter: &[u8], options: u8) -> Vec<u8> {
    packet(
        0x82,
        &[&identifier.to_be_bytes(), &field(filter), &[options]],
    )
}

/// UNSUBSCRIBE of one filter.
pub(crate) fn unsubscribe(identifier: u16, filter: &[u8]) -> Vec<u8> {
    packet(0xa2, &[&identifier.to_be_bytes(), &field(filter)])
}

/// Strings that are not UTF-8: a lone byte, overlong forms, surrogates, beyond U+10FFFF, cut short.
pub(crate) const ILL_FORMED: [&[u8]; 9] = [
    b"\xff",
    b"a\x80b",
    b"\xc0\x80",
    b"\xc1\x81",
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"a\xe2\x82",
];
