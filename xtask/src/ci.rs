//! `cargo xtask ci`: every check of the workspace, with the time of each.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::{
    abuse, conformance, coverage, crash, deny, dist, fuzz, install, interop, minimal, package,
    sanitize, semver, simulate,
    step::{Steps, Verdict, execute},
    tidy,
    workspace::{cargo, fuzz_manifest},
};

/// The crates that build without the standard library.
const NO_STD: [&str; 3] = ["ternmq-codec", "ternmq-router", "ternmq-session"];
/// What every step of the whole workspace turns on besides the defaults.
pub(crate) const FEATURES: [&str; 2] =
    ["--features", "ternmq-client/blocking,ternmq-client/outbox"];
/// The features of the client library: with each alone it is checked as well, its tests and examples included.
const CLIENT_FEATURES: [&str; 6] = ["", "tls", "websocket", "proxy", "blocking", "outbox"];
/// The version of cargo-nextest that is installed where there is none.
const NEXTEST: &str = "^0.9";
/// How often `--full` runs the whole test suite.
const STRESS_COUNT: &str = "20";
/// Seconds for each fuzz target, without and with `--full`.
const FUZZ_SECONDS: (u32, u32) = (20, 300);
/// Rounds of the crash test, without and with `--full`; before it, those in which losses must be found.
const CRASH_ROUNDS: (u32, u32) = (10, 50);
const FORGETFUL_ROUNDS: u32 = 2;
/// Points of a recorded run at which the power is cut; with `--full` all of them.
const POWER_CUTS: usize = 500;
const STEPS: [&str; 22] = [
    "format",
    "tidy",
    "clippy",
    "doc",
    "test",
    "simulate",
    "conformance",
    "no-std",
    "packages",
    "fuzz",
    "interop",
    "crash",
    "disk",
    "abuse",
    "breaks",
    "stress",
    "dist",
    "coverage",
    "sanitize",
    "publish",
    "deny",
    "semver",
];
/// Steps that run with `--full`, or when they are named.
const FULL: [&str; 9] = [
    "abuse", "breaks", "stress", "dist", "coverage", "sanitize", "publish", "deny", "semver",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out this step (repeatable)
    #[arg(long, value_name = "STEP", value_parser = STEPS)]
    skip: Vec<String>,
    /// Run this step and no other (repeatable)
    #[arg(long, value_name = "STEP", value_parser = STEPS, conflicts_with = "skip")]
    only: Vec<String>,
    /// Add what takes long: the tests 20 times, 5 minutes for each fuzz target, every broken statement, 50
    /// crashes, every power cut, a browser, the attacks, coverage, sanitizers, packages and minimal versions
    /// built, cargo-deny
    #[arg(long)]
    full: bool,
}

impl Args {
    fn wants(&self, step: &str) -> Result<(), &'static str> {
        if self.skip.iter().any(|name| name == step) {
            return Err("asked for by --skip");
        }
        let named = self.only.iter().any(|name| name == step);
        if !self.only.is_empty() && !named {
            return Err("not named by --only");
        }
        if FULL.contains(&step) && !self.full && !named {
            return Err("runs with --full");
        }
        Ok(())
    }
}

/// Runs the steps that `args` selects, all of them even where one fails.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let mut steps = Steps::default();
    for name in STEPS {
        match args.wants(name) {
            Ok(()) => steps.run(name, || step(name, args.full)),
            Err(reason) => steps.skip(name, reason),
        }
    }
    Ok(steps.summary())
}

