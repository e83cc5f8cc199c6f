//! `cargo xtask mutants`: cargo-mutants, file by file, on the code that the protocol depends on most.
//!
//! Each mutant is a small change of one function, after which some test of its crate must fail. Those that survive
//! stand with the reason in `xtask/mutants/survivors.json`, as does what the last whole run of a file came to.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    install,
    step::{self, Steps, Verdict},
    workspace,
};

/// The version of cargo-mutants that is installed where there is none.
const CARGO_MUTANTS: &str = "^27";
/// The list, from the root of the workspace.
const LIST: &str = "xtask/mutants/survivors.json";
/// Survivors of all files together, in percent of the mutants that were built.
const MOST: usize = 3;
/// Tests that take longer than five times what they take without a mutant, and than so many seconds, count as failed: most
/// that hang do so in a loop without end.
const TIMEOUT: &str = "30";
/// Cases of each property: a mutant is to be noticed soon.
const CASES: &str = "64";

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only this file, from the root of the workspace (repeatable)
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Only mutants whose name has this regular expression: nothing is held against the list
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
    /// Print what the last runs came to and end
    #[arg(long)]
    list: bool,
}

/// What is known of every file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    files: Vec<File>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// From the root of the workspace.
    path: String,
    package: String,
    /// What `cargo test` is told besides the package: which tests are to notice, where not all that are quick.
    #[serde(default = "all_tests")]
    tests: Vec<String>,
    /// What the last run of the whole file came to; 0 of both: there was none.
    caught: usize,
    survived: usize,
    /// By name, without line and column.
    survivors: Vec<Survivor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Survivor {
    mutant: String,
    /// Mutants of this name.
    #[serde(default = "one")]
    count: usize,
    /// Why no test can tell, or need not.
    reason: String,
}

fn one() -> usize {
    1
}

fn all_tests() -> Vec<String> {
    ["--lib", "--tests"].map(str::to_owned).to_vec()
}

/// Runs the mutants of the files that `args` selects.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let list = List::read()?;
    for wanted in &args.file {
        ensure!(
            list.files.iter().any(|file| file.path == *wanted),
            "{LIST} has no file {wanted}"
        );
    }
    if args.list {
        list.print();
        return Ok(Verdict::Passed);
    }
    install::cargo_tool("cargo-mutants", CARGO_MUTANTS)?;
    let mut steps = Steps::default();
    let mut ran = Vec::new();
    for file in &list.files {
        if !args.file.is_empty() && !args.file.contains(&file.path) {
            continue;
        }
        steps.run(&file.path, || {
            let found = Found::by_running(file, args.only.as_deref())?;
            println!("{}: {found}", file.path);
            let result = match args.only {
                Some(_) => Ok(()),
                None => file.compare(&found),
            };
            ran.push(found);
            result
        });
    }
    let verdict = steps.summary();
    let survived: usize = ran.iter().map(|it| it.missed.len()).sum();
    let built = survived + ran.iter().map(|it| it.caught).sum::<usize>();
    println!("{survived} of {built} mutants survived; at most {MOST}% may");
    if args.only.is_none() && survived * 100 > built * MOST {
        return Ok(Verdict::Failed);
    }
    Ok(verdict)
}

impl List {
    fn read() -> Result<Self> {
        let path = workspace::root().join(LIST);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {LIST}"))?;
        let list: Self =
            serde_json::from_str(&text).with_context(|| format!("cannot read {LIST}"))?;
        for file in &list.files {
            let path = &file.path;
            ensure!(
                workspace::root().join(path).is_file(),
                "{LIST}: there is no {path}"
            );
            let explained: usize = file.survivors.iter().map(|it| it.count).sum();
            ensure!(
                explained == file.survived,
                "{LIST}: {path}: {} survived, and {explained} are explained",
                file.survived
            );
            for survivor in &file.survivors {
                let mutant = &survivor.mutant;
                ensure!(
                    !survivor.reason.is_empty(),
                    "{LIST}: {path}: {mutant}: no reason"
                );
            }
        }
        Ok(list)
    }

    fn print(&self) {
        for file in &self.files {
            let File {
                path,
                caught,
                survived,
                ..
            } = file;
            let mutants = caught + survived;
            if mutants == 0 {
                println!("{path}: not run yet");
                continue;
            }
            println!("{path}: {mutants} mutants, {caught} caught, {survived} survived");
            for Survivor {
                mutant,
                count,
                reason,
            } in &file.survivors
            {
                println!("  {mutant} ({count}): {reason}");
            }
        }
    }
}

