//! `cargo xtask coverage`: how many lines of codec, router and session their own tests run, and which they do not.
//!
//! Each crate is measured with its own tests alone. The tests at the bottom of a source file are not counted.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    install::{self, NotInstalled},
    step::{self, Verdict},
    workspace,
};

/// The package and the folder of each crate that is measured.
const CRATES: [(&str, &str); 3] = [
    ("ternmq-codec", "mqtt-codec"),
    ("ternmq-router", "mqtt-router"),
    ("ternmq-session", "mqtt-session"),
];
/// Lines that must run, in hundredths of a percent.
const LEAST: usize = 9_500;
/// The version of cargo-llvm-cov that is installed where there is none.
const CARGO_LLVM_COV: &str = "^0.8";
/// The oldest tools of LLVM that read what the compiler writes, which has the same form since then.
const LLVM: u32 = 19;
/// The newest that is looked for.
const NEWEST_LLVM: u32 = 24;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only this crate, by its folder (repeatable)
    #[arg(long = "crate", value_name = "FOLDER", value_parser = CRATES.map(|(_, folder)| folder))]
    only: Vec<String>,
}

impl Args {
    /// Every crate.
    pub(crate) fn all() -> Self {
        Self { only: Vec::new() }
    }
}

/// Measures the crates that `args` selects, and prints what is not covered.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    install::cargo_tool("cargo-llvm-cov", CARGO_LLVM_COV)?;
    let tools = tools()?;
    let mut verdict = Verdict::Passed;
    let mut summary = Vec::new();
    for (package, folder) in CRATES {
        if !args.only.is_empty() && !args.only.iter().any(|name| name == folder) {
            continue;
        }
        let files = measure(package, folder, &tools)?;
        let sum = Sum::of(&files);
        if sum.lines == 0 {
            bail!("{folder}: no line was measured");
        }
        println!("\n{folder}: {sum}");
        for (file, lines) in &files {
            let missed = spans(lines);
            if !missed.is_empty() {
                println!("  {file}: {missed}");
            }
        }
        if sum.share() < LEAST {
            verdict = Verdict::Failed;
        }
        summary.push(format!("{folder:<12}  {sum}"));
    }
    println!("\n{}", summary.join("\n"));
    println!("at least {}% must be covered", percent(LEAST));
    Ok(verdict)
}

/// For each line that holds code, whether it ran.
type Lines = BTreeMap<u32, bool>;

struct Sum {
    lines: usize,
    covered: usize,
}

impl Sum {
    fn of(files: &BTreeMap<String, Lines>) -> Self {
        let lines = files.values().map(BTreeMap::len).sum();
        let runs = files.values().flat_map(BTreeMap::values);
        let covered = runs.filter(|ran| **ran).count();
        Self { lines, covered }
    }

    /// In hundredths of a percent, rounded down.
    fn share(&self) -> usize {
        self.covered * 10_000 / self.lines.max(1)
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let share = percent(self.share());
        write!(f, "{share}% of lines ({} of {})", self.covered, self.lines)
    }
}

fn percent(hundredths: usize) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// llvm-cov and llvm-profdata.
struct Tools {
    cov: PathBuf,
    profdata: PathBuf,
}

impl Tools {
    fn find(in_folder: &Path, suffix: &str) -> Option<Self> {
        let tool =
            |name: &str| Some(in_folder.join(format!("{name}{suffix}"))).filter(|it| it.is_file());
        Some(Self {
            cov: tool("llvm-cov")?,
            profdata: tool("llvm-profdata")?,
        })
    }
}

/// Those of the toolchain, or else of Debian, which is asked for them last.
fn tools() -> Result<Tools> {
    let sysroot = output(Command::new("rustc").args(["--print", "target-libdir"]))?;
    let beside = Path::new(sysroot.trim()).with_file_name("bin");
    let there = || Tools::find(&beside, "").or_else(of_debian);
    if let Some(tools) = there() {
        return Ok(tools);
    }
    if install::find("rustup").is_some() {
        // Where no toolchain can be fetched, Debian has them.
        let _ = step::execute(Command::new("rustup").args(["component", "add", "llvm-tools"]));
    }
    if let Some(tools) = there() {
        return Ok(tools);
    }
    let package = format!("llvm-{LLVM}");
    install::debian_package("llvm-cov", &package)?;
    there().ok_or_else(|| {
        NotInstalled::new("llvm-cov", format!("not in the package {package}")).into()
    })
}

