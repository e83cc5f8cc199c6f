//! Manifests: versions, lints and licence come from the workspace.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Violation, relative};
use crate::workspace::Metadata;

/// Keys of `[package]` that each crate takes from the workspace.
const INHERITED: [&str; 4] = ["version", "edition", "rust-version", "license"];

/// Checks the manifest of each member.
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
    Ok(found)
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

[dependencies]
bytes = { workspace = true, features = [
    "std",
] }
nom.workspace = true

[[bench]]
name = "decode"

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
            ["a/Cargo.toml:12: manifest: nom takes its version from [workspace.dependencies]"]
        );
        assert_eq!(found(&GOOD.replace("[lints]", "[other]")).len(), 1);
        assert_eq!(
            found(&GOOD.replace("[[bench]]", "[dependencies.nom]")).len(),
            1
        );
    }
}
