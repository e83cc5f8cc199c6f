//! The command line of `mqtt-broker`.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use mqtt_broker::auth::CertificateIdentity;
use mqtt_broker::settings::Size;
use mqtt_broker::{Address, Durability};

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
    /// Address to listen on, in place of those of the configuration: IP:PORT, unix:PATH or systemd:NUMBER;
    /// repeat for more. Port 0 takes a free one and prints it. [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Vec<Address>,

    /// Let anybody in who connects from another machine. Without it, only local addresses are served.
    #[arg(long)]
    pub(crate) allow_anonymous: bool,

    /// Keep nothing on disk: what was acknowledged is lost when the broker ends.
    #[arg(long, conflicts_with_all = ["data_dir", "durability", "stored_window", "data_limit", "disk_reserve"])]
    pub(crate) in_memory: bool,

    /// Directory for sessions, their messages and retained messages; made if it does not exist.
    /// [default: ./mqtt-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// What the acknowledgement of a message waits for that is to be kept. [default: disk]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) durability: Option<DurabilityLevel>,

    /// Bytes of waiting messages that are held in memory for each connected session; those behind them are on the
    /// disk alone. [default: 1 MiB]
    #[arg(long, value_name = "BYTES")]
    pub(crate) stored_window: Option<usize>,

    /// Size of the data directory beyond which no new message is stored, such as "10 GiB". [default: no bound]
    #[arg(long, value_name = "SIZE")]
    pub(crate) data_limit: Option<Size>,

    /// Size of a file in the data directory that is removed when the disk is full, so that acknowledgements and
    /// deletions still fit. 0: there is none. [default: 32 MiB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk_reserve: Option<Size>,

    /// Users and hashes of their passwords, as `mqtt-broker passwd` and mosquitto_passwd write them. Clients
    /// without a user name are let in no more, unless with --allow-anonymous.
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Permissions: TOML if the name ends with .toml, else as mosquitto's acl_file. What it does not allow is
    /// denied.
    #[arg(long, value_name = "FILE")]
    pub(crate) acl_file: Option<PathBuf>,

    /// What of a client's certificate is its user name, at listeners that ask for one: cn, dn or san.
    #[arg(long, value_name = "PART")]
    pub(crate) certificate_identity: Option<CertificateIdentity>,

    /// Clients that may be connected. [default: as many as the system lets open sockets]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_connections: Option<usize>,

    /// Largest packet that a client may send, such as "256 KiB". [default: 2 MB]
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_packet_size: Option<Size>,

    /// Configuration file in TOML; the options of the command line stand before it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How much is logged to standard error: off, error, warn, info, debug, trace. [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<tracing::level_filters::LevelFilter>,

    /// How the log is written. [default: text]
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check a configuration file and the files that it names: exit code 0 if it can be used, else 2.
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
    /// Translate the configuration of another broker: TOML on standard output, and what has no equivalent on
    /// standard error.
    Import {
        #[command(subcommand)]
        from: ImportCommand,
    },
    /// Print the completions of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    Man {
        /// The directory, made if it does not exist.
        directory: PathBuf,
    },
    /// See, copy or compact a data directory while no broker uses it.
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

/// Whose configuration is translated.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportCommand {
    /// A mosquitto.conf and the files that it includes.
    Mosquitto {
        /// The file.
        file: PathBuf,
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
        if self.max_packet_size.is_some_and(|size| size.0 < 64) {
            let text = "--max-packet-size: less than 64 bytes leaves no room for MQTT";
            return Some(text.to_owned());
        }
        None
    }

    /// The first address that clients of other machines reach.
    pub(crate) fn open_address(&self) -> Option<&Address> {
        self.listen.iter().find(|address| !address.is_local())
    }
}
