//! `cargo xtask package`: each crate as it would be published, built from its package and from those of its siblings.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    step::{Verdict, execute, shown},
    workspace::{self, Metadata, Package, cargo},
};

/// What each package must hold besides its manifest.
const REQUIRED: [&str; 5] = [
    "README.md",
    "CHANGELOG.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "src/lib.rs",
];
/// What no package needs.
const UNWANTED: [&str; 2] = ["target/", "../"];

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Look at what the packages hold, and build nothing
    #[arg(long)]
    no_build: bool,
}

impl Args {
    /// Without building.
    pub(crate) fn contents() -> Self {
        Self { no_build: true }
    }
}

/// Makes all packages, and builds each from its package.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let metadata = Metadata::read(&workspace::root().join("Cargo.toml"), false)?;
    for package in published(&metadata) {
        let listed = list(&package.name)?;
        let wrong = wrong(&listed);
        ensure!(wrong.is_empty(), "{}: {}", package.name, wrong.join("; "));
        println!("  {}: {} files", package.name, listed.lines().count());
    }
    let mut command = package();
    command.arg("--workspace");
    for package in metadata.members().filter(|package| !package.is_published()) {
        command.args(["--exclude", &package.name]);
    }
    if args.no_build {
        command.arg("--no-verify");
    } else {
        // Where each package would be built in a place of its own, what they depend on would be built five times.
        let shared = metadata.target_directory.join("packaged");
        command.env("CARGO_TARGET_DIR", shared);
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    }
    execute(&mut command)?;
    Ok(Verdict::Passed)
}

/// The members that are published, in the order of their names.
pub(crate) fn published(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.members().filter(|package| package.is_published())
}

/// A developer looks at packages of what is not committed as well.
fn package() -> Command {
    let mut command = cargo();
    command.args(["package", "--locked", "--quiet", "--allow-dirty"]);
    command
}

fn list(name: &str) -> Result<String> {
    let mut command = package();
    command.args(["--list", "--package", name]);
    let output = command.output().context("cannot run cargo package")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        shown(&command),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What is missing from a list of files, and what is there that should not be.
fn wrong(listed: &str) -> Vec<String> {
    let missing = REQUIRED
        .iter()
        .filter(|name| !listed.lines().any(|line| line == **name))
        .map(|name| format!("{name} is not in the package"));
    let unwanted = listed
        .lines()
        .filter(|line| UNWANTED.iter().any(|start| line.starts_with(start)))
        .map(|line| format!("{line} is in the package"));
    missing.chain(unwanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_package_lacks_is_named() {
        let whole = REQUIRED.join("\n");
        assert!(wrong(&whole).is_empty());
        assert_eq!(
            wrong(&whole.replace("LICENSE-MIT", "target/debug/x")),
            [
                "LICENSE-MIT is not in the package",
                "target/debug/x is in the package"
            ]
        );
    }
}
