//! `cargo xtask crash`: traffic, kill -9 at a random instant, a restart on the same directory, and again;
//! in the end nothing that was promised may be missing.

mod broker;
mod client;
pub(crate) mod disk;
mod journal;
mod judge;
mod publisher;
mod random;
mod retained;
mod subscriber;
mod traffic;
mod wire;

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

pub(crate) use self::broker::{build, target};
use self::{
    broker::{Broker, Program},
    journal::{Failure, Promise},
    random::Random,
    traffic::{RETAINED_FILTER, Traffic},
};
use crate::step::{Verdict, seconds};

/// How many failures of a kind are printed; all of them go to a file.
const SHOWN: usize = 5;
/// One round in so many is preceded by a start that is killed within this time.
const SHORT_LIFE: (usize, Duration) = (3, Duration::from_millis(30));
/// Of every second start: so little that most of what waits is on the disk alone, also for clients that are there.
const WINDOW: usize = 4_000;
/// What a broker that keeps nothing must be caught at.
const FORGOTTEN: [Promise; 3] = [Promise::Lost, Promise::Session, Promise::Retained];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// How often the broker is stopped amid traffic
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Repeats the choices of a run: kill instants, topics, sizes, pauses [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// The longest time from the beginning of traffic to the kill
    #[arg(long, value_name = "SECONDS", default_value_t = 1.5)]
    seconds_per_round: f64,
    /// How a round ends
    #[arg(long, value_enum, default_value_t = Stop::Kill)]
    stop: Stop,
    /// What acknowledgements wait for. With `os` every second start asks for it, so that sessions of both levels meet
    #[arg(long, value_enum, default_value_t = Level::Disk, conflicts_with_all = ["in_memory", "mosquitto"])]
    durability: Level,
    /// Hold only so many bytes of each queue in memory, at every start [default: 4,000 at every second start]
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["in_memory", "mosquitto"])]
    stored_window: Option<usize>,
    /// The cargo profile that the broker is built with
    #[arg(long, default_value = "release")]
    profile: String,
    /// Start the broker with its state in memory: only `--stop cut` can pass
    #[arg(long)]
    in_memory: bool,
    /// Start the broker with its state in memory, and fail where no loss is found
    #[arg(long, conflicts_with_all = ["in_memory", "mosquitto", "stop"])]
    in_memory_must_fail: bool,
    /// Test mosquitto at this path instead, which saves its state at its end and when it is idle
    #[arg(long, value_name = "PATH", conflicts_with = "in_memory")]
    mosquitto: Option<PathBuf>,
}

impl Args {
    /// So many rounds of this broker with a seed of their own.
    pub(crate) fn rounds(rounds: u32) -> Self {
        Self {
            rounds,
            seed: None,
            seconds_per_round: 1.5,
            stop: Stop::Kill,
            durability: Level::Disk,
            stored_window: None,
            profile: "release".to_owned(),
            in_memory: false,
            in_memory_must_fail: false,
            mosquitto: None,
        }
    }

    /// The same with sessions of both levels.
    pub(crate) fn mixed(rounds: u32) -> Self {
        Self {
            durability: Level::Os,
            ..Self::rounds(rounds)
        }
    }

