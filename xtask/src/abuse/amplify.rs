//! Attacks in which little that is sent asks for much work or memory.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context, Result, ensure};

use super::{
    attacks::Attack,
    wire::{PINGREQ, Peer, publish},
};

pub(super) const ATTACKS: [Attack; 5] = [
    Attack {
        name: "long topic, short alias",
        run: aliases,
    },
    Attack {
        name: "400,000 topics",
        run: many_topics,
    },
    Attack {
        name: "sessions come and go",
        run: short_visits,
    },
    Attack {
        name: "4,096 overlapping filters",
        run: overlapping_filters,
    },
    Attack {
        name: "filters over retained",
        run: filters_over_retained,
    },
];

/// Waits until the broker has handled all that was sent.
fn settle(peer: &mut Peer) -> Result<()> {
    peer.send(&PINGREQ)?;
    loop {
        let (first, _) = peer.receive().context("no PINGRESP")?;
        if first == 0xd0 {
            return Ok(());
        }
    }
}

/// Eight bytes each that stand for 60,000, for subscribers that read nothing.
fn aliases(address: SocketAddr) -> Result<String> {
    const SUBSCRIBERS: usize = 20;
    const MESSAGES: usize = 250_000;
    let mut deaf = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut peer = Peer::connect_v5(address, &format!("alias-{number}"), 0)?;
        peer.subscribe_v5(1, None, "long/#")?;
        deaf.push(peer);
    }
    let mut sender = Peer::connect_v5(address, "alias-sender", 0)?;
    let topic = format!("long/{}", "x".repeat(60_000));
    let started = Instant::now();
    sender.send(&super::wire::publish_alias(&topic, 1))?;
    let block = super::wire::publish_alias("", 1).repeat(1_000);
    for _ in 0..MESSAGES / 1_000 {
        sender.send(&block)?;
    }
    settle(&mut sender)?;
    Ok(format!(
        "{MESSAGES} to {SUBSCRIBERS} in {:.1?}",
        started.elapsed()
    ))
}

/// Topics that never come again, so that a cache of them is of no use.
fn many_topics(address: SocketAddr) -> Result<String> {
    const TOPICS: usize = 400_000;
    let mut listeners = Vec::new();
    for number in 0..20 {
        let mut peer = Peer::connect(address, &format!("topics-{number}"))?;
        peer.subscribe(&["topics/+/none/#".to_owned(), format!("topics/{number}/+")])?;
        listeners.push(peer);
    }
    let mut sender = Peer::connect(address, "topics-sender")?;
    let started = Instant::now();
    let filler = "x".repeat(180);
    for block in 0..TOPICS / 1_000 {
        let topics = (0..1_000).map(|number| format!("topics/{block}/{filler}{number}"));
        let bytes: Vec<u8> = topics
            .flat_map(|topic| publish(&topic, None, b""))
            .collect();
        sender.send(&bytes)?;
    }
    settle(&mut sender)?;
    Ok(format!("{TOPICS} in {:.1?}", started.elapsed()))
}

/// One client identifier whose session outlives each of its connections by an hour.
fn short_visits(address: SocketAddr) -> Result<String> {
    const VISITS: usize = 20_000;
    let started = Instant::now();
    for _ in 0..VISITS {
        drop(Peer::connect_v5(address, "visitor", 3_600)?);
    }
    Ok(format!("{VISITS} in {:.1?}", started.elapsed()))
}

/// Every way to write twelve levels with `x` or `+`, each with an identifier of its own.
fn overlapping_filters(address: SocketAddr) -> Result<String> {
    const LEVELS: usize = 12;
    const TOPICS: usize = 2_000;
    let mut peer = Peer::connect_v5(address, "overlap", 0)?;
    for bits in 0..1_u32 << LEVELS {
        let levels = (0..LEVELS).map(|level| if bits >> level & 1 == 0 { "x" } else { "+" });
        let filter = levels.chain(["+"]).collect::<Vec<_>>().join("/");
        // From 128 on, so that each takes two bytes.
        peer.subscribe_v5(1, Some(bits + 128), &filter)?;
    }
    let mut sender = Peer::connect(address, "overlap-sender")?;
    let started = Instant::now();
    let prefix = "x/".repeat(LEVELS);
    let bytes: Vec<u8> = (0..TOPICS)
        .flat_map(|number| publish(&format!("{prefix}{number}"), None, b""))
        .collect();
    sender.send(&bytes)?;
    settle(&mut sender)?;
    let (first, body) = peer.receive().context("no message")?;
    ensure!(
        first & 0xf0 == 0x30 && body.len() > 2 << LEVELS,
        "not all identifiers came"
    );
    Ok(format!("{TOPICS} messages in {:.1?}", started.elapsed()))
}

/// Filters that make the broker look at all retained messages, and match none.
fn filters_over_retained(address: SocketAddr) -> Result<String> {
    const TOPICS: usize = 50_000;
    const FILTERS: usize = 500;
    let mut sender = Peer::connect(address, "retained-sender")?;
    for block in 0..TOPICS / 1_000 {
        let mut bytes = Vec::new();
        for number in 0..1_000 {
            let mut packet = publish(&format!("kept/{block}/{number}"), None, b"x");
            packet[0] |= 1;
            bytes.extend(packet);
        }
        sender.send(&bytes)?;
    }
    settle(&mut sender)?;
    let mut peer = Peer::connect(address, "retained-reader")?;
    let started = Instant::now();
    let filters: Vec<String> = (0..FILTERS)
        .map(|number| format!("+/+/+/none-{number}/#"))
        .collect();
    peer.subscribe(&filters)?;
    peer.subscribe(&["end".to_owned()])?;
    sender.send(&publish("end", None, b"end"))?;
    loop {
        let (_, body) = peer.receive().context("no message")?;
        if body.ends_with(b"end") {
            break;
        }
    }
    let answered = started.elapsed();
    // What was kept is cleared, so that the next attack begins as this one did.
    for block in 0..TOPICS / 1_000 {
        let mut bytes = Vec::new();
        for number in 0..1_000 {
            let mut packet = publish(&format!("kept/{block}/{number}"), None, b"");
            packet[0] |= 1;
            bytes.extend(packet);
        }
        sender.send(&bytes)?;
    }
    settle(&mut sender)?;
    Ok(format!(
        "{FILTERS} over {TOPICS}, answered within {answered:.1?}"
    ))
}
