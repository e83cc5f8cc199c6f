//! The section `[bans]` and what is in it: networks hold exactly the addresses that begin with their bits, and whom the
//! rules name is not let in.
#![no_main]

use core::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::settings::Loaded;
use mqtt_broker::{Broker, Config, Network, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04fuzz";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    section: &'a str,
    network: &'a str,
    base: IpAddr,
    prefix: u8,
    address: IpAddr,
    /// Whether the address is one that begins as the network does.
    near: bool,
}

/// The bits of an address, of which one of IPv4 has fewer however it is written.
fn bits(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("4{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("6{:0128b}", address.to_bits()),
    }
}

/// The same by comparing texts. A range of IPv6 may have all of IPv4 in it, which is not meant.
fn contains(base: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let mapped = matches!(base, IpAddr::V6(_)) && base.to_canonical().is_ipv4();
    let (base, prefix) = match (mapped, prefix.checked_sub(96)) {
        (true, Some(rest)) => (bits(base), rest),
        (true, None) => {
            return address.to_canonical().is_ipv6() && {
                let IpAddr::V6(base) = base else { return false };
                let base = format!("6{:0128b}", base.to_bits());
                let len = 1 + usize::from(prefix);
                base.get(..len) == bits(address).get(..len)
            };
        }
        (false, _) => (bits(base), prefix),
    };
    let len = 1 + usize::from(prefix);
    base.get(..len) == bits(address).get(..len)
}

async fn is_let_in(config: Config, address: IpAddr) -> bool {
    let broker = Broker::new(config);
    let (mut near, far) = tokio::io::duplex(256);
    broker.serve_with(far, Peer::from(SocketAddr::new(address, 1)), Arc::default());
    if near.write_all(CONNECT).await.is_err() {
        return false;
    }
    let mut answer = [0; 4];
    near.read_exact(&mut answer).await.is_ok() && answer == *b"\x20\x02\0\0"
}

fuzz_target!(|input: Input<'_>| {
    let none = core::iter::empty();
    let text = format!("[bans]\n{}", input.section);
    match Loaded::parse(Path::new("broker.toml"), text, none) {
        Ok(loaded) => drop(loaded.settings.bans.rules()),
        Err(problem) => assert!(problem.to_string().starts_with("error")),
    }
    if let Ok(network) = input.network.parse::<Network>() {
        let again = network.to_string().parse::<Network>();
        assert_eq!(again.ok(), Some(network));
    }
    let width = if input.base.is_ipv4() { 32 } else { 128 };
    let prefix = input.prefix % (width + 1);
    let text = format!("{}/{prefix}", input.base);
    let network: Network = text.parse().expect("a network");
    let address = if input.near {
        input.base
    } else {
        input.address
    };
    let expected = contains(input.base, prefix, address);
    assert_eq!(network.contains(address), expected, "{text} {address}");
    let mut config = Config::default();
    config.bans.addresses = vec![network];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads");
    let let_in = runtime.block_on(is_let_in(config, address));
    assert_eq!(let_in, !expected, "{text} {address}");
});
