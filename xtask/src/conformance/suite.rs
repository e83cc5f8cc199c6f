//! The test binaries of the workspace: built by cargo, run by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::claim::Test;
use crate::process::Running;

/// How long the tests of one binary may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a test ended. One that is in no binary, or did not end, has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    Failed,
    Ignored,
}

pub(super) type Outcomes = BTreeMap<Test, Outcome>;

/// A test binary.
#[derive(Debug, PartialEq, Eq)]
struct Binary {
    /// The folder of its crate, with its path.
    folder: PathBuf,
    /// The name of an integration test; `None` for the tests inside of a crate.
    name: Option<String>,
    program: PathBuf,
}

impl Binary {
    fn holds(&self, test: &Test) -> bool {
        self.folder.ends_with(test.folder) && self.name == test.binary
    }
}

/// The part of cargo's messages that tells of test binaries.
#[derive(Debug, Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Message {
    fn binary(self) -> Option<Binary> {
        let program = self.executable?;
        let target = self.target?;
        self.profile.filter(|profile| profile.test)?;
        let integration = target.kind.iter().any(|kind| kind == "test");
        Some(Binary {
            folder: self.manifest_path?.parent()?.to_path_buf(),
            name: integration.then_some(target.name),
            program,
        })
    }
}

/// Builds with `cargo`, a command that ends in `test` and its options, and runs these tests and no others.
pub(super) fn run(cargo: &mut Command, tests: &BTreeSet<&Test>) -> Result<Outcomes> {
    cargo
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit());
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests do not compile");
    let mut outcomes = Outcomes::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some(binary) = serde_json::from_str(line).ok().and_then(Message::binary) else {
            continue;
        };
        let wanted = tests.iter().filter(|test| binary.holds(test));
        let by_path: BTreeMap<&str, &Test> =
            wanted.map(|test| (test.path.as_str(), *test)).collect();
        if !by_path.is_empty() {
            run_binary(&binary, &by_path, &mut outcomes)?;
        }
    }
    Ok(outcomes)
}

fn run_binary(
    binary: &Binary,
    tests: &BTreeMap<&str, &Test>,
    outcomes: &mut Outcomes,
) -> Result<()> {
    let mut command = Command::new(&binary.program);
    command
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .arg("--exact")
        .args(tests.keys());
    let mut running = Running::start(&mut command, None)?;
    // Reading ends with the program, or with our patience.
    let _ = running.wait_for(Instant::now() + PATIENCE, "end", |line| {
        if let Some((path, outcome)) = result_line(line)
            && let Some(test) = tests.get(path)
        {
            outcomes.insert((*test).clone(), outcome);
        }
        None::<()>
    });
    Ok(())
}

/// `test PATH ... ok`, as the standard harness prints it.
fn result_line(line: &str) -> Option<(&str, Outcome)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    let outcome = match result.split([',', ' ']).next()? {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed,
        "ignored" => Outcome::Ignored,
        _ => return None,
    };
    Some((name, outcome))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_harness_are_read() {
        for (line, wanted) in [
            ("test a::b ... ok", Some(("a::b", Outcome::Passed))),
            ("test a::b ... FAILED", Some(("a::b", Outcome::Failed))),
            (
                "test a::b ... ignored, too slow",
                Some(("a::b", Outcome::Ignored)),
            ),
            ("test c - should panic ... ok", Some(("c", Outcome::Passed))),
            ("test d ... ok <0.003s>", Some(("d", Outcome::Passed))),
            ("test result: ok. 1 passed; 0 failed", None),
            ("running 3 tests", None),
            ("test a::b has been running for over 60 seconds", None),
        ] {
            assert_eq!(result_line(line), wanted, "{line}");
        }
    }

    #[test]
    fn test_binaries_are_told_from_the_rest() {
        let binary = |line: &str| serde_json::from_str::<Message>(line).unwrap().binary();
        let line = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/mqtt-broker/Cargo.toml",
                "target":{{"name":"broker","kind":["{kind}"]}},"profile":{{"test":{test}}},
                "executable":{executable}}}"#
            )
        };
        let found = binary(&line("test", true, r#""/t/broker-1""#)).unwrap();
        let test = |binary: Option<&str>| Test {
            folder: "mqtt-broker",
            binary: binary.map(str::to_owned),
            path: "a::b".to_owned(),
        };
        assert!(found.holds(&test(Some("broker"))));
        assert!(!found.holds(&test(Some("other"))));
        assert!(!found.holds(&test(None)));
        assert!(
            binary(&line("lib", true, r#""/t/lib-1""#))
                .unwrap()
                .holds(&test(None))
        );
        assert_eq!(binary(&line("bin", false, r#""/t/bin""#)), None);
        assert_eq!(binary(&line("lib", false, "null")), None);
        assert_eq!(
            binary(r#"{"reason":"build-finished","success":true}"#),
            None
        );
    }
}