    /// The same of one that keeps nothing, which must be found: with a seed whose rounds are long enough.
    pub(crate) fn forgetful(rounds: u32) -> Self {
        Self {
            seed: Some(1),
            in_memory_must_fail: true,
            ..Self::rounds(rounds)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stop {
    /// SIGKILL
    Kill,
    /// SIGTERM, as an operator would
    Term,
    /// The connections break and the broker goes on
    Cut,
}

/// As `--durability` of the broker takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Disk,
    Os,
}

/// Runs the rounds and judges what the clients saw.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    ensure!(
        (0.0..=3_600.0).contains(&args.seconds_per_round),
        "a round takes up to an hour"
    );
    let seed = args.seed.unwrap_or_else(drawn_seed);
    let programs = match &args.mosquitto {
        Some(path) => [(), ()].map(|()| Program::Mosquitto(path.clone())),
        None => {
            let path = build(&args.profile)?;
            // The second has the first turn: most sessions are made with what it is told.
            let level = (args.durability == Level::Os).then_some("os");
            [(None, None), (Some(WINDOW), level)].map(|(window, durability)| Program::Ours {
                path: path.clone(),
                stored: !args.in_memory && !args.in_memory_must_fail,
                window: args.stored_window.or(window),
                durability,
                tracer: Vec::new(),
            })
        }
    };
    let folder = target()?
        .join("crash")
        .join(format!("{seed}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let failures = rounds(args, seed, &programs, &folder);
    let failures = failures.inspect_err(|_| tell(args, seed, &folder))?;
    report(&failures, &folder)?;
    let passed = if args.in_memory_must_fail {
        let seen = |promise| failures.iter().any(|failure| failure.promise == promise);
        let missed: Vec<Promise> = FORGOTTEN.into_iter().filter(|it| !seen(*it)).collect();
        println!("a broker that keeps nothing; of what it breaks not found: {missed:?}");
        missed.is_empty()
    } else {
        failures.is_empty()
    };
    if passed {
        fs::remove_dir_all(&folder)?;
        Ok(Verdict::Passed)
    } else {
        tell(args, seed, &folder);
        Ok(Verdict::Failed)
    }
}

fn drawn_seed() -> u64 {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanos = time.map_or(0, |time| time.as_nanos() as u64);
    // Short enough to be typed.
    Random::new(nanos).below(1_000_000_000) as u64
}

/// The programs take turns.
fn rounds(args: &Args, seed: u64, programs: &[Program; 2], folder: &Path) -> Result<Vec<Failure>> {
    let mut random = Random::new(seed);
    let mut instants = random.fork();
    let [first, _] = programs;
    let ours = matches!(first, Program::Ours { .. });
    let in_turn = |round: u32| &programs[round as usize % programs.len()];
    let mut traffic = Traffic::new(&mut random, ours);
    let longest = Duration::from_secs_f64(args.seconds_per_round);
    println!("seed {seed}, {} rounds", args.rounds);
    let mut slowest = Duration::ZERO;
    let mut running = None;
    for round in 1..=args.rounds {
        let program = in_turn(round);
        if args.stop == Stop::Kill && instants.once_in(SHORT_LIFE.0) {
            let after = instants.between(Duration::ZERO, SHORT_LIFE.1);
            Broker::start_and_kill(program, folder, after)?;
        }
        let broker = begin(running.take(), program, folder, &mut traffic, round)?;
        slowest = slowest.max(broker.start);
        let until = instants.between(Duration::ZERO, longest);
        traffic.run(broker.address, Instant::now() + until);
        let start = broker.start;
        let verb = match args.stop {
            Stop::Kill => {
                broker.kill()?;
                "killed"
            }
            Stop::Term => {
                broker.terminate()?;
                "terminated"
            }
            Stop::Cut => {
                running = Some(broker);
                "cut"
            }
        };
        traffic.crash();
        println!(
            "seed {seed} round {round:>2}: served after {:>3} ms, {verb} after {:>4} ms; {}",
            start.as_millis(),
            until.as_millis(),
            counts(&traffic)
        );
    }
    let last = args.rounds + 1;
    let broker = begin(running, in_turn(last), folder, &mut traffic, last)?;
    slowest = slowest.max(broker.start);
    let draining = Instant::now();
    traffic.drain(broker.address);
    let drained = seconds(draining.elapsed());
    // The publishers are there no more, so that nothing is live.
    traffic.crash();
    look(&mut traffic, &broker, "in the end")?;
    broker.terminate()?;
    println!(
        "seed {seed} end: drained in {drained}, slowest start {} ms; {}",
        slowest.as_millis(),
        counts(&traffic)
    );
    Ok(judge::judge(&traffic.journal))
}

/// A broker that serves, with its retained values looked at before anybody else is there.
fn begin(
    running: Option<Broker>,
    program: &Program,
    folder: &Path,
    traffic: &mut Traffic,
    round: u32,
) -> Result<Broker> {
    let broker = match running {
        Some(broker) => broker,
        None => Broker::start(program, folder).with_context(|| format!("round {round}"))?,
    };
    look(traffic, &broker, &format!("before round {round}"))?;
    Ok(broker)
}

fn look(traffic: &mut Traffic, broker: &Broker, when: &str) -> Result<()> {
    let owed = traffic.journal.owed_retained();
    let found = retained::look(broker.address, RETAINED_FILTER, owed)
        .with_context(|| format!("retained values {when}"))?;
    traffic.journal.check_retained(&found, when);
    Ok(())
}

fn counts(traffic: &Traffic) -> String {
    let journal = &traffic.journal;
    let sent: usize = journal.sent.iter().map(Vec::len).sum();
    let mut text = format!(
        "{sent} sent, {} acknowledged, {} delivered",
        journal.acknowledged, journal.delivered
    );
    if journal.refused > 0 {
        _ = write!(text, ", {} refused", journal.refused);
    }
    text
}

/// Prints some failures of each kind, and writes all of them to a file.
fn report(failures: &[Failure], folder: &Path) -> Result<()> {
    let mut kinds: BTreeMap<Promise, Vec<&str>> = BTreeMap::new();
    let mut all = String::new();
    for failure in failures {
        kinds
            .entry(failure.promise)
            .or_default()
            .push(&failure.text);
        _ = writeln!(all, "{:?}: {}", failure.promise, failure.text);
    }
    if kinds.is_empty() {
        println!("0 failures");
        return Ok(());
    }
    fs::write(folder.join("failures"), all)?;
    for (promise, texts) in kinds {
        println!("{promise:?}: {}", texts.len());
        for text in texts.iter().take(SHOWN) {
            println!("  {text}");
        }
        if texts.len() > SHOWN {
            println!("  ...");
        }
    }
    Ok(())
}

/// How to run the same again, and where what is left of this run lies.
fn tell(args: &Args, seed: u64, folder: &Path) {
    let mut line = format!(
        "cargo xtask crash --seed {seed} --rounds {} --seconds-per-round {}",
        args.rounds, args.seconds_per_round
    );
    match args.stop {
        Stop::Kill => {}
        Stop::Term => line.push_str(" --stop term"),
        Stop::Cut => line.push_str(" --stop cut"),
    }
    if args.durability == Level::Os {
        line.push_str(" --durability os");
    }
    if let Some(bytes) = args.stored_window {
        _ = write!(line, " --stored-window {bytes}");
    }
    if args.in_memory {
        line.push_str(" --in-memory");
    }
    if args.in_memory_must_fail {
        line.push_str(" --in-memory-must-fail");
    }
    if let Some(path) = &args.mosquitto {
        _ = write!(line, " --mosquitto {}", path.display());
    }
    println!("to repeat: {line}");
    println!("data, log and failures: {}", folder.display());
}
