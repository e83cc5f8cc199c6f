//! What the steps print: a line each, aligned, in colours on a terminal.

use std::io::{IsTerminal, Write};

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Fine,
    Odd,
    Bad,
    /// Not done, or just told.
    Note,
}

/// The lines so far.
pub(super) struct Report {
    out: Box<dyn Write + Send>,
    colours: bool,
    oddities: usize,
}

impl Report {
    pub(super) fn to_stdout() -> Self {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            out: Box::new(std::io::stdout()),
            colours,
            oddities: 0,
        }
    }

    /// How many lines were marked odd.
    pub(super) fn oddities(&self) -> usize {
        self.oddities
    }

    /// One line: how it went, of what, and what there is to say.
    pub(super) fn line(&mut self, mark: Mark, what: &str, text: &str) {
        if mark == Mark::Odd {
            self.oddities += 1;
        }
        let (word, colour) = match mark {
            Mark::Fine => ("ok", "32"),
            Mark::Odd => ("odd", "33"),
            Mark::Bad => ("FAILS", "31"),
            Mark::Note => ("", "0"),
        };
        let word = self.coloured(colour, &format!("{word:<5}"));
        self.print(&format!("{word}  {what:<12}  {}", printable(text)));
    }

    /// The last line.
    pub(super) fn conclude(&mut self, mark: Mark, text: &str) {
        let colour = match mark {
            Mark::Fine | Mark::Note => "1;32",
            Mark::Odd => "1;33",
            Mark::Bad => "1;31",
        };
        let head = self.coloured(colour, "Diagnosis:");
        self.print(&format!("\n{head} {}", printable(text)));
    }

    fn coloured(&self, colour: &str, text: &str) -> String {
        match self.colours {
            true => format!("\x1b[{colour}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    fn print(&mut self, line: &str) {
        // Who closed the pipe has seen enough; the exit status still tells.
        let _ = writeln!(self.out, "{}", line.trim_end());
        let _ = self.out.flush();
    }
}

/// Without the control characters that a server may have put into it.
fn printable(text: &str) -> String {
    text.chars()
        .map(|letter| {
            if letter.is_control() {
                '\u{fffd}'
            } else {
                letter
            }
        })
        .collect()
}
