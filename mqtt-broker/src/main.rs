//! The program `mqtt-broker`: the library with a command line, signals and a log.
#![deny(unsafe_code)]

mod args;
mod auth_commands;
mod store_command;

use core::fmt::Display;
use core::time::Duration;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, Result};
use clap::Parser;
use mqtt_broker::auth::{AuthSettings, Authority};
use mqtt_broker::{Broker, Config, Listener};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command, LogFormat};

/// Messages are allocated by one thread and freed by another, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lines of the log that may wait to be written.
const LOG_LINES: usize = 16_384;

/// How long a reader of standard error that stalls may hold the broker up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut args = Args::parse();
    if let Some(problem) = args.problem() {
        complain(problem);
        return ExitCode::from(BAD_USAGE);
    }
    if args.command.is_some() {
        args.log_level = LevelFilter::WARN;
    }
    // What is logged last is written when this is dropped.
    let _writer = log_to_standard_error(&args);
    let done = match &args.command {
        Some(Command::Store { command }) => command.run().map(|()| ExitCode::SUCCESS),
        Some(Command::Passwd(command)) => command.run(),
        Some(Command::Acl { command }) => command.run(),
        _ => serve(&args).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

/// Writes to standard error, which may be closed: that is no reason to stop.
fn tell(text: impl Display) {
    let _ = write!(std::io::stderr(), "{text}");
}

/// The same, without waiting long for whoever reads it.
fn tell_in_time(text: String) {
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

/// Logs from a thread of its own: who reads slowly, or not at all, does not hold the broker up. Lines that
/// find its queue full are lost.
fn log_to_standard_error(args: &Args) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LOG_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::default().add_directive(args.log_level.into()))
        .with_target(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    guard
}

fn auth_settings(args: &Args) -> AuthSettings {
    let mut settings = AuthSettings::default();
    settings.allow_anonymous = args.allow_anonymous.then_some(true);
    settings.password_file.clone_from(&args.password_file);
    settings.acl_file.clone_from(&args.acl_file);
    settings
}

fn serve(args: &Args) -> Result<()> {
    let runtime = mqtt_broker::runtime().context("cannot start the runtime")?;
    runtime.block_on(serve_until_told(args))
}

async fn serve_until_told(args: &Args) -> Result<()> {
    let mut listeners = Vec::new();
    for address in &args.listen {
        let listener = Listener::tcp(*address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        listeners.push(listener);
    }
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut report = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;

    let mut config = Config::default();
    config.durability = args.durability.into();
    config.stored_window_bytes = args.stored_window;
    config.auth = Authority::load(&auth_settings(args))?;
    let broker = if args.in_memory {
        Broker::new(config)
    } else {
        Broker::open(config, &args.data_dir)?
    };
    let mut out = std::io::stdout();
    for listener in &listeners {
        // A closed standard output is no reason not to serve.
        let _ = writeln!(out, "listening on {listener}");
    }
    let _ = out.flush();

    let counters = broker.counters();
    let serving = broker.run(listeners, async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
    });
    tokio::pin!(serving);
    loop {
        tokio::select! {
            () = &mut serving => break,
            _ = report.recv() => tell_in_time(counters.report()),
        }
    }
    tell_in_time(counters.report());
    Ok(())
}
