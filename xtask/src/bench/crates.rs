//! `cargo xtask bench codec`, `router` and `session`: criterion's benchmarks, and the targets that are set
//! for them. Codec and router are measured beside other crates in a workspace of its own, `xtask/peers`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{crash, step::Verdict, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only benchmarks whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Measure each for this many seconds; criterion's own choice if absent
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crate {
    Codec,
    Router,
    Session,
}

/// A PUBLISH of 64 bytes is decoded in this many nanoseconds at most. Where others are measured as well, it
/// is done faster than by any of them.
const DECODED: (&str, f64) = ("decode PUBLISH 64 B", 25.0);
/// A match among a million subscriptions takes this many nanoseconds at most.
const MATCHED: (&str, f64) = ("match 1000000", 1000.0);
/// A subscription among a million takes this many bytes at most besides the text of its filter.
const MEMORY: (&str, f64) = ("memory/ours/1000000: ", 100.0);
const OURS: &str = "ours";

/// Nanoseconds of each crate, by benchmark.
type Times = BTreeMap<String, BTreeMap<String, f64>>;

/// Builds and runs them, and prints a table.
pub(super) fn run(which: Crate, args: &Args) -> Result<Verdict> {
    let name = match which {
        Crate::Codec => "codec",
        Crate::Router => "router",
        Crate::Session => "session",
    };
    let target = crash::target()?.join("peers");
    let found = target.join("criterion");
    // What an earlier run left would be taken for a result of this one.
    if found.exists() {
        fs::remove_dir_all(&found)?;
    }
    let mut command = workspace::cargo();
    command.args(["bench", "--locked"]);
    if which == Crate::Session {
        command.args(["--package", "ternmq-session", "--bench", "cycles"]);
    } else {
        command.args(["--manifest-path", "xtask/peers/Cargo.toml"]);
        command.args(["--features", name, "--bench", name]);
    }
    command
        .arg("--")
        .args(&args.only)
        .env("CARGO_TARGET_DIR", &target);
    if let Some(seconds) = args.seconds {
        let seconds = seconds.to_string();
        command.args(["--measurement-time", &seconds, "--warm-up-time", &seconds]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut printed = Vec::new();
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            let line = line?;
            println!("{line}");
            printed.push(line);
        }
    }
    ensure!(child.wait()?.success(), "the benchmark failed");
    let times = read(&found)?;
    ensure!(!times.is_empty(), "nothing was measured");
    println!();
    print(&times);
    Ok(judge(&times, &printed))
}

/// The median of each benchmark for one element, in nanoseconds.
fn read(folder: &Path) -> Result<Times> {
    let mut times = Times::new();
    for group in fs::read_dir(folder).context("criterion has left no results")? {
        let group = group?.path();
        if !group.is_dir() {
            continue;
        }
        for function in fs::read_dir(group)? {
            let folder = function?.path().join("new");
            let value = |name: &str| -> Result<Value> {
                let text = fs::read_to_string(folder.join(name))?;
                Ok(serde_json::from_str(&text)?)
            };
            // The folder of a group also holds a report.
            let (Ok(benchmark), Ok(estimates)) = (value("benchmark.json"), value("estimates.json"))
            else {
                continue;
            };
            let text = |key: &str| benchmark[key].as_str().unwrap_or_default().to_owned();
            let elements = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
            let median = estimates["median"]["point_estimate"].as_f64();
            times.entry(text("group_id")).or_default().insert(
                text("function_id"),
                median.context("no median in estimates.json")? / elements,
            );
        }
    }
    Ok(times)
}

fn print(times: &Times) {
    for (benchmark, crates) in times {
        println!("{benchmark}");
        let ours = crates.get(OURS);
        for (name, time) in crates {
            print!("  {name:<20} {time:>12.1} ns");
            match ours {
                Some(ours) if name != OURS => println!("  {:.2} times ours", time / ours),
                _ => println!(),
            }
        }
    }
}

/// Compares with the targets what was measured of them.
fn judge(times: &Times, printed: &[String]) -> Verdict {
    let mut verdict = Verdict::Passed;
    let mut say = |line: String, met: bool| {
        println!("{line}: {}", if met { "met" } else { "MISSED" });
        if !met {
            verdict = Verdict::Failed;
        }
    };
    for (name, limit) in [DECODED, MATCHED] {
        if let Some(crates) = times.get(name)
            && let Some(&ours) = crates.get(OURS)
        {
            say(
                format!("{name}: {ours:.1} ns, {limit} at most"),
                ours <= limit,
            );
            let others = crates.iter().filter(|(other, _)| *other != OURS);
            if let Some(first) = others.map(|(_, time)| *time).min_by(f64::total_cmp) {
                say(
                    format!("{name}: the best of the others takes {first:.1} ns"),
                    ours <= first,
                );
            }
        }
    }
    let (prefix, limit) = MEMORY;
    for line in printed {
        if let Some(rest) = line.strip_prefix(prefix)
            && let Some(bytes) = rest.split(' ').next()
            && let Ok(bytes) = bytes.parse::<f64>()
        {
            say(
                format!("memory: {bytes} bytes a subscription, {limit} at most"),
                bytes <= limit,
            );
        }
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ours: f64, other: f64) -> Times {
        let crates = [(OURS, ours), ("other", other)];
        let crates = crates.map(|(name, time)| (name.to_owned(), time));
        Times::from([(DECODED.0.to_owned(), BTreeMap::from(crates))])
    }

    #[test]
    fn the_targets_are_a_limit_and_the_others() {
        assert_eq!(judge(&times(24.0, 30.0), &[]), Verdict::Passed);
        assert_eq!(judge(&times(26.0, 30.0), &[]), Verdict::Failed);
        assert_eq!(judge(&times(24.0, 20.0), &[]), Verdict::Failed);
        let line = |bytes| [format!("{}{bytes} bytes a subscription", MEMORY.0)];
        assert_eq!(judge(&Times::new(), &line(99)), Verdict::Passed);
        assert_eq!(judge(&Times::new(), &line(101)), Verdict::Failed);
    }
}
