//! The commands `mqtt-broker store`: a data directory that no broker uses.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use mqtt_broker::tools::{self, Form};

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