fn of_debian() -> Option<Tools> {
    (LLVM..=NEWEST_LLVM)
        .rev()
        .find_map(|version| Tools::find(Path::new("/usr/bin"), &format!("-{version}")))
}

fn output(command: &mut Command) -> Result<String> {
    let shown = step::shown(command);
    let output = command
        .current_dir(workspace::root())
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        bail!("{shown}: {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines of each source file of a crate, by the name of the file from the root of the workspace.
fn measure(package: &str, folder: &str, tools: &Tools) -> Result<BTreeMap<String, Lines>> {
    let report = workspace::root().join(format!("target/coverage/{folder}.lcov"));
    let parent = report.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let mut command = workspace::cargo();
    command
        .env("LLVM_COV", &tools.cov)
        .env("LLVM_PROFDATA", &tools.profdata)
        .args([
            "llvm-cov",
            "--package",
            package,
            "--locked",
            "--lib",
            "--tests",
        ])
        .args([
            OsString::from("--lcov"),
            "--output-path".into(),
            report.clone().into(),
        ]);
    step::execute(&mut command)?;
    let text =
        fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?;
    let mut files = BTreeMap::new();
    for (path, mut lines) in parse(&text)? {
        let Ok(name) = path.strip_prefix(workspace::root()) else {
            continue;
        };
        if !name.starts_with(Path::new(folder).join("src")) {
            continue;
        }
        let source =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if let Some(tests) = tests_begin(&source) {
            lines.split_off(&tests);
        }
        files.insert(name.display().to_string(), lines);
    }
    Ok(files)
}

/// The lines of each file of a report in the form of lcov.
fn parse(report: &str) -> Result<Vec<(PathBuf, Lines)>> {
    let mut files: Vec<(PathBuf, Lines)> = Vec::new();
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            files.push((PathBuf::from(path), Lines::new()));
        } else if let Some(data) = line.strip_prefix("DA:") {
            let mut fields = data.split(',');
            let (Some(number), Some(count)) = (fields.next(), fields.next()) else {
                bail!("no line of coverage: {line}");
            };
            let (_, lines) = files.last_mut().context("a line before its file")?;
            let number = number.parse().context("no number of a line")?;
            let ran = count.parse::<u64>().context("no count of a line")? > 0;
            *lines.entry(number).or_default() |= ran;
        }
    }
    Ok(files)
}

/// The line at which the tests of a file begin, which go on to its end.
fn tests_begin(source: &str) -> Option<u32> {
    let mut lines = source.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let mut next = lines.clone().map(|(line, _)| line);
        if line == "#[cfg(test)]" && next.next().is_some_and(|it| it.starts_with("mod tests {")) {
            return Some(number);
        }
    }
    None
}

/// What did not run, as `3, 7-9`. Lines without code between two that did not run belong to them.
fn spans(lines: &Lines) -> String {
    let mut spans: Vec<(u32, u32)> = Vec::new();
    let mut goes_on = false;
    for (line, ran) in lines {
        match spans.last_mut() {
            Some((_, last)) if goes_on && !ran => *last = *line,
            _ if !ran => spans.push((*line, *line)),
            _ => {}
        }
        goes_on = !ran;
    }
    let told = |(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    spans.iter().map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report =
            "SF:/x/a.rs\nFN:1,f\nDA:1,0\nDA:2,3\nDA:1,1\nend_of_record\nSF:/x/b.rs\nDA:9,0\n";
        let files = parse(report).unwrap();
        assert_eq!(files[0].1, Lines::from([(1, true), (2, true)]));
        assert_eq!(
            files[1],
            (PathBuf::from("/x/b.rs"), Lines::from([(9, false)]))
        );
        assert!(parse("DA:1,1").is_err());
        assert!(parse("SF:a\nDA:1").is_err());
    }

    #[test]
    fn lines_that_did_not_run_are_told() {
        let lines = [(1, true), (2, false), (4, false), (5, true), (8, false)];
        let lines = Lines::from(lines);
        assert_eq!(spans(&lines), "2-4, 8");
        let sum = Sum::of(&BTreeMap::from([("a".to_owned(), lines)]));
        assert_eq!(sum.to_string(), "40.00% of lines (2 of 5)");
    }

    #[test]
    fn tests_do_not_count() {
        let source = "a\n#[cfg(test)]\nuse b;\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(tests_begin(source), Some(4));
        assert_eq!(tests_begin("#[cfg(test)]\nmod tests;\n"), None);
    }
}
