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

/// `-` is the standard output, as mosquitto_passwd has it: for a new file only.
#[test]
fn a_new_file_may_be_the_standard_output() {
    let directory = TempDir::new().unwrap();
    for (arguments, input) in [
        (&["-c", "-b", "-", "anna", "secret"][..], ""),
        (&["-c", "-H", "sha512-pbkdf2", "-", "anna"], "secret\n"),
    ] {
        let output = run(directory.path(), &[&["passwd"], arguments].concat(), input);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.starts_with("anna:$") && text.lines().count() == 1,
            "{text}"
        );
    }
    for arguments in [
        &["-b", "-", "anna", "secret"][..],
        &["-D", "-", "anna"],
        &["-U", "-"],
    ] {
        let output = run(directory.path(), &[&["passwd"], arguments].concat(), "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--create"), "{said}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// What users of mosquitto_passwd type.
#[test]
fn the_options_of_mosquitto_passwd_are_taken() {
    let directory = TempDir::new().unwrap();
    let passwd = |arguments: &[&str]| {
        let arguments = [&["passwd"], arguments].concat();
        run(directory.path(), &arguments, "")
    };
    let read = || std::fs::read_to_string(directory.path().join("users")).unwrap();
    let users = || -> Vec<String> {
        let text = read();
        let names = text
            .lines()
            .map(|line| line.split_once(':').unwrap().0.to_owned());
        names.collect()
    };
    let done = |arguments: &[&str]| {
        let output = passwd(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    };
    done(&["-c", "-b", "users", "anna", "one"]);
    done(&["-b", "-H", "sha512-pbkdf2", "users", "ben", "two"]);
    assert_eq!(users(), ["anna", "ben"]);
    assert!(read().contains("\nben:$7$"));
    done(&["-cb", "users", "carl", "three"]);
    assert_eq!(users(), ["carl"]);
    done(&["-D", "users", "carl"]);
    assert_eq!(read(), "");

    let own = "# comment\nanna:one\nben:$7$1$YQ==$YQ==\ncarl:$ecret:with:colons\n";
    std::fs::write(directory.path().join("users"), own).unwrap();
    let output = passwd(&["-U", "users"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "users: 2 passwords hashed\n"
    );
    let text = read();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[2]), ("# comment", "ben:$7$1$YQ==$YQ=="));
    assert!(lines[1].starts_with("anna:$argon2id$") && lines[3].starts_with("carl:$argon2id$"));
    done(&["-U", "users"]);
    assert_eq!(read(), text);

    for wrong in ["anna:\n", "anna\n", "anna:$7$x\n"] {
        std::fs::write(directory.path().join("users"), format!("ben:two\n{wrong}")).unwrap();
        let output = passwd(&["-U", "users"]);
        assert_eq!(output.status.code(), Some(2));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("users:2: "), "{errors}");
        assert_eq!(read(), format!("ben:two\n{wrong}"));
    }
    for wrong in [
        &["-b", "users", "anna"][..],
        &["users", "anna", "one"],
        &["-b", "users", "anna", ""],
        &["-U", "users", "anna"],
        &["-D", "-c", "users", "anna"],
        &["users"],
    ] {
        assert_eq!(passwd(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// QoS and retain are asked as well, and the configuration says which file holds.
#[test]
fn permissions_are_those_of_the_configuration() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "acl.toml",
        "[roles.all]\npublish = [{ topic = \"a\", qos = 1, retain = false }]\n\
         subscribe = [{ topic = \"a\", qos = 1 }]\n[users.anna]\nroles = [\"all\"]\n",
    );
    write("closed", "");
    write(
        "broker.toml",
        "[auth]\nacl_file = \"acl.toml\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n\
         [[listener]]\naddress = \"127.0.0.1:2\"\n[listener.auth]\nacl_file = \"closed\"\n\
         [[listener]]\naddress = \"127.0.0.1:3\"\n[listener.auth]\nallow_anonymous = true\n",
    );
    let (yes, no, wrong) = (0, 1, 2);
    for (arguments, code, text) in [
        (&["publish", "--qos", "1"][..], yes, "yes: "),
        (&["publish", "--qos", "2"], no, "no, at QoS 1 at most: "),
        (&["publish", "--retain"], no, "no, not retained: "),
        (&["subscribe", "--qos", "1"], yes, "yes: "),
        (&["subscribe", "--qos", "2"], yes, "yes, at QoS 1: "),
        (&["subscribe", "--retain"], wrong, ""),
        (&["publish", "--qos", "3"], wrong, ""),
        (&["publish", "--listener", "127.0.0.1:1"], yes, "yes: "),
        (&["publish", "--listener", "127.0.0.1:2"], no, "no: "),
        (
            &["publish", "--listener", "127.0.0.1:3", "--qos", "2"],
            yes,
            "yes: without",
        ),
        (&["publish", "--listener", "127.0.0.1:4"], wrong, ""),
        (&["publish", "--acl-file", "closed"], wrong, ""),
    ] {
        let start = ["acl", "test", "--config", "broker.toml", "--user", "anna"];
        let arguments = [&start[..], &["--topic", "a", "--action"], arguments].concat();
        let output = run(directory.path(), &arguments, "");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with(text), "{arguments:?}: {said}");
    }
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
