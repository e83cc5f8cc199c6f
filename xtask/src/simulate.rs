//! `cargo xtask simulate`: whole brokers in a simulated world, one for each seed; what a seed has found it finds again.

use anyhow::{Result, ensure};

use crate::{
    step::{Verdict, execute},
    workspace::cargo,
};

/// The seeds that CI runs, without and with `--full`: always the same ones.
const SEEDS: (u64, u64) = (300, 4_000);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How many seeds are run
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed alone, and print every event of it
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// The cargo profile that the broker and its world are built with
    #[arg(long, default_value = "test")]
    profile: String,
}

impl Args {
    /// What CI runs.
    pub(crate) fn fixed(full: bool) -> Self {
        Self {
            seeds: if full { SEEDS.1 } else { SEEDS.0 },
            first: 0,
            seed: None,
            profile: "test".to_owned(),
        }
    }
}

/// Runs the seeds; those that fail are named, with how to repeat each.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let (first, count) = match args.seed {
        Some(seed) => (seed, 1),
        None => (args.first, args.seeds),
    };
    ensure!(count > 0, "no seed is no run");
    let mut command = cargo();
    command.args(["test", "--locked", "--package", "ternmq-broker", "--lib"]);
    command.args(["--profile", &args.profile]);
    command.args(["simulation::tests::seeds", "--", "--exact"]);
    command.arg("--nocapture");
    command.env("SIMULATE_FIRST", first.to_string());
    command.env("SIMULATE_COUNT", count.to_string());
    execute(&mut command)?;
    Ok(Verdict::Passed)
}
