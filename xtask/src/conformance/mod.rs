//! `cargo xtask conformance`: which test stands for which normative statement of the standards.
//!
//! A test names statements in its doc comment, `[MQTT-3.1.2-1]` of 5.0 and `[MQTT3-3.1.2-1]` of 3.1.1.

pub(crate) mod breaks;
mod claim;
mod report;
mod statement;
mod suite;

use std::collections::BTreeSet;

use anyhow::Result;

use self::{
    claim::{Claim, Test},
    report::Report,
    statement::Statements,
};
use crate::{
    step::Verdict,
    workspace::{cargo, root},
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Print only the statements that have neither a test nor a reason
    #[arg(long)]
    missing: bool,
    /// Believe that the tests pass
    #[arg(long, conflicts_with = "broken")]
    no_run: bool,
    /// Break the behaviour behind this statement, or `all` in turn, in a copy: its test must fail
    #[arg(long = "break", value_name = "ID", conflicts_with = "missing")]
    broken: Option<String>,
}

impl Args {
    /// What a check prints: nothing that is as it should be.
    pub(crate) fn missing() -> Self {
        Self {
            missing: true,
            ..Self::default()
        }
    }

    /// Everything that can be broken.
    pub(crate) fn breaks() -> Self {
        Self {
            broken: Some(breaks::ALL.to_owned()),
            ..Self::default()
        }
    }
}

/// Prints the table, or breaks what `args` names.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let claims = claim::read(root())?;
    if let Some(which) = &args.broken {
        return breaks::run(which, &claims);
    }
    let statements = Statements::read(root())?;
    let outcomes = if args.no_run {
        None
    } else {
        // As `cargo test --workspace` builds them, so that nothing is built twice.
        let mut command = cargo();
        command.args(["test", "--workspace", "--locked", "--quiet"]);
        Some(suite::run(&mut command, &tests(&claims))?)
    };
    let mut report = Report::new(&statements, &claims, outcomes.as_ref());
    for (file, fault) in breaks::check(root())? {
        report.faults.push(format!("{}: {fault}", file.display()));
    }
    for line in report.lines(args.missing) {
        println!("{line}");
    }
    println!();
    for line in report.totals() {
        println!("{line}");
    }
    for fault in &report.faults {
        println!("FAULT: {fault}");
    }
    let run = if args.no_run { "not run" } else { "run" };
    let count = tests(&claims).len();
    println!(
        "conformance: {count} tests {run}, {} faults",
        report.faults.len()
    );
    Ok(if report.faults.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

/// The tests of some claims that are not ignored.
fn tests<'a>(claims: impl IntoIterator<Item = &'a Claim>) -> BTreeSet<&'a Test> {
    let runs = claims.into_iter().filter(|claim| !claim.ignored);
    runs.map(|claim| &claim.test).collect()
}
