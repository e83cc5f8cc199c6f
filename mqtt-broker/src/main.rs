//! The program `mqtt-broker`: the library with a command line, signals and a log.
#![deny(unsafe_code)]

mod args;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use mqtt_broker::{Broker, Config, Listener};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{Args, LogFormat};

/// Messages are allocated by one thread and freed by another, which this allocator is good at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for bad usage or configuration.
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(problem) = args.problem() {
        eprintln!("mqtt-broker: {problem}");
        return ExitCode::from(BAD_USAGE);
    }
    log_to_standard_error(&args);
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mqtt-broker: {error:#}");
            ExitCode::from(BAD_USAGE)
        }
    }
}

fn log_to_standard_error(args: &Args) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::default().add_directive(args.log_level.into()))
        .with_target(false);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

#[tokio::main]
async fn serve(args: &Args) -> Result<()> {
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

    let broker = Broker::new(Config::default());
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
            _ = report.recv() => eprint!("{}", counters.report()),
        }
    }
    eprint!("{}", counters.report());
    Ok(())
}
