//! `cargo xtask interop`: other MQTT clients and this project's exchange messages through the broker.
//!
//! Nothing waits for a fixed time: a case waits for what a client prints, and fails with its name
//! when that does not come.
//!
//! Clients are programs, started anew each time, or libraries, this project's and those of other languages, each
//! behind a program that takes commands. A client that cannot be installed is left out, and the last line
//! counts the cases that were not run for that. Where it is a library the exit code is 0 all the
//! same, on a CI machine too: such a machine may reach no registry of packages.

pub(crate) mod broker;
mod cases;
mod client;
mod driver;
mod identities;
mod library;
mod message;
mod peer;
mod program;
mod report;
mod scene;
pub(crate) mod transports;
mod users;

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use self::{
    broker::{Broker, Programs, parse_address},
    cases::Case,
    driver::Drivers,
    library::Library,
    peer::{Address, Peer},
    scene::Scene,
};
use crate::{install::NotInstalled, step::Verdict};

/// Cases that run at the same time; each has three processes at most, and a worker a driver for each
/// library.
const WORKERS: usize = 4;
/// After so many failures the rest is not run: each may have waited for its whole time.
const MOST_FAILURES: usize = 25;
/// How long the clients of a case may take to go away.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only cases whose name contains TEXT (repeatable: any of them)
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Only cases between these clients: mosquitto, mqtt-client, paho, mqtt.js, ternmq (the library of mqtt-client; repeatable)
    #[arg(long, value_name = "NAME")]
    peer: Vec<String>,
    /// Test the broker that listens on HOST:PORT, instead of starting one
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_address)]
    address: Option<Address>,
    /// Start this program, instead of building the broker
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    broker: Option<PathBuf>,
    /// The cargo profile that the programs are built with [default: release]
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Check a page in headless Chromium as well
    #[arg(long)]
    browser: bool,
    /// Print the names of the cases and end
    #[arg(long)]
    list: bool,
}

impl Args {
    /// Every case; the browser only where it is asked for, since it takes long to install.
    pub(crate) fn all(browser: bool) -> Self {
        Self {
            browser,
            ..Self::default()
        }
    }
}

/// Runs the cases that `args` selects and prints a table.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let transports = match &args.address {
        // They need a broker that is configured for them.
        Some(_) => Vec::new(),
        None => transports::select(&args.case, &args.peer, args.browser),
    };
    let identities = match &args.address {
        Some(_) => Vec::new(),
        None => identities::select(&args.case, &args.peer),
    };
    let has_checks = !transports.is_empty() || !identities.is_empty();
    if args.list {
        let cases = select(args, peers(Path::new(""), Path::new("")));
        if !has_checks {
            ensure!(cases.is_ok(), "no case is left by --case and --peer");
        }
        for case in cases.unwrap_or_default() {
            println!("{}", case.name());
        }
        transports::list(&transports);
        identities::list(&identities);
        return Ok(Verdict::Passed);
    }
    let profile = args.profile.as_deref().unwrap_or("release");
    let start_built = args.address.is_none() && args.broker.is_none();
    let programs = Programs::build(profile, start_built)?;
    let peers = peers(&programs.client, &programs.tools);
    if transports.iter().any(|name| name.starts_with(peer::OURS))
        || select(args, peers)
            .is_ok_and(|cases| cases.iter().any(|case| case.peers.contains(&peer::OURS)))
    {
        Library::build_ours(&programs.tools)?;
    }
    let users = check_users(args, &programs);
    let program = args.broker.as_ref().unwrap_or(&programs.broker);
    let tally = transports::run(&transports, program, &programs.tools, peers)
        + identities::run(&identities, program, &programs.tools, peers);
    let cases = match select(args, peers) {
        // What was selected is what was checked above.
        Err(_) if users.is_some() || has_checks => Vec::new(),
        cases => cases?,
    };
    if cases.is_empty() {
        let failed = tally.failed + usize::from(matches!(users, Some(Err(_))));
        let passed = tally.passed + usize::from(matches!(users, Some(Ok(()))));
        println!(
            "{passed} passed, {failed} failed, {} could not install",
            tally.left_out
        );
        return Ok(match (failed, tally.left_out) {
            (0, 0) => Verdict::Passed,
            (0, _) if tally.lacks_tools => Verdict::NotInstalled,
            (0, _) => Verdict::PassedInPart,
            _ => Verdict::Failed,
        });
    }
    let missing = prepare(&cases, peers);
    let broker = match &args.address {
        Some(_) => None,
        None => Some(Broker::start(
            args.broker.as_ref().unwrap_or(&programs.broker),
        )?),
    };
    let address = match (&broker, &args.address) {
        (Some(broker), _) => broker.address.clone(),
        (None, Some(address)) => address.clone(),
        (None, None) => unreachable!("one of both is set above"),
    };
    let (left_out, runnable): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(|case| {
        let absent = |name: &&str| missing.iter().any(|(peer, _)| peer.name == *name);
        case.peers.iter().any(absent)
    });
    println!(
        "{} cases against {}:{}",
        runnable.len(),
        address.host,
        address.port
    );
    let results = run_all(&runnable, &address);
    let failed = report::print(&runnable, &results);
    let stopped = broker.map_or(Ok(()), Broker::stop);
    if let Err(error) = &stopped {
        println!("FAILED the broker's end: {error:#}");
    }
    let given_up = runnable.len() - results.len();
    if given_up > 0 {
        println!("{given_up} not run after {failed} failures");
    }
    for (peer, reason) in &missing {
        println!("COULD NOT INSTALL {}: {reason}", peer.name);
    }
    let passed = results.len() - failed + tally.passed;
    let (failed, left_out) = (failed + tally.failed, left_out.len() + tally.left_out);
    println!("{passed} passed, {failed} failed, {left_out} could not install");
    Ok(
        if failed > 0 || stopped.is_err() || matches!(users, Some(Err(_))) {
            Verdict::Failed
        } else if missing.is_empty() && tally.left_out == 0 {
            Verdict::Passed
        } else if missing.iter().all(|(peer, _)| peer.is_library()) && !tally.lacks_tools {
            Verdict::PassedInPart
        } else {
            Verdict::NotInstalled
        },
    )
}

