//! `cargo xtask minimal-versions`: the workspace builds with the oldest versions that its manifests allow.
//!
//! Only of what it depends on itself: whether old versions of their own dependencies go together is for others to
//! say. Cargo has it behind an option that is not stable, for which no nightly toolchain is needed.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    conformance::breaks,
    step::{Verdict, execute},
    workspace::{self, Metadata, cargo},
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only see whether there are such versions, and build nothing
    #[arg(long)]
    no_build: bool,
}

impl Args {
    /// Without building.
    pub(crate) fn resolve() -> Self {
        Self { no_build: true }
    }
}

/// Works in a copy, since the versions of Cargo.lock are others.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let root = workspace::root();
    let metadata = Metadata::read(&root.join("Cargo.toml"), false)?;
    let folder = metadata.target_directory.join("minimal");
    let copy = folder.join("sources");
    breaks::copy(root, &copy)?;
    fs::remove_file(copy.join("Cargo.lock")).context("cannot remove the copy of Cargo.lock")?;
    let mut update = cargo();
    update.current_dir(&copy).env("RUSTC_BOOTSTRAP", "1").args([
        "update",
        "--quiet",
        "-Z",
        "direct-minimal-versions",
    ]);
    execute(&mut update)?;
    if args.no_build {
        return Ok(Verdict::Passed);
    }
    let mut check = cargo();
    check
        .current_dir(&copy)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .args(["check", "--workspace", "--lib", "--bins", "--locked"])
        .args(crate::ci::FEATURES);
    execute(&mut check)?;
    Ok(Verdict::Passed)
}
