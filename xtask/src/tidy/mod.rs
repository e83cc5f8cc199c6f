//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! Each rule is a function from what it reads to violations; each violation names file, line and rule.

mod arrows;
mod documents;
mod files;
mod manifests;
mod rules;
pub(crate) mod source;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    conformance::breaks,
    step::Verdict,
    workspace::{self, Metadata},
};

/// Folders that are not looked into.
pub(crate) const LEFT_OUT: [&str; 5] = ["target", ".git", "corpus", "artifacts", "coverage"];

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {}

/// A rule that is not kept, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    /// Relative to the root of the workspace.
    file: PathBuf,
    /// Counted from 1.
    line: usize,
    rule: &'static str,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            rule,
            what,
        } = self;
        write!(f, "{}:{line}: {rule}: {what}", file.display())
    }
}

/// Checks the whole workspace and prints what it finds.
pub(crate) fn run(_args: &Args) -> Result<Verdict> {
    let root = workspace::root();
    let metadata = Metadata::read(&root.join("Cargo.toml"), true)?;
    let mut found = arrows::check(root, &metadata);
    let fuzz = workspace::fuzz_manifest();
    if fuzz.exists() {
        found.extend(arrows::check(root, &Metadata::read(&fuzz, false)?));
    }
    found.extend(manifests::check(root, &metadata)?);
    found.extend(rules::check_crate_roots(root, &metadata)?);
    found.extend(documents::check(root, &metadata)?);
    for (file, what) in breaks::check(root)? {
        found.push(Violation {
            file,
            line: 1,
            rule: "breaks",
            what,
        });
    }
    let mut count = 0;
    for file in rust_files(root)? {
        let text = fs::read_to_string(root.join(&file))
            .with_context(|| format!("cannot read {}", file.display()))?;
        found.extend(files::check(&file, &text));
        found.extend(rules::check(&file, &text));
        count += 1;
    }
    found.sort();
    found.dedup();
    for violation in &found {
        println!("{violation}");
    }
    println!("tidy: {count} Rust files, {} violations", found.len());
    Ok(if found.is_empty() {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

/// The Rust files of the workspace and of `fuzz/`, relative to the root, in order.
pub(crate) fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !LEFT_OUT.contains(&&*name) {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                found.push(relative(root, &path));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}

/// Whether the whole file is a test: below a folder `tests`, or named so.
fn is_test_file(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    file.iter().any(|part| part == "tests") || stem == "tests" || stem.ends_with("_tests")
}
