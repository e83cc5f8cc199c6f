//! A bar on the terminal while a load runs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Bench;

/// Nanoseconds between two updates.
const INTERVAL: u64 = 200_000_000;

/// The bar; nothing at all where standard error is no terminal.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    begin: u64,
    /// When and with how many messages it was shown last.
    last: (u64, u64),
}

impl Progress {
    /// From `begin` to `end`, in nanoseconds of the run's clock.
    pub(super) fn new(bench: &Bench, begin: u64, end: u64) -> Self {
        let wanted = !bench.quiet && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let style =
                ProgressStyle::with_template("{prefix} [{bar:30.cyan/blue}] {elapsed} of {msg}");
            let bar = ProgressBar::new(end - begin);
            // A template that is wrong would be one at compile time; the default bar does then.
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(bench.load)
        });
        Self {
            bar,
            begin,
            last: (begin, 0),
        }
    }

    /// Shows the time and the rate since the last call, a few times a second.
    #[inline]
    pub(super) fn show(&mut self, now: u64, messages: u64) {
        if now - self.last.0 >= INTERVAL {
            self.draw(now, messages);
        }
    }

    #[cold]
    fn draw(&mut self, now: u64, messages: u64) {
        if let Some(bar) = &self.bar {
            let rate = (messages - self.last.1) as f64 / (now - self.last.0) as f64 * 1e9;
            let whole = Duration::from_nanos(bar.length().unwrap_or(0));
            bar.set_position(now - self.begin);
            bar.set_message(format!(
                "{:.0} s, {rate:.0} messages/s",
                whole.as_secs_f64()
            ));
        }
        self.last = (now, messages);
    }

    pub(super) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
