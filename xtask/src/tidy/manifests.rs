//! Manifests: versions, lints and licence come from the workspace, and who looks for a crate is told what it is.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Violation, relative};
use crate::workspace::{Metadata, Package};

/// Keys of `[package]` that each crate takes from the workspace.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// Keys of `[package]` that each crate has that is published.
const PUBLISHED: [&str; 5] = ["description", "keywords", "categories", "readme", "include"];
const DOCS_RS: &str = "package.metadata.docs.rs";

/// Checks the manifest of each member, and that no dependency needs a later Rust than they say.
pub(super) fn check(root: &Path, metadata: &Metadata) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    for package in metadata.members() {
        let text = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path.display()))?;
        found.extend(check_manifest(
            &relative(root, &package.manifest_path),
            &text,
        ));
    }
    let members: Vec<_> = metadata.members().map(|package| &package.id).collect();
    let ours = metadata
        .members()
        .find_map(|package| package.rust_version.as_deref())
        .unwrap_or_default();
    for package in &metadata.packages {
        let theirs = package.rust_version.as_deref().unwrap_or_default();
        if !members.contains(&&package.id) && numbers(theirs) > numbers(ours) {
            let Package { name, version, .. } = package;
            found.push(Violation {
                file: Path::new("Cargo.lock").to_path_buf(),
                line: 1,
                rule: "manifest",
                what: format!("{name} {version} needs Rust {theirs}, and Cargo.toml says {ours}"),
            });
        }
    }
    Ok(found)
}

/// A version in an order that is that of versions.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split('.');
    let mut numbers: Vec<u64> = parts.map_while(|part| part.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

fn check_manifest(file: &Path, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line, what: String| {
        found.push(Violation {
            file: file.to_path_buf(),
            line,
            rule: "manifest",
            what,
        });
    };
    let entries = entries(text);
    for key in INHERITED {
        let inherits = |entry: &Entry<'_>| entry.section == "package" && entry.inherits(key);
        if !entries.iter().any(inherits) {
            report(1, format!("{key}.workspace = true is missing in [package]"));
        }
    }
    let has = |section, key| {
        let mut entries = entries.iter();
        entries.any(|entry| entry.section == section && entry.key == key)
    };
    if !has("package", "publish") {
        for key in PUBLISHED {
            if !has("package", key) {
                report(1, format!("{key} is missing in [package]"));
            }
        }
        if !has(DOCS_RS, "all-features") {
            report(1, format!("all-features is missing in [{DOCS_RS}]"));
        }
    }
    let lints = |entry: &Entry<'_>| {
        entry.section == "lints" && entry.key == "workspace" && entry.value == "true"
    };
    if !entries.iter().any(lints) {
        report(1, "[lints] workspace = true is missing".to_owned());
    }
    for entry in &entries {
        let name = entry.key.trim_end_matches(".workspace");
        if entry.section.ends_with("dependencies") && !entry.inherits(name) {
            report(
                entry.line,
                format!("{name} takes its version from [workspace.dependencies]"),
            );
        }
        if entry.section.contains("dependencies.") {
            report(entry.line, "write a dependency as one line".to_owned());
        }
    }
    found
}

/// One `key = value` of a manifest.
struct Entry<'a> {
    section: &'a str,
    key: &'a str,
    value: &'a str,
    line: usize,
}

impl Entry<'_> {
    /// `name.workspace = true`, or `name = { workspace = true, ... }`.
    fn inherits(&self, name: &str) -> bool {
        if self.key.strip_suffix(".workspace") == Some(name) {
            return self.value == "true";
        }
        self.key == name && self.value.starts_with('{') && self.value.contains("workspace = true")
    }
}

/// The entries outside of arrays and tables that span lines; enough of TOML for a cargo manifest.
fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut found = Vec::new();
    let mut section = "";
    let mut depth = 0_i32;
    for (index, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let outside = depth == 0;
        let header = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if outside && let Some(header) = header {
            section = header.trim_matches(['[', ']']);
            continue;
        }
        for character in line.chars() {
            match character {
                '[' | '{' => depth += 1,
                ']' | '}' => depth -= 1,
                _ => {}
            }
        }
        if outside && let Some((key, value)) = line.split_once('=') {
            found.push(Entry {
                section,
                key: key.trim(),
                value: value.trim(),
                line: index + 1,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"[package]
name = "a"
version.workspace = true
edition.workspace = true
rust-version.workspace = true
license.workspace = true
description = "a"
keywords = ["a"]
categories = ["a"]
readme = "README.md"
include = ["src/**"]

[dependencies]
bytes = { workspace = true, features = [
    "std",
] }
nom.workspace = true

[[bench]]
name = "decode"

[package.metadata.docs.rs]
all-features = true

[lints]
workspace = true
"#;

    fn found(text: &str) -> Vec<String> {
        check_manifest(Path::new("a/Cargo.toml"), text)
            .into_iter()
            .map(|violation| violation.to_string())
            .collect()
    }

    #[test]
    fn a_manifest_that_inherits_is_fine() {
        assert!(found(GOOD).is_empty());
    }

    #[test]
    fn what_is_published_says_what_it_is() {
        let silent = GOOD.replace("categories = [\"a\"]\n", "");
        assert_eq!(
            found(&silent),
            ["a/Cargo.toml:1: manifest: categories is missing in [package]"]
        );
        let kept = silent.replace("description", "publish = false\ndescription");
        assert!(found(&kept).is_empty());
        assert_eq!(found(&GOOD.replace("all-features", "x")).len(), 1);
    }

    #[test]
    fn versions_have_an_order() {
        assert!(numbers("1.90") < numbers("1.90.1"));
        assert_eq!(numbers("1.90.0"), numbers("1.90"));
        assert!(numbers("1.9") < numbers("1.10"));
    }

    #[test]
    fn what_is_not_inherited_is_named() {
        assert_eq!(
            found(&GOOD.replace(
                "version.workspace = true\nedition",
                "version = \"1\"\nedition"
            )),
            ["a/Cargo.toml:1: manifest: version.workspace = true is missing in [package]"]
        );
        assert_eq!(
            found(&GOOD.replace("nom.workspace = true", "nom = \"8\"")),
            ["a/Cargo.toml:17: manifest: nom takes its version from [workspace.dependencies]"]
        );
        assert_eq!(found(&GOOD.replace("[lints]", "[other]")).len(), 1);
        assert_eq!(
            found(&GOOD.replace("[[bench]]", "[dependencies.nom]")).len(),
            1
        );
    }
}
