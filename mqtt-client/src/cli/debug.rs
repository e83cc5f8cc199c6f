//! `-d`: the packets on standard output, as mosquitto's programs print them, and everything else on standard error.

use std::fmt;
use std::io::{IsTerminal, stderr};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::args::CommonArgs;
use super::output::write;

/// What the library calls the lines about packets.
const PACKETS: &str = "mqtt_client::packets";

/// Begins to print, if that is asked for.
pub(crate) fn start(common: &CommonArgs) {
    if !common.debug {
        return;
    }
    let others = tracing_subscriber::fmt::layer()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .without_time()
        .with_filter(filter_fn(|metadata| metadata.target() != PACKETS));
    tracing_subscriber::registry()
        .with(LevelFilter::DEBUG)
        .with(Packets)
        .with(others)
        .init();
}

/// Prints the lines about packets.
struct Packets;

impl<S: Subscriber> Layer<S> for Packets {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == PACKETS {
            let mut line = Line(String::new());
            event.record(&mut line);
            line.0.push('\n');
            // Who closed standard output is told where messages are written.
            let _ = write(line.0.as_bytes());
        }
    }
}

/// The text of an event.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
