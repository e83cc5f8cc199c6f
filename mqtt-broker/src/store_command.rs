//! The commands `mqtt-broker store`: a data directory that no broker uses.

use core::time::Duration;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use mqtt_broker::tools::{self, Form, Load};

use crate::args::DurabilityLevel;

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Show the sessions, their queues and totals.
    Inspect {
        #[command(flatten)]
        place: Place,

        /// Write one JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Write everything as JSON lines, for a backup or another broker.
    Export {
        #[command(flatten)]
        place: Place,

        /// Where to; without it, standard output. The file is replaced when all is written.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read what `export` wrote into a directory that is empty or does not exist: all of it or nothing.
    Import {
        #[command(flatten)]
        place: Place,

        /// Where from; without it, standard input.
        #[arg(value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Copy what is live to a new store, which takes the place of the old one.
    Compact {
        #[command(flatten)]
        place: Place,
    },
    /// Measure how many messages a second the disk takes, with a store of its own that is removed at the end.
    Bench {
        #[command(flatten)]
        place: Place,

        #[command(flatten)]
        load: BenchLoad,
    },
}

#[derive(Debug, Args)]
pub(crate) struct BenchLoad {
    /// Messages of a commit; repeat for commits of several sizes, each with its share.
    #[arg(long, value_name = "MESSAGES[:SHARE]", default_value = "100", value_parser = parse_commit)]
    commit: Vec<(usize, u64)>,

    /// Bytes of a message.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(..=MESSAGE))]
    payload: u32,

    /// How long.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,

    /// What a commit waits for.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "disk")]
    durability: DurabilityLevel,
}

/// Messages of a commit, and bytes of a message, that are measured at most.
const COMMIT: usize = 100_000;
const MESSAGE: i64 = 1_000_000;

fn parse_commit(text: &str) -> Result<(usize, u64), String> {
    let (size, share) = text.split_once(':').unwrap_or((text, "1"));
    let size = size.parse().ok().filter(|size| (1..=COMMIT).contains(size));
    let size = size.ok_or_else(|| format!("1 to {COMMIT} messages"))?;
    let share: u32 = share.parse().map_err(|_| "a share is a number")?;
    Ok((size, share.into()))
}

impl BenchLoad {
    fn run(&self, place: &Place, out: &mut dyn Write) -> Result<()> {
        if self.durability == DurabilityLevel::Memory {
            bail!("--durability memory: there is no disk to measure");
        }
        let mut load = Load::default();
        load.commits.clone_from(&self.commit);
        load.payload = self.payload as usize;
        load.time = Duration::from_secs(self.seconds.into());
        load.durability = self.durability.into();
        let taken = tools::measure(&place.data_dir, &load)?;
        let seconds = taken.time.as_secs_f64();
        writeln!(out, "commits: {}", taken.commits)?;
        writeln!(out, "messages: {}", taken.messages)?;
        writeln!(out, "seconds: {seconds:.3}")?;
        writeln!(
            out,
            "messages a second: {:.0}",
            taken.messages as f64 / seconds
        )?;
        if let Some(processor) = taken.processor {
            writeln!(out, "processor seconds: {:.2}", processor.as_secs_f64())?;
        }
        out.flush()?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "./mqtt-data")]
    data_dir: PathBuf,
}

impl StoreCommand {
    pub(crate) fn run(&self) -> Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        match self {
            Self::Inspect { place, json } => {
                let form = if *json { Form::Json } else { Form::Table };
                tools::inspect(&place.data_dir, form, &mut out)?;
            }
            Self::Export { place, output } => match output {
                Some(file) => export_to(&place.data_dir, file)?,
                None => tools::export(&place.data_dir, &mut out)?,
            },
            Self::Import { place, input } => match input {
                Some(file) => {
                    let opened = File::open(file);
                    let opened =
                        opened.with_context(|| format!("cannot open {}", file.display()))?;
                    tools::import(&place.data_dir, &mut BufReader::new(opened))
                        .with_context(|| file.display().to_string())?;
                }
                None => tools::import(&place.data_dir, &mut io::stdin().lock())?,
            },
            Self::Compact { place } => {
                let sizes = tools::compact(&place.data_dir)?;
                writeln!(out, "{} bytes before, {} after", sizes.before, sizes.after)?;
                out.flush()?;
            }
            Self::Bench { place, load } => load.run(place, &mut out)?,
        }
        Ok(())
    }
}

/// Writes beside the file first: an earlier export stays until this one is on the disk.
fn export_to(data_dir: &Path, file: &Path) -> Result<()> {
    let mut name = file
        .file_name()
        .context("--output names no file")?
        .to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let written = (|| {
        let mut out = BufWriter::new(File::create(&part).map_err(tools::ToolError::Write)?);
        tools::export(data_dir, &mut out)?;
        out.get_ref().sync_all().map_err(tools::ToolError::Write)?;
        std::fs::rename(&part, file).map_err(tools::ToolError::Write)
    })();
    if written.is_err() {
        // What went wrong is told; this is only tidying up.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| file.display().to_string())
}
