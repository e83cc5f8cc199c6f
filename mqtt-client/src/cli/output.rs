//! What `sub` and `rr` print for a message.

use std::io::{self, Write};

use mqtt_client::Received;

use super::args::OutputArgs;
use super::clock::Clock;
use super::connection::bytes;
use super::format::Format;
use super::{Failure, UsageError};

/// How messages are printed.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// `-F`, which goes before `-v`.
    pub(crate) format: Option<Format>,
    /// `-v`.
    pub(crate) verbose: bool,
    /// No `-N`.
    pub(crate) newline: bool,
}

impl Output {
    /// As the options say.
    pub(crate) fn new(args: &OutputArgs) -> Result<Self, UsageError> {
        let format = match args.format.clone() {
            None => None,
            Some(text) => Some(
                Format::parse(&bytes(text), args.pretty)
                    .map_err(|error| UsageError(format!("Error: {error}")))?,
            ),
        };
        Ok(Self {
            format,
            verbose: args.verbose,
            newline: !args.no_newline,
        })
    }

    /// Appends a message as it is printed; problems are for standard error.
    pub(crate) fn print(&self, message: &Received, out: &mut Vec<u8>, problems: &mut Vec<String>) {
        let payload = message.payload();
        let newline: &[u8] = if self.newline { b"\n" } else { b"" };
        if let Some(format) = &self.format {
            format.render(message, &Clock::now(), out, problems);
            out.extend_from_slice(newline);
        } else if !payload.is_empty() {
            if self.verbose {
                out.extend_from_slice(message.topic().as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(payload);
            out.extend_from_slice(newline);
        } else if self.verbose && self.newline {
            out.extend_from_slice(message.topic().as_bytes());
            out.extend_from_slice(b" (null)\n");
        }
    }
}

/// Writes to standard output, at once.
pub(crate) fn write(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// What to say of a standard output that takes nothing.
pub(crate) fn unwritable(error: io::Error) -> Failure {
    Failure::Message(format!(
        "Error: Unable to write to standard output: {error}."
    ))
}

#[cfg(test)]
mod tests {
    use mqtt_client::Message;

    use super::*;

    /// The expectations are what mosquitto_sub 2.0.11 prints.
    #[test]
    fn plain_and_verbose_output() {
        for (verbose, newline, payload, expected) in [
            (false, true, "x", "x\n"),
            (false, false, "x", "x"),
            (true, true, "x", "t x\n"),
            (true, false, "x", "t x"),
            (false, true, "", ""),
            (false, false, "", ""),
            (true, true, "", "t (null)\n"),
            (true, false, "", ""),
        ] {
            let output = Output {
                format: None,
                verbose,
                newline,
            };
            let message = Received::new(Message::new("t", payload).unwrap(), None);
            let (mut out, mut problems) = (Vec::new(), Vec::new());
            output.print(&message, &mut out, &mut problems);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert!(problems.is_empty());
        }
    }
}
