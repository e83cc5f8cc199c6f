//! `cargo xtask semver`: the public interface of each library beside that of an earlier revision.
//!
//! It compares what rustdoc writes as JSON at both revisions. That takes nothing but the compiler; cargo-semver-checks,
//! which knows more rules, would be one more program to build. What it does not see is what a rule of its own would have to say: behaviour,
//! inference, and whether a type that changed still takes all that it took.

mod surface;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use self::surface::{Difference, Surface};
use crate::{
    package::published,
    step::{Verdict, execute, quiet},
    workspace::{self, Metadata, Package, cargo},
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The revision to compare with [default: the last tag v*, if there is one]
    #[arg(long, value_name = "REVISION")]
    base: Option<String>,
    /// Only this package (repeatable)
    #[arg(long, value_name = "NAME")]
    package: Vec<String>,
}

/// Prints what differs. A change that breaks users without a version that says so is a failure.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let root = workspace::root();
    let Some(base) = args.base.clone().or_else(|| last_release(root)) else {
        println!("nothing is released yet; --base names a revision to compare with");
        return Ok(Verdict::Passed);
    };
    let now = Metadata::read(&root.join("Cargo.toml"), false)?;
    for name in &args.package {
        let known = published(&now).any(|package| package.name == *name);
        ensure!(known, "no library {name} in the workspace");
    }
    let folder = now.target_directory.join("semver");
    let sources = folder.join("base");
    extract(root, &base, &sources)?;
    let before = Metadata::read(&sources.join("Cargo.toml"), false)?;
    // Cargo takes both revisions of a crate for the same.
    let targets = [folder.join("target-base"), folder.join("target")];
    let mut verdict = Verdict::Passed;
    for package in published(&now) {
        if !args.package.is_empty() && !args.package.contains(&package.name) {
            continue;
        }
        let Some(old) = published(&before).find(|old| old.name == package.name) else {
            println!("{}: new since {base}", package.name);
            continue;
        };
        let differences = surface(&sources, old, &targets[0])?;
        let differences = differences.until(&surface(root, package, &targets[1])?);
        print(package, &base, &differences);
        let breaks = differences.iter().any(Difference::breaks);
        if breaks && !may_break(&old.version, &package.version) {
            println!(
                "  {} to {} does not allow for what breaks users",
                old.version, package.version
            );
            verdict = Verdict::Failed;
        }
    }
    Ok(verdict)
}

fn print(package: &Package, base: &str, differences: &[Difference]) {
    let breaking = differences.iter().filter(|found| found.breaks()).count();
    println!(
        "{}: {breaking} changes since {base} that break users, {} that do not",
        package.name,
        differences.len() - breaking
    );
    for difference in differences {
        println!("  {difference}");
    }
}

fn last_release(root: &Path) -> Option<String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["describe", "--tags", "--abbrev=0", "--match", "v*"])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| name.trim().to_owned())
}

/// The sources of a revision, without a word to the repository about it.
fn extract(root: &Path, revision: &str, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(folder)?;
    let archive = folder.with_extension("tar");
    let mut git = Command::new("git");
    git.current_dir(root)
        .args(["archive", "--format=tar", "--output"])
        .arg(&archive)
        .arg(revision);
    quiet(&mut git)?;
    quiet(
        Command::new("tar")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(folder),
    )
}

/// The interface of the library of a package.
fn surface(sources: &Path, package: &Package, target: &Path) -> Result<Surface> {
    let mut command = cargo();
    command
        .current_dir(sources)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // The format is not stable, and needs no nightly toolchain.
        .env("RUSTC_BOOTSTRAP", "1")
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--package"])
        .args([&package.name, "--", "-Z", "unstable-options"])
        .args(["--output-format", "json"]);
    execute(&mut command)?;
    let library = package
        .targets
        .iter()
        .find(|target| target.kind.iter().any(|kind| kind == "lib"))
        .with_context(|| format!("{} has no library", package.name))?;
    let path: PathBuf = target.join("doc").join(format!("{}.json", library.name));
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let document =
        serde_json::from_slice(&text).with_context(|| format!("cannot read {}", path.display()))?;
    Surface::read(&document).with_context(|| format!("cannot read {}", path.display()))
}

/// Whether the step from a version to another says that users may break: in the first number that is not 0.
fn may_break(old: &str, new: &str) -> bool {
    let significant = |version: &str| {
        let numbers = version.split(['.', '-']).map(str::to_owned);
        let zeros = numbers.clone().take_while(|number| number == "0").count();
        numbers.take(zeros + 1).collect::<Vec<_>>()
    };
    significant(old) != significant(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_not_0_says_so() {
        assert!(!may_break("0.1.0", "0.1.1"));
        assert!(may_break("0.1.0", "0.2.0"));
        assert!(!may_break("1.1.0", "1.2.0"));
        assert!(may_break("1.1.0", "2.0.0"));
        assert!(may_break("0.0.1", "0.0.2"));
    }
}
