//! `cargo xtask fuzz`: runs the targets of `fuzz/` for a while each.
//!
//! cargo-fuzz builds with the address sanitizer, which the stable compiler has behind
//! `RUSTC_BOOTSTRAP`; no nightly toolchain is needed.

use std::{fs, process::Command};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    install,
    step::{self, Steps, Verdict},
    workspace::{self, Metadata},
};

/// The version of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "^0.13";
/// libFuzzer is C++ and is compiled with the targets.
const COMPILER: (&str, &str) = ("c++", "g++");
/// A single input that takes longer is a finding, in seconds.
const SLOW_INPUT: u32 = 10;
/// Memory of a target, in MiB.
const MEMORY: u32 = 1_024;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Time for each target in seconds
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Time for each target in minutes
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) minutes: Option<u32>,
    /// Only this target (repeatable)
    #[arg(long)]
    pub(crate) target: Vec<String>,
    /// Print the names of the targets and end
    #[arg(long)]
    pub(crate) list: bool,
}

impl Args {
    /// Every target for `seconds`.
    pub(crate) fn all(seconds: u32) -> Self {
        Self {
            seconds,
            minutes: None,
            target: Vec::new(),
            list: false,
        }
    }
}

/// Runs the targets that `args` selects and prints how each ended.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let targets = select(targets()?, &args.target)?;
    if args.list {
        for target in targets {
            println!("{target}");
        }
        return Ok(Verdict::Passed);
    }
    prepare()?;
    let seconds = args.minutes.map_or(args.seconds, |minutes| minutes * 60);
    let mut steps = Steps::default();
    steps.run("build", || step::execute(cargo_fuzz("build").args(FLAGS)));
    for target in &targets {
        steps.run(target, || fuzz(target, seconds));
    }
    Ok(steps.summary())
}

/// The names of the fuzz targets in `fuzz/Cargo.toml`.
pub(crate) fn targets() -> Result<Vec<String>> {
    let manifest = workspace::fuzz_manifest();
    ensure!(manifest.exists(), "there is no {}", manifest.display());
    let metadata = Metadata::read(&manifest, false)?;
    let mut names: Vec<String> = metadata
        .members()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.clone())
        .collect();
    names.sort();
    ensure!(
        !names.is_empty(),
        "no fuzz target in {}",
        manifest.display()
    );
    Ok(names)
}

fn select(known: Vec<String>, wanted: &[String]) -> Result<Vec<String>> {
    for name in wanted {
        ensure!(
            known.contains(name),
            "no fuzz target {name}; there are {}",
            known.join(", ")
        );
    }
    let chosen = |name: &String| wanted.is_empty() || wanted.contains(name);
    Ok(known.into_iter().filter(chosen).collect())
}

fn prepare() -> Result<()> {
    install::apt(COMPILER.0, COMPILER.1)?;
    install::cargo_tool("cargo-fuzz", CARGO_FUZZ)?;
    Ok(())
}

/// Optimised, with debug assertions and overflow checks.
const FLAGS: [&str; 2] = ["--release", "--debug-assertions"];

fn cargo_fuzz(subcommand: &str) -> Command {
    let mut command = workspace::cargo();
    command
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["fuzz", subcommand]);
    command
}

fn fuzz(target: &str, seconds: u32) -> Result<()> {
    let folder = workspace::root().join("fuzz");
    // What is found goes to the first folder; the one kept in the repository is only read.
    let found = folder.join("target/corpus").join(target);
    let kept = folder.join("corpus").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let mut command = cargo_fuzz("run");
    command.args(FLAGS).arg(target).arg(&found);
    if kept.exists() {
        command.arg(&kept);
    }
    command.arg("--");
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SLOW_INPUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .args(["-verbosity=0", "-print_final_stats=1"]);
    let dictionaries = folder.join("dictionaries");
    let own = dictionaries.join(format!("{target}.dict"));
    let dictionary = if own.exists() {
        own
    } else {
        dictionaries.join("mqtt.dict")
    };
    command.arg(format!("-dict={}", dictionary.display()));
    if step::execute(&mut command).is_err() {
        let again = "RUSTC_BOOTSTRAP=1 cargo fuzz run --release --debug-assertions";
        bail!("found something; run it again with: {again} {target} fuzz/artifacts/{target}/FILE");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_chosen_by_name() {
        let known = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(select(known(), &[]).unwrap(), known());
        assert_eq!(select(known(), &["b".to_owned()]).unwrap(), ["b"]);
        let error = select(known(), &["c".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "no fuzz target c; there are a, b");
    }
}