fn step(name: &str, full: bool) -> Result<Verdict> {
    match name {
        "format" => format().map(Verdict::from),
        "tidy" => tidy::run(&tidy::Args {}),
        "clippy" => clippy().map(Verdict::from),
        "doc" => execute(
            cargo()
                .args(["doc", "--workspace", "--no-deps", "--locked"])
                .args(FEATURES)
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
        .map(Verdict::from),
        "test" => {
            let all = ["test", "--workspace", "--locked"];
            execute(cargo().args(all).args(FEATURES)).map(Verdict::from)
        }
        "simulate" => simulate::run(&simulate::Args::fixed(full)),
        "conformance" => conformance::run(&conformance::Args::missing()),
        "no-std" => no_std().map(Verdict::from),
        "packages" => {
            let packages = package::run(&package::Args::contents())?;
            Ok(packages.max(minimal::run(&minimal::Args::resolve())?))
        }
        "publish" => {
            let packages = package::run(&package::Args::default())?;
            Ok(packages.max(minimal::run(&minimal::Args::default())?))
        }
        "deny" => deny::run(&deny::Args::default()),
        "semver" => semver::run(&semver::Args::default()),
        "fuzz" => {
            let seconds = if full { FUZZ_SECONDS.1 } else { FUZZ_SECONDS.0 };
            fuzz::run(&fuzz::Args::all(seconds))
        }
        "interop" => interop::run(&interop::Args::all(full)),
        "crash" => {
            let rounds = if full { CRASH_ROUNDS.1 } else { CRASH_ROUNDS.0 };
            let caught = crash::run(&crash::Args::forgetful(FORGETFUL_ROUNDS))?;
            let mut verdict = caught.max(crash::run(&crash::Args::rounds(rounds))?);
            if full {
                verdict = verdict.max(crash::run(&crash::Args::mixed(rounds))?);
            }
            Ok(verdict)
        }
        "disk" => crash::disk::run(&crash::disk::Args::all(POWER_CUTS, full)),
        "dist" => dist::run(&dist::Args::for_ci()),
        "coverage" => coverage::run(&coverage::Args::all()),
        "sanitize" => sanitize::run(&sanitize::Args::all()),
        "abuse" => abuse::run(&abuse::Args::default()),
        "breaks" => conformance::run(&conformance::Args::breaks()),
        "stress" => stress().map(Verdict::from),
        _ => bail!("no step {name}"),
    }
}

fn format() -> Result<()> {
    execute(cargo().args(["fmt", "--all", "--check"]))?;
    if fuzz_manifest().exists() {
        execute(fuzz_cargo("fmt").args(["--check"]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let all = ["clippy", "--workspace", "--all-targets", "--locked"];
    execute(
        cargo()
            .args(all)
            .args(FEATURES)
            .args(["--", "-D", "warnings"]),
    )?;
    for feature in CLIENT_FEATURES {
        let client = ["clippy", "--package", "ternmq-client", "--all-targets"];
        let alone = ["--locked", "--no-default-features", "--features", feature];
        execute(
            cargo()
                .args(client)
                .args(alone)
                .args(["--", "-D", "warnings"]),
        )?;
    }
    if fuzz_manifest().exists() {
        execute(fuzz_cargo("clippy").args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// A cargo command on the fuzz targets.
fn fuzz_cargo(subcommand: &str) -> Command {
    let mut command = cargo();
    command
        .args([subcommand, "--manifest-path"])
        .arg(fuzz_manifest());
    command
}

/// Each crate alone, so that no other member of the workspace turns its features on.
fn no_std() -> Result<()> {
    for package in NO_STD {
        let alone = ["--package", package, "--no-default-features", "--locked"];
        execute(
            cargo()
                .arg("clippy")
                .args(alone)
                .args(["--", "-D", "warnings"]),
        )?;
        execute(cargo().arg("test").args(alone))?;
    }
    Ok(())
}

fn stress() -> Result<()> {
    install::cargo_tool("cargo-nextest", NEXTEST)?;
    let output = cargo().args(["nextest", "--version"]).output()?;
    ensure!(output.status.success(), "cargo nextest does not start");
    execute(cargo().args([
        "nextest",
        "run",
        "--workspace",
        "--locked",
        "--stress-count",
        STRESS_COUNT,
    ]))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn chosen(line: &str) -> Vec<&'static str> {
        let args = Line::parse_from(line.split(' ')).args;
        STEPS
            .into_iter()
            .filter(|step| args.wants(step).is_ok())
            .collect()
    }

    #[test]
    fn steps_are_selected() {
        assert_eq!(chosen("ci").len(), STEPS.len() - FULL.len());
        assert_eq!(chosen("ci --full").len(), STEPS.len());
        assert!(!chosen("ci --skip test").contains(&"test"));
        assert_eq!(chosen("ci --only tidy --only stress"), ["tidy", "stress"]);
    }
}
