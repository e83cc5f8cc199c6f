//! `cargo xtask abuse`: attacks on the broker, and what its other clients notice of them.

mod amplify;
mod attacks;
mod probe;
mod wire;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{
    attacks::Attack,
    probe::{Probe, Seen},
};
use crate::{
    interop::broker::{Broker, Programs},
    step::{Verdict, seconds},
};

/// The longest time that the probe may wait for a message.
const GAP: Duration = Duration::from_secs(1);
/// The most memory that the broker may take, in KiB.
const MEMORY: u64 = 256 * 1024;

#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Args {
    /// Only the attacks whose name contains this (repeatable)
    #[arg(long)]
    only: Vec<String>,
}

/// Runs the attacks one after another on one broker and prints a table.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let programs = Programs::build("release", true)?;
    let mut broker = Broker::start(&programs.broker)?;
    let address = (broker.address.host.as_str(), broker.address.port)
        .to_socket_addrs()?
        .next()
        .context("the broker has no address")?;
    let mut failed = 0;
    let mut passed = 0;
    println!(
        "{:<26} {:>8} {:>8} {:>9}  outcome",
        "attack", "time", "gap", "memory"
    );
    for attack in attacks::ATTACKS.iter().chain(&amplify::ATTACKS) {
        if !args.only.is_empty()
            && !args
                .only
                .iter()
                .any(|name| attack.name.contains(name.as_str()))
        {
            continue;
        }
        let started = Instant::now();
        let (seen, outcome) = attempt(attack, address, broker.process_id());
        let gap = seen.map_or_else(
            || "-".to_owned(),
            |seen| format!("{} ms", seen.gap.as_millis()),
        );
        let memory = seen.map_or_else(
            || "-".to_owned(),
            |seen| format!("{} MiB", seen.memory >> 10),
        );
        let verdict = match outcome {
            Ok(note) => {
                passed += 1;
                note
            }
            Err(error) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        println!(
            "{:<26} {:>8} {gap:>8} {memory:>9}  {verdict}",
            attack.name,
            seconds(started.elapsed())
        );
    }
    let panics = broker.lines_with("panic");
    if !panics.is_empty() {
        failed += 1;
        println!("FAILED: the log has a panic: {}", panics.join("; "));
    }
    broker.stop()?;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

fn attempt(attack: &Attack, address: SocketAddr, process: u32) -> (Option<Seen>, Result<String>) {
    let probe = match Probe::start(address, process) {
        Ok(probe) => probe,
        Err(error) => return (None, Err(error.context("the probe cannot start"))),
    };
    let outcome = (attack.run)(address);
    let seen = match probe.finish() {
        Ok(seen) => seen,
        Err(error) => return (None, Err(error.context("the probe broke"))),
    };
    let judged = outcome.and_then(|note| {
        ensure!(
            seen.gap <= GAP,
            "the probe waited {:.1?} for a message ({note})",
            seen.gap
        );
        ensure!(
            seen.memory <= MEMORY,
            "the broker took {} MiB ({note})",
            seen.memory >> 10
        );
        ensure!(
            seen.messages > 0 || note.is_empty() || seen.gap < GAP,
            "the probe saw nothing"
        );
        Ok(note)
    });
    (Some(seen), judged)
}
