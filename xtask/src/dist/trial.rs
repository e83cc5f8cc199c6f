//! The Debian packages on this machine: installed, the broker started by the command of its unit, a
//! message sent through it, upgraded, and purged without a trace.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::PROGRAMS;
use crate::{install, process::Running, step::execute};

/// How long the broker may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the package of the broker installs for people to change.
const CONFIGURATION: &str = "/etc/mqtt-broker/broker.toml";
/// What systemd makes for it, and a purge removes.
const DATA: &str = "/var/lib/mqtt-broker";

/// Whether this machine lets packages be installed, and has none of them.
pub(super) fn is_possible() -> bool {
    let root = Path::new("/root").read_dir().is_ok();
    root && install::find("dpkg").is_some() && !is_anything_installed()
}

fn is_anything_installed() -> bool {
    Path::new(CONFIGURATION).exists()
        || Path::new(DATA).exists()
        || PROGRAMS.iter().any(|(_, package)| is_installed(package))
}

fn is_installed(package: &str) -> bool {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

/// Installs `first`, upgrades to `second`, purges.
pub(super) fn run(first: &[PathBuf], second: &[PathBuf], unit: &Path) -> Result<()> {
    ensure!(
        !is_anything_installed(),
        "a package of the project, its configuration or its data is on this machine already"
    );
    let outcome = go(first, second, unit);
    if outcome.is_err() {
        // Nothing stays behind in the end, whatever went wrong.
        let _ = purge();
        let _ = fs::remove_dir_all(DATA);
    }
    outcome
}

fn go(first: &[PathBuf], second: &[PathBuf], unit: &Path) -> Result<()> {
    execute(Command::new("dpkg").arg("-i").args(first))?;
    for (program, package) in PROGRAMS {
        ensure!(is_installed(package), "{package} is not installed");
        for path in [
            format!("/usr/bin/{program}"),
            format!("/usr/share/man/man1/{program}.1.gz"),
            format!("/usr/share/bash-completion/completions/{program}"),
            format!("/usr/share/doc/{package}/copyright"),
        ] {
            ensure!(Path::new(&path).is_file(), "{package} lacks {path}");
        }
    }
    // As a person would: what it listens on is changed, and must survive the upgrade.
    let mut configuration = fs::OpenOptions::new().append(true).open(CONFIGURATION)?;
    configuration.write_all(b"\n[[listener]]\naddress = \"127.0.0.1:0\"\n")?;
    drop(configuration);
    let changed = fs::read_to_string(CONFIGURATION)?;
    fs::create_dir_all(DATA)?;
    start_by_hand(unit).context("the command of the unit")?;

    execute(Command::new("dpkg").arg("-i").args(second))?;
    ensure!(
        fs::read_to_string(CONFIGURATION)? == changed,
        "the upgrade changed {CONFIGURATION}"
    );
    start_by_hand(unit).context("the command of the unit after the upgrade")?;
    // Removed, it keeps configuration and data; purged, nothing.
    execute(
        Command::new("dpkg")
            .arg("-r")
            .args(PROGRAMS.map(|(_, package)| package)),
    )?;
    ensure!(
        Path::new(CONFIGURATION).is_file() && Path::new(DATA).is_dir(),
        "removing the package took its configuration or data"
    );
    purge()?;
    for path in [
        "/etc/mqtt-broker",
        DATA,
        "/usr/bin/mqtt-broker",
        "/usr/bin/mqtt-client",
        "/lib/systemd/system/mqtt-broker.service",
        "/usr/lib/systemd/system/mqtt-broker.service",
    ] {
        ensure!(!Path::new(path).exists(), "{path} is left after the purge");
    }
    println!("the packages install, start, upgrade and purge");
    Ok(())
}

fn purge() -> Result<()> {
    execute(
        Command::new("dpkg")
            .arg("-P")
            .args(PROGRAMS.map(|(_, package)| package)),
    )
}

/// The words of the unit's ExecStart.
fn command_of(unit: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(unit)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let words: Vec<_> = line
        .context("no ExecStart")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    ensure!(!words.is_empty(), "an empty ExecStart");
    Ok(words)
}

/// Starts the broker as the unit does, and has the client of the other package send a message.
fn start_by_hand(unit: &Path) -> Result<()> {
    let words = command_of(unit)?;
    let Some((program, arguments)) = words.split_first() else {
        bail!("no program");
    };
    let mut broker = Running::start(Command::new(program).args(arguments), None)?;
    let deadline = Instant::now() + PATIENCE;
    let port = broker.wait_for(deadline, "a line `listening on tcp://`", |line| {
        let place = line.strip_prefix("listening on tcp://")?;
        place.rsplit_once(':')?.1.trim().parse::<u16>().ok()
    })?;
    execute(
        Command::new("/usr/bin/mqtt-client")
            .args(["doctor", "-h", "127.0.0.1", "-p", &port.to_string()])
            .env_remove("XDG_CONFIG_HOME"),
    )?;
    broker.terminate(Instant::now() + PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_starts_the_installed_program() {
        let root = crate::workspace::root();
        let words = command_of(&root.join(super::super::UNIT)).unwrap();
        assert_eq!(
            words.first().map(String::as_str),
            Some("/usr/bin/mqtt-broker")
        );
        assert!(words.contains(&CONFIGURATION.to_owned()), "{words:?}");
    }
}
