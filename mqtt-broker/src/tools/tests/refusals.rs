//! Lines and directories that are refused.

use std::fs;

use tempfile::TempDir;

use super::super::{Form, ToolError, export, import, inspect, lock_directory};
use super::{exported, filled};
use crate::store::FjallEngine;

#[test]
fn a_bad_line_is_named_and_nothing_is_kept() {
    let lines = exported(filled().path());
    // What is replaced where, and the beginning of the message.
    let cases = [
        (
            "\"format\":1",
            "\"format\":2",
            "line 1: format: 2; this broker reads 1",
        ),
        (
            "{\"kind\":\"header\"",
            "{\"kind\":\"head\"",
            "line 1: kind: unknown: \"head\"",
        ),
        (
            "{\"kind\":\"session\"",
            "{\"kind\":\"session",
            "line 2: expected `,` or `}`",
        ),
        (
            "\"client_id\"",
            "\"client\"",
            "line 2: client: unknown field `client`",
        ),
        (
            "\"client_id\":\"meter\",",
            "",
            "line 9: missing field `client_id`",
        ),
        (
            "\"client_id\":\"meter\"",
            "\"client_id\":\"pump \\\"1\\\"\"",
            "line 9: client_id: a line above",
        ),
        (
            "\"delay\":5",
            "\"delay\":-5",
            "line 2: will.delay: invalid value: integer `-5`",
        ),
        ("\"level\":5", "\"level\":6", "line 2: will: not a PUBLISH"),
        (
            "\"publish\":\"",
            "\"publish\":\"!",
            "line 2: will.publish: Invalid",
        ),
        (
            "\"filter\":\"t/#\"",
            "\"filter\":\"t#\"",
            "line 3: filter: ",
        ),
        (
            "\"retain_handling\":2",
            "\"retain_handling\":3",
            "line 3: retain_handling: not 0, 1 or 2",
        ),
        (
            "\"identifier\":300",
            "\"identifier\":0",
            "line 3: identifier: not from 1",
        ),
        (
            "\"topic\":\"t/1\"",
            "\"topic\":\"t/+\"",
            "line 4: message.topic: ",
        ),
        (
            "\"properties\":\"",
            "\"properties\":\"AAAA",
            "line 4: message.properties: ",
        ),
        (
            "\"identifiers\":[300]",
            "\"identifiers\":[0]",
            "line 5: identifiers[0]: not from 1",
        ),
        (
            "\"body\":7}",
            "\"body\":8}",
            "line 5: body: no line above has it",
        ),
        (
            "\"key\":2",
            "\"key\":1",
            "line 6: key: a line above has it already",
        ),
        (
            "\"packet_id\":2",
            "\"packet_id\":0",
            "line 7: packet_id: is 0",
        ),
    ];
    for (old, new, expected) in cases {
        let bad = lines.replacen(old, new, 1);
        assert_ne!(bad, lines, "{old}");
        refused(&bad, expected);
    }
    let (rest, _) = lines.trim_end().rsplit_once('\n').unwrap();
    let count = rest.lines().count();
    refused(
        rest,
        &format!("line {}: the line of kind \"end\" is missing", count + 1),
    );
    refused("", "line 1: the line of kind \"end\" is missing");
    refused(
        &format!("{lines}{lines}"),
        &format!("line {}: follows the end", count + 2),
    );
    refused(
        &format!("\n{rest}"),
        &format!("line {}: the line of kind", count + 2),
    );
    refused(
        "{\"kind\":\"end\",\"lines\":0}",
        "line 1: kind: the header is the first",
    );
    refused("\u{ff}\n", "line 1: expected value");
    let doubled: String = lines
        .lines()
        .take(1)
        .chain(lines.lines())
        .map(|line| format!("{line}\n"))
        .collect();
    refused(&doubled, "line 2: kind: the header is the first");
    let shorter: Vec<_> = lines
        .lines()
        .filter(|line| !line.contains("\"received\""))
        .collect();
    refused(
        &shorter.join("\n"),
        &format!("line {count}: lines: there are {} before it", count - 1),
    );
}

fn refused(lines: &str, expected: &str) {
    let to = TempDir::new().unwrap();
    let error = import(to.path(), &mut lines.as_bytes()).unwrap_err();
    let told = error.to_string();
    assert!(told.starts_with(expected), "{told}\ninstead of\n{expected}");
    assert!(matches!(error, ToolError::Line { .. }));
    let names: Vec<_> = fs::read_dir(to.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn only_an_empty_directory_is_imported_into() {
    let lines = exported(filled().path());
    let to = TempDir::new().unwrap();
    import(to.path(), &mut lines.as_bytes()).unwrap();
    let error = import(to.path(), &mut lines.as_bytes()).unwrap_err();
    assert!(matches!(error, ToolError::NotEmpty(_)), "{error}");
    assert_eq!(exported(to.path()), lines);
    let other = TempDir::new().unwrap();
    fs::write(other.path().join("note"), "").unwrap();
    let error = import(other.path(), &mut lines.as_bytes()).unwrap_err();
    assert!(matches!(error, ToolError::NotEmpty(_)), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    // What a refused import left is no obstacle, nor is what one left that was killed.
    let second = TempDir::new().unwrap();
    import(second.path(), &mut &b"bad"[..]).unwrap_err();
    import(second.path(), &mut lines.as_bytes()).unwrap();
    assert_eq!(exported(second.path()), lines);
    let half = TempDir::new().unwrap();
    fs::create_dir_all(half.path().join("store.new/store.new")).unwrap();
    import(half.path(), &mut lines.as_bytes()).unwrap();
    assert_eq!(exported(half.path()), lines);
}

#[test]
fn a_directory_that_cannot_be_used_is_refused() {
    let nothing = TempDir::new().unwrap();
    let missing = nothing.path().join("missing");
    for directory in [nothing.path(), &missing] {
        let error = export(directory, &mut Vec::new()).unwrap_err();
        assert!(matches!(error, ToolError::NoStore(_)), "{error}");
        assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
    }
    let used = filled();
    let engine = FjallEngine::open(used.path()).unwrap();
    let path = used.path();
    for error in [
        inspect(path, Form::Table, &mut Vec::new()).unwrap_err(),
        export(path, &mut Vec::new()).unwrap_err(),
    ] {
        assert!(
            error.to_string().ends_with("is in use by another broker"),
            "{error}"
        );
    }
    drop(engine);
    let empty = TempDir::new().unwrap();
    let _lock = lock_directory(empty.path()).unwrap();
    let error = import(empty.path(), &mut &b""[..]).unwrap_err();
    assert!(
        error.to_string().ends_with("is in use by another broker"),
        "{error}"
    );
}
