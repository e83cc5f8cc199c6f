//! The options of `bench`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use mqtt_codec::{ProtocolVersion, QoS, TopicFilter};

use super::relay::Fault;
use crate::cli::args;

/// What the broker is put to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadName {
    /// N publishers to N subscribers, a topic each
    P2p,
    /// One publisher to N subscribers of one topic
    Fanout,
    /// N publishers to one subscriber with a wildcard
    Fanin,
    /// N publishers to a shared group of M members
    Shared,
    /// 10 publishers over 10,000 topics, 40 subscribers with + and #
    Wild,
    /// p2p at a fixed rate
    Latency,
    /// Connections, CONNECT to CONNACK
    Connect,
    /// Connections with a subscription each, left alone
    Idle,
    /// Retained messages stored, then delivered to a new subscriber
    Retained,
    /// Messages of QoS 1 into the queue of a session without a connection, which stays (-I names it)
    Queue,
    /// Subscriptions made and dropped, and clients coming and going, each at a rate
    Churn,
    /// No load: a relay that only copies bytes, for p2p, fanout and latency at QoS 0
    Relay,
}

impl LoadName {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P2p => "p2p",
            Self::Fanout => "fanout",
            Self::Fanin => "fanin",
            Self::Shared => "shared",
            Self::Wild => "wild",
            Self::Latency => "latency",
            Self::Connect => "connect",
            Self::Idle => "idle",
            Self::Retained => "retained",
            Self::Queue => "queue",
            Self::Churn => "churn",
            Self::Relay => "relay",
        }
    }
}

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct BenchArgs {
    /// The load
    #[arg(value_enum)]
    pub(super) load: LoadName,
    /// Host to connect to, or to listen on as a relay
    #[arg(
        short = 'h',
        long,
        value_name = "HOST",
        env = "MQTT_HOST",
        default_value = "127.0.0.1"
    )]
    pub(super) host: String,
    /// Port to connect to, or to listen on as a relay (0 takes a free one)
    #[arg(
        short,
        long,
        value_name = "PORT",
        env = "MQTT_PORT",
        default_value_t = 1883
    )]
    pub(super) port: u16,
    /// Speak TLS, and trust the authorities in this file
    #[arg(long, value_name = "FILE")]
    pub(super) cafile: Option<PathBuf>,
    /// Connect over WebSocket
    #[arg(long)]
    pub(super) ws: bool,
    /// Path of the WebSocket [default: /mqtt]; implies --ws
    #[arg(long, value_name = "PATH")]
    pub(super) ws_path: Option<String>,
    /// Username
    #[arg(short, long, value_name = "NAME", env = "MQTT_USERNAME")]
    pub(super) username: Option<String>,
    /// Password
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        env = "MQTT_PASSWORD",
        hide_env_values = true
    )]
    pub(super) password: Option<OsString>,
    /// Protocol version: 31, 311 or 5
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION", default_value = "311", value_parser = args::version)]
    pub(super) version: ProtocolVersion,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, value_name = "QOS", default_value = "0", value_parser = args::quality)]
    pub(super) qos: QoS,
    /// Keep alive in seconds; no PINGREQ is sent, so let it be longer than the run
    #[arg(short, long, value_name = "SECONDS", default_value_t = 600)]
    pub(super) keepalive: u16,
    /// Connect to sessions that outlive their connections, for a day; -I names them
    #[arg(long)]
    pub(super) lasting: bool,
    /// What client identifiers begin with [default: b and the process id]
    #[arg(short = 'I', long, value_name = "PREFIX")]
    pub(super) id_prefix: Option<String>,
    /// What topics begin with
    #[arg(long, value_name = "TOPIC", default_value = "bench", value_parser = args::topic_name)]
    pub(super) prefix: String,
    /// Bytes of a payload, 20 at least
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = payload)]
    pub(super) payload: usize,
    /// Seconds that are measured
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = args::seconds)]
    pub(super) seconds: Duration,
    /// Seconds of load before that
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = args::seconds)]
    pub(super) warmup: Duration,
    /// Publishers (p2p, fanin, shared, latency) or subscribers (fanout) [default: 10; 100 in a fan]
    #[arg(short, long, value_name = "N", value_parser = clients)]
    pub(super) number: Option<usize>,
    /// Members of the shared group
    #[arg(long, value_name = "M", default_value = "10", value_parser = clients)]
    pub(super) members: usize,
    /// Messages that a publisher may be ahead of its slowest receiver [default: 100 at QoS 0, else 20; less with large payloads and in a fan-in]
    #[arg(long, value_name = "COUNT")]
    pub(super) window: Option<u64>,
    /// Messages that a publisher sends at once at least [default: half a window at QoS 0, else 1]
    #[arg(long, value_name = "COUNT")]
    pub(super) burst: Option<u64>,
    /// Messages a second of all publishers together [default: as many as the window lets; 2000 for latency, 1000 for churn]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(super) rate: Option<f64>,
    /// At a fixed rate, send late what finds no room, and time it from when it was due; without this it is left out and counted
    #[arg(long)]
    pub(super) open_loop: bool,
    /// Messages of each publisher, after which sending ends before the time does
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// Seconds to wait for what is missing in the end
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = args::seconds)]
    pub(super) drain: Duration,
    /// Filters that match nothing, of each of 20 subscribers (wild)
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    pub(super) background: usize,
    /// Filters that match nothing, held by connections beside the load, 1000 each
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = held)]
    pub(super) held: usize,
    /// Connections [default: 5000 for connect, 10000 for idle]
    #[arg(long, value_name = "COUNT")]
    pub(super) connections: Option<usize>,
    /// Connections that are opened at once
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = concurrency)]
    pub(super) concurrency: usize,
    /// Seconds before the memory of idle connections is read
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = args::seconds)]
    pub(super) settle: Duration,
    /// Retained messages, or messages of the queue
    #[arg(long, value_name = "COUNT", default_value_t = 50_000, alias = "queued")]
    pub(super) retained: usize,
    /// What the subscriber of retained messages subscribes to
    #[arg(long, value_name = "FILTER", default_value = "#", value_parser = filter)]
    pub(super) filter: String,
    /// Store the retained messages and do not ask for them
    #[arg(long)]
    pub(super) store_only: bool,
    /// As a relay, do this to every Nth message: drop, repeat, swap or corrupt, as in drop:1000
    #[arg(long, value_name = "FAULT:N", value_parser = super::relay::fault)]
    pub(super) fault: Option<(Fault, u64)>,
    /// Read processor time and memory of these processes from /proc
    #[arg(long, value_name = "PID", value_delimiter = ',', action = ArgAction::Append)]
    pub(super) broker_pid: Vec<u32>,
    /// A name for the run, repeated in the output
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
    /// Print one line of JSON
    #[arg(long, conflicts_with = "csv")]
    pub(super) json: bool,
    /// Print a line of names and a line of values, separated by commas
    #[arg(long)]
    pub(super) csv: bool,
    /// Write the output to a file instead
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Show no progress
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long = "version", action = ArgAction::Version)]
    show_version: Option<bool>,
}

fn payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (super::wire::STAMP..=super::LARGEST_PAYLOAD).contains(&bytes) => Ok(bytes),
        _ => Err(format!(
            "it must be {} to {} bytes",
            super::wire::STAMP,
            super::LARGEST_PAYLOAD
        )),
    }
}

fn clients(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(clients @ 1..=20_000) => Ok(clients),
        _ => Err("it must be 1 to 20000".to_owned()),
    }
}

fn held(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(filters @ 0..=10_000_000) => Ok(filters),
        _ => Err("it must be 0 to 10000000".to_owned()),
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(connections @ 1..=10_000) => Ok(connections),
        _ => Err("it must be 1 to 10000".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.1..=1e7).contains(&rate) => Ok(rate),
        _ => Err("it must be 0.1 to 10000000 messages a second".to_owned()),
    }
}

fn filter(text: &str) -> Result<String, String> {
    TopicFilter::new(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}
