//! This project's client beside mosquitto's programs: the same arguments, and the same output and exit code.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    ours::{MOSQUITTO, started},
    stage::{Door, Stage},
};

/// What a client is given, in seconds; it is ended then.
const PATIENCE: &str = "30";

/// Retained messages that the rows below receive: the arguments of mosquitto_pub.
const RETAINED: [&[&str]; 4] = [
    &["-t", "beside/a", "-m", "hello", "-q", "1"],
    &[
        "-t",
        "beside/b",
        "-m",
        "{\"x\":1.50,\"y\":[null,true]}",
        "-V",
        "5",
        "-D",
        "publish",
        "content-type",
        "text/x",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "publish",
        "user-property",
        "k2",
        "v2",
        "-D",
        "publish",
        "correlation-data",
        "cd",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
        "-D",
        "publish",
        "response-topic",
        "rt",
    ],
    &["-t", "beside/c", "-m", "é\t\"q\"\\"],
    &["-t", "beside/d", "-m", "0123456789", "-q", "2"],
];

/// Formats of `-F`, each tried on a message with properties in both versions.
const FORMATS: [&str; 20] = [
    "%t %p",
    "%q %r %l %m",
    "%x",
    "%X",
    "%10t|%-10t|%.3t",
    "%05l|%-5l|%5l",
    "%-8p|",
    "%10p|",
    "%3p|",
    "%40p|",
    "%C|%D|%E|%F|%P|%R|%S|%A",
    "\\0\\a\\e\\n\\r\\t\\v\\\\",
    "%%",
    "@@@Y",
    "%8x|%-12x|%012X",
    "%z",
    "%",
    "\\q",
    "@",
    "%20C|%-20C|%.2C",
];

