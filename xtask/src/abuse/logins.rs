//! Attacks on those who look at passwords: their hashes are slow by intent, and nobody else waits for them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    doors::{DoorAttack, Doors},
    wire::{CONNACK, Peer, packet, string},
};
use crate::interop::transports::stage::{PASSWORD, USER};

pub(super) const ATTACKS: [DoorAttack; 1] = [DoorAttack {
    name: "logins: 2,000 at once",
    run: storm,
    counted: &[("denied, login", 1), ("denied, login queue full", 500)],
}];

/// What a login may take when many wait before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// CONNECT with a password, of 3.1.1 or 5.0.
fn login(version: u8, id: &str, user: &str, password: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[version, 0xc2, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    for text in [id, user, password] {
        string(text, &mut body);
    }
    packet(0x10, &body)
}

/// The code in CONNACK.
fn answer(peer: &mut Peer) -> Result<u8> {
    peer.stream.set_read_timeout(Some(PATIENCE))?;
    let (first, body) = peer.receive().context("no CONNACK")?;
    ensure!(first == CONNACK, "no CONNACK but {first:#04x}");
    body.get(1).copied().context("a short CONNACK")
}

/// Wrong passwords, all at once, of users that there are and that there are not. Those for whom there is no room
/// are told so, and who comes later with the right password is let in.
fn storm(doors: &Doors) -> Result<String> {
    const LOGINS: usize = 2_000;
    let started = Instant::now();
    let mut peers = Vec::new();
    for number in 0..LOGINS {
        let version = if number % 2 == 0 { 4 } else { 5 };
        let user = if number % 4 < 2 { USER } else { "nobody" };
        let mut peer = Peer::open(doors.password)?;
        peer.send(&login(version, &format!("storm-{number}"), user, "wrong"))?;
        peers.push((version, peer));
    }
    let (mut wrong, mut busy) = (0, 0);
    for (version, peer) in &mut peers {
        match (*version, answer(peer)?) {
            (4, 4) | (5, 0x86) => wrong += 1,
            (4, 3) | (5, 0x97) => busy += 1,
            (version, code) => anyhow::bail!("version {version} is answered by {code:#04x}"),
        }
    }
    let took = started.elapsed();
    ensure!(
        wrong > 0 && busy > 0,
        "{wrong} wrong, {busy} beyond the bound"
    );
    let after = enter(doors.password).context("after the storm")?;
    Ok(format!(
        "{wrong} wrong, {busy} beyond the bound, in {took:.1?}; then one let in after {after:.0?}"
    ))
}

/// How long it takes to be let in.
fn enter(address: SocketAddr) -> Result<Duration> {
    let started = Instant::now();
    let mut peer = Peer::open(address)?;
    peer.send(&login(5, "welcome", USER, PASSWORD))?;
    let code = answer(&mut peer)?;
    ensure!(code == 0, "refused with {code:#04x}");
    Ok(started.elapsed())
}
