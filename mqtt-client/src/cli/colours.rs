//! Colours on a terminal.

use std::io::IsTerminal;

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Colours(bool);

/// A colour, and whether it is bold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Plain,
    Bold,
    Faint,
    Green,
    Yellow,
    Red,
    BoldGreen,
    BoldYellow,
    BoldRed,
}

impl Colour {
    /// The parameters of the escape sequence (ECMA-48, SGR).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::BoldGreen => "1;32",
            Self::BoldYellow => "1;33",
            Self::BoldRed => "1;31",
        }
    }
}

impl Colours {
    /// On a terminal that has them, unless `NO_COLOR` says otherwise (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self(std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb)
    }

    #[cfg(test)]
    pub(crate) fn new(are_on: bool) -> Self {
        Self(are_on)
    }

    /// The text in a colour. It is padded before, since no width counts the escape sequences.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        match self.0 && colour != Colour::Plain && !text.is_empty() {
            true => format!("\x1b[{}m{text}\x1b[0m", colour.code()),
            false => text.to_owned(),
        }
    }
}
