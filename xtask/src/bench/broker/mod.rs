//! `cargo xtask bench broker`: this broker beside Mosquitto, rumqttd and a relay under the same loads, in
//! turn, for several rounds. What counts is the median, and its ratio to Mosquitto in the same run: on a
//! shared machine nothing else holds.

mod load;
mod results;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use self::{
    load::{IDLE_MEMORY, LOADS, Load, START},
    results::Results,
};
use super::{
    generator::{Figures, Programs},
    peer::{self, Peer, Server},
};
use crate::{crash, step::Verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured of each load
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// Only loads whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only this broker: nothing to compare with
    #[arg(long)]
    alone: bool,
    /// Install rumqttd from crates.io where it is missing
    #[arg(long)]
    install_rumqttd: bool,
    /// The cargo profile that broker and generator are built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Where the figures of all runs go [default: bench/broker.json below the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures, prints and compares with the targets.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let mut rumqttd = false;
    if !args.alone {
        peer::install_mosquitto()?;
        rumqttd = peer::find_rumqttd(args.install_rumqttd)?;
    }
    let programs = Programs::build(&args.profile)?;
    let folder = crash::target()?.join("bench");
    fs::create_dir_all(&folder)?;
    let wanted = |load: &&Load| {
        args.only.is_empty()
            || args
                .only
                .iter()
                .any(|text| load.name.contains(text.as_str()))
    };
    let takes_part = |peer: Peer| match peer {
        Peer::Ours | Peer::InMemory => true,
        Peer::Rumqttd => rumqttd,
        Peer::Mosquitto | Peer::Relay => !args.alone,
    };
    let mut results = Results::default();
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for load in LOADS.iter().filter(wanted) {
            for &peer in load.peers.iter().filter(|peer| takes_part(**peer)) {
                let data = folder.join("peer");
                match measure(args, load, peer, &programs, &data) {
                    Ok(figures) => {
                        if let Some(faults) = figures.faults() {
                            println!("  {}: {}: {faults}", load.name, peer.name());
                        }
                        results.add(load, peer, figures);
                    }
                    // Another broker may not do all that a load asks for; ours must.
                    Err(error) => {
                        println!("  {}: {}: {error:#}", load.name, peer.name());
                        results.fail(load, peer);
                    }
                }
            }
            results.print_round(load);
        }
    }
    let file = match &args.json {
        Some(file) => file.clone(),
        None => folder.join("broker.json"),
    };
    fs::write(&file, results.json()?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    println!();
    let verdict = results.judge();
    println!("all figures: {}", file.display());
    Ok(verdict)
}

/// One run of one load on one server, which is started for it.
fn measure(
    args: &Args,
    load: &Load,
    peer: Peer,
    programs: &Programs,
    folder: &std::path::Path,
) -> Result<Figures> {
    let server = Server::start(peer, load.over, programs, folder)?;
    let figures = match load.arguments(args.seconds, args.warmup) {
        Some(mut arguments) => {
            arguments.extend_from_slice(&server.arguments);
            programs.load(&arguments, server.address, Some(server.id()))
        }
        None => server.memory().map(|memory| {
            let mut figures = Figures::default();
            figures.set(START.figure, server.start.as_secs_f64() * 1e3);
            figures.set(IDLE_MEMORY.figure, memory);
            figures
        }),
    };
    server.end();
    figures
}
