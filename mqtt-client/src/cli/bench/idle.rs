//! The loads `connect` and `idle`: many connections, and what they cost when nothing happens.

use std::time::Duration;

use mqtt_codec::QoS;

use super::clock::Clock;
use super::engine::{Engine, Ready};
use super::meter::Meter;
use super::report::{Figures, percentiles};
use super::setup::{self, Outcome, Setup};
use super::{Bench, Failed};

/// How many connections, and how they are opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) connections: usize,
    /// How many are opened at once.
    pub(super) concurrency: usize,
    /// How long the broker is left alone before its memory is read.
    pub(super) settle: Duration,
}

/// Opens connections and keeps them: CONNECT to CONNACK, and with `subscribe` a filter each.
fn open(
    bench: &Bench,
    engine: &mut Engine,
    options: Options,
    subscribe: bool,
) -> Result<Outcome, Failed> {
    let setup = Setup {
        server: bench.server,
        identity: &bench.identity,
        qos: QoS::AtMostOnce,
        concurrency: options.concurrency,
        stop: &bench.stop,
    };
    let prefix = &bench.prefix;
    let describe = |number: usize| {
        let filters = match subscribe {
            true => vec![format!("{prefix}/idle/{number}/state")],
            false => Vec::new(),
        };
        (format!("c{number}"), filters)
    };
    let outcome = setup.open(engine, options.connections, Clock::start(), describe)?;
    if outcome.interrupted && outcome.opened.is_empty() {
        return Err(Failed::new("nothing was measured yet"));
    }
    Ok(outcome)
}

/// The cost of CONNECT and CONNACK.
pub(super) fn connect(bench: &Bench, options: Options) -> Result<Figures, Failed> {
    let mut engine = Engine::new(&bench.transport)?;
    let meter = Meter::start(&bench.processes);
    let outcome = open(bench, &mut engine, options, false)?;
    let reading = meter.read();
    let connected = outcome.opened.len() as u64;
    let mut figures = Figures::new(bench);
    figures.count("connections", options.connections as u64);
    figures.count("connected", connected);
    figures.account("failed", outcome.failed, true);
    figures.usage(&reading, "connect", connected);
    figures.number("connects_per_s", connected as f64 / outcome.seconds);
    figures.number(
        "rss_kib_per_connection",
        reading.broker.rss_growth as f64 / 1024.0 / connected as f64,
    );
    percentiles(&mut figures, "latency", &outcome.latency);
    figures.failures(&outcome.failures);
    figures.interrupted(bench);
    setup::leave(&mut engine, &bench.identity);
    Ok(figures)
}

/// The memory of connections with one subscription each, and the cost of having them.
pub(super) fn idle(bench: &Bench, options: Options) -> Result<Figures, Failed> {
    let mut engine = Engine::new(&bench.transport)?;
    let meter = Meter::start(&bench.processes);
    let outcome = open(bench, &mut engine, options, true)?;
    let opening = meter.read();
    bench.stop.sleep(options.settle);
    let settled = meter.read();
    // The time in which nothing happens has not begun.
    let was_cut_short = bench.stop.status().is_some();
    let quiet = Meter::start(&bench.processes);
    bench.stop.sleep(bench.duration);
    let quiet = quiet.read();
    let mut ready: Vec<Ready> = Vec::new();
    let broken = engine.broken;
    engine.wait(Some(Duration::ZERO), &mut ready)?;
    for event in ready.iter().filter(|event| event.readable) {
        engine.read(event.token, |_, _, _| {});
    }
    let connected = outcome.opened.len() as u64;
    let kib = |bytes: i64| bytes as f64 / 1024.0 / connected as f64;
    let mut figures = Figures::new(bench);
    figures.count("connections", options.connections as u64);
    figures.count("connected", connected);
    figures.account("failed", outcome.failed, true);
    figures.account("gone", engine.broken - broken, true);
    figures.usage(&opening, "connect", connected);
    figures.number("connects_per_s", connected as f64 / outcome.seconds);
    figures.number("rss_kib_per_connection", kib(settled.broker.rss_growth));
    if !was_cut_short {
        figures.number(
            "rss_kib_per_connection_later",
            kib(settled.broker.rss_growth + quiet.broker.rss_growth),
        );
        figures.number("idle_s", quiet.seconds);
        figures.number(
            "idle_cpu_percent",
            quiet.broker.cpu as f64 / 1e7 / quiet.seconds,
        );
    }
    figures.failures(&outcome.failures);
    figures.failures(&engine.failures);
    figures.interrupted(bench);
    setup::leave(&mut engine, &bench.identity);
    Ok(figures)
}
