//! The log of the program: lines to standard error, by a thread of its own.

mod clock;
mod line;

use core::time::Duration;
use std::io::{self, BufWriter, IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, reload};

use crate::args::LogFormat;
use crate::log::clock::Utc;
use crate::log::line::Line;

/// Lines that may wait to be written.
const LINES: usize = 16_384;
/// Bytes that are written at once, at most.
const BYTES: usize = 64 * 1024;
/// How long lines gather after others were written. Where thousands of clients come in a second, a system call and
/// a wake-up for each line cost as much as the rest of a connect.
const GATHERING: Duration = Duration::from_millis(5);

/// Who reads slowly, or not at all, does not hold the broker up: lines that find the queue full are lost.
pub(crate) fn to_standard_error(level: LevelFilter, format: LogFormat) -> Log {
    let coloured = io::stderr().is_terminal();
    // JSON has escape sequences of its own.
    let escapes = !coloured && format == LogFormat::Text;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES)
        .lossy(true)
        .thread_name("log")
        .finish(Gathered::new(io::stderr(), std::thread::sleep, escapes));
    let log = tracing_subscriber::fmt()
        .with_writer(writer)
        .log_internal_errors(false)
        .with_ansi(coloured)
        .with_timer(Utc)
        .with_env_filter(filter(level))
        .with_target(false);
    // Of a different type each.
    macro_rules! start {
        ($log:expr) => {{
            let log = $log.with_filter_reloading();
            let handle = log.reload_handle();
            log.init();
            Box::new(move |level| handle.reload(filter(level)))
        }};
    }
    let set_level: SetLevel = match format {
        LogFormat::Text if escapes => start!(log.event_format(Line)),
        LogFormat::Text => start!(log),
        LogFormat::Json => start!(log.json()),
    };
    Log {
        set_level,
        _guard: guard,
    }
}

fn filter(level: LevelFilter) -> EnvFilter {
    EnvFilter::default().add_directive(level.into())
}

type SetLevel = Box<dyn Fn(LevelFilter) -> Result<(), reload::Error>>;

/// The log while it is written. What is logged last is written when this is dropped.
pub(crate) struct Log {
    set_level: SetLevel,
    _guard: WorkerGuard,
}

impl Log {
    /// Logs so much from now on.
    pub(crate) fn set_level(&self, level: LevelFilter) {
        if let Err(error) = (self.set_level)(level) {
            tracing::error!(%error, "the level of the log stays as it was");
        }
    }
}

/// Writes what has gathered when it is flushed, which is when no more lines wait: the first line after a pause goes
/// out at once, those that come soon after it together.
struct Gathered<W: Write> {
    lines: BufWriter<W>,
    pause: fn(Duration),
    /// Control characters are written as escape sequences, so that no line acts on the terminal that it is read on.
    escapes: bool,
}

impl<W: Write> Gathered<W> {
    fn new(to: W, pause: fn(Duration), escapes: bool) -> Self {
        Self {
            lines: BufWriter::with_capacity(BYTES, to),
            pause,
            escapes,
        }
    }
}

/// Whether the byte is of a control character that does more than to end a line, or, from 0x80 on, may be.
fn may_act(byte: u8) -> bool {
    !matches!(byte, b'\n' | b'\t' | b' '..=b'~')
}

/// The same text without control characters but for the ends of lines and tabs.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

impl<W: Write> Write for Gathered<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All of them, which takes a few instructions: to stop at the first would take one for each byte.
        let acts = |bytes: &[u8]| bytes.iter().fold(false, |acts, byte| acts | may_act(*byte));
        if self.escapes && acts(bytes) {
            let text = String::from_utf8_lossy(bytes);
            self.lines.write_all(escaped(&text).as_bytes())?;
            return Ok(bytes.len());
        }
        self.lines.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = !self.lines.buffer().is_empty();
        self.lines.flush()?;
        if written {
            (self.pause)(GATHERING);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    thread_local! {
        static PAUSES: Cell<usize> = const { Cell::new(0) };
    }

    /// Counts how often it is written to.
    #[derive(Default)]
    struct Sink {
        writes: usize,
        text: Vec<u8>,
    }

    impl Write for &mut Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            self.text.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_wait_are_written_together() {
        let mut sink = Sink::default();
        let mut log = Gathered::new(&mut sink, |_| PAUSES.set(PAUSES.get() + 1), true);
        log.write_all(b"one\n").unwrap();
        log.flush().unwrap();
        log.write_all(b"two\n").unwrap();
        log.write_all(b"three\n").unwrap();
        log.flush().unwrap();
        // At the end there is one more.
        log.flush().unwrap();
        drop(log);
        assert_eq!((sink.writes, PAUSES.get()), (2, 2));
        assert_eq!(sink.text, b"one\ntwo\nthree\n");
    }

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        let line = "client \u{1b}[2J\r\u{7}\u{9b}1m \u{e4}\u{20ac}\tend\n";
        let mut sink = Sink::default();
        let mut log = Gathered::new(&mut sink, |_| {}, true);
        log.write_all(line.as_bytes()).unwrap();
        drop(log);
        let shown = "client \\u{1b}[2J\\r\\u{7}\\u{9b}1m \u{e4}\u{20ac}\tend\n";
        assert_eq!(String::from_utf8(sink.text).unwrap(), shown);

        // The formatter has seen to them where it adds colours, which are such characters.
        let mut sink = Sink::default();
        let mut log = Gathered::new(&mut sink, |_| {}, false);
        log.write_all(b"\x1b[32m INFO\n").unwrap();
        drop(log);
        assert_eq!(sink.text, b"\x1b[32m INFO\n");
    }
}
