//! The commands of the program: arguments in, exit status out.

mod args;
mod argv;
mod bench;
mod clock;
mod colours;
mod connection;
mod debug;
mod doctor;
mod format;
mod json;
mod manual;
mod output;
mod payload;
mod property;
mod publish;
mod request;
mod service;
mod signals;
mod subscribe;
mod tls;
mod url;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use mqtt_client::{Error, ProtocolVersion, ReasonCode};

use self::args::{Command, Parsed};

/// Exit status of `sub -W` and `rr -W` when the time is over.
const TIMED_OUT: u8 = 27;

/// A mistake in the arguments: the text to print before pointing to `--help`.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

/// Why a command ends with a status other than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A mistake in the arguments; always printed.
    Usage(UsageError),
    /// Anything else; printed unless `--quiet`, as it stands.
    Message(String),
    /// A connection that failed.
    Connection(Error, ProtocolVersion),
    /// The time of `-W` is over.
    TimedOut,
    /// A signal ended it with work undone; the exit status of a shell.
    Interrupted(u8),
    /// What the command has printed itself, and the exit status.
    Told(u8),
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self::Usage(error)
    }
}

impl Failure {
    /// The exit status: the server's return or reason code where it refused CONNECT, else 1.
    fn status(&self) -> u8 {
        match self {
            Self::Connection(Error::Refused { reason, .. }, version) => {
                reason.connect_code(*version)
            }
            Self::Usage(_) | Self::Message(_) | Self::Connection(..) => 1,
            Self::TimedOut => TIMED_OUT,
            Self::Interrupted(status) | Self::Told(status) => *status,
        }
    }

    fn text(&self, tool: &str) -> String {
        match self {
            Self::Usage(UsageError(text)) => {
                format!("{text}\n\nUse 'mqtt-client {tool} --help' to see usage.")
            }
            Self::Message(text) => text.clone(),
            Self::Connection(
                Error::Refused {
                    reason,
                    reason_string,
                    ..
                },
                version,
            ) => {
                let detail = reason_string
                    .as_ref()
                    .map(|text| format!(" ({text})"))
                    .unwrap_or_default();
                let hint = match *reason {
                    ReasonCode::UNSUPPORTED_PROTOCOL_VERSION if version.has_reason_codes() => {
                        ". Try connecting to an MQTT v5 broker, or use MQTT v3.x mode."
                    }
                    _ => "",
                };
                format!("Connection error: {}{detail}{hint}", reason.name())
            }
            Self::Connection(error, _) => {
                let text = error.to_string();
                format!(
                    "Error: {}",
                    text.split(" (os error").next().unwrap_or(&text)
                )
            }
            Self::TimedOut => "Timed out".to_owned(),
            Self::Interrupted(_) => "Interrupted".to_owned(),
            Self::Told(_) => String::new(),
        }
    }
}

/// Runs the program with these arguments, its own name left out.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    let tool = arguments
        .first()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let command = match args::parse(arguments) {
        Ok(Parsed::Command(command)) => command,
        Ok(Parsed::Text(text)) => {
            // A reader that closed the pipe has seen enough.
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => return finish(Err(Failure::Usage(error)), &tool, false),
    };
    match command {
        Command::Pub(args) => {
            debug::start(&args.common);
            let quiet = args.common.quiet;
            finish(in_runtime(publish::run(*args)), &tool, quiet)
        }
        Command::Sub(args) => {
            debug::start(&args.common);
            let quiet = args.common.quiet;
            finish(in_runtime(subscribe::run(*args)), &tool, quiet)
        }
        Command::Rr(args) => {
            debug::start(&args.common);
            let quiet = args.common.quiet;
            finish(in_runtime(request::run(*args)), &tool, quiet)
        }
        Command::Doctor(args) => {
            debug::start(&args.common);
            let quiet = args.common.quiet;
            finish(in_runtime(doctor::run(*args)), &tool, quiet)
        }
        Command::Completions(args) => finish(manual::completions(&args), &tool, false),
        Command::Man(args) => finish(manual::pages(&args), &tool, false),
        // It has a loop of its own.
        Command::Bench(args) => finish(bench::run(*args), &tool, false),
    }
}

/// Runs a command that is built on the client library.
fn in_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::Message(format!("Error: {error}")))?;
    let outcome = runtime.block_on(command);
    // A read of standard input may be pending, and cannot be interrupted.
    runtime.shutdown_background();
    outcome
}

fn finish(outcome: Result<(), Failure>, tool: &str, quiet: bool) -> ExitCode {
    let Err(failure) = outcome else {
        return ExitCode::SUCCESS;
    };
    let wanted = match failure {
        Failure::Usage(_) => true,
        Failure::Told(_) => false,
        _ => !quiet,
    };
    if wanted {
        complain(&failure.text(tool));
    }
    ExitCode::from(failure.status())
}

/// Prints a line to standard error.
pub(crate) fn complain(text: &str) {
    // Nothing is left to tell if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: ReasonCode) -> Error {
        Error::Refused {
            reason,
            reason_string: None,
            server_reference: None,
        }
    }

    #[test]
    fn a_refusal_gives_its_code_as_status() {
        for (reason, version, status) in [
            (ReasonCode::NOT_AUTHORIZED, ProtocolVersion::V5, 135),
            (ReasonCode::NOT_AUTHORIZED, ProtocolVersion::V3_1_1, 5),
            (
                ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
                ProtocolVersion::V3_1,
                1,
            ),
            (
                ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                ProtocolVersion::V3_1,
                2,
            ),
            (ReasonCode::SERVER_UNAVAILABLE, ProtocolVersion::V3_1_1, 3),
            (
                ReasonCode::BAD_USER_NAME_OR_PASSWORD,
                ProtocolVersion::V3_1_1,
                4,
            ),
        ] {
            assert_eq!(
                Failure::Connection(refused(reason), version).status(),
                status
            );
        }
        assert_eq!(
            Failure::Connection(Error::ConnectionLost, ProtocolVersion::V5).status(),
            1
        );
        assert_eq!(Failure::TimedOut.status(), 27);
    }
}
