//! Files as files: how long they are, how they open, what they are called.

use std::path::Path;

use super::{Violation, is_test_file};

/// Lines of a file, its inline tests included.
const LONGEST: usize = 800;
/// Lines of a file below `tests/`.
const LONGEST_TEST: usize = 1_500;
/// Names that say nothing of what a file holds.
const EMPTY_NAMES: [&str; 5] = ["utils", "util", "types", "common", "helpers"];

/// Checks one Rust file.
pub(super) fn check(file: &Path, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |line, rule, what: String| {
        found.push(Violation {
            file: file.to_path_buf(),
            line,
            rule,
            what,
        });
    };
    let longest = if is_test_file(file) {
        LONGEST_TEST
    } else {
        LONGEST
    };
    let lines = text.lines().count();
    if lines > longest {
        report(
            lines,
            "file-size",
            format!("{lines} lines; the limit is {longest}"),
        );
    }
    if !opens_with_docs(text) {
        report(1, "file-docs", "the file does not open with //!".to_owned());
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default();
    let name = if stem == "mod" {
        folder.to_string_lossy()
    } else {
        stem
    };
    if EMPTY_NAMES.contains(&&*name) {
        report(
            1,
            "file-name",
            format!("{name} says nothing of what is in it"),
        );
    }
    found
}

/// `//!`, or the inner attribute that includes a README, after other inner attributes at most.
fn opens_with_docs(text: &str) -> bool {
    for line in text.lines() {
        if line.starts_with("//!") || line.starts_with("#![doc") {
            return true;
        }
        if !line.starts_with("#!") && !line.trim().is_empty() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<&'static str> {
        let found = check(Path::new(file), text);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn long_files_are_found() {
        let text = format!("//! A.\n{}", "a\n".repeat(LONGEST - 1));
        assert!(rules("a/src/b.rs", &text).is_empty());
        let text = format!("{text}a\n");
        assert_eq!(rules("a/src/b.rs", &text), ["file-size"]);
        assert!(rules("a/tests/b.rs", &text).is_empty());
        let text = "//! A.\n".repeat(LONGEST_TEST + 1);
        assert_eq!(rules("a/tests/b.rs", &text), ["file-size"]);
    }

    #[test]
    fn files_open_with_a_sentence() {
        assert_eq!(rules("a/src/b.rs", "use c;\n"), ["file-docs"]);
        assert_eq!(rules("a/src/b.rs", "// A.\n//! B.\n"), ["file-docs"]);
        assert_eq!(rules("a/src/b.rs", ""), ["file-docs"]);
        assert!(rules("a/src/b.rs", "#![no_main]\n//! B.\n").is_empty());
        assert!(rules("a/src/lib.rs", "#![doc = include_str!(\"x\")]\n").is_empty());
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(rules("a/src/utils.rs", "//! A.\n"), ["file-name"]);
        assert_eq!(rules("a/tests/common/mod.rs", "//! A.\n"), ["file-name"]);
        assert!(rules("a/src/hub/mod.rs", "//! A.\n").is_empty());
    }
}
