//! The chores of the workspace, run as `cargo xtask NAME` from any directory.
//!
//! One file or folder holds one chore. Each chore exits with 0 when all it checked is well, 1 when
//! something failed, and 3 when nothing failed but a tool it needs could not be installed. The client
//! libraries of `interop` are no such tools: where they cannot be installed it says so and exits with 0.
#![forbid(unsafe_code)]

mod abuse;
mod bench;
mod ci;
mod conformance;
mod coverage;
mod crash;
mod deny;
mod dist;
mod fuzz;
mod install;
mod interop;
mod minimal;
mod mutants;
mod package;
mod process;
mod sanitize;
mod semver;
mod simulate;
mod step;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The chores of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every check and print the time of each
    Ci(ci::Args),
    /// Check the layers, manifests, file sizes and house rules
    Tidy(tidy::Args),
    /// Measure how fast it is
    Bench(bench::Args),
    /// Exchange messages with other MQTT clients through the broker
    Interop(interop::Args),
    /// Attack the broker and watch what its other clients notice
    Abuse(abuse::Args),
    /// Kill the broker amid traffic again and again, and look for what it lost
    Crash(crash::Args),
    /// Let the disk of the broker fail or fill up, cut its power, and look for what it lost
    Disk(crash::disk::Args),
    /// Run whole brokers in a simulated world, one for each seed, and hold what comes against a model
    Simulate(simulate::Args),
    /// List the tests of each normative statement, and run them
    Conformance(conformance::Args),
    /// Measure how many lines of codec, router and session their tests run, and list the others
    Coverage(coverage::Args),
    /// Change the code a little, again and again, and see that a test fails each time
    Mutants(mutants::Args),
    /// Run the tests of codec, router and session under sanitizers
    Sanitize(sanitize::Args),
    /// Build the programs with all that belongs to them, as an archive and as Debian packages
    Dist(dist::Args),
    /// Run the fuzz targets
    Fuzz(fuzz::Args),
    /// Make the packages that would be published, and build each crate from its own
    Package(package::Args),
    /// Build with the oldest versions of the dependencies that the manifests allow
    MinimalVersions(minimal::Args),
    /// Hold the dependencies against deny.toml: licences, sources, versions
    Deny(deny::Args),
    /// Compare the public interface of each library with that of a revision
    Semver(semver::Args),
}

fn main() -> ExitCode {
    let outcome = match Args::parse().chore {
        Chore::Ci(args) => ci::run(&args),
        Chore::Tidy(args) => tidy::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Interop(args) => interop::run(&args),
        Chore::Abuse(args) => abuse::run(&args),
        Chore::Crash(args) => crash::run(&args),
        Chore::Disk(args) => crash::disk::run(&args),
        Chore::Simulate(args) => simulate::run(&args),
        Chore::Conformance(args) => conformance::run(&args),
        Chore::Coverage(args) => coverage::run(&args),
        Chore::Mutants(args) => mutants::run(&args),
        Chore::Sanitize(args) => sanitize::run(&args),
        Chore::Dist(args) => dist::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Package(args) => package::run(&args),
        Chore::MinimalVersions(args) => minimal::run(&args),
        Chore::Deny(args) => deny::run(&args),
        Chore::Semver(args) => semver::run(&args),
    };
    match outcome {
        Ok(verdict) => verdict.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<install::NotInstalled>() {
                step::Verdict::NotInstalled.into()
            } else {
                step::Verdict::Failed.into()
            }
        }
    }
}
