//! The options that say what is sent and what is printed, which several commands share.

use std::ffi::OsString;

use clap::{ArgAction, Args};
use mqtt_client::RetainHandling;

use super::{
    CommonArgs, filter_out, percentage, retain_handling, seconds, subscription, topic_name,
};

/// Where one payload comes from.
#[derive(Debug, Args)]
pub(crate) struct PayloadArgs {
    /// Message to send
    #[arg(short, long, value_name = "TEXT", group = "payload", action = ArgAction::Append)]
    pub(crate) message: Vec<OsString>,
    /// Send the contents of a file
    #[arg(short, long, value_name = "FILE", group = "payload", action = ArgAction::Append)]
    pub(crate) file: Vec<OsString>,
    /// Send all of standard input as one message
    #[arg(short, long, group = "payload")]
    pub(crate) stdin_file: bool,
    /// Send an empty message
    #[arg(short, long, group = "payload")]
    pub(crate) null_message: bool,
}

/// How received messages are printed.
#[derive(Debug, Args)]
pub(crate) struct OutputArgs {
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
}

/// Options of `pub`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct PubArgs {
    /// Topic to publish to
    #[arg(short, long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// The payload.
    #[command(flatten)]
    pub(crate) payload: PayloadArgs,
    /// Send each line of standard input as a message
    #[arg(short = 'l', long, group = "payload")]
    pub(crate) stdin_line: bool,
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
    /// How messages are printed.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// On a terminal, keep the latest message of each topic at a place of its own
    #[arg(short, long, conflicts_with = "message_rate")]
    pub(crate) watch: bool,
    /// Print how many messages came in each second instead of the messages
    #[arg(long)]
    pub(crate) message_rate: bool,
    /// Print this percentage of the messages only
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    pub(crate) random_filter: Option<f64>,
    /// Where and how to connect.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// Options of `rr`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(crate) struct RequestArgs {
    /// Topic to send the request to
    #[arg(short, long, value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) topic: Option<String>,
    /// Topic that the answer comes to
    #[arg(short = 'e', value_name = "TOPIC", value_parser = topic_name)]
    pub(crate) response_topic: Option<String>,
    /// The request.
    #[command(flatten)]
    pub(crate) payload: PayloadArgs,
    /// Exit with status 27 if there is no answer after this many seconds
    #[arg(short = 'W', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: Option<u32>,
    /// Take no retained message for the answer
    #[arg(short = 'R')]
    pub(crate) hide_retained: bool,
    /// When to receive retained messages: always, new or never (MQTT 5)
    #[arg(long, value_name = "WHEN", value_parser = retain_handling)]
    pub(crate) retain_handling: Option<RetainHandling>,
    /// Print the time from request to answer to standard error
    #[arg(long)]
    pub(crate) latency: bool,
    /// How the answer is printed.
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Where and how to connect.
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}
