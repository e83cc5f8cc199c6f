//! A line of the log where it has no colours.

use core::fmt::{self, Debug};
use std::error::Error;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::log::clock::Utc;

/// `TIME LEVEL message key=value key=value`, as the formatter of the library writes it outside of spans, of which the
/// broker has none. That one styles and escapes each part by itself: for a client that comes and goes, it took as
/// many instructions as all the rest. What a value has of control characters is seen to where lines are written.
pub(super) struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        Utc.format_time(&mut writer)?;
        write!(writer, " {:>5}", event.metadata().level().as_str())?;
        let mut fields = Fields {
            writer,
            outcome: Ok(()),
        };
        event.record(&mut fields);
        fields.outcome?;
        fields.writer.write_char('\n')
    }
}

/// Writes each field, with a space before it.
struct Fields<'w> {
    writer: Writer<'w>,
    outcome: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        // Of events that come from the `log` crate: where they come from.
        if field.name().starts_with("log.") || self.outcome.is_err() {
            return;
        }
        self.outcome = self.write_field(field.name(), value);
    }

    fn write_field(&mut self, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
        self.writer.write_char(' ')?;
        if name != "message" {
            self.writer
                .write_str(name.strip_prefix("r#").unwrap_or(name))?;
            self.writer.write_char('=')?;
        }
        match value.as_str() {
            Some(text) => self.writer.write_str(text),
            None => self.writer.write_fmt(value),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.write(field, format_args!("{value}")),
            _ => self.write(field, format_args!("{value:?}")),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.write(field, format_args!("{value}"));
        let mut source = value.source();
        while let Some(cause) = source {
            if self.outcome.is_ok() {
                self.outcome = write!(self.writer, ": {cause}");
            }
            source = cause.source();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::time::SystemTime;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// Without the times, which are as long as each other.
        fn of(subscriber: impl FnOnce(Self) -> Box<dyn Subscriber + Send + Sync>) -> Vec<String> {
            let lines = Self::default();
            with_default(subscriber(lines.clone()), || {
                let user: Option<String> = Some("ann".to_owned());
                tracing::info!(client_id = %"c 1", version = 5, present = true, user, "connected");
                tracing::warn!(list = ?["a", "b"], text = "two words", none = None::<u8>, "odd");
                tracing::error!("a {} message", "formatted");
                tracing::debug!(r#type = 1.5, negative = -3);
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| line[27..].to_owned()).collect()
        }
    }

    #[test]
    fn lines_are_those_of_the_library() {
        let ours = Lines::of(|lines| {
            let log = tracing_subscriber::fmt().event_format(Line);
            let log = log.with_max_level(tracing::Level::TRACE);
            Box::new(log.with_writer(move || lines.clone()).finish())
        });
        let theirs = Lines::of(|lines| {
            let log = tracing_subscriber::fmt()
                .with_target(false)
                .with_ansi(false);
            let log = log
                .with_timer(SystemTime)
                .with_max_level(tracing::Level::TRACE);
            Box::new(log.with_writer(move || lines.clone()).finish())
        });
        assert_eq!(ours, theirs);
        assert_eq!(ours.len(), 4);
    }
}
