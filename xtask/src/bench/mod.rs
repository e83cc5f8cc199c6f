//! `cargo xtask bench`: what the parts of the workspace take, measured on this machine.

mod broker;
mod client;
mod crates;
mod generator;
mod peer;
mod scale;
mod store;

use anyhow::Result;

use self::crates::Crate;
use crate::step::Verdict;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    /// This broker beside Mosquitto, rumqttd and a relay under the same loads
    Broker(broker::Args),
    /// The client library beside rumqttc and paho-mqtt (C), all against this broker
    Client(client::Args),
    /// Packets decoded and encoded, beside other crates
    Codec(crates::Args),
    /// Topics matched and filters kept, beside other trees
    Router(crates::Args),
    /// Messages and their acknowledgements at each QoS
    Session(crates::Args),
    /// Cost and memory as the work grows, plotted
    Scale(scale::Args),
    /// Messages into a stored session, against what the store takes by itself
    Store(store::Args),
}

/// Runs the benchmark that is asked for.
pub(crate) fn run(args: &Args) -> Result<Verdict> {
    match &args.bench {
        Bench::Broker(args) => broker::run(args),
        Bench::Client(args) => client::run(args),
        Bench::Codec(args) => crates::run(Crate::Codec, args),
        Bench::Router(args) => crates::run(Crate::Router, args),
        Bench::Session(args) => crates::run(Crate::Session, args),
        Bench::Scale(args) => scale::run(args),
        Bench::Store(args) => store::run(args),
    }
}
