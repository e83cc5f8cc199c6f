//! `cargo xtask interop`: other MQTT clients and this project's exchange messages through the broker.
//!
//! Nothing waits for a fixed time: a case waits for what a client prints, and fails with its name
//! when that does not come.

pub(crate) mod broker;
mod cases;
mod message;
mod peer;
mod scene;

use std::{
    path::PathBuf,
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
    peer::{Address, Peer},
    scene::Scene,
};
use crate::step::{Verdict, seconds};

/// Cases that run at the same time; each has three processes at most.
const WORKERS: usize = 4;
/// After so many failures the rest is not run: each may have waited for its whole time.
const MOST_FAILURES: usize = 25;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only cases whose name contains TEXT (repeatable: any of them)
    #[arg(long, value_name = "TEXT")]
    case: Vec<String>,
    /// Only cases between these clients: mosquitto, mqtt-client (repeatable)
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
    /// Print the names of the cases and end
    #[arg(long)]
    list: bool,
}

/// Runs the cases that `args` selects and prints a table.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    if args.list {
        for case in select(args, peers(PathBuf::new()))? {
            println!("{}", case.name());
        }
        return Ok(Verdict::Passed);
    }
    let profile = args.profile.as_deref().unwrap_or("release");
    let start_built = args.address.is_none() && args.broker.is_none();
    let programs = Programs::build(profile, start_built)?;
    let peers = peers(programs.client);
    let cases = select(args, peers)?;
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
    let (runnable, left_out): (Vec<Case>, Vec<Case>) = cases
        .into_iter()
        .partition(|case| !case.peers.iter().any(|name| missing.contains(name)));
    println!(
        "{} cases against {}:{}",
        runnable.len(),
        address.host,
        address.port
    );
    let results = run_all(&runnable, &address);
    let failed = report(&runnable, &results);
    let stopped = broker.map_or(Ok(()), Broker::stop);
    if let Err(error) = &stopped {
        println!("FAILED the broker's end: {error:#}");
    }
    let given_up = runnable.len() - results.len();
    if given_up > 0 {
        println!("{given_up} not run after {failed} failures");
    }
    if !missing.is_empty() {
        let names = missing.join(", ");
        println!("{} not run: could not install {names}", left_out.len());
    }
    println!("{} passed, {failed} failed", results.len() - failed);
    Ok(if failed > 0 || stopped.is_err() {
        Verdict::Failed
    } else if !missing.is_empty() {
        Verdict::NotInstalled
    } else {
        Verdict::Passed
    })
}

/// The clients; they live as long as the program, so that each case can hold two of them.
fn peers(client: PathBuf) -> &'static [Peer] {
    Box::leak(Peer::all(&client).into_boxed_slice())
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

/// Installs the clients that the cases need; the names of those that could not be.
fn prepare(cases: &[Case], peers: &[Peer]) -> Vec<&'static str> {
    let mut missing = Vec::new();
    for peer in peers {
        if !cases.iter().any(|case| case.peers.contains(&peer.name)) {
            continue;
        }
        if let Err(error) = peer.prepare() {
            println!("could not install {}: {error}", peer.name);
            missing.push(peer.name);
        }
    }
    missing
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
                // What was begun is finished, so the results are those of the first cases.
                while failures.load(Ordering::Relaxed) < MOST_FAILURES {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else {
                        return;
                    };
                    let started = Instant::now();
                    let result = case.run(&Scene::new(address, run, number));
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

/// Prints a row for each group and pair of clients, then what failed; returns how many did.
fn report(cases: &[Case], results: &[Outcome]) -> usize {
    struct Row<'a> {
        group: &'a str,
        who: &'a str,
        passed: usize,
        failed: usize,
        longest: Duration,
    }
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (case, (result, took)) in cases.iter().zip(results) {
        let same = |row: &Row<'_>| row.group == case.group && row.who == case.who;
        let index = rows.iter().position(same).unwrap_or_else(|| {
            rows.push(Row {
                group: case.group,
                who: &case.who,
                passed: 0,
                failed: 0,
                longest: Duration::ZERO,
            });
            rows.len() - 1
        });
        let row = &mut rows[index];
        match result {
            Ok(()) => row.passed += 1,
            Err(_) => row.failed += 1,
        }
        row.longest = row.longest.max(*took);
    }
    println!(
        "\n{:<10} {:<26} {:>6} {:>6}  longest",
        "case", "from -> to", "passed", "failed"
    );
    for row in &rows {
        let (group, who, longest) = (row.group, row.who, seconds(row.longest));
        println!(
            "{group:<10} {who:<26} {:>6} {:>6}  {longest}",
            row.passed, row.failed
        );
    }
    println!();
    let failures = cases
        .iter()
        .zip(results)
        .filter(|(_, (result, _))| result.is_err());
    let mut count = 0;
    for (case, _) in failures {
        println!("FAILED {}", case.name());
        count += 1;
    }
    count
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
        select(&args, peers(PathBuf::from("mqtt-client")))
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