/// The program, its arguments and its input.
type Row = (&'static str, &'static [&'static str], &'static str);

/// What has the same output and exit code; each row ends by itself.
const ROWS: &[Row] = &[
    ("sub", &["-t", "beside/#", "-C", "4", "-v"], ""),
    ("sub", &["-t", "beside/#", "-C", "2", "-N"], ""),
    (
        "sub",
        &["-t", "beside/a", "-t", "beside/b", "-C", "2", "-v"],
        "",
    ),
    (
        "sub",
        &["-t", "beside/#", "-T", "beside/a", "-C", "3", "-v"],
        "",
    ),
    ("sub", &["-t", "beside/#", "-R", "-W", "1"], ""),
    (
        "sub",
        &["-t", "beside/#", "--retained-only", "-C", "4", "-q", "2"],
        "",
    ),
    ("sub", &["-t", "beside/#", "-E"], ""),
    ("sub", &["-t", "beside/#", "-U", "other", "-C", "4"], ""),
    (
        "sub",
        &[
            "-t",
            "beside/a",
            "-C",
            "1",
            "-V",
            "5",
            "--retain-as-published",
            "-F",
            "%r",
        ],
        "",
    ),
    (
        "sub",
        &[
            "-t",
            "beside/a",
            "-C",
            "1",
            "-D",
            "subscribe",
            "subscription-identifier",
            "5",
            "-F",
            "%S",
        ],
        "",
    ),
    ("sub", &["-t", "beside/a", "-C", "1", "-A", "127.0.0.1"], ""),
    ("sub", &["-t", "beside/a", "-C", "1", "-F", "%j"], ""),
    ("sub", &["-t", "beside/b", "-C", "1", "-F", "%J"], ""),
    (
        "sub",
        &["-t", "beside/c", "-C", "1", "-F", "%j", "--pretty"],
        "",
    ),
    (
        "sub",
        &["-t", "beside/a", "-C", "1", "-i", "beside", "-c", "-q", "1"],
        "",
    ),
    (
        "sub",
        &[
            "-t",
            "x",
            "-W",
            "1",
            "--will-topic",
            "w",
            "--will-payload",
            "x",
            "-V",
            "5",
        ],
        "",
    ),
    ("sub", &[], ""),
    ("sub", &["-t", "a/#/b"], ""),
    ("sub", &["-t", "x", "-q", "3"], ""),
    ("sub", &["-t", "x", "-V", "9"], ""),
    ("sub", &["-t", "x", "-C", "0"], ""),
    ("sub", &["-t", "x", "-k", "2"], ""),
    ("sub", &["-t", "x", "-c"], ""),
    ("sub", &["-t", "x", "-x", "-2"], ""),
    ("sub", &["-t", "x", "-i", "a", "-I", "b"], ""),
    ("sub", &["-t", "x", "-P", "x"], ""),
    ("sub", &["-t", "x", "--bogus"], ""),
    ("sub", &["-t", "x", "--cafile", "/nonexistent"], ""),
    ("sub", &["-t", "x", "--unix", "/nonexistent"], ""),
    ("sub", &["-t", "x", "--will-payload", "x"], ""),
    (
        "sub",
        &["-t", "x", "-D", "subscribe", "content-type", "x"],
        "",
    ),
    (
        "sub",
        &["-t", "x", "-D", "bogus", "user-property", "a", "b"],
        "",
    ),
    ("sub", &["-L", "foo://x/y"], ""),
    ("pub", &["-t", "x", "-m", "y"], ""),
    ("pub", &["-t", "x", "-n"], ""),
    ("pub", &["-t", "x", "-s"], "abc"),
    ("pub", &["-t", "x", "-s"], ""),
    ("pub", &["-t", "x", "-l", "-q", "1"], "a\nb"),
    ("pub", &["-t", "x", "-f", "/nonexistent"], ""),
    ("pub", &["-t", "x/#", "-m", "y"], ""),
    ("pub", &["-t", "x", "-m", "y", "-n"], ""),
    (
        "pub",
        &[
            "-t",
            "x",
            "-m",
            "y",
            "--repeat",
            "2",
            "--repeat-delay",
            "0.1",
            "-q",
            "2",
        ],
        "",
    ),
    ("pub", &["-t", "x", "-m", "y", "--repeat", "0"], ""),
    (
        "pub",
        &[
            "-t",
            "x",
            "-m",
            "y",
            "-V",
            "5",
            "-q",
            "1",
            "-D",
            "publish",
            "message-expiry-interval",
            "9",
        ],
        "",
    ),
    (
        "pub",
        &[
            "-t",
            "x",
            "-m",
            "y",
            "-D",
            "connect",
            "receive-maximum",
            "0",
        ],
        "",
    ),
    ("pub", &["-t", "x", "-m", "y", "-D"], ""),
    ("rr", &["-t", "rr", "-e", "rr", "-m", "z"], ""),
    (
        "rr",
        &["-t", "rr", "-e", "rr", "-m", "z", "-v", "-V", "311"],
        "",
    ),
    (
        "rr",
        &["-t", "rr", "-e", "rr", "-m", "z", "-F", "%t %p %R"],
        "",
    ),
    ("rr", &["-t", "rr", "-e", "rr", "-n", "-v"], ""),
    (
        "rr",
        &["-t", "nobody", "-e", "rr", "-m", "z", "-W", "1"],
        "",
    ),
    ("rr", &["-t", "x", "-e", "y"], ""),
    ("rr", &["-t", "x", "-m", "y"], ""),
    ("rr", &["-t", "x", "-e", "y/#", "-m", "z"], ""),
];

/// At Mosquitto and at this project's broker.
pub(super) fn check(stage: &Stage, program: &Path) -> Result<()> {
    let (_broker, ports) = started(1, |ports| {
        let port = ports.first().context("no port")?;
        let path = stage.folder.join("beside.conf");
        let text = format!("allow_anonymous true\nuser root\nlistener {port} 127.0.0.1\n");
        fs::write(&path, text)?;
        let mut command = Command::new(MOSQUITTO);
        command.arg("-c").arg(&path);
        Ok(command)
    })?;
    let foreign = *ports.first().context("no port")?;
    for port in [foreign, stage.address(Door::Plain)?.port] {
        let port = port.to_string();
        let place = ["-h", "127.0.0.1", "-p", &port];
        let home = stage.folder.join("no-such-folder");
        let both = |tool: &str, arguments: &[&str], input: &str| -> Result<()> {
            let arguments = [&place[..], arguments].concat();
            let theirs = outcome(
                Path::new(&format!("mosquitto_{tool}")),
                &arguments,
                input,
                &home,
            )?;
            let ours = outcome(program, &[&[tool], &arguments[..]].concat(), input, &home)?;
            ensure!(
                theirs == ours,
                "{tool} {arguments:?}: mosquitto's program gives {theirs:?}, this one {ours:?}"
            );
            Ok(())
        };
        for message in RETAINED {
            let arguments = [&place[..], &["-r"], message].concat();
            let (status, _) = outcome(Path::new("mosquitto_pub"), &arguments, "", &home)?;
            ensure!(status == Some(0), "mosquitto_pub {message:?}: {status:?}");
        }
        for format in FORMATS {
            for version in ["311", "5"] {
                let arguments = ["-t", "beside/b", "-C", "1", "-V", version, "-F", format];
                both("sub", &arguments, "")?;
            }
        }
        for (tool, arguments, input) in ROWS {
            both(tool, arguments, input)?;
        }
    }
    Ok(())
}

/// Exit code and standard output, without the time of arrival and the usage that mosquitto's may print there.
fn outcome(
    program: &Path,
    arguments: &[&str],
    input: &str,
    home: &Path,
) -> Result<(Option<i32>, String)> {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE).arg(program).args(arguments);
    command.env("XDG_CONFIG_HOME", home).env("TZ", "UTC");
    for name in ["MQTT_HOST", "MQTT_PORT", "MQTT_USERNAME", "MQTT_PASSWORD"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| program.display().to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        use std::io::Write as _;
        // Who refuses the arguments does not read.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text: String = output.stdout.escape_ascii().to_string();
    let text = match text.split_once("tst") {
        Some((before, rest)) => {
            let after = rest.split_once(',').map_or("", |(_, after)| after);
            format!("{before}{after}")
        }
        None => text,
    };
    Ok((output.status.code(), text))
}
