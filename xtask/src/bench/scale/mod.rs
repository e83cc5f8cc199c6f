//! `cargo xtask bench scale`: what a message costs and what memory is taken as the work grows in one
//! direction: connections, sessions without sockets, subscribers of a topic, subscriptions, retained topics, queued
//! messages; and what becomes of it while subscriptions and clients come and go. Plotted to an SVG.

mod plot;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use self::plot::{Chart, Point};
use super::{
    generator::{Figures, Programs, median},
    peer::{Over, Peer, Server},
};
use crate::{crash, step::Verdict, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each point is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds that are measured of each point
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The largest number of each direction, to leave the longest runs out
    #[arg(long, default_value_t = 1_000_000)]
    most: usize,
    /// Only directions whose name contains this; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// The cargo profile that broker and generator are built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Where the plot goes [default: bench/scale.svg below the target folder]; the figures go beside it
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// A direction in which the work grows.
struct Direction {
    name: &'static str,
    sizes: &'static [usize],
    work: Work,
}

/// What is done at a size.
enum Work {
    /// A load on a broker.
    Load(Load),
    /// Clients on streams in memory, in the process of the broker: there is no limit of sockets.
    Streams,
}

struct Load {
    peer: Peer,
    /// What is done to the broker before it is measured.
    before: fn(usize) -> Option<String>,
    /// The load that is measured.
    load: fn(usize) -> String,
    /// A load beside that one.
    beside: fn(usize) -> Option<String>,
}

/// Pairs of publishers and subscribers, and nothing else.
const PAIRS: Load = Load {
    peer: Peer::Ours,
    before: |_| None,
    load: |_| "p2p".to_owned(),
    beside: |_| None,
};

const DIRECTIONS: [Direction; 7] = [
    Direction {
        name: "connections",
        sizes: &[10, 100, 1_000, 10_000],
        work: Work::Load(Load {
            load: |size| format!("p2p --number {}", size / 2),
            ..PAIRS
        }),
    },
    Direction {
        name: "sessions on streams in memory",
        sizes: &[1_000, 10_000, 100_000, 1_000_000],
        work: Work::Streams,
    },
    Direction {
        name: "subscribers of one topic",
        sizes: &[1, 10, 100, 1_000, 10_000],
        work: Work::Load(Load {
            load: |size| format!("fanout --number {size}"),
            ..PAIRS
        }),
    },
    Direction {
        name: "subscriptions",
        sizes: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
        work: Work::Load(Load {
            load: |size| format!("p2p --held {}", size.saturating_sub(10)),
            ..PAIRS
        }),
    },
    Direction {
        name: "retained topics",
        sizes: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
        work: Work::Load(Load {
            peer: Peer::InMemory,
            before: |size| Some(format!("retained --store-only --retained {size}")),
            ..PAIRS
        }),
    },
    Direction {
        name: "queued messages",
        sizes: &[0, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
        work: Work::Load(Load {
            before: |size| {
                (size > 0).then(|| format!("queue -q 1 --window 1000 --retained {size}"))
            },
            ..PAIRS
        }),
    },
    Direction {
        name: "subscriptions and clients a second",
        sizes: &[0, 10, 100, 1_000],
        work: Work::Load(Load {
            beside: |size| (size > 0).then(|| format!("churn --rate {size}")),
            ..PAIRS
        }),
    },
];

/// What a message may cost under churn, in what it costs without, at most.
const CHURN: f64 = 2.0;

/// One point of a direction.
struct Measured {
    size: usize,
    /// Microseconds of processor time for a delivered message.
    cost: f64,
    /// Resident memory, in KiB.
    memory: f64,
    faults: Option<String>,
}

/// Measures, prints and plots.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let programs = Programs::build(&args.profile)?;
    let folder = crash::target()?.join("bench");
    fs::create_dir_all(&folder)?;
    let svg = match &args.svg {
        Some(file) => file.clone(),
        None => folder.join("scale.svg"),
    };
    let wanted = |direction: &&Direction| {
        args.only.is_empty()
            || args
                .only
                .iter()
                .any(|text| direction.name.contains(text.as_str()))
    };
    let mut verdict = Verdict::Passed;
    let mut charts = Vec::new();
    let mut figures = Vec::new();
    for direction in DIRECTIONS.iter().filter(wanted) {
        println!("{}", direction.name);
        let mut points = Vec::new();
        for &size in direction.sizes.iter().filter(|size| **size <= args.most) {
            let measured = measure(
                &direction.work,
                size,
                args,
                &programs,
                &folder.join("scale"),
            )
            .with_context(|| format!("{}, {size}", direction.name))?;
            println!(
                "  {size:>8}  {:>8.3} us a message  {:>8.1} MiB{}",
                measured.cost,
                measured.memory / 1024.0,
                match &measured.faults {
                    Some(faults) => format!("  FAULTS: {faults}"),
                    None => String::new(),
                }
            );
            if measured.faults.is_some() {
                verdict = Verdict::Failed;
            }
            points.push(measured);
        }
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let growth = last.cost / first.cost;
            println!("  {growth:.2} times the cost of the first at the last");
            if matches!(&direction.work, Work::Load(load) if (load.beside)(last.size).is_some()) {
                let met = growth <= CHURN;
                println!("  {CHURN} at most: {}", if met { "met" } else { "MISSED" });
                if !met {
                    verdict = Verdict::Failed;
                }
            }
        }
        figures.extend(points.iter().map(|point| {
            json!({
                "direction": direction.name, "size": point.size, "cpu_us_per_message": point.cost,
                "rss_kib": point.memory, "faults": point.faults,
            })
        }));
        charts.push(Chart {
            title: direction.name.to_owned(),
            points: points
                .iter()
                .map(|point| Point {
                    size: point.size as f64,
                    cost: point.cost,
                    memory: point.memory / 1024.0,
                })
                .collect(),
        });
    }
    fs::write(&svg, plot::svg(&charts))
        .with_context(|| format!("cannot write {}", svg.display()))?;
    let file = svg.with_extension("json");
    fs::write(&file, serde_json::to_string_pretty(&figures)?)?;
    println!(
        "plotted to {}, figures in {}",
        svg.display(),
        file.display()
    );
    Ok(verdict)
}

