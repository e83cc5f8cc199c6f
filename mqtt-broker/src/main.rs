//! The program `mqtt-broker`: the library with a command line, signals and a log.
#![deny(unsafe_code)]

mod args;
mod auth_commands;
mod log;
mod manual;
mod plan;
mod serve;
mod store_command;
mod supervisor;
mod watch;

use core::fmt::Display;
use core::time::Duration;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::Result;
use clap::Parser;
use mqtt_broker::settings::{Loaded, import_mosquitto};
use tracing::level_filters::LevelFilter;

use crate::args::{Args, Command, ImportCommand, LogFormat};
use crate::plan::Plan;

/// Messages are allocated by one thread and freed by another, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a reader of standard error that stalls may hold the broker up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(problem) = args.problem() {
        complain(problem);
        return ExitCode::from(BAD_USAGE);
    }
    let done = match &args.command {
        Some(Command::Check { config }) => return check(config),
        Some(Command::Import {
            from: ImportCommand::Mosquitto { file },
        }) => import(file).map(|()| ExitCode::SUCCESS),
        Some(Command::Store { command }) => {
            let _writer = log::to_standard_error(LevelFilter::WARN, LogFormat::Text);
            command.run().map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Completions { shell }) => manual::completions(*shell),
        Some(Command::Man { directory }) => manual::pages(directory),
        Some(Command::Passwd(command)) => command.run(),
        Some(Command::Acl { command }) => command.run(),
        None => run(args).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

fn run(args: Args) -> Result<()> {
    let plan = Plan::make(&args)?;
    let log = log::to_standard_error(plan.log_level, plan.log_format);
    for warning in &plan.warnings {
        tell(format_args!("{warning}\n"));
    }
    serve::serve(Arc::new(args), plan, &log)
}

/// Writes the translation of a mosquitto.conf.
fn import(file: &Path) -> Result<()> {
    let imported = import_mosquitto(file)?;
    std::io::stdout().write_all(imported.toml.as_bytes())?;
    for note in &imported.notes {
        tell(format_args!("{note}\n"));
    }
    Ok(())
}

/// Tells what is wrong or odd about a configuration.
fn check(file: &Path) -> ExitCode {
    let mut warnings = Vec::new();
    let checked = Loaded::read(file).and_then(|loaded| {
        loaded.authority()?;
        loaded.look_at_permissions(&mut warnings);
        loaded.look_at_services(&mut warnings);
        loaded.look_at_secrets(&mut warnings);
        loaded.prepare(&mut warnings)
    });
    for warning in &warnings {
        tell(format_args!("{warning}\n"));
    }
    match checked {
        Ok(listeners) => {
            let _ = writeln!(
                std::io::stdout(),
                "{}: no mistakes, {} warnings, {} listeners",
                file.display(),
                warnings.len(),
                listeners.len()
            );
            ExitCode::SUCCESS
        }
        Err(problem) => {
            tell(format_args!("{problem}\n"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// Writes to standard error, which may be closed: that is no reason to stop.
fn tell(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// The same, without waiting long for whoever reads it.
pub(crate) fn tell_in_time(text: String) {
    let (done, told) = mpsc::channel();
    std::thread::spawn(move || {
        tell(text);
        let _ = done.send(());
    });
    let _ = told.recv_timeout(PATIENCE);
}

fn complain(problem: impl Display) {
    tell(format_args!("mqtt-broker: {problem}\n"));
}
