//! The client of this workspace beside rumqttc and paho-mqtt (C), all against this broker.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    generator::Programs,
    peer::{Over, Peer, Server},
};
use crate::{
    install::{self, NotInstalled},
    process::Running,
    step::{Verdict, execute},
    workspace::{cargo, root},
};

/// How long one measurement may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Round trips of one measurement of latency. One of paho-mqtt above QoS 0 waits for a delayed acknowledgement of TCP, 44 ms.
const ROUND_TRIPS: u32 = 100;
const MODES: [&str; 3] = ["publish", "receive", "echo"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Messages of 64 bytes in one measurement; of 16 KiB, a twentieth of it
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    messages: u32,
    /// How often each is measured, in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only this part (repeatable)
    #[arg(long, value_name = "MODE", value_parser = MODES)]
    only: Vec<String>,
    /// The profile that the broker is built with; the clients are built with release and thin LTO
    #[arg(long, default_value = "release")]
    profile: String,
}

/// What one measurement gave: messages a second and microseconds of processor time for each, or the median
/// and the 99th percentile of round trips in microseconds.
type Figures = [f64; 2];

/// Builds the clients and measures them in turn.
pub(super) fn run(args: &Args) -> Result<Verdict> {
    let programs = Programs::build(&args.profile)?;
    let folder = root().join("target/peers");
    execute(
        cargo()
            .args(["build", "--release", "--bins", "--manifest-path"])
            .arg(root().join("xtask/peers/client/Cargo.toml"))
            .arg("--target-dir")
            .arg(&folder),
    )?;
    let paho = build_paho(&folder)?;
    let mut clients: Vec<(&str, PathBuf)> = vec![
        ("ours", folder.join("release/ours")),
        ("rumqttc", folder.join("release/rumqttc")),
    ];
    match &paho {
        Ok(program) => clients.push(("paho", program.clone())),
        Err(missing) => println!("without paho-mqtt: {missing}"),
    }
    println!(
        "{:<8} {:>3} {:>6}  {}",
        "",
        "QoS",
        "bytes",
        header(&clients)
    );
    for mode in MODES {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == mode) {
            continue;
        }
        for qos in 0..=2 {
            for size in [64, 16 * 1024] {
                let count = match (mode, size) {
                    ("echo", _) => ROUND_TRIPS,
                    (_, 64) => args.messages,
                    _ => args.messages / 20,
                };
                let case = Case {
                    mode,
                    qos,
                    size,
                    count,
                };
                let figures = measure(&case, &clients, args.rounds, &programs, &folder)?;
                println!("{mode:<8} {qos:>3} {size:>6}  {}", row(mode, &figures));
            }
        }
    }
    println!(
        "publish and receive: messages/s, microseconds of processor time for each; echo: p50, p99 in us"
    );
    println!(
        "in brackets: that of ours divided by that of the other, the median of the rounds; below 1 is ahead"
    );
    Ok(match paho {
        Ok(_) => Verdict::Passed,
        Err(_) => Verdict::PassedInPart,
    })
}

/// Compiles the program that uses the C library, from Debian's package of it.
fn build_paho(folder: &Path) -> Result<Result<PathBuf, NotInstalled>> {
    const HEADER: &str = "/usr/include/MQTTAsync.h";
    if !Path::new(HEADER).exists()
        && let Err(missing) = install::debian_package("paho-mqtt", "libpaho-mqtt-dev")
    {
        return Ok(Err(missing));
    }
    let program = folder.join("paho");
    execute(
        Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(root().join("xtask/peers/client/paho.c"))
            .args(["-lpaho-mqtt3a", "-lpthread"]),
    )?;
    Ok(Ok(program))
}

/// What is measured.
struct Case {
    mode: &'static str,
    qos: u32,
    size: u32,
    count: u32,
}

impl Case {
    fn command(&self, program: &Path, mode: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        command.arg(mode);
        let numbers = [u32::from(port), self.qos, self.size, self.count];
        command.args(numbers.map(|number| number.to_string()));
        command
    }
}

/// Measures each client once in each round.
fn measure(
    case: &Case,
    clients: &[(&str, PathBuf)],
    rounds: u32,
    programs: &Programs,
    folder: &Path,
) -> Result<Vec<Vec<Figures>>> {
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); clients.len()];
    let (_, feeder) = clients.first().context("no clients")?;
    for _ in 0..rounds {
        for ((name, program), figures) in clients.iter().zip(&mut all) {
            let server = Server::start(Peer::InMemory, Over::Tcp, programs, &folder.join("data"))?;
            let figure = once(case, program, feeder, server.address.port());
            figures
                .push(figure.with_context(|| format!("{name}, {} QoS {}", case.mode, case.qos))?);
        }
    }
    Ok(all)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

fn once(case: &Case, program: &Path, feeder: &Path, port: u16) -> Result<Figures> {
    let deadline = Instant::now() + PATIENCE;
    let word = |line: &str, word: &str| line.starts_with(word).then(|| line.to_owned());
    // The feeder waits for credits, which only a receiver that has subscribed gives.
    let mut feeding = None;
    if case.mode == "receive" {
        let mut feeder = Running::start(&mut case.command(feeder, "feed", port), None)?;
        feeder.wait_for(deadline, "ready", |line| word(line, "ready"))?;
        feeding = Some(feeder);
    }
    let mut client = Running::start(&mut case.command(program, case.mode, port), None)?;
    let line = client.wait_for(deadline, "a result", |line| {
        word(line, "result").or_else(|| word(line, "latency"))
    })?;
    client.succeed(deadline)?;
    if let Some(mut feeder) = feeding {
        feeder.succeed(deadline)?;
    }
    let numbers: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(numbers.len() == 2, "{line:?} is no result");
    Ok([numbers[0], numbers[1]])
}

fn header(clients: &[(&str, PathBuf)]) -> String {
    clients
        .iter()
        .map(|(name, _)| format!("{name:>26}"))
        .collect()
}

/// The medians of the rounds of each client, and of what ours needs beside another: both of one round, so that what
/// else the machine does weighs little.
fn row(mode: &str, all: &[Vec<Figures>]) -> String {
    // The median of the round trips, or the processor time.
    let compared = usize::from(mode != "echo");
    let ours = all.first().map_or(&[][..], Vec::as_slice);
    all.iter()
        .enumerate()
        .map(|(place, rounds)| {
            let [first, second] =
                [0, 1].map(|figure| median(rounds.iter().map(|round| round[figure]).collect()));
            let ratios = ours.iter().zip(rounds);
            let ratios = ratios.map(|(ours, other)| ours[compared] / other[compared]);
            let ratio = match place {
                0 => "      ".to_owned(),
                _ => format!("({:.2})", median(ratios.collect())),
            };
            format!(" {first:>10.0} {second:>8.2} {ratio}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_one_round() {
        // A machine that is busier from round to round.
        let ours = vec![[100.0, 1.0], [50.0, 2.0], [25.0, 4.0]];
        let other = vec![[50.0, 2.0], [25.0, 4.0], [30.0, 3.0]];
        let text = row("publish", &[ours, other]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words, ["50", "2.00", "30", "3.00", "(0.50)"]);
    }
}
