//! Headers of the PROXY protocol that are as they should be, built here by the text of the specification: each is read to
//! the client that it names, and not a byte behind it is taken. What is damaged is read or refused.
#![no_main]

use core::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::fuzzing::proxy;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the extensions, so that a header is not longer than what is read.
const EXTENSIONS: usize = 3_000;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    second: bool,
    /// The proxy speaks for itself.
    local: bool,
    v6: bool,
    source: ([u8; 16], u16),
    destination: ([u8; 16], u16),
    /// Kinds and values behind the addresses, of version 2.
    extensions: Vec<(u8, &'a [u8])>,
    behind: &'a [u8],
    /// A byte of the header that is changed, and by what.
    damage: Option<(u16, u8)>,
}

fn address(v6: bool, (bytes, port): ([u8; 16], u16)) -> SocketAddr {
    let [a, b, c, d, ..] = bytes;
    match v6 {
        true => SocketAddrV6::new(bytes.into(), port, 0, 0).into(),
        false => SocketAddrV4::new([a, b, c, d].into(), port).into(),
    }
}

fn first(input: &Input<'_>, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    if input.local {
        return b"PROXY UNKNOWN\r\n".to_vec();
    }
    let kind = if input.v6 { "TCP6" } else { "TCP4" };
    let (from, to) = (source.ip(), destination.ip());
    let ports = (source.port(), destination.port());
    format!("PROXY {kind} {from} {to} {} {}\r\n", ports.0, ports.1).into_bytes()
}

fn second(input: &Input<'_>, source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut rest = Vec::new();
    for one in [source, destination] {
        match one.ip() {
            IpAddr::V4(ip) => rest.extend(ip.octets()),
            IpAddr::V6(ip) => rest.extend(ip.octets()),
        }
    }
    rest.extend(source.port().to_be_bytes());
    rest.extend(destination.port().to_be_bytes());
    for (kind, value) in &input.extensions {
        // Those that have a meaning have a form, too (section 2.2 of the specification); of others any bytes are good.
        let kind = 0xe0 | kind & 0x0f;
        if rest.len() + 3 + value.len() > EXTENSIONS {
            break;
        }
        rest.push(kind);
        rest.extend((value.len() as u16).to_be_bytes());
        rest.extend_from_slice(value);
    }
    let mut header = SIGNATURE.to_vec();
    header.push(if input.local { 0x20 } else { 0x21 });
    header.push(if input.v6 { 0x21 } else { 0x11 });
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

fuzz_target!(|input: Input<'_>| {
    let source = address(input.v6, input.source);
    let destination = address(input.v6, input.destination);
    let mut header = match input.second {
        true => second(&input, source, destination),
        false => first(&input, source, destination),
    };
    if let Some((place, by)) = input.damage {
        let place = usize::from(place) % header.len();
        header[place] ^= by;
    }
    let is_whole = input.damage.is_none_or(|(_, by)| by == 0);
    header.extend_from_slice(input.behind);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let read = runtime
        .expect("a runtime without threads")
        .block_on(proxy(&header));
    if is_whole {
        let named = (!input.local).then_some(source);
        assert_eq!(read, Ok((named, input.behind.len())));
    }
});
