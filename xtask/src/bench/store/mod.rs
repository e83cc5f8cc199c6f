//! `cargo xtask bench store`: messages that a stored session takes, acknowledged when they are on the disk,
//! against what the store by itself takes of the same records in commits of the same sizes.

mod broker;
mod load;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

use self::{
    broker::{Commits, Mode, Program},
    load::Done,
};
use crate::{crash, step::Verdict};

/// What the broker takes of what the store alone takes, at least.
const THROUGHPUT: f64 = 0.6;
/// The processor time of the broker for a message, in that of the store alone, at most.
const PROCESSOR: f64 = 2.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each load lasts
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// Measure only what is compared with the store alone
    #[arg(long)]
    brief: bool,
    /// Keep the data here, on the disk that is to be measured [default: below the target folder]
    #[arg(long, value_name = "DIR")]
    folder: Option<std::path::PathBuf>,
    /// The cargo profile that the broker is built with
    #[arg(long, default_value = "release")]
    profile: String,
}

/// The load on the broker in one mode.
struct Measured {
    done: Done,
    /// Of the broker.
    processor: Duration,
    commits: Commits,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.done.acknowledged as f64 / self.done.time.as_secs_f64()
    }

    /// Microseconds for a message.
    fn processor(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / self.done.acknowledged as f64
    }

    fn print(&self, mode: Mode) {
        let commits = self.commits.count() as f64 / self.done.time.as_secs_f64();
        let millis = |permille| self.done.latency(permille).as_secs_f64() * 1e3;
        print!(
            "  {:<22} {:>8.0} messages/s  {:>5.2} us of processor each  PUBACK p50 {:.1} ms, p99 {:.1} ms",
            mode.name(),
            self.rate(),
            self.processor(),
            millis(500),
            millis(990),
        );
        if self.commits.count() > 0 {
            print!(
                "  {commits:.0} commits/s of {:.0} changes",
                self.commits.mean()
            );
        }
        if mode.online() {
            print!("  {} received", self.done.received);
        }
        println!();
    }
}

/// Measures and compares with the targets.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    let program = Program(crash::build(&args.profile)?);
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => crash::target()?.join("bench"),
    };
    fs::create_dir_all(&folder)?;
    let (mut throughput, mut processor) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for mode in Mode::ALL {
            if args.brief && mode != Mode::DISK {
                continue;
            }
            let measured = measure(&program, &folder, args, mode)?;
            measured.print(mode);
            if mode != Mode::DISK {
                continue;
            }
            println!("    {}", measured.commits);
            let alone = program.alone(&folder, &measured.commits, args.payload, args.seconds)?;
            let (rate, each) = (alone.rate(), alone.processor());
            println!(
                "  {:<22} {rate:>8.0} messages/s  {each:>5.2} us of processor each  {:.0} commits/s",
                "the store alone",
                alone.commit_rate()
            );
            throughput.push(measured.rate() / rate);
            processor.push(measured.processor() / each);
        }
    }
    let throughput = median(throughput).context("nothing was measured")?;
    let processor = median(processor).context("nothing was measured")?;
    println!(
        "the broker takes {:.0}% of the store alone (target: {:.0}% at least), with {processor:.2} times its \
         processor time for a message (target: {PROCESSOR:.0} at most)",
        throughput * 100.0,
        THROUGHPUT * 100.0,
    );
    Ok(if throughput >= THROUGHPUT && processor <= PROCESSOR {
        Verdict::Passed
    } else {
        Verdict::Failed
    })
}

fn measure(program: &Program, folder: &Path, args: &Args, mode: Mode) -> Result<Measured> {
    let data = folder.join("data");
    broker::remove(&data)?;
    let mut broker = program.start(&data, mode)?;
    let time = Duration::from_secs(args.seconds);
    let before = broker.processor_time()?;
    let done = load::run(broker.address, args.payload, time, mode.online())?;
    let processor = broker.processor_time()? - before;
    let commits = broker.end()?;
    broker::remove(&data)?;
    Ok(Measured {
        done,
        processor,
        commits,
    })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
