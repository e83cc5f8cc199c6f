//! What the steps print: a line each, aligned, in colours on a terminal.

use std::io::Write;

use crate::cli::colours::{Colour, Colours};

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
    colours: Colours,
    oddities: usize,
}

impl Report {
    pub(super) fn to_stdout() -> Self {
        Self {
            out: Box::new(std::io::stdout()),
            colours: Colours::of_stdout(),
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
            Mark::Fine => ("ok", Colour::Green),
            Mark::Odd => ("odd", Colour::Yellow),
            Mark::Bad => ("FAILS", Colour::Red),
            Mark::Note => ("", Colour::Plain),
        };
        let word = self.colours.paint(colour, &format!("{word:<5}"));
        self.print(&format!("{word}  {what:<12}  {}", printable(text)));
    }

    /// The last line.
    pub(super) fn conclude(&mut self, mark: Mark, text: &str) {
        let colour = match mark {
            Mark::Fine | Mark::Note => Colour::BoldGreen,
            Mark::Odd => Colour::BoldYellow,
            Mark::Bad => Colour::BoldRed,
        };
        let head = self.colours.paint(colour, "Diagnosis:");
        self.print(&format!("\n{head} {}", printable(text)));
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
