//! The transports, each with a real client: TLS, certificates, sockets in the file system, WebSocket, haproxy, systemd,
//! a browser.

pub(crate) mod certificates;

mod beside;
mod browser;
mod haproxy;
mod libraries;
pub(super) mod mosquitto;
mod ours;
pub(crate) mod stage;
mod systemd;

use std::{ops::Add, path::Path};

use anyhow::{Context, Result, bail};

use self::{
    libraries::{Library, Place},
    stage::{Door, Stage},
};
use super::peer::{Kind, OURS, Peer};
use crate::install::{self, NotInstalled};

/// What a check is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tool {
    Mosquitto,
    /// A client library, by the name of its peer.
    Library(&'static str),
    Haproxy,
    Systemd,
    Microsocks,
    Tinyproxy,
    /// The broker.
    MosquittoBroker,
    /// The broker, and a client library.
    MosquittoAnd(&'static str),
    /// The broker and its clients.
    MosquittoPrograms,
    Chromium,
}

/// What is checked.
#[derive(Debug, Clone, Copy)]
enum Check {
    MosquittoTls,
    MosquittoCertificate,
    MosquittoUnix,
    WebSocket,
    SecureWebSocket,
    Tls,
    Origins,
    Haproxy,
    Systemd,
    Proxy(ours::Kind),
    /// This project's program, through a door of this project's broker.
    Program(Door),
    ToMosquitto,
    LibraryToMosquitto,
    Beside,
    Browser,
}

const CHECKS: [(&str, Tool, Check); 25] = [
    ("mosquitto over TLS", Tool::Mosquitto, Check::MosquittoTls),
    (
        "mosquitto with a certificate",
        Tool::Mosquitto,
        Check::MosquittoCertificate,
    ),
    (
        "mosquitto through a unix socket",
        Tool::Mosquitto,
        Check::MosquittoUnix,
    ),
    (
        "paho over WebSocket",
        Tool::Library("paho"),
        Check::WebSocket,
    ),
    (
        "paho over WebSocket and TLS",
        Tool::Library("paho"),
        Check::SecureWebSocket,
    ),
    ("paho over TLS", Tool::Library("paho"), Check::Tls),
    ("paho of two origins", Tool::Library("paho"), Check::Origins),
    (
        "mqtt.js over WebSocket",
        Tool::Library("mqtt.js"),
        Check::WebSocket,
    ),
    (
        "mqtt.js over WebSocket and TLS",
        Tool::Library("mqtt.js"),
        Check::SecureWebSocket,
    ),
    ("mqtt.js over TLS", Tool::Library("mqtt.js"), Check::Tls),
    (
        "mqtt.js of two origins",
        Tool::Library("mqtt.js"),
        Check::Origins,
    ),
    (
        "haproxy with PROXY v1 and v2",
        Tool::Haproxy,
        Check::Haproxy,
    ),
    (
        "systemd's sockets and notifications",
        Tool::Systemd,
        Check::Systemd,
    ),
    (
        "mqtt-client through SOCKS5 (microsocks)",
        Tool::Microsocks,
        Check::Proxy(ours::Kind::Socks),
    ),
    (
        "mqtt-client through HTTP CONNECT (tinyproxy)",
        Tool::Tinyproxy,
        Check::Proxy(ours::Kind::Http),
    ),
    (
        "mqtt-client over TLS",
        Tool::Mosquitto,
        Check::Program(Door::Tls),
    ),
    (
        "mqtt-client over WebSocket",
        Tool::Mosquitto,
        Check::Program(Door::WebSocket),
    ),
    (
        "mqtt-client over WebSocket and TLS",
        Tool::Mosquitto,
        Check::Program(Door::SecureWebSocket),
    ),
    (
        "mqtt-client to Mosquitto over TLS and WebSocket",
        Tool::MosquittoBroker,
        Check::ToMosquitto,
    ),
    ("ternmq over TLS", Tool::Library(OURS), Check::Tls),
    (
        "ternmq over WebSocket",
        Tool::Library(OURS),
        Check::WebSocket,
    ),
    (
        "ternmq over WebSocket and TLS",
        Tool::Library(OURS),
        Check::SecureWebSocket,
    ),
    (
        "ternmq to Mosquitto over TLS and WebSocket",
        Tool::MosquittoAnd(OURS),
        Check::LibraryToMosquitto,
    ),
    (
        "mqtt-client beside mosquitto's programs",
        Tool::MosquittoPrograms,
        Check::Beside,
    ),
    ("mqtt.js in Chromium", Tool::Chromium, Check::Browser),
];

/// How many checks ended how.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) left_out: usize,
    /// Some are left out for a tool that is no client library.
    pub(super) lacks_tools: bool,
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            left_out: self.left_out + other.left_out,
            lacks_tools: self.lacks_tools || other.lacks_tools,
        }
    }
}

/// The full name of a check, that `--case` selects by.
fn full_name(name: &str) -> String {
    format!("transports: {name}")
}

/// The names of the checks that are selected; those of a browser only where it is asked for.
pub(super) fn select(cases: &[String], peers: &[String], browser: bool) -> Vec<&'static str> {
    let selected = CHECKS.iter().filter(|(name, tool, _)| {
        let full = full_name(name);
        let named = cases.is_empty() || cases.iter().any(|text| full.contains(text.as_str()));
        let among = |peer: &String| name.starts_with(peer.as_str());
        let wanted = *tool != Tool::Chromium || browser;
        named && wanted && (peers.is_empty() || peers.iter().any(among))
    });
    selected.map(|(name, ..)| *name).collect()
}

