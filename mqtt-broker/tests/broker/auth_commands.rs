//! `mqtt-broker passwd` and `mqtt-broker acl`, and a broker that is given their files.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mqtt_broker::auth::{AuthSettings, Authority};
use mqtt_codec::ReasonCode;
use tempfile::TempDir;

use crate::guarded::refused;
use crate::harness::{Peer, V5, broker_with, hello};

fn run(directory: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mqtt-broker"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Who refuses its arguments does not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_user_who_was_added_is_let_in() {
    let directory = TempDir::new().unwrap();
    for (hash, password) in [
        ("argon2id", "one"),
        ("sha512-pbkdf2", "two"),
        ("scram-sha-256", "three"),
    ] {
        let arguments = ["passwd", "users", "anna", "--hash", hash];
        let output = run(directory.path(), &arguments, &format!("{password}\n"));
        assert!(output.status.success(), "{output:?}");
        assert!(
            output.stdout.is_empty() && output.stderr.is_empty(),
            "{output:?}"
        );
        let mut settings = AuthSettings::default();
        settings.password_file = Some(directory.path().join("users"));
        let mut config = mqtt_broker::Config::default();
        config.auth = Authority::load(&settings).unwrap();
        let broker = broker_with(config);
        let mut connect = hello(V5, "one");
        connect.username = Some("anna");
        connect.password = Some(password.as_bytes());
        Peer::accepted(&broker, &connect).await;
        connect.password = Some(b"four");
        refused(&broker, &connect, ReasonCode::BAD_USER_NAME_OR_PASSWORD).await;
    }
    let removed = run(directory.path(), &["passwd", "users", "anna", "-D"], "");
    assert!(removed.status.success());
    let again = run(directory.path(), &["passwd", "users", "anna", "-D"], "");
    assert_eq!(again.status.code(), Some(2));
    let empty = run(directory.path(), &["passwd", "users", "anna"], "\n");
    assert_eq!(empty.status.code(), Some(2));
}

#[test]
fn the_rule_that_decides_is_named() {
    let directory = TempDir::new().unwrap();
    let acl =
        "user anna\ntopic write a/#\ntopic deny a/secret\ntopic read %u/x\npattern read d/%c\n";
    std::fs::write(directory.path().join("acl"), acl).unwrap();
    let test = |topic, action| {
        let arguments = [
            "acl",
            "test",
            "--acl-file",
            "acl",
            "--user",
            "anna",
            "--client",
            "dev",
            "--topic",
            topic,
            "--action",
            action,
        ];
        let output = run(directory.path(), &arguments, "");
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), text)
    };
    let (yes, no) = (0, 1);
    for (topic, action, code, text) in [
        ("a/x", "publish", yes, "yes: acl:2: allow publish a/#\n"),
        (
            "a/secret",
            "publish",
            no,
            "no: acl:3: deny publish subscribe receive a/secret\n",
        ),
        ("b", "publish", no, "no: no rule allows it\n"),
        (
            "d/dev",
            "receive",
            yes,
            "yes: acl:5: allow subscribe receive d/%c\n",
        ),
        (
            "d/+",
            "subscribe",
            yes,
            "yes: acl:5: allow subscribe receive d/%c\n",
        ),
        ("d/other", "subscribe", no, "no: no rule allows it\n"),
    ] {
        assert_eq!(
            test(topic, action),
            (code, text.to_owned()),
            "{action} {topic}"
        );
    }
    assert_eq!(test("a/#/b", "subscribe").0, 2);

    let checked = run(directory.path(), &["acl", "check", "acl"], "");
    let text = String::from_utf8(checked.stdout).unwrap();
    assert!(text.starts_with("acl:4: can never match: "), "{text}");
    std::fs::write(directory.path().join("acl"), "user anna\ntopics a\n").unwrap();
    let checked = run(directory.path(), &["acl", "check", "acl"], "");
    assert_eq!(checked.status.code(), Some(2));
    let text = String::from_utf8(checked.stderr).unwrap();
    let expected = "acl:2: unknown word \"topics\"; expected user, topic or pattern\n";
    assert_eq!(text, format!("mqtt-broker: {expected}"));
    let roles = "[roles.a]\npublish = [\"x\",\n  \"a/#/b\"]\n";
    std::fs::write(directory.path().join("acl.toml"), roles).unwrap();
    let checked = run(directory.path(), &["acl", "check", "acl.toml"], "");
    let text = String::from_utf8(checked.stderr).unwrap();
    assert!(
        text.starts_with("mqtt-broker: acl.toml:3: topic \"a/#/b\""),
        "{text}"
    );
}
