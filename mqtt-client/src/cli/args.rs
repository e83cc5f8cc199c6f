//! The commands and their options: mosquitto's letters and names, declared for clap.

mod chores;
mod exchange;
mod server;

use std::ffi::OsString;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use mqtt_client::{ProtocolVersion, QoS, RetainHandling, TopicFilter, TopicName};

pub(crate) use self::chores::{CompletionArgs, DoctorArgs, ManArgs};
pub(crate) use self::exchange::{OutputArgs, PayloadArgs, PubArgs, RequestArgs, SubArgs};
pub(crate) use self::server::{AfterUrl, CommonArgs, TlsArgs, TlsVersion};

use super::UsageError;
use super::argv;
use super::bench::BenchArgs;

/// MQTT from the command line.
#[derive(Debug, Parser)]
#[command(
    name = "mqtt-client",
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    after_help = "mqtt-client COMMAND --help lists the options of a command."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print this help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version.
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Publish messages to one topic, with the options of mosquitto_pub.
    Pub(Box<PubArgs>),
    /// Subscribe to topics and print what arrives, with the options of mosquitto_sub.
    Sub(Box<SubArgs>),
    /// Publish a request and print the answer, with the options of mosquitto_rr.
    Rr(Box<RequestArgs>),
    /// Try the way to a broker step by step, and say what is wrong.
    Doctor(Box<DoctorArgs>),
    /// Put a load on a broker, and account for every message.
    Bench(Box<BenchArgs>),
    /// Print the completions of a shell.
    Completions(CompletionArgs),
    /// Write the manual pages into a directory.
    Man(ManArgs),
}

impl Command {
    /// Where and how it connects, in mosquitto's words.
    fn common(&mut self) -> Option<&mut CommonArgs> {
        match self {
            Self::Pub(args) => Some(&mut args.common),
            Self::Sub(args) => Some(&mut args.common),
            Self::Rr(args) => Some(&mut args.common),
            Self::Doctor(args) => Some(&mut args.common),
            Self::Bench(_) | Self::Completions(_) | Self::Man(_) => None,
        }
    }
}

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A command with its options.
    Command(Command),
    /// `--help` or `--version`: the text to print.
    Text(String),
}

/// Reads the arguments of the program, its name left out.
pub(crate) fn parse(mut arguments: Vec<OsString>) -> Result<Parsed, UsageError> {
    let definition = definition();
    let tool = arguments
        .first()
        // The others have neither a file of options nor mosquitto's letters.
        .filter(|name| {
            ["pub", "sub", "rr", "doctor"]
                .iter()
                .any(|tool| *name == *tool)
        })
        .and_then(|name| definition.find_subcommand(name))
        .cloned();
    if let Some(tool) = tool {
        let name = arguments.remove(0);
        arguments = argv::assemble(&tool, arguments)?;
        arguments.insert(0, name);
    }
    arguments.insert(0, "mqtt-client".into());
    let matches = match definition.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => return Ok(Parsed::Text(error.to_string())),
        Err(error) => return Err(UsageError(mistake(&error.to_string()))),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| UsageError(error.to_string()))?;
    let mut command = cli.command;
    if let (Some(common), Some((_, given))) = (command.common(), matches.subcommand()) {
        common.after_url = AfterUrl::of(given);
    }
    Ok(Parsed::Command(command))
}

/// clap's message without its own advice, in mosquitto's style.
fn mistake(text: &str) -> String {
    let text = text.split("\n\nUsage:").next().unwrap_or(text);
    let text = text
        .split("\n\nFor more information")
        .next()
        .unwrap_or(text);
    match text.strip_prefix("error: ") {
        Some(text) => format!("Error: {}", text.trim_end()),
        None => text.trim_end().to_owned(),
    }
}

/// clap's view of the program: a later option replaces an earlier one, and the argument after an
/// option that takes a value is its value whatever it looks like.
pub(crate) fn definition() -> clap::Command {
    let lax = |command: clap::Command| {
        command
            .args_override_self(true)
            .version(env!("CARGO_PKG_VERSION"))
            .mut_args(|arg| {
                if arg.get_action().takes_values() {
                    arg.allow_hyphen_values(true)
                } else {
                    arg
                }
            })
    };
    Cli::command()
        .version(env!("CARGO_PKG_VERSION"))
        .mut_subcommand("pub", lax)
        .mut_subcommand("sub", lax)
        .mut_subcommand("rr", lax)
        .mut_subcommand("doctor", lax)
        .mut_subcommand("bench", |command| {
            command.version(env!("CARGO_PKG_VERSION"))
        })
}

pub(super) fn quality(text: &str) -> Result<QoS, String> {
    match text {
        "0" => Ok(QoS::AtMostOnce),
        "1" => Ok(QoS::AtLeastOnce),
        "2" => Ok(QoS::ExactlyOnce),
        _ => Err("it must be 0, 1 or 2".to_owned()),
    }
}

pub(super) fn version(text: &str) -> Result<ProtocolVersion, String> {
    match text {
        "31" | "mqttv31" | "3.1" => Ok(ProtocolVersion::V3_1),
        "311" | "mqttv311" | "3.1.1" => Ok(ProtocolVersion::V3_1_1),
        "5" | "mqttv5" | "5.0" => Ok(ProtocolVersion::V5),
        _ => Err("it must be 31, 311 or 5".to_owned()),
    }
}

fn session_expiry(text: &str) -> Result<u32, String> {
    match text {
        "∞" | "-1" => Ok(u32::MAX),
        _ => text
            .parse()
            .map_err(|_| "it must be a number of seconds up to 4294967295, -1 or ∞".to_owned()),
    }
}

pub(super) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    std::time::Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn percentage(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.1..=100.0).contains(&percent) => Ok(percent),
        _ => Err("it must be between 0.1 and 100".to_owned()),
    }
}

fn retain_handling(text: &str) -> Result<RetainHandling, String> {
    match text {
        "always" => Ok(RetainHandling::Always),
        "new" => Ok(RetainHandling::IfNew),
        "never" => Ok(RetainHandling::Never),
        _ => Err("it must be always, new or never".to_owned()),
    }
}

pub(super) fn topic_name(text: &str) -> Result<String, String> {
    match TopicName::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "invalid publish topic, does it contain '+' or '#'? ({error})"
        )),
    }
}

fn subscription(text: &str) -> Result<String, String> {
    match TopicFilter::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "invalid topic filter, are all '+' and '#' wildcards correct? ({error})"
        )),
    }
}

fn filter_out(text: &str) -> Result<String, String> {
    subscription(text)
}

#[cfg(test)]
mod tests;