/// Measures one point, a new broker each time.
fn measure(
    work: &Work,
    size: usize,
    args: &Args,
    programs: &Programs,
    folder: &Path,
) -> Result<Measured> {
    let (mut costs, mut memories) = (Vec::new(), Vec::new());
    let mut faults = None;
    for _ in 0..args.rounds {
        let (figures, [cost, memory]) = match work {
            Work::Load(load) => (
                under_load(load, size, args.seconds, programs, folder, &mut faults)?,
                ["broker_cpu_us_per_message", "broker_rss_kib"],
            ),
            Work::Streams => (
                on_streams(size, args.seconds)?,
                ["cpu_us_per_message", "rss_kib"],
            ),
        };
        faults = faults.or(figures.faults());
        let number = |name: &str| figures.number(name).with_context(|| format!("no {name}"));
        costs.push(number(cost)?);
        memories.push(number(memory)?);
    }
    Ok(Measured {
        size,
        cost: median(costs).context("no rounds")?,
        memory: median(memories).context("no rounds")?,
        faults,
    })
}

/// A broker in a process of its own; `faults` takes those of the loads before and beside.
fn under_load(
    load: &Load,
    size: usize,
    seconds: f64,
    programs: &Programs,
    folder: &Path,
    faults: &mut Option<String>,
) -> Result<Figures> {
    let server = Server::start(load.peer, Over::Tcp, programs, folder)?;
    let (address, process) = (server.address, server.id());
    let run = move |line: &str, seconds: Option<f64>| -> Result<Figures> {
        let mut arguments: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        if let Some(seconds) = seconds {
            arguments.extend(["--seconds".to_owned(), seconds.to_string()]);
        }
        programs.load(&arguments, address, Some(process))
    };
    if let Some(line) = (load.before)(size) {
        let figures = run(&line, None)?;
        *faults = faults.take().or(figures.faults());
    }
    let figures = thread::scope(|scope| {
        // It lasts longer than warm-up, measurement and drain of the load beside it.
        let beside =
            (load.beside)(size).map(|line| scope.spawn(move || run(&line, Some(seconds + 4.0))));
        let figures = run(&(load.load)(size), Some(seconds));
        if let Some(beside) = beside {
            let beside = beside.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            *faults = faults.take().or(beside.faults());
        }
        figures
    })?;
    server.end();
    Ok(figures)
}

/// The broker as a library, in the process of a benchmark.
fn on_streams(size: usize, seconds: f64) -> Result<Figures> {
    let mut command = workspace::cargo();
    command.args(["bench", "--locked", "--quiet", "--package", "ternmq-broker"]);
    command.args(["--bench", "streams", "--", &size.to_string()]);
    command.arg(seconds.max(1.0).round().to_string());
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the benchmark failed");
    Figures::parse(&output.stdout).context("the benchmark printed no figures")
}
