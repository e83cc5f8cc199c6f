//! Users and permissions: a broker with a password file of mosquitto_passwd and mosquitto's kind of permissions, and
//! mosquitto's clients as its users.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{broker::Broker, peer::Address};
use crate::install::{self, NotInstalled};

/// The name that `--case` selects this by.
const NAME: &str = "users: mosquitto -> mosquitto";
/// What a client is given, in seconds; it is ended then.
const PATIENCE: &str = "30";

const ACL: &str = "\
user anna
topic write up/#
topic read down/#

user ben
topic read up/#
topic write down/#

pattern readwrite own/%u/#
";

/// Whether `--case` and `--peer` leave this.
pub(super) fn is_selected(cases: &[String], peers: &[String]) -> bool {
    let named = cases.is_empty() || cases.iter().any(|text| NAME.contains(text.as_str()));
    named && (peers.is_empty() || peers.iter().any(|peer| peer == "mosquitto"))
}

/// Sees to it that mosquitto's programs are there.
pub(super) fn prepare() -> Result<(), NotInstalled> {
    install::apt("mosquitto_pub", "mosquitto-clients")?;
    install::apt("mosquitto_passwd", "mosquitto")
}

/// Runs the checks against the program.
pub(super) fn run(program: &PathBuf, folder: &Path) -> Result<()> {
    let folder = folder.join("users");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (passwords, acl) = (folder.join("passwords"), folder.join("acl"));
    fs::write(&acl, ACL)?;
    fs::write(&passwords, "")?;
    for user in ["anna", "ben"] {
        let password = format!("{user} secret");
        let added = Command::new("mosquitto_passwd")
            .arg("-b")
            .arg(&passwords)
            .args([user, &password])
            .output()?;
        ensure!(added.status.success(), "mosquitto_passwd: {added:?}");
    }
    let mut command = Command::new(program);
    command.arg("--password-file").arg(&passwords);
    command.arg("--acl-file").arg(&acl);
    let broker = Broker::start_with(command)?;
    let checked = check(&broker.address);
    broker.stop()?;
    checked
}

fn check(address: &Address) -> Result<()> {
    for version in ["31", "311", "5"] {
        let publish = |user: &str, password: &str, rest: &[&str]| -> Result<Output> {
            let mut command = client("mosquitto_pub", address, version, user, password);
            command.args(["-q", "1", "-r"]).args(rest);
            command.output().context("mosquitto_pub")
        };
        let kept = |user: &str, expected: &str| -> Result<()> {
            let password = format!("{user} secret");
            let mut command = client("mosquitto_sub", address, version, user, &password);
            // It ends when nothing has come for a while.
            command.args(["-t", "#", "-v", "-W", "2"]);
            let output = command.output().context("mosquitto_sub")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            let lines = lines.join(", ");
            ensure!(
                lines == expected,
                "{version}: {user} got {lines:?}, expected {expected:?}"
            );
            Ok(())
        };
        for (user, password, topic, works) in [
            ("anna", "anna secret", "up/1", true),
            ("ben", "ben secret", "down/1", true),
            ("anna", "anna secret", "own/anna/1", true),
            ("anna", "anna secret", "own/ben/1", false),
            ("anna", "anna secret", "down/2", false),
        ] {
            let output = publish(user, password, &["-t", topic, "-m", version])?;
            // Only 5.0 tells a client that its message was denied; the program then says so, and ends well.
            let warned = !output.stderr.is_empty() || !output.stdout.is_empty();
            ensure!(output.status.success(), "{version}: {user}: {output:?}");
            ensure!(
                works || version != "5" || warned,
                "{version}: {user} was not told that {topic} is denied"
            );
        }
        for (user, password) in [
            ("anna", "ben secret"),
            ("carl", "carl secret"),
            ("anna", ""),
        ] {
            let output = publish(user, password, &["-t", "up/2", "-m", "no"])?;
            ensure!(!output.status.success(), "{version}: {user} was let in");
        }
        kept("anna", &format!("down/1 {version}, own/anna/1 {version}"))?;
        kept("ben", &format!("up/1 {version}"))?;
    }
    Ok(())
}

fn client(program: &str, address: &Address, version: &str, user: &str, password: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, program]);
    // A person's option files and variables must not change what is tested.
    for variable in ["MQTT_HOST", "MQTT_PORT", "MQTT_USERNAME", "MQTT_PASSWORD"] {
        command.env_remove(variable);
    }
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::null());
    command.args(["-h", &address.host, "-p", &address.port.to_string()]);
    command.args(["-V", version, "-u", user, "-P", password]);
    command
}
