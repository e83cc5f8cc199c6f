//! What clients sent, as the log shows it.

use core::fmt;

/// Characters that are shown of a text.
const LONGEST: usize = 128;

/// A text of a client: on one line, and of bounded length.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        for c in chars.by_ref().take(LONGEST) {
            write!(f, "{}", c.escape_debug())?;
        }
        if chars.next().is_some() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Shown;

    #[test]
    fn texts_are_short_and_on_one_line() {
        assert_eq!(Shown("sensor-1/\u{e4}").to_string(), "sensor-1/\u{e4}");
        assert_eq!(Shown("a\nb\u{1b}[1m").to_string(), "a\\nb\\u{1b}[1m");
        let long = "x".repeat(60_000);
        let shown = Shown(&long).to_string();
        assert_eq!(shown, format!("{}... (60000 bytes)", "x".repeat(128)));
    }
}
