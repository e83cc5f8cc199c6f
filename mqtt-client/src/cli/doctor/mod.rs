//! `doctor`: goes the way of a connection step by step, shows what it finds, and says what is wrong in
//! a sentence.

mod diagnosis;
mod handshake;
mod report;
mod steps;

use mqtt_client::{Error, ProtocolVersion};

use self::report::{Mark, Report};
use super::args::DoctorArgs;
use super::connection::Setup;
use super::signals::Signals;
use super::{Failure, UsageError};

/// Runs the command to its end.
pub(crate) async fn run(mut args: DoctorArgs) -> Result<(), Failure> {
    if let Some(url) = &mut args.common.url {
        complete(url);
    }
    if args.common.qos != mqtt_client::QoS::AtMostOnce {
        let text = "Error: doctor measures at every QoS, and has no use for -q.";
        return Err(UsageError(text.to_owned()).into());
    }
    let setup = Setup::new(&args.common, ProtocolVersion::V5)?;
    let mut signals =
        Signals::new().map_err(|error| Failure::Message(format!("Error: {error}")))?;
    let mut report = Report::to_stdout();
    let outcome = tokio::select! {
        outcome = steps::all(&args, &setup, &mut report) => outcome,
        status = signals.recv() => return Err(Failure::Interrupted(status)),
    };
    match outcome {
        Ok(()) => {
            let odd = report.oddities();
            let text = match odd {
                0 => "all is well.".to_owned(),
                1 => "it works, with one oddity, see above.".to_owned(),
                _ => format!("it works, with {odd} oddities, see above."),
            };
            report.conclude(if odd == 0 { Mark::Fine } else { Mark::Odd }, &text);
            Ok(())
        }
        Err(trouble) => {
            report.conclude(Mark::Bad, &trouble.sentence);
            Err(Failure::Told(trouble.status(setup.version)))
        }
    }
}

/// Adds a topic to a URL that has none: this command needs none.
fn complete(url: &mut String) {
    if let Some((_, rest)) = url.split_once("://")
        && rest
            .split_once('/')
            .is_none_or(|(_, topic)| topic.is_empty())
        && !url.starts_with("unix:")
    {
        if !url.ends_with('/') {
            url.push('/');
        }
        url.push_str("mqtt-client");
    }
}

/// What stops the way.
#[derive(Debug)]
struct Trouble {
    /// For people.
    sentence: String,
    /// Of the client, if it came so far.
    error: Option<Error>,
}

impl Trouble {
    fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            error: None,
        }
    }

    /// The exit status that `pub` would have.
    fn status(self, version: ProtocolVersion) -> u8 {
        match self.error {
            Some(error) => Failure::Connection(error, version).status(),
            None => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_needs_no_topic() {
        for (given, expected) in [
            ("mqtt://h", "mqtt://h/mqtt-client"),
            ("mqtts://h:1/", "mqtts://h:1/mqtt-client"),
            ("ws://h/a", "ws://h/a"),
            ("unix:///x", "unix:///x"),
            ("h", "h"),
        ] {
            let mut url = given.to_owned();
            complete(&mut url);
            assert_eq!(url, expected);
        }
    }
}