/// Users and permissions, which need a broker of their own; none where they are not checked.
fn check_users(args: &Args, programs: &Programs) -> Option<Result<()>> {
    if args.address.is_some() || !users::is_selected(&args.case, &args.peer) {
        return None;
    }
    if let Err(missing) = users::prepare() {
        println!("COULD NOT INSTALL {missing}: users and permissions are not checked");
        return None;
    }
    let program = args.broker.as_ref().unwrap_or(&programs.broker);
    let checked = users::run(program, &programs.tools);
    match &checked {
        Ok(()) => println!("users and permissions: passed"),
        Err(error) => println!("FAILED users and permissions: {error:#}"),
    }
    Some(checked)
}

/// The clients; they live as long as the program, so that each case can hold two of them.
fn peers(client: &Path, tools: &Path) -> &'static [Peer] {
    Box::leak(Peer::all(client, tools).into_boxed_slice())
}

fn select(args: &Args, peers: &'static [Peer]) -> Result<Vec<Case>> {
    for name in &args.peer {
        ensure!(
            peers.iter().any(|peer| peer.name == name),
            "no client {name}"
        );
    }
    let mut cases = cases::all(peers);
    cases.retain(|case| {
        let name = case.name();
        let named = args.case.is_empty() || args.case.iter().any(|text| name.contains(text));
        let among = |peer: &&str| args.peer.iter().any(|name| name == peer);
        named && (args.peer.is_empty() || case.peers.iter().all(among))
    });
    ensure!(!cases.is_empty(), "no case is left by --case and --peer");
    Ok(cases)
}

/// Installs the clients that the cases need; those that could not be, and why.
fn prepare(cases: &[Case], peers: &'static [Peer]) -> Vec<(&'static Peer, NotInstalled)> {
    peers
        .iter()
        .filter(|peer| cases.iter().any(|case| case.peers.contains(&peer.name)))
        .filter_map(|peer| Some((peer, peer.prepare().err()?)))
        .collect()
}

/// How a case ended, and after how long.
type Outcome = (Result<()>, Duration);

fn run_all(cases: &[Case], address: &Address) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let run = std::process::id();
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let drivers = Drivers::default();
                // What was begun is finished, so the results are those of the first cases.
                while failures.load(Ordering::Relaxed) < MOST_FAILURES {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else {
                        return;
                    };
                    let started = Instant::now();
                    let result = case.run(&Scene::new(address, &drivers, run, number));
                    drivers.end_case(result.is_ok(), Instant::now() + PATIENCE);
                    if let Err(error) = &result {
                        failures.fetch_add(1, Ordering::Relaxed);
                        println!("FAILED {}\n    {error:#}", case.name());
                    }
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((number, (result, started.elapsed())));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(case: &[&str], peer: &[&str]) -> Result<Vec<Case>> {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let args = Args {
            case: strings(case),
            peer: strings(peer),
            ..Args::default()
        };
        select(&args, peers(Path::new("mqtt-client"), Path::new("")))
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = selected(&[], &[]).unwrap().iter().map(Case::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn cases_are_selected() {
        let some = selected(&["will: mosquitto -> mqtt-client"], &[]).unwrap();
        assert!(some.iter().all(|case| case.group == "will"));
        assert!(!some.is_empty());
        let alone = selected(&[], &["mosquitto"]).unwrap();
        assert!(alone.iter().all(|case| case.peers == ["mosquitto"; 2]));
        assert!(selected(&["no such case"], &[]).is_err());
        assert!(selected(&[], &["no such client"]).is_err());
    }
}