/// Prints what [`run`] would run.
pub(super) fn list(selected: &[&'static str]) {
    for name in selected {
        println!("{}", full_name(name));
    }
}

impl Tool {
    /// Sees to it that it is there.
    fn prepare(self, peers: &[Peer]) -> Result<(), NotInstalled> {
        install::apt("openssl", "openssl")?;
        install::apt("mosquitto_sub", "mosquitto-clients")?;
        match self {
            Self::Mosquitto => Ok(()),
            Self::Library(name) => prepare_library(name, peers),
            // It is not on everybody's path.
            Self::Haproxy if Path::new(haproxy::PROGRAM).exists() => Ok(()),
            Self::Haproxy => install::debian_package("haproxy", "haproxy"),
            Self::Microsocks => install::apt("microsocks", "microsocks"),
            Self::Tinyproxy => install::apt("tinyproxy", "tinyproxy"),
            Self::MosquittoBroker if Path::new(ours::MOSQUITTO).exists() => Ok(()),
            Self::MosquittoBroker => install::debian_package("mosquitto", "mosquitto"),
            Self::MosquittoAnd(name) => {
                Self::MosquittoBroker.prepare(peers)?;
                prepare_library(name, peers)
            }
            Self::MosquittoPrograms => {
                Self::MosquittoBroker.prepare(peers)?;
                install::apt("mosquitto_rr", "mosquitto-clients")
            }
            Self::Systemd => install::apt("systemd-socket-activate", "systemd"),
            Self::Chromium => {
                prepare_library("mqtt.js", peers)?;
                install::apt("chromium", "chromium")
            }
        }
    }
}

fn prepare_library(name: &str, peers: &[Peer]) -> Result<(), NotInstalled> {
    match peers.iter().find(|peer| peer.name == name) {
        Some(peer) => peer.prepare(),
        None => Err(NotInstalled::new(name, "not known")),
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
    for (name, tool, check) in CHECKS {
        if !selected.contains(&name) {
            continue;
        }
        match tool.prepare(peers) {
            Ok(()) => ready.push((name, tool, check)),
            Err(missing) => {
                println!(
                    "COULD NOT INSTALL {missing}: {} is not run",
                    full_name(name)
                );
                tally.left_out += 1;
                tally.lacks_tools |= !matches!(tool, Tool::Library(_));
            }
        }
    }
    if ready.is_empty() {
        return tally;
    }
    let outcome = Stage::new(program, folder).and_then(|mut stage| {
        for (name, tool, check) in &ready {
            match run_one(*tool, *check, &mut stage, peers) {
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
        println!("FAILED transports: the broker: {error:#}");
        tally.failed += 1;
    }
    tally
}

fn run_one(tool: Tool, check: Check, stage: &mut Stage, peers: &'static [Peer]) -> Result<()> {
    let named = |name| peers.iter().find(|peer: &&Peer| peer.name == name);
    let library = match tool {
        Tool::Library(name) | Tool::MosquittoAnd(name) => named(name).map(Library::new),
        _ => None,
    };
    let program = || match named("mqtt-client").map(|peer| &peer.kind) {
        Some(Kind::Program(program)) => program.path().context("no program"),
        _ => bail!("no mqtt-client"),
    };
    let library = || library.as_ref().context("no library");
    match check {
        Check::MosquittoTls => mosquitto::over_tls(stage),
        Check::MosquittoCertificate => mosquitto::with_certificate(stage),
        Check::MosquittoUnix => mosquitto::through_unix_socket(stage),
        Check::WebSocket => library()?.exchange(&Place::of(stage, Door::WebSocket)?),
        Check::SecureWebSocket => library()?.exchange(&Place::of(stage, Door::SecureWebSocket)?),
        Check::Tls => library()?.exchange(&Place::of(stage, Door::Tls)?),
        Check::Origins => library()?.origins(stage),
        Check::Haproxy => haproxy::check(stage),
        Check::Systemd => systemd::check(stage),
        Check::Proxy(kind) => ours::through_proxy(stage, program()?, kind),
        Check::Program(door) => ours::through_door(stage, program()?, door),
        Check::ToMosquitto => ours::to_mosquitto(stage, program()?),
        Check::LibraryToMosquitto => ours::library_to_mosquitto(stage, library()?),
        Check::Beside => beside::check(stage, program()?),
        Check::Browser => match named("mqtt.js").map(|peer| &peer.kind) {
            Some(Kind::Library(library)) => browser::check(stage, &library.script()),
            _ => bail!("no MQTT.js"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_selected() {
        let some = |cases: &[&str], browser| {
            let cases: Vec<String> = cases.iter().map(|text| (*text).to_owned()).collect();
            select(&cases, &[], browser).len()
        };
        assert_eq!(some(&[], true), CHECKS.len());
        assert_eq!(some(&[], false), CHECKS.len() - 1);
        assert_eq!(some(&["transports: paho"], false), 4);
        assert_eq!(some(&["will: paho"], false), 0);
        assert_eq!(select(&[], &["mosquitto".to_owned()], true).len(), 3);
    }
}
