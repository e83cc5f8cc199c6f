//! The options of both commands.

use super::*;

fn parse_all(arguments: &[&str]) -> Result<Parsed, UsageError> {
    parse(arguments.iter().map(OsString::from).collect())
}

fn publish(arguments: &[&str]) -> Result<PubArgs, String> {
    match parse_all(&[&["pub"], arguments].concat()) {
        Ok(Parsed::Command(Command::Pub(args))) => Ok(*args),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.0),
    }
}

fn subscribe(arguments: &[&str]) -> Result<SubArgs, String> {
    match parse_all(&[&["sub"], arguments].concat()) {
        Ok(Parsed::Command(Command::Sub(args))) => Ok(*args),
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => Err(error.0),
    }
}

#[test]
fn clap_accepts_the_definition() {
    definition().debug_assert();
}

#[test]
fn host_and_version_have_mosquittos_letters() {
    let args = publish(&[
        "-h", "::1", "-V", "mqttv5", "-t", "a", "-m", "x", "-p", "1884",
    ])
    .unwrap();
    assert_eq!(args.common.host.as_deref(), Some("::1"));
    assert_eq!(args.common.version, Some(ProtocolVersion::V5));
    assert_eq!(args.common.port, Some(1884));
    for (text, version) in [
        ("31", ProtocolVersion::V3_1),
        ("mqttv31", ProtocolVersion::V3_1),
        ("3.1", ProtocolVersion::V3_1),
        ("311", ProtocolVersion::V3_1_1),
        ("mqttv311", ProtocolVersion::V3_1_1),
        ("3.1.1", ProtocolVersion::V3_1_1),
        ("5", ProtocolVersion::V5),
    ] {
        let args = subscribe(&["-V", text, "-t", "a"]).unwrap();
        assert_eq!(args.common.version, Some(version), "{text}");
    }
    assert!(publish(&["-V", "4"]).is_err());
}

#[test]
fn values_may_look_like_options() {
    let args = publish(&["-t", "-a", "-m", "-r", "-i", "--id"]).unwrap();
    assert_eq!(args.topic.as_deref(), Some("-a"));
    assert_eq!(args.payload.message, ["-r"]);
    assert_eq!(args.common.id.as_deref(), Some("--id"));
    assert!(!args.retain);
    assert_eq!(publish(&["-m", ""]).unwrap().payload.message, [""]);
}

#[test]
fn the_last_of_a_repeated_option_counts() {
    let args = publish(&["-t", "a", "-t", "b", "-q", "1", "-q", "2", "-r", "-r"]).unwrap();
    assert_eq!(args.topic.as_deref(), Some("b"));
    assert_eq!(args.common.qos, QoS::ExactlyOnce);
    let args = subscribe(&["-t", "a", "-t", "b", "-T", "c", "-T", "d", "-U", "e"]).unwrap();
    assert_eq!(args.topics, ["a", "b"]);
    assert_eq!(args.filter_out, ["c", "d"]);
    assert_eq!(args.unsubscribe, ["e"]);
}

#[test]
fn properties_take_two_or_three_values() {
    let args = publish(&[
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "--property",
        "connect",
        "receive-maximum",
        "5",
        "-t",
        "a",
    ])
    .unwrap();
    assert_eq!(
        args.common.properties,
        [
            "publish\0user-property\0k\0v",
            "connect\0receive-maximum\x005"
        ]
    );
    assert_eq!(args.topic.as_deref(), Some("a"));
}

#[test]
fn session_expiry_has_words_for_ever() {
    for (text, seconds) in [
        ("-1", u32::MAX),
        ("∞", u32::MAX),
        ("0", 0),
        ("4294967294", u32::MAX - 1),
    ] {
        assert_eq!(
            publish(&["-x", text]).unwrap().common.session_expiry,
            Some(seconds)
        );
    }
    for text in ["-2", "zz", "4294967296"] {
        assert!(publish(&["-x", text]).is_err(), "{text}");
    }
}

#[test]
fn mistakes_are_refused() {
    for arguments in [
        &["-q", "3"][..],
        &["-t", "a/+"],
        &["-t", ""],
        &["-m", "x", "-n"],
        &["-k", "2"],
        &["-p", "70000"],
        &["--zz"],
        &["-m"],
        &["-i", "a", "-I", "b"],
        &["--repeat", "0"],
        &["--repeat-delay", "-1"],
        &["--will-payload", "x"],
        &["--will-retain"],
        &["--will-topic", "a/#"],
        &["--psk", "00"],
        &["--cert", "x"],
        &["--key", "x"],
        &["--tls-version", "tlsv1.1"],
        &["--keyform", "engine", "--cert", "x", "--key", "y"],
        &["-v"],
    ] {
        assert!(publish(arguments).is_err(), "{arguments:?}");
    }
    for arguments in [
        &["-t", "a#"][..],
        &["-T", "a#"],
        &["-C", "0"],
        &["-W", "0"],
        &["-C", "x"],
        &["-m", "x"],
        &["-r"],
        &["--retain-handling", "perhaps"],
        &["--random-filter", "0"],
        &["-w", "--message-rate"],
    ] {
        assert!(subscribe(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn rr_has_the_options_of_both() {
    let arguments = [
        "rr",
        "-t",
        "a",
        "-e",
        "b",
        "-m",
        "x",
        "-W",
        "3",
        "-F",
        "%p",
        "--latency",
    ];
    let Ok(Parsed::Command(Command::Rr(args))) = parse_all(&arguments) else {
        panic!("not understood");
    };
    assert_eq!(args.response_topic.as_deref(), Some("b"));
    assert_eq!(args.timeout, Some(3));
    assert!(args.latency);
    for arguments in [
        &["rr", "-e", "a/+"][..],
        &["rr", "-l"],
        &["rr", "-r"],
        &["rr", "-C", "1"],
        &["rr", "-m", "x", "-n"],
    ] {
        assert!(parse_all(arguments).is_err(), "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_texts() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["pub", "--help"],
        &["sub", "--version"],
    ] {
        assert!(
            matches!(parse_all(arguments), Ok(Parsed::Text(text)) if text.contains("mqtt-client"))
        );
    }
    assert!(parse_all(&[]).is_err());
    assert!(parse_all(&["bogus"]).is_err());
}

/// Of a URL and the options that it stands for, the later one counts.
#[test]
fn what_stands_behind_a_url_is_known() {
    let after = |arguments: &[&str]| {
        let args = publish(&[&["-m", "x"], arguments].concat()).unwrap();
        args.common.after_url
    };
    let url = ["-L", "mqtt://h/t"];
    let more = ["-h", "g", "-p", "5", "-u", "n", "-P", "w", "-t", "s"];
    let all = AfterUrl {
        host: true,
        port: true,
        username: true,
        password: true,
        topic: true,
    };
    assert_eq!(after(&[&url[..], &more].concat()), all);
    assert_eq!(after(&[&more[..], &url].concat()), AfterUrl::default());
    assert_eq!(after(&more), AfterUrl::default());
    let twice = [&["-t", "a"], &url[..], &["-t", "b"]].concat();
    let topic = AfterUrl {
        topic: true,
        ..AfterUrl::default()
    };
    assert_eq!(after(&twice), topic);
}
