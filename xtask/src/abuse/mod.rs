//! `cargo xtask abuse`: attacks on the broker, and what its other clients notice of them.

mod amplify;
mod attacks;
mod doors;
mod logins;
mod probe;
mod wire;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use self::{
    doors::Doors,
    probe::{Probe, Seen},
};
use crate::{
    install,
    interop::{
        broker::{Broker, Programs},
        transports::stage::{Door, Stage},
    },
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
    /// The cargo profile that the broker is built with [default: release]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
}

/// Runs the attacks one after another on one broker and prints a table.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let profile = args.profile.as_deref().unwrap_or("release");
    let programs = Programs::build(profile, true)?;
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
        if !args.wants(attack.name) {
            continue;
        }
        let started = Instant::now();
        let (seen, outcome) = attempt(|| (attack.run)(address), address, broker.process_id());
        passed += usize::from(outcome.is_ok());
        failed += usize::from(outcome.is_err());
        print(attack.name, started, seen, outcome);
    }
    let panics = broker.lines_with("panic");
    if !panics.is_empty() {
        failed += 1;
        println!("FAILED: the log has a panic: {}", panics.join("; "));
    }
    broker.stop()?;
    let (more_passed, more_failed) = attack_doors(args, &programs)?;
    passed += more_passed;
    failed += more_failed;
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text.as_str()))
    }
}

fn print(name: &str, started: Instant, seen: Option<Seen>, outcome: Result<String>) {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let gap = or_none(seen.map(|seen| format!("{} ms", seen.gap.as_millis())));
    let memory = or_none(seen.map(|seen| format!("{} MiB", seen.memory >> 10)));
    let verdict = outcome.unwrap_or_else(|error| format!("FAILED: {error:#}"));
    let took = seconds(started.elapsed());
    println!("{name:<26} {took:>8} {gap:>8} {memory:>9}  {verdict}");
}

/// Attacks on what comes before CONNECT, each on a broker of its own with a listener for each transport; what the
/// broker refused must be counted.
fn attack_doors(args: &Args, programs: &Programs) -> Result<(usize, usize)> {
    let (mut passed, mut failed) = (0, 0);
    let attacks = doors::ATTACKS.iter().chain(&logins::ATTACKS);
    for attack in attacks.filter(|one| args.wants(one.name)) {
        install::apt("openssl", "openssl")?;
        let stage = Stage::new(&programs.broker, &programs.tools)?;
        let doors = Doors {
            tls: stage.socket(Door::Tls)?,
            websocket: stage.socket(Door::WebSocket)?,
            proxy: stage.socket(Door::Proxy)?,
            password: stage.socket(Door::Password)?,
        };
        let plain = stage.socket(Door::Plain)?;
        let started = Instant::now();
        let (seen, outcome) = attempt(|| (attack.run)(&doors), plain, stage.process_id());
        let counters = stage.counters()?;
        let outcome = outcome.and_then(|note| {
            for (reason, least) in attack.counted {
                let text = format!("{reason}: ");
                let counted = counters.iter().find_map(|line| line.strip_prefix(&text));
                let counted = counted.and_then(|count| count.parse().ok()).unwrap_or(0);
                ensure!(
                    counted >= *least,
                    "{reason}: {counted} are counted ({note}; {})",
                    counters.join("; ")
                );
            }
            let panics = counters
                .iter()
                .filter(|line| line.contains("panic"))
                .count();
            ensure!(panics == 0, "the log has a panic ({note})");
            Ok(note)
        });
        passed += usize::from(outcome.is_ok());
        failed += usize::from(outcome.is_err());
        print(attack.name, started, seen, outcome);
    }
    Ok((passed, failed))
}

fn attempt(
    attack: impl FnOnce() -> Result<String>,
    address: SocketAddr,
    process: u32,
) -> (Option<Seen>, Result<String>) {
    let probe = match Probe::start(address, process) {
        Ok(probe) => probe,
        Err(error) => return (None, Err(error.context("the probe cannot start"))),
    };
    let outcome = attack();
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
