//! Other ways for `sub` to show what arrives: each topic at its place on the screen (`--watch`), or
//! how many messages a second (`--message-rate`).

use std::collections::HashMap;
use std::time::Duration;

use mqtt_client::Received;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::output::Output;

/// Lines of a terminal that does not tell its size.
const LINES: usize = 24;
/// Topics that get a line if the terminal is higher than any real one.
const MOST_LINES: usize = 1000;

/// A line of the terminal for each topic, in the order in which they came; topics that find no line any
/// more are counted in the last.
#[derive(Debug)]
pub(crate) struct Screen {
    lines: usize,
    /// Line of each topic, from 1.
    places: HashMap<String, usize>,
    /// Messages of topics without a line.
    elsewhere: u64,
}

impl Screen {
    /// As high as the terminal is now.
    pub(crate) fn of_terminal() -> Self {
        let height = rustix::termios::tcgetwinsize(std::io::stdout())
            .map_or(0, |size| usize::from(size.ws_row));
        Self::of_lines(if height == 0 { LINES } else { height })
    }

    fn of_lines(lines: usize) -> Self {
        Self {
            lines: lines.clamp(2, MOST_LINES),
            places: HashMap::new(),
            elsewhere: 0,
        }
    }

    /// Appends what puts the message at the place of its topic.
    pub(crate) fn print(
        &mut self,
        message: &Received,
        output: &Output,
        out: &mut Vec<u8>,
        problems: &mut Vec<String>,
    ) {
        if self.places.is_empty() && self.elsewhere == 0 {
            // Nothing stands there yet: clear the screen.
            out.extend_from_slice(b"\x1b[2J");
        }
        let next = self.places.len() + 1;
        let line = match self.places.get(message.topic()) {
            Some(line) => *line,
            None if next < self.lines => {
                self.places.insert(message.topic().to_owned(), next);
                next
            }
            None => {
                self.elsewhere += 1;
                let text = format!(
                    "\x1b[{};1H{} messages of further topics\x1b[K",
                    self.lines, self.elsewhere
                );
                out.extend_from_slice(text.as_bytes());
                return;
            }
        };
        out.extend_from_slice(format!("\x1b[{line};1H").as_bytes());
        let mut text = Vec::new();
        output.print(message, &mut text, problems);
        // One line only, without what would move the cursor.
        let end = text
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(text.len());
        let shown = text.iter().take(end);
        out.extend(shown.map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
        // What remains of the message before; the cursor waits below.
        out.extend_from_slice(format!("\x1b[K\x1b[{};1H", self.lines).as_bytes());
    }
}

/// Messages of the current second.
#[derive(Debug)]
pub(crate) struct Rate {
    ticks: Interval,
    messages: u64,
}

impl Rate {
    /// From now on.
    pub(crate) fn start() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        let mut ticks = interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, messages: 0 }
    }

    /// One more.
    pub(crate) fn count(&mut self) {
        self.messages += 1;
    }

    /// Waits for the end of the second and gives the number of its messages; for ever without a rate.
    pub(crate) async fn next(rate: &mut Option<Self>) -> u64 {
        match rate {
            None => std::future::pending().await,
            Some(rate) => {
                rate.ticks.tick().await;
                std::mem::take(&mut rate.messages)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mqtt_client::Message;

    use super::*;

    fn shown(screen: &mut Screen, topic: &str, payload: &'static str) -> String {
        let output = Output {
            format: None,
            verbose: true,
            newline: true,
        };
        let message = Received::new(Message::new(topic, payload).unwrap(), None);
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        screen.print(&message, &output, &mut out, &mut problems);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_topic_keeps_its_line() {
        let mut screen = Screen::of_lines(3);
        assert_eq!(
            shown(&mut screen, "a", "1"),
            "\x1b[2J\x1b[1;1Ha 1\x1b[K\x1b[3;1H"
        );
        assert_eq!(shown(&mut screen, "b", "2"), "\x1b[2;1Hb 2\x1b[K\x1b[3;1H");
        assert_eq!(
            shown(&mut screen, "a", "x\ty\x1b[2J\nz"),
            "\x1b[1;1Ha x y [2J\x1b[K\x1b[3;1H"
        );
        let text = shown(&mut screen, "c", "3");
        assert_eq!(text, "\x1b[3;1H1 messages of further topics\x1b[K");
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_a_second_are_counted() {
        let mut rate = Some(Rate::start());
        for _ in 0..3 {
            rate.as_mut().unwrap().count();
        }
        assert_eq!(Rate::next(&mut rate).await, 3);
        assert_eq!(Rate::next(&mut rate).await, 0);
    }
}
