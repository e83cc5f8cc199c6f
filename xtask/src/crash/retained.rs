//! A new subscriber that asks for the retained values and for nothing else.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use super::wire::{DISCONNECT, Link, PINGREQ, Packet, Version, connect, subscribe};

/// How long PINGRESP may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the last packet values that are owed may take.
const LATE: Duration = Duration::from_secs(1);
/// Nothing more comes after a silence of this length.
const QUIET: Duration = Duration::from_millis(40);
const POLL: Duration = Duration::from_micros(500);

/// The retained values that match `filter`. It waits for `owed` of them, or until they are late.
pub(super) fn look(
    address: SocketAddr,
    filter: &str,
    owed: usize,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let version = Version::V5;
    let mut link = Link::open(address, version)?;
    link.send(&connect(version, "crash-retained", true, u16::MAX));
    link.send(&subscribe(version, 1, filter, 0));
    link.send(&PINGREQ);
    let (mut found, mut answered) = (BTreeMap::new(), false);
    let started = Instant::now();
    let mut last = started;
    loop {
        link.flush()?;
        let mut packets = Vec::new();
        link.receive(&mut packets)?;
        for packet in packets {
            last = Instant::now();
            match packet {
                Packet::Connack { code: 0, .. } => {}
                Packet::Suback { code: 0, .. } => {}
                Packet::Pingresp => answered = true,
                // A broker that was not stopped may still work on what was sent before.
                Packet::Publish(message) if message.payload.is_empty() => {
                    found.remove(&message.topic);
                }
                Packet::Publish(message) => {
                    found.insert(message.topic, message.payload);
                }
                other => bail!("unexpected {other:?}"),
            }
        }
        ensure!(answered || started.elapsed() < PATIENCE, "no PINGRESP");
        let wait = if found.len() >= owed { QUIET } else { LATE };
        if answered && last.elapsed() > wait {
            break;
        }
        thread::sleep(POLL);
    }
    link.send(&DISCONNECT);
    link.flush()?;
    Ok(found)
}
