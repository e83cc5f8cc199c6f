//! The documents tell the truth: commands exist, links lead somewhere, the Rust version agrees.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::CommandFactory;

use super::{Violation, relative};
use crate::workspace::Metadata;

/// The two commands that a newcomer types, as the README has them.
const RUN_COMMAND: &str = "cargo run --release --bin mqtt-broker";
const TEST_COMMAND: &str = "cargo test --workspace";
/// Documents of the root that must exist.
const REQUIRED: [&str; 6] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

/// Checks the documents of the root and the README of each crate, and `.ci/run`.
pub(super) fn check(root: &Path, metadata: &Metadata) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    for name in REQUIRED {
        if !root.join(name).exists() {
            found.push(violation(Path::new(name), 1, "the file is missing"));
        }
    }
    if !programs(metadata).any(|name| name == "mqtt-broker") {
        let what = format!("{RUN_COMMAND}: there is no such program");
        found.push(violation(Path::new("README.md"), 1, &what));
    }
    let required: [(&str, &[&str]); 3] = [
        ("README.md", &[RUN_COMMAND, TEST_COMMAND]),
        (".ci/run", &[TEST_COMMAND, "cargo xtask ci"]),
        ("CHANGELOG.md", &["## Unreleased"]),
    ];
    for (name, texts) in required {
        let text = fs::read_to_string(root.join(name)).unwrap_or_default();
        for wanted in texts {
            if !text.contains(wanted) {
                found.push(violation(
                    Path::new(name),
                    1,
                    &format!("says nothing of `{wanted}`"),
                ));
            }
        }
    }
    let rust_version = metadata
        .members()
        .find_map(|package| package.rust_version.clone())
        .unwrap_or_default();
    let readme = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    if !readme.contains(&format!("Rust {rust_version}")) {
        let what = format!("does not name the version of Cargo.toml, Rust {rust_version}");
        found.push(violation(Path::new("README.md"), 1, &what));
    }
    for path in documents(root, metadata)? {
        let file = relative(root, &path);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", file.display()))?;
        let folder = path.parent().unwrap_or(root);
        found.extend(check_document(&file, &text, &rust_version, |link| {
            folder.join(link).exists()
        }));
    }
    Ok(found)
}

fn violation(file: &Path, line: usize, what: &str) -> Violation {
    Violation {
        file: file.to_path_buf(),
        line,
        rule: "documents",
        what: what.to_owned(),
    }
}

fn programs(metadata: &Metadata) -> impl Iterator<Item = &str> {
    metadata
        .members()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.as_str())
}

fn documents(root: &Path, metadata: &Metadata) -> Result<Vec<PathBuf>> {
    let mut found = vec![root.join(".ci/run")];
    let members = metadata.members().map(|package| package.folder());
    for folder in members.chain([root]) {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.retain(|path| path.exists());
    Ok(found)
}

fn check_document(
    file: &Path,
    text: &str,
    rust_version: &str,
    exists: impl Fn(&str) -> bool,
) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut report = |what: String| found.push(violation(file, index + 1, &what));
        for version in after(line, "Rust 1.") {
            let minor: String = version.chars().take_while(char::is_ascii_digit).collect();
            if format!("1.{minor}") != rust_version {
                report(format!(
                    "Rust 1.{minor}, but Cargo.toml says {rust_version}"
                ));
            }
        }
        for call in after(line, "cargo xtask ") {
            if let Some(what) = unknown_chore(call) {
                report(what);
            }
        }
        for target in after(line, "](") {
            let link = target.split([')', '#']).next().unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !exists(link) {
                report(format!("the link {link} leads nowhere"));
            }
        }
    }
    found
}

/// The rest of the line behind each occurrence of `mark`.
fn after<'a>(line: &'a str, mark: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(mark)
        .map(move |(start, _)| &line[start + mark.len()..])
}

/// What is wrong with the words behind `cargo xtask`, where they are no placeholder.
fn unknown_chore(call: &str) -> Option<String> {
    let call = call.split(['`', '#', '|', ';', '"']).next()?;
    let mut words = call.split_whitespace();
    let name = words.next()?;
    if !name.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
        return None;
    }
    let command = crate::Args::command();
    let Some(chore) = command.find_subcommand(name) else {
        return Some(format!("there is no cargo xtask {name}"));
    };
    let known = |option: &str| {
        chore
            .get_arguments()
            .any(|argument| argument.get_long() == Some(option))
    };
    words
        .filter_map(|word| word.strip_prefix("--"))
        .find(|option| !option.is_empty() && !known(option))
        .map(|option| format!("cargo xtask {name} has no option --{option}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        check_document(Path::new("A.md"), text, "1.90", |link| link == "B.md")
            .into_iter()
            .map(|violation| violation.to_string())
            .collect()
    }

    #[test]
    fn chores_and_their_options_exist() {
        assert!(found("Run `cargo xtask tidy` and `cargo xtask fuzz --seconds 60`.").is_empty());
        assert!(found("Every chore is a `cargo xtask NAME`.").is_empty());
        assert_eq!(
            found("\n`cargo xtask fly`"),
            ["A.md:2: documents: there is no cargo xtask fly"]
        );
        assert_eq!(
            found("cargo xtask fuzz --hours 2"),
            ["A.md:1: documents: cargo xtask fuzz has no option --hours"]
        );
    }

    #[test]
    fn links_and_versions_are_true() {
        assert!(found("[b](B.md), [c](https://example.org), [d](#here), Rust 1.90").is_empty());
        assert_eq!(
            found("[c](C.md)"),
            ["A.md:1: documents: the link C.md leads nowhere"]
        );
        assert_eq!(
            found("needs Rust 1.85"),
            ["A.md:1: documents: Rust 1.85, but Cargo.toml says 1.90"]
        );
    }
}
