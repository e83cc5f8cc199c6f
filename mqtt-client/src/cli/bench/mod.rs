//! `bench`: a load generator that is cheap enough not to be the limit, and that accounts for every
//! message. One thread drives all connections through the codec alone; nothing of the client library
//! is in the way.

mod account;
mod args;
mod channel;
mod churn;
mod clock;
mod engine;
mod idle;
mod ledger;
mod load;
mod meter;
mod pace;
mod progress;
mod publisher;
mod relay;
mod report;
mod retained;
mod setup;
mod stop;
#[cfg(test)]
mod tests;
mod traffic;
mod wire;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mqtt_codec::QoS;

pub(crate) use self::args::BenchArgs;
use self::args::LoadName;
use self::channel::Transport;
use self::load::{Load, Shape};
use self::report::Figures;
use self::stop::Stop;
use self::wire::Identity;
use super::Failure;
use super::colours::Colours;

/// The largest payload, in bytes.
const LARGEST_PAYLOAD: usize = 16 << 20;
/// Messages a second of the load `latency`.
const SPARSE: f64 = 2000.0;
/// Changes a second of the load `churn`, of each kind.
const CHURN: f64 = 1000.0;
/// Files that a process has besides its connections.
const OTHER_FILES: usize = 32;

/// How the figures are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Text,
    Json,
    Csv,
}

/// What all loads are run with.
#[derive(Debug)]
pub(super) struct Bench {
    load: &'static str,
    label: Option<String>,
    server: SocketAddr,
    transport: Transport,
    identity: Identity,
    prefix: String,
    qos: QoS,
    payload: usize,
    duration: Duration,
    warmup: Duration,
    /// The broker's processes, if they are to be measured.
    processes: Vec<u32>,
    quiet: bool,
    /// Set where a signal came and the load is to end.
    stop: Stop,
}

/// A run that came to no figures.
#[derive(Debug)]
pub(super) struct Failed(String);

impl Failed {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Runs a load and prints what it found. A fault of the broker is a failure, after the figures.
pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    let message = |failed: Failed| Failure::Message(format!("Error: {}", failed.0));
    let output = match (args.json, args.csv) {
        (true, _) => Output::Json,
        (_, true) => Output::Csv,
        _ => Output::Text,
    };
    let server = resolve(&args.host, args.port).map_err(message)?;
    if args.load == LoadName::Relay {
        return relay::serve(server, args.fault).map_err(message);
    }
    let target = args.output.clone();
    let stop = Stop::on_signals().map_err(|error| message(error.into()))?;
    let figures = match (measure(args, server, &stop), stop.status()) {
        (Ok(figures), _) => figures,
        (Err(failed), None) => return Err(message(failed)),
        (Err(failed), Some(status)) => {
            eprintln!("Interrupted: {}", failed.0);
            return Err(Failure::Told(status));
        }
    };
    let is_shown = output == Output::Text && target.is_none() && io::stdout().is_terminal();
    let text = match is_shown {
        true => figures.table(Colours::of_stdout()),
        false => figures.format(output),
    };
    let written = match target {
        Some(file) => std::fs::write(&file, text)
            .map_err(|error| Failed::new(format!("{}: {error}", file.display()))),
        None => io::stdout()
            .write_all(text.as_bytes())
            .map_err(Failed::from),
    };
    written.map_err(message)?;
    if figures.is_good() {
        stop.status()
            .map_or(Ok(()), |status| Err(Failure::Interrupted(status)))
    } else {
        Err(Failure::Message(format!(
            "Error: the broker did not do all it should: {}",
            figures.faults()
        )))
    }
}

fn measure(args: BenchArgs, server: SocketAddr, stop: &Stop) -> Result<Figures, Failed> {
    let mut transport = Transport::default();
    if let Some(cafile) = &args.cafile {
        transport = transport.with_tls(&args.host, cafile)?;
    }
    if args.ws || args.ws_path.is_some() {
        let path = args.ws_path.as_deref().unwrap_or("/mqtt");
        transport = transport.with_websocket(server, path, args.version);
    }
    let bench = Bench {
        load: args.load.name(),
        label: args.label,
        server,
        transport,
        identity: Identity {
            version: args.version,
            keep_alive: args.keepalive,
            username: args.username,
            password: args.password.map(OsString::into_encoded_bytes),
            prefix: args
                .id_prefix
                .unwrap_or_else(|| format!("b{}", std::process::id())),
            lasting: args.lasting,
        },
        prefix: args.prefix,
        qos: match args.load {
            LoadName::Queue => args.qos.max(QoS::AtLeastOnce),
            _ => args.qos,
        },
        payload: args.payload,
        duration: args.seconds,
        warmup: args.warmup,
        processes: args.broker_pid,
        quiet: args.quiet,
        stop: stop.clone(),
    };
    let traffic = traffic::Options {
        window: args.window,
        burst: args.burst,
        rate: args
            .rate
            .or((args.load == LoadName::Latency).then_some(SPARSE)),
        open_loop: args.open_loop,
        count: args.count,
        held: args.held,
        drain: args.drain,
    };
    let connections = |default| idle::Options {
        connections: args.connections.unwrap_or(default),
        concurrency: args.concurrency,
        settle: args.settle,
    };
    let (shape, default) = match args.load {
        LoadName::Connect => {
            let options = connections(5000);
            allow_files(options.connections)?;
            return idle::connect(&bench, options);
        }
        LoadName::Idle => {
            let options = connections(10_000);
            allow_files(options.connections)?;
            return idle::idle(&bench, options);
        }
        LoadName::Churn => return churn::run(&bench, args.rate.unwrap_or(CHURN)),
        LoadName::Retained | LoadName::Queue => {
            let options = retained::Options {
                messages: args.retained,
                filter: args.filter,
                store_only: args.store_only,
                queue: args.load == LoadName::Queue,
                window: traffic.window.unwrap_or(match bench.qos {
                    QoS::AtMostOnce => 200,
                    _ => 20,
                }),
            };
            return retained::run(&bench, &options);
        }
        LoadName::Fanout => (Shape::Fanout, 100),
        LoadName::Fanin => (Shape::Fanin, 100),
        LoadName::Shared => (Shape::Shared, 10),
        LoadName::Wild => (Shape::Wild, 10),
        LoadName::P2p | LoadName::Latency | LoadName::Relay => (Shape::Pairs, 10),
    };
    let number = args.number.unwrap_or(default);
    let subscribers = match shape {
        Shape::Shared => args.members,
        _ => number,
    };
    let load = Load::new(shape, number, subscribers, &bench.prefix, args.background);
    allow_files(load.publishers + load.subscribers + args.held / 1000 + 1)?;
    traffic::run(&bench, load, &traffic)
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failed> {
    let mut addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| Failed::new(format!("{host}: {error}")))?;
    addresses
        .next()
        .ok_or_else(|| Failed::new(format!("{host} has no address")))
}

/// Raises the limit of open files, as far as that is allowed, to what this many connections need.
#[cfg(unix)]
fn allow_files(connections: usize) -> Result<(), Failed> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let needed = (connections + OTHER_FILES) as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = match limit.maximum {
            Some(maximum) => Some(needed.min(maximum)),
            None => Some(needed),
        };
        if limit.current < Some(needed) || setrlimit(Resource::Nofile, limit).is_err() {
            return Err(Failed::new(format!(
                "{connections} connections need {needed} open files, and fewer are allowed"
            )));
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn allow_files(_: usize) -> Result<(), Failed> {
    Ok(())
}
