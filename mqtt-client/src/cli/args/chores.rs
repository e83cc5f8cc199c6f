//! The options of the commands that are no tools of mosquitto's, but for `bench`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::{CommonArgs, topic_name};

/// Options of `doctor`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct DoctorArgs {
    /// Topic of the round trips [default: one of its own below mqtt-client/doctor]
    #[arg(short, long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// Round trips at each QoS
    #[arg(short = 'C', value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) count: u32,
    /// Seconds that each step may take
    #[arg(short = 'W', value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) patience: u32,
    /// Where and how to connect.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The directory, made if it does not exist
    pub(crate) directory: PathBuf,
}