impl File {
    /// Holds what survived against what is explained.
    fn compare(&self, found: &Found) -> Result<()> {
        let mut unexplained: BTreeMap<&str, isize> = BTreeMap::new();
        for name in &found.missed {
            *unexplained.entry(name).or_default() += 1;
        }
        for survivor in &self.survivors {
            *unexplained.entry(&survivor.mutant).or_default() -= survivor.count as isize;
        }
        unexplained.retain(|_, count| *count != 0);
        for (mutant, count) in &unexplained {
            match count {
                1.. => println!("  survived without a reason, {count}: {mutant}"),
                _ => println!("  explained and not there, {}: {mutant}", -count),
            }
        }
        ensure!(unexplained.is_empty(), "{LIST} does not agree, see above");
        if (found.caught, found.missed.len()) != (self.caught, self.survived) {
            println!(
                "  {LIST} has other figures: {} caught, {} survived",
                self.caught, self.survived
            );
        }
        Ok(())
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Found {
    caught: usize,
    unviable: usize,
    /// Their names, without line and column.
    missed: Vec<String>,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            caught,
            unviable,
            missed,
        } = self;
        let (mutants, missed) = (caught + missed.len(), missed.len());
        write!(
            f,
            "{mutants} mutants, {caught} caught, {missed} survived ({unviable} more do not build)"
        )
    }
}

impl Found {
    fn by_running(file: &File, only: Option<&str>) -> Result<Self> {
        let name = file.path.replace(['/', '.'], "-");
        let output = workspace::root().join("target/mutants").join(name);
        fs::create_dir_all(&output)
            .with_context(|| format!("cannot create {}", output.display()))?;
        let mut command = workspace::cargo();
        command
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("PROPTEST_CASES", CASES)
            // What the crates depend on is built once for all files.
            .env(
                "CARGO_TARGET_DIR",
                workspace::root().join("target/mutants/build"),
            )
            .args(["mutants", "--package", &file.package, "--file", &file.path])
            .args([
                "--jobs",
                "1",
                "--minimum-test-timeout",
                TIMEOUT,
                "--no-shuffle",
                "--output",
            ])
            .arg(&output);
        if let Some(only) = only {
            command.args(["--re", only]);
        }
        command.arg("--").args(&file.tests);
        // It ends with an error where mutants survive, too; what it wrote tells.
        let ended = step::execute(&mut command);
        let written = output.join("mutants.out");
        let count = |name: &str| Ok::<_, anyhow::Error>(lines(&written.join(name))?.len());
        let found = Self {
            // What does not end, the tests have noticed.
            caught: count("caught.txt")? + count("timeout.txt")?,
            unviable: count("unviable.txt")?,
            missed: lines(&written.join("missed.txt"))?
                .iter()
                .map(|line| without_place(line))
                .collect(),
        };
        if found.caught + found.missed.len() == 0 {
            ended?;
            bail!("no mutant was built");
        }
        Ok(found)
    }
}

fn lines(path: &PathBuf) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// `src/a.rs:12:5: replace f -> bool with true` without the file and the place.
fn without_place(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    let (Some(path), Some(_), Some(_), Some(what)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return line.to_owned();
    };
    if Path::new(path).extension().is_none() {
        return line.to_owned();
    }
    what.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(survivors: &[(&str, usize)]) -> File {
        let survivor = |(mutant, count): &(&str, usize)| Survivor {
            mutant: (*mutant).to_owned(),
            count: *count,
            reason: "the same".to_owned(),
        };
        File {
            path: "a.rs".to_owned(),
            package: "a".to_owned(),
            tests: all_tests(),
            caught: 1,
            survived: 1,
            survivors: survivors.iter().map(survivor).collect(),
        }
    }

    #[test]
    fn survivors_are_held_against_the_list() {
        let found = |missed: &[&str]| Found {
            missed: missed.iter().map(|it| (*it).to_owned()).collect(),
            ..Found::default()
        };
        file(&[("x", 2)]).compare(&found(&["x", "x"])).unwrap();
        file(&[]).compare(&found(&["x"])).unwrap_err();
        file(&[("x", 1)]).compare(&found(&["x", "x"])).unwrap_err();
        file(&[("x", 1)]).compare(&found(&[])).unwrap_err();
    }

    #[test]
    fn places_are_left_out() {
        let line = "mqtt-codec/src/varint.rs:12:5: replace a::b -> bool with true";
        assert_eq!(without_place(line), "replace a::b -> bool with true");
        assert_eq!(without_place("no place"), "no place");
    }

    /// The list in the repository can be read, and explains all that survived.
    #[test]
    fn the_list_is_whole() {
        let list = List::read().unwrap();
        let survived: usize = list.files.iter().map(|it| it.survived).sum();
        let mutants = survived + list.files.iter().map(|it| it.caught).sum::<usize>();
        assert!(survived * 100 <= mutants * MOST, "{survived} of {mutants}");
    }
}
