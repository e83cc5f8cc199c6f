//! Rules on Rust code, read line by line with literals and comments set apart.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    Violation, is_test_file, relative,
    source::{CommentKind, Source},
};
use crate::workspace::{Metadata, Package};

const UNFINISHED_CODE: [&str; 3] = ["todo!(", "unimplemented!(", "dbg!("];
const UNFINISHED_WORDS: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Checks one Rust file.
pub(super) fn check(file: &Path, text: &str) -> Vec<Violation> {
    let source = Source::parse(text, is_test_file(file));
    let virtual_time = text.contains("start_paused") || text.contains("time::pause()");
    let in_codec = file.starts_with("mqtt-codec");
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in source.lines.iter().enumerate() {
        let code = line.code.trim();
        let mut report = |rule, what: &str| {
            found.push(Violation {
                file: file.to_path_buf(),
                line: index + 1,
                rule,
                what: what.to_owned(),
            });
        };
        for name in UNFINISHED_CODE {
            if has_word(code, name) {
                report("unfinished", name);
            }
        }
        for word in UNFINISHED_WORDS {
            if has_word(&line.comment, word) {
                report("unfinished", word);
            }
        }
        if code.starts_with("#[") || code.starts_with("#![") {
            let attribute = source.attribute(index);
            if has_word(&attribute, "ignore") && !attribute.contains("doc") {
                report("ignored-test", "a test runs or is deleted");
            }
            let silences = has_word(&attribute, "allow(") || has_word(&attribute, "expect(");
            if silences && !attribute.contains("reason =") {
                report("allow-reason", "an allow or expect gives its reason");
            }
        }
        if line.test && code.contains("thread::sleep") {
            report("sleep-in-test", "wait for a condition instead");
        }
        if line.test && has_word(code, "sleep(") && code.contains("time::") && !virtual_time {
            report("sleep-in-test", "use virtual time (start_paused)");
        }
        if code.starts_with("pub") && code.contains("use ") && code.ends_with("::*;") {
            report("glob-export", "re-export names one by one");
        }
        if !in_codec && !line.test && compares_versions(code) {
            report("version-compare", "ask the version for a capability");
        }
        let comment = line.comment.trim();
        let alone = code.is_empty() && line.kind == CommentKind::Plain;
        let looks_like_code = alone && is_code(comment);
        if looks_like_code && !in_block {
            report("commented-out", comment);
        }
        in_block = looks_like_code || (in_block && alone);
    }
    found
}

/// Whether `text` has `word` with no letter, digit or underscore before or after it.
fn has_word(text: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + word.len()..].chars().next();
        let open = word.ends_with('(');
        !before.is_some_and(in_word) && (open || !after.is_some_and(in_word))
    })
}

fn compares_versions(code: &str) -> bool {
    ["== ProtocolVersion::", "!= ProtocolVersion::"]
        .iter()
        .any(|comparison| code.contains(comparison))
        || (code.contains("matches!(") && code.contains("ProtocolVersion::"))
}

/// Whether a comment reads as a line of Rust rather than of prose.
fn is_code(comment: &str) -> bool {
    let brackets = |c: char| "{}()[];,".contains(c);
    if comment.is_empty() {
        return false;
    }
    if comment.chars().all(brackets) {
        return true;
    }
    let first = comment
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default();
    if comment.ends_with(';') {
        let statements = [
            "let", "use", "pub", "return", "const", "static", "mod", "self",
        ];
        return statements.contains(&first) || is_call_or_assignment(comment);
    }
    if comment.ends_with('{') {
        let blocks = [
            "if", "for", "while", "loop", "match", "fn", "pub", "impl", "struct", "enum", "async",
            "mod", "unsafe", "trait", "",
        ];
        return blocks.contains(&first) || comment.ends_with("=> {");
    }
    comment.starts_with("#[") && comment.ends_with(']')
}

/// `path.to::call(...);`, `name!(...);` or `place = value;`
fn is_call_or_assignment(comment: &str) -> bool {
    let path = |c: char| c.is_alphanumeric() || "_.:<>&*?!".contains(c);
    let end = comment.find(|c| !path(c)).unwrap_or(comment.len());
    let (head, rest) = comment.split_at(end);
    let assigns = [" = ", " += ", " -= "];
    !head.is_empty() && (rest.starts_with('(') || assigns.iter().any(|sign| rest.starts_with(sign)))
}

/// What the root file of a crate must say.
const ROOTS: [(&str, &[&str]); 6] = [
    (
        "ternmq-codec",
        &[
            "forbid(unsafe_code)",
            "no_std",
            "clippy::indexing_slicing",
            "clippy::unwrap_used",
        ],
    ),
    ("ternmq-router", &["forbid(unsafe_code)", "no_std"]),
    (
        "ternmq-session",
        &[
            "forbid(unsafe_code)",
            "no_std",
            "clippy::indexing_slicing",
            "clippy::unwrap_used",
        ],
    ),
    ("ternmq-broker", &["(unsafe_code)"]),
    ("ternmq-client", &["forbid(unsafe_code)"]),
    ("xtask", &["forbid(unsafe_code)"]),
];

