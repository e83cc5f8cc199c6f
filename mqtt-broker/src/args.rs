//! The command line of `mqtt-broker`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use mqtt_broker::{Config, Durability};

use crate::auth_commands::{AclCommand, PasswordCommand};
use crate::store_command::StoreCommand;

/// An MQTT broker for versions 3.1, 3.1.1 and 5.0.
#[derive(Debug, Parser)]
#[command(
    name = "mqtt-broker",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Args {
    /// Address to listen on; repeat for more. Port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:1883")]
    pub(crate) listen: Vec<SocketAddr>,

    /// Let anybody in who connects from another machine. Without it, only loopback addresses are served.
    #[arg(long)]
    pub(crate) allow_anonymous: bool,

    /// Keep nothing on disk: what was acknowledged is lost when the broker ends.
    #[arg(long, conflicts_with_all = ["data_dir", "durability", "stored_window"])]
    pub(crate) in_memory: bool,

    /// Directory for sessions, their messages and retained messages; made if it does not exist.
    #[arg(long, value_name = "DIR", default_value = "./mqtt-data")]
    pub(crate) data_dir: PathBuf,

    /// What the acknowledgement of a message waits for that is to be kept.
    #[arg(long, value_enum, value_name = "LEVEL", default_value = "disk")]
    pub(crate) durability: DurabilityLevel,

    /// Bytes of waiting messages that are held in memory for each connected session; those behind them are on the
    /// disk alone.
    #[arg(long, value_name = "BYTES", default_value_t = Config::default().stored_window_bytes)]
    pub(crate) stored_window: usize,

    /// Users and hashes of their passwords, as `mqtt-broker passwd` and mosquitto_passwd write them. Clients
    /// without a user name are let in no more, unless with --allow-anonymous.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Permissions: TOML if the name ends with .toml, else as mosquitto's acl_file. What it does not allow is
    /// denied.
    #[arg(long, value_name = "FILE")]
    pub(crate) acl_file: Option<PathBuf>,

    /// Configuration file (not available yet).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How much is logged to standard error: off, error, warn, info, debug, trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: tracing::level_filters::LevelFilter,

    /// How the log is written.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a configuration file (not available yet).
    Check {
        /// Configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Set the password of a user in a password file, or remove the user. The password is asked for, or read from
    /// standard input if that is no terminal.
    Passwd(PasswordCommand),
    /// Ask a file of permissions.
    Acl {
        #[command(subcommand)]
        command: AclCommand,
    },
    /// See, copy or compact a data directory while no broker uses it.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

/// When what was acknowledged is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityLevel {
    /// It is on the disk: a loss of power does not lose it.
    Disk,
    /// It is with the operating system: a crash of the broker does not lose it.
    Os,
    /// It is in memory: a new session, and retained messages, end with the broker.
    Memory,
}

impl From<DurabilityLevel> for Durability {
    fn from(level: DurabilityLevel) -> Self {
        match level {
            DurabilityLevel::Disk => Self::Disk,
            DurabilityLevel::Os => Self::Os,
            DurabilityLevel::Memory => Self::Memory,
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// What cannot be served as asked, if anything: a message for the user.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.config.is_some() {
            return Some("--config: not available yet; use the options of the command line".into());
        }
        if let Some(Command::Check { .. }) = self.command {
            return Some("check: not available yet".into());
        }
        let open = self
            .listen
            .iter()
            .find(|address| !address.ip().is_loopback());
        match open {
            Some(address) if !self.allow_anonymous && self.password_file.is_none() => {
                Some(format!(
                    "--listen {address}: anybody who reaches this address could connect; add --allow-anonymous if that is meant"
                ))
            }
            _ => None,
        }
    }
}
