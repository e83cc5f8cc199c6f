//! Who a client is, each way of showing it driven by a client of others: tokens, a service that is asked by HTTP,
//! SCRAM-SHA-256, and certificates by name, by alternative name and after they are revoked.

mod certificates;
mod scram;
mod service;
mod stage;
mod tokens;

use std::{path::Path, process::Output};

use anyhow::{Context, Result, ensure};

use self::stage::Stage;
use super::{
    peer::{Kind, Peer},
    transports::{
        Tally,
        mosquitto::{Subscriber, VERSIONS, client, publish},
    },
};
use crate::install::{self, NotInstalled};

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Tokens,
    Expiry,
    Service,
    Scram,
    Names,
    Revoked,
}

const CHECKS: [(&str, Check); 6] = [
    ("mosquitto with tokens", Check::Tokens),
    ("mosquitto with a token that ends", Check::Expiry),
    ("mosquitto and a service asked by HTTP", Check::Service),
    ("mqtt.js with SCRAM-SHA-256", Check::Scram),
    ("mosquitto with certificates by DN and by SAN", Check::Names),
    (
        "mosquitto and openssl with a revoked certificate",
        Check::Revoked,
    ),
];

/// The full name of a check, that `--case` selects by.
fn full_name(name: &str) -> String {
    format!("identities: {name}")
}

/// The names of the checks that are selected.
pub(super) fn select(cases: &[String], peers: &[String]) -> Vec<&'static str> {
    let selected = CHECKS.iter().filter(|(name, _)| {
        let full = full_name(name);
        let named = cases.is_empty() || cases.iter().any(|text| full.contains(text.as_str()));
        let among = |peer: &String| name.starts_with(peer.as_str());
        named && (peers.is_empty() || peers.iter().any(among))
    });
    selected.map(|(name, _)| *name).collect()
}

/// Prints what [`run`] would run.
pub(super) fn list(selected: &[&'static str]) {
    for name in selected {
        println!("{}", full_name(name));
    }
}

/// Runs the selected checks against a broker of their own.
pub(super) fn run(
    selected: &[&'static str],
    program: &Path,
    folder: &Path,
    peers: &'static [Peer],
) -> Tally {
    let mut tally = Tally::default();
    let mut ready = Vec::new();
    for (name, check) in CHECKS {
        if !selected.contains(&name) {
            continue;
        }
        match prepare(check, peers) {
            Ok(()) => ready.push((name, check)),
            Err(missing) => {
                let name = full_name(name);
                println!("COULD NOT INSTALL {missing}: {name} is not run");
                tally.left_out += 1;
                tally.lacks_tools |= check != Check::Scram;
            }
        }
    }
    if ready.is_empty() {
        return tally;
    }
    let outcome = Stage::new(program, folder).and_then(|mut stage| {
        for (name, check) in &ready {
            match run_one(*check, &mut stage, peers) {
                Ok(()) => {
                    println!("{}: passed", full_name(name));
                    tally.passed += 1;
                }
                Err(error) => {
                    println!("FAILED {}\n    {error:#}", full_name(name));
                    tally.failed += 1;
                }
            }
        }
        stage.stop()
    });
    if let Err(error) = outcome {
        println!("FAILED identities: the broker: {error:#}");
        tally.failed += 1;
    }
    tally
}

fn mqtt_js(peers: &'static [Peer]) -> Option<&'static Peer> {
    peers.iter().find(|peer| peer.name == "mqtt.js")
}

/// Sees to it that what a check needs is there.
fn prepare(check: Check, peers: &'static [Peer]) -> Result<(), NotInstalled> {
    install::apt("openssl", "openssl")?;
    install::apt("mosquitto_sub", "mosquitto-clients")?;
    match (check, mqtt_js(peers)) {
        (Check::Scram, Some(peer)) => peer.prepare(),
        (Check::Scram, None) => Err(NotInstalled::new("mqtt.js", "not known")),
        _ => Ok(()),
    }
}

fn run_one(check: Check, stage: &mut Stage, peers: &'static [Peer]) -> Result<()> {
    match check {
        Check::Tokens => tokens::check(stage),
        Check::Expiry => tokens::check_expiry(stage),
        Check::Service => service::check(stage),
        Check::Scram => match mqtt_js(peers).map(|peer| &peer.kind) {
            Some(Kind::Library(library)) => scram::check(stage, library),
            _ => anyhow::bail!("no MQTT.js"),
        },
        Check::Names => certificates::check_names(stage),
        Check::Revoked => certificates::check_revoked(stage),
    }
}

/// The codes with which a client may be refused: that of 3.1 and 3.1.1, and that of 5.0, both of which mosquitto's
/// programs end with.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    v3: i32,
    v5: i32,
}

/// Bad user name or password.
const UNKNOWN: Refusal = Refusal { v3: 4, v5: 0x86 };
/// The server is unavailable.
const UNAVAILABLE: Refusal = Refusal { v3: 3, v5: 0x88 };

/// In every version: whoever comes this way is `user`, who may use the topics of that name, and none else.
fn let_in(way: &[String], user: &str) -> Result<()> {
    for version in VERSIONS {
        let own = format!("own/{user}/{version}");
        let mut subscriber = Subscriber::new(way, version, &own, 1)?;
        publish(way, version, &own, "own", &[])?;
        subscriber.expect(&own, "own")?;
        subscriber.end()?;
        denied(way, version, "own/somebody else")?;
    }
    Ok(())
}

/// The topic may neither be subscribed to nor, as a client of 5.0 is told, published to.
fn denied(way: &[String], version: &str, topic: &str) -> Result<()> {
    let run = |program: &str, more: &[&str]| -> Result<Output> {
        let mut command = client(program, way, version);
        command.args(["-q", "1", "-t", topic]).args(more);
        command.output().context("mosquitto's client")
    };
    let said = |output: &Output, text: &str| {
        String::from_utf8_lossy(&output.stderr).contains(text)
            || String::from_utf8_lossy(&output.stdout).contains(text)
    };
    let output = run("mosquitto_sub", &[])?;
    ensure!(
        said(&output, "All subscription requests were denied"),
        "{version}: it subscribed to {topic}: {output:?}"
    );
    let output = run("mosquitto_pub", &["-m", "denied"])?;
    ensure!(
        version != "5" || said(&output, "Not authorized"),
        "it was not told that {topic} is denied: {output:?}"
    );
    Ok(())
}

/// In every version: whoever comes this way is refused, with the code of the version.
fn refused(way: &[String], refusal: Refusal, why: &str) -> Result<()> {
    for version in VERSIONS {
        let mut command = client("mosquitto_pub", way, version);
        command.args(["-t", "refused", "-m", "refused"]);
        let output = command.output().context("mosquitto_pub")?;
        let expected = if version == "5" {
            refusal.v5
        } else {
            refusal.v3
        };
        ensure!(
            output.status.code() == Some(expected),
            "{why}, version {version}: {output:?}, and {expected} was expected"
        );
    }
    Ok(())
}

/// A way with a name and a password.
fn with(way: &[String], user: &str, password: &str) -> Vec<String> {
    let mut way = way.to_vec();
    way.extend(["-u", user, "-P", password].map(str::to_owned));
    way
}