/// Checks the inner attributes of each library and program.
pub(super) fn check_crate_roots(root: &Path, metadata: &Metadata) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    for package in metadata.members() {
        for target in &package.targets {
            let is_root = |kind: &String| kind == "lib" || kind == "bin";
            if !target.kind.iter().any(is_root) {
                continue;
            }
            let text = fs::read_to_string(&target.src_path)
                .with_context(|| format!("cannot read {}", target.src_path.display()))?;
            found.extend(check_root(
                package,
                &relative(root, &target.src_path),
                &text,
            ));
        }
    }
    Ok(found)
}

fn check_root(package: &Package, file: &Path, text: &str) -> Vec<Violation> {
    let Some((_, wanted)) = ROOTS.iter().find(|(name, _)| *name == package.name) else {
        return Vec::new();
    };
    let source = Source::parse(text, false);
    let attributes: String = (0..source.lines.len())
        .filter(|&line| source.lines[line].code.starts_with("#!["))
        .map(|line| source.attribute(line))
        .collect();
    wanted
        .iter()
        .filter(|attribute| !attributes.contains(**attribute))
        .map(|attribute| Violation {
            file: file.to_path_buf(),
            line: 1,
            rule: "crate-attributes",
            what: format!("the inner attribute {attribute} is missing"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> Vec<(usize, &'static str)> {
        check(Path::new(file), text)
            .into_iter()
            .map(|violation| (violation.line, violation.rule))
            .collect()
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = "//! A.\nfn f() {\n    todo!()\n}\n// TODO: more\n";
        assert_eq!(
            found("a/src/b.rs", text),
            [(3, "unfinished"), (5, "unfinished")]
        );
        let text = "let a = \"todo!() TODO\";\nlet mastodon = 1; // TODOS\n";
        assert!(found("a/src/b.rs", text).is_empty());
    }

    #[test]
    fn attributes_are_checked() {
        let rules = |text| found("a/src/b.rs", text);
        assert_eq!(
            rules("#[ignore]\n#[test]\nfn f() {}\n"),
            [(1, "ignored-test")]
        );
        assert_eq!(rules("#[allow(dead_code)]\n"), [(1, "allow-reason")]);
        assert_eq!(
            rules("#![cfg_attr(test, allow(a,\n b))]\n"),
            [(1, "allow-reason")]
        );
        assert!(rules("#[expect(\n    dead_code,\n    reason = \"x\"\n)]\n").is_empty());
        assert!(rules("a.expect(\"b\");\n").is_empty());
    }

    #[test]
    fn tests_do_not_sleep() {
        let text =
            "fn f() { thread::sleep(d) }\n#[cfg(test)]\nmod tests {\n    thread::sleep(d);\n}\n";
        assert_eq!(found("a/src/b.rs", text), [(4, "sleep-in-test")]);
        let text = "tokio::time::sleep(d).await;\n";
        assert_eq!(found("a/tests/b.rs", text), [(1, "sleep-in-test")]);
        let text = format!("#[tokio::test(start_paused = true)]\n{text}");
        assert!(found("a/tests/b.rs", &text).is_empty());
    }

    #[test]
    fn exports_are_named_and_versions_not_compared() {
        assert_eq!(found("a/src/b.rs", "pub use c::*;\n"), [(1, "glob-export")]);
        assert!(found("a/src/b.rs", "use c::*;\n").is_empty());
        let text = "if version == ProtocolVersion::V5 {\n";
        assert_eq!(
            found("mqtt-broker/src/b.rs", text),
            [(1, "version-compare")]
        );
        assert!(found("mqtt-codec/src/b.rs", text).is_empty());
        assert!(found("mqtt-broker/tests/b.rs", text).is_empty());
    }

    #[test]
    fn commented_out_code_is_found_once_a_block() {
        let text = "// let a = 1;\n// if a > 0 {\n//     b(a);\n// }\nc();\n// d.e(f);\n";
        assert_eq!(
            found("a/src/b.rs", text),
            [(1, "commented-out"), (6, "commented-out")]
        );
        for code in [
            "#[test]",
            "}",
            "fn f() {",
            "x = y;",
            "Some(x) => {",
            "use a::b;",
        ] {
            assert!(is_code(code), "{code}");
        }
        for prose in [
            "the rest is copied (see below);",
            "Frames are copied; payloads are shared.",
            "10 0c 00 04 4d 51 54 54",
            "CONNECT -> CONNACK",
            "uses the table",
        ] {
            assert!(!is_code(prose), "{prose}");
        }
        assert!(found("a/src/b.rs", "/// let a = 1;\na(); // b();\n").is_empty());
    }

    #[test]
    fn crate_roots_have_their_attributes() {
        let package = |name: &str| -> Package {
            serde_json::from_value(serde_json::json!({
                "id": name, "name": name, "manifest_path": "a", "rust_version": null,
                "dependencies": [], "targets": [],
            }))
            .unwrap()
        };
        let count = |name: &str, text: &str| check_root(&package(name), Path::new("a"), text).len();
        assert_eq!(
            count("ternmq-router", "#![forbid(unsafe_code)]\n#![no_std]\n"),
            0
        );
        assert_eq!(count("ternmq-router", "// #![forbid(unsafe_code)]\n"), 2);
        assert_eq!(count("ternmq-broker", "#![deny(unsafe_code)]\n"), 0);
        assert_eq!(count("ternmq-client", "#![deny(unsafe_code)]\n"), 1);
    }
}
