//! `cargo xtask disk`: the disk under the broker fails, fills up, or loses what was not synced; what the
//! broker acknowledged must be there all the same.

mod fault;
mod past;
mod power;
mod probe;
mod replay;
mod restored;
mod trace;

use std::{fs, path::Path};

use anyhow::Result;
use clap::ValueEnum;

use self::power::Kind;
use super::{
    broker,
    journal::{Failure, Promise},
    report,
};
use crate::{
    install,
    step::{Steps, Verdict},
};

/// Points of a recorded run at which the power is cut, unless all are asked for. A point is a sync and what is left
/// of what was not synced.
const POINTS: usize = 180;
/// The same of a disk that lies.
const LIES: Option<usize> = Some(6);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Do this and nothing else (repeatable)
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Repeats the choices of a run [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// How many points of a recorded run the power is cut at
    #[arg(long, default_value_t = POINTS)]
    points: usize,
    /// Cut the power at every point, and let more single calls fail
    #[arg(long)]
    full: bool,
    /// The cargo profile that the broker is built with
    #[arg(long, default_value = "release")]
    profile: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Writes and syncs that fail, once or for good
    Fault,
    /// A full disk: a small tmpfs, which needs root
    Space,
    /// The power is cut: what was not synced is gone
    Power,
    /// The power is cut after a sync that failed: what it should have synced is gone for good
    FailedSync,
    /// The power is cut while `mqtt-broker store compact` runs
    Compaction,
    /// The disk has synced nothing of what it said it had: the losses must be found
    Lies,
}

impl Args {
    /// What CI runs: every part, at so many points or all.
    pub(crate) fn all(points: usize, full: bool) -> Self {
        Self {
            only: Vec::new(),
            seed: None,
            points,
            full,
            profile: "release".to_owned(),
        }
    }
}

/// Runs the parts that are asked for.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    install::apt("strace", "strace")?;
    let program = broker::build(&args.profile)?;
    let seed = args.seed.unwrap_or_else(super::drawn_seed);
    println!("seed {seed}");
    let folder = broker::target()?
        .join("disk")
        .join(format!("{seed}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let mut steps = Steps::default();
    let points = (!args.full).then_some(args.points);
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        match part {
            Part::Fault => fault::run(&program, &folder, seed, args.full, &mut steps),
            Part::Space => fault::run_space(&program, &folder, seed, &mut steps),
            Part::Power => power::run(&program, &folder, seed, points, Kind::Honest, &mut steps),
            Part::FailedSync => {
                power::run(
                    &program,
                    &folder,
                    seed,
                    points,
                    Kind::FailedSync,
                    &mut steps,
                );
            }
            Part::Compaction => {
                power::run(
                    &program,
                    &folder,
                    seed,
                    // It has few states that differ.
                    points.map(|points| points / 3),
                    Kind::Compaction,
                    &mut steps,
                );
            }
            Part::Lies => {
                power::run(&program, &folder, seed, LIES, Kind::Lying, &mut steps);
            }
        }
    }
    let verdict = steps.summary();
    if verdict == Verdict::Failed {
        println!("to repeat: cargo xtask disk --seed {seed}, and the same options");
        println!("data, logs, traces and failures: {}", folder.display());
    } else {
        fs::remove_dir_all(&folder)?;
    }
    Ok(verdict)
}

/// Prints what was found wrong; what a broker with a failing disk may do is left out.
fn conclude(mut failures: Vec<Failure>, folder: &Path) -> Result<()> {
    // A client that was refused or cut off comes again.
    failures.retain(|failure| failure.promise != Promise::Connection);
    report(&failures, folder)?;
    anyhow::ensure!(failures.is_empty(), "{} broken promises", failures.len());
    Ok(())
}
