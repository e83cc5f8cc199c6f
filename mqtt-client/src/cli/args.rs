//! The options of `pub` and `sub`: mosquitto's letters and names, declared for clap.

use std::ffi::OsString;

use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use mqtt_client::{ProtocolVersion, QoS, RetainHandling, TopicFilter, TopicName};

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
    /// Put a load on a broker, and account for every message.
    Bench(Box<BenchArgs>),
}

/// Options of both commands: where and how to connect.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// Host to connect to [default: localhost, or MQTT_HOST]
    #[arg(short = 'h', long, value_name = "HOST")]
    pub(crate) host: Option<String>,
    /// Port to connect to [default: 1883, or MQTT_PORT]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// User, password, host, port and topic at once: mqtt://[user[:password]@]host[:port]/topic
    #[arg(short = 'L', long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Local address to connect from
    #[arg(short = 'A', value_name = "ADDRESS")]
    pub(crate) bind_address: Option<String>,
    /// Client identifier
    #[arg(short, long, value_name = "ID", conflicts_with = "id_prefix")]
    pub(crate) id: Option<String>,
    /// Client identifier: this prefix and the process id
    #[arg(short = 'I', long, value_name = "PREFIX")]
    pub(crate) id_prefix: Option<String>,
    /// Keep the session: no clean start, and no end of it in MQTT 5
    #[arg(short = 'c', long = "disable-clean-session")]
    pub(crate) keep_session: bool,
    /// Session expiry interval in seconds, -1 or ∞ for none (MQTT 5)
    #[arg(short = 'x', value_name = "SECONDS", value_parser = session_expiry)]
    pub(crate) session_expiry: Option<u32>,
    /// Seconds between PINGREQ packets [default: 60]
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60, hide_default_value = true, value_parser = clap::value_parser!(u16).range(5..))]
    pub(crate) keepalive: u16,
    /// Username [default: MQTT_USERNAME]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password [default: MQTT_PASSWORD]
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    pub(crate) password: Option<OsString>,
    /// Quality of service: 0, 1 or 2 [default: 0]
    #[arg(short, long, value_name = "QOS", default_value = "0", hide_default_value = true, value_parser = quality)]
    pub(crate) qos: QoS,
    /// Protocol version: 31, 311 or 5 [default: 311; 5 with -D or -x]
    #[arg(short = 'V', long = "protocol-version", value_name = "VERSION", value_parser = version)]
    pub(crate) version: Option<ProtocolVersion>,
    /// Property: packet, name and value, or packet, user-property, name and value (MQTT 5)
    #[arg(short = 'D', long = "property", value_name = "PACKET NAME VALUE", action = ArgAction::Append)]
    pub(crate) properties: Vec<String>,
    /// Most QoS 1 and 2 messages in flight [default: what the server allows; 20 in MQTT 3]
    #[arg(short = 'M', value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_inflight: Option<u16>,
    /// File of options, one a line [default: $XDG_CONFIG_HOME/mosquitto_pub or mosquitto_sub]
    #[arg(short, value_name = "FILE")]
    options_file: Option<OsString>,
    /// Topic of the Will
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) will_topic: Option<String>,
    /// Payload of the Will
    #[arg(long, value_name = "TEXT", requires = "will_topic")]
    pub(crate) will_payload: Option<OsString>,
    /// Quality of service of the Will
    #[arg(long, value_name = "QOS", default_value = "0", hide_default_value = true, value_parser = quality)]
    pub(crate) will_qos: QoS,
    /// Retain the Will
    #[arg(long, requires = "will_topic")]
    pub(crate) will_retain: bool,
    /// Disable Nagle's algorithm
    #[arg(long)]
    pub(crate) nodelay: bool,
    /// Print debug messages to standard error
    #[arg(short, long)]
    pub(crate) debug: bool,
    /// Print no errors
    #[arg(long)]
    pub(crate) quiet: bool,
    /// Do not use TLS, which this client does not have anyway
    #[arg(long, hide = true)]
    no_tls: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long = "version", action = ArgAction::Version)]
    show_version: Option<bool>,
}

/// Options of `pub`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct PubArgs {
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// Message to send
    #[arg(short, long, value_name = "TEXT", group = "payload")]
    pub(crate) message: Option<OsString>,
    /// Send the contents of a file
    #[arg(short, long, value_name = "FILE", group = "payload")]
    pub(crate) file: Option<OsString>,
    /// Send all of standard input as one message
    #[arg(short, long, group = "payload")]
    pub(crate) stdin_file: bool,
    /// Send each line of standard input as a message
    #[arg(short = 'l', long, group = "payload")]
    pub(crate) stdin_line: bool,
    /// Send an empty message
    #[arg(short, long, group = "payload")]
    pub(crate) null_message: bool,
    /// Have the message retained
    #[arg(short, long)]
    pub(crate) retain: bool,
    /// Publish the message this many times (-m, -f, -s, -n)
    #[arg(long, value_name = "COUNT", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,
    /// Seconds between the repetitions, with fractions
    #[arg(long, value_name = "SECONDS", default_value = "0", hide_default_value = true, value_parser = seconds)]
    pub(crate) repeat_delay: std::time::Duration,
    /// Where and how to connect.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of `sub`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct SubArgs {
    /// Topic filter to subscribe to; may be repeated
    #[arg(short, long = "topic", value_name = "FILTER", action = ArgAction::Append, value_parser = subscription)]
    pub(crate) topics: Vec<String>,
    /// Leave out topics that match this filter; may be repeated
    #[arg(short = 'T', long, value_name = "FILTER", action = ArgAction::Append, value_parser = filter_out)]
    pub(crate) filter_out: Vec<String>,
    /// Topic filter to unsubscribe from; may be repeated
    #[arg(short = 'U', long, value_name = "FILTER", action = ArgAction::Append, value_parser = subscription)]
    pub(crate) unsubscribe: Vec<String>,
    /// Exit after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Exit with status 27 after this many seconds
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: Option<u32>,
    /// Exit when the subscriptions are acknowledged
    #[arg(short = 'E')]
    pub(crate) exit_after_subscribing: bool,
    /// Do not print retained messages
    #[arg(short = 'R')]
    pub(crate) hide_retained: bool,
    /// Print retained messages only, and exit at the first that is not
    #[arg(long)]
    pub(crate) retained_only: bool,
    /// Clear the retained messages that arrive
    #[arg(long)]
    pub(crate) remove_retained: bool,
    /// Keep the RETAIN flag as published (MQTT 5)
    #[arg(long)]
    pub(crate) retain_as_published: bool,
    /// When to receive retained messages: always, new or never (MQTT 5)
    #[arg(long, value_name = "WHEN", value_parser = retain_handling)]
    pub(crate) retain_handling: Option<RetainHandling>,
    /// Print the topic before the payload
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print no end of line after a message
    #[arg(short = 'N')]
    pub(crate) no_newline: bool,
    /// Output format: % fields, @ times and \ escapes
    #[arg(short = 'F', value_name = "FORMAT")]
    pub(crate) format: Option<OsString>,
    /// Indent the JSON of %j and %J
    #[arg(long)]
    pub(crate) pretty: bool,
    /// Print this percentage of the messages only
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    pub(crate) random_filter: Option<f64>,
    /// Where and how to connect.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
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
        // It is no tool of mosquitto's, and has neither its file of options nor its letters.
        .filter(|name| *name != "bench")
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
    Ok(Parsed::Command(cli.command))
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
fn definition() -> clap::Command {
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
