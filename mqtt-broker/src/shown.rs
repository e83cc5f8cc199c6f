//! What clients sent, as the log shows it.

use core::fmt::{self, Write};

/// Characters that are shown of a text.
const LONGEST: usize = 128;

/// A text of a client: on one line, and of bounded length.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

/// Whether a byte is shown as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'\\' | b'"' | b'\'')
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(LONGEST).map(|(end, _)| end);
        let mut rest = end.and_then(|end| self.0.get(..end)).unwrap_or(self.0);
        // Nearly all are plain from their begin to their end.
        while !rest.is_empty() {
            let plain = rest.bytes().take_while(|byte| is_plain(*byte)).count();
            let (shown, odd) = rest.split_at(plain);
            f.write_str(shown)?;
            let mut chars = odd.chars();
            for c in chars.next().into_iter().flat_map(char::escape_debug) {
                f.write_char(c)?;
            }
            rest = chars.as_str();
        }
        if end.is_some() {
            write!(f, "... ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LONGEST, Shown};

    proptest! {
        #[test]
        fn each_character_is_shown_as_debug_escapes_it(text in "(\\PC|[ -~]|.|\\n|\u{0}){0,200}") {
            let mut expected: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
            if text.chars().count() > LONGEST {
                expected.push_str(&format!("... ({} bytes)", text.len()));
            }
            prop_assert_eq!(Shown(&text).to_string(), expected);
        }
    }

    #[test]
    fn texts_are_short_and_on_one_line() {
        assert_eq!(Shown("sensor-1/\u{e4}").to_string(), "sensor-1/\u{e4}");
        assert_eq!(Shown("a\nb\u{1b}[1m").to_string(), "a\\nb\\u{1b}[1m");
        let long = "x".repeat(60_000);
        let shown = Shown(&long).to_string();
        assert_eq!(shown, format!("{}... (60000 bytes)", "x".repeat(128)));
    }
}
