//! `sub`: subscribes and prints what arrives until something ends it.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IsTerminal};
use std::time::Duration;

use mqtt_client::{
    Acknowledge, Backoff, Client, DisconnectOptions, Error, Filter, Incoming, Message,
    ProtocolVersion, QoS, Receipt, Received, RetainHandling, TopicFilter, TopicName,
};

use super::args::SubArgs;
use super::connection::Setup;
use super::format;
use super::output::{Output, unwritable, write};
use super::signals::Signals;
use super::watch::{Rate, Screen};
use super::{Failure, UsageError};

/// Bytes that are printed before more messages are taken.
const BATCH: usize = 64 * 1024;

/// Runs the command to its end.
pub(crate) async fn run(args: SubArgs) -> Result<(), Failure> {
    let mut setup = Setup::new(&args.common, ProtocolVersion::V3_1_1)?;
    let mut filters = args.topics.clone();
    if let Some(topic) = &setup.url_topic {
        TopicFilter::new(topic).map_err(|error| {
            UsageError(format!(
                "Error: Invalid subscription topic '{topic}': {error}."
            ))
        })?;
        filters.push(topic.clone());
    }
    if filters.is_empty() && args.unsubscribe.is_empty() {
        let text = "Error: You must specify a topic to subscribe to (-t) or unsubscribe from (-U).";
        return Err(UsageError(text.to_owned()).into());
    }
    if args.hide_retained && args.retained_only {
        let text = "Error: Combining '-R' and '--retained-only' makes no sense.";
        return Err(UsageError(text.to_owned()).into());
    }
    let output = Output::new(&args.output)?;
    let mut options = setup
        .options
        .clone()
        .acknowledge(Acknowledge::Manually)
        .reconnect(Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        });
    // No more than asked for: what is not printed stays with the server.
    if let Some(count) = args
        .count
        .and_then(|count| u16::try_from(count).ok())
        .filter(|count| *count < 20)
    {
        options = options.receive_maximum(count);
    }
    setup.options = options;

    let mut signals =
        Signals::new().map_err(|error| Failure::Message(format!("Error: {error}")))?;
    // From here on, as with mosquitto_sub: a server that does not answer takes of it as well.
    let deadline = sleep(
        args.timeout
            .map(|seconds| Duration::from_secs(seconds.into())),
    );
    tokio::pin!(deadline);
    let (client, incoming) = tokio::select! {
        connected = setup.connect() => connected?,
        _ = signals.recv() => return Ok(()),
        () = &mut deadline => return Err(Failure::TimedOut),
    };
    let mut subscriber = Subscriber {
        args: &args,
        setup: &setup,
        client,
        output,
        screen: (args.watch && io::stdout().is_terminal()).then(Screen::of_terminal),
        rate: args.message_rate.then(Rate::start),
        printed: 0,
        removals: Vec::new(),
    };

    let ending = tokio::select! {
        ending = subscriber.work(&filters, incoming) => ending,
        _ = signals.recv() => Ok(Ending::Interrupted),
        () = &mut deadline => Ok(Ending::TimedOut),
    };
    subscriber.finish(ending).await
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Why the printing ends.
enum Ending {
    /// `-C`, `-E` or `--retained-only` has what it wants.
    Done,
    /// Nobody reads standard output any more.
    BrokenPipe,
    /// A signal came.
    Interrupted,
    /// `-W` is over.
    TimedOut,
}

struct Subscriber<'a> {
    args: &'a SubArgs,
    setup: &'a Setup,
    client: Client,
    output: Output,
    /// Of `--watch`.
    screen: Option<Screen>,
    /// Of `--message-rate`.
    rate: Option<Rate>,
    printed: u64,
    /// Publications of `--remove-retained` under way.
    removals: Vec<Receipt>,
}

impl Subscriber<'_> {
    fn failure(&self, error: Error) -> Failure {
        Failure::Connection(error, self.setup.version)
    }

    /// Subscribes, then prints. Messages of a kept session may come before the SUBACK.
    async fn work(
        &mut self,
        filters: &[String],
        mut incoming: Incoming,
    ) -> Result<Ending, Failure> {
        let client = self.client.clone();
        let subscribing = subscribe(&client, self.args, self.setup, filters);
        tokio::pin!(subscribing);
        let mut subscribed = false;
        loop {
            tokio::select! {
                // SUBSCRIBE goes first: its packet identifier is 1.
                biased;
                outcome = &mut subscribing, if !subscribed => {
                    outcome?;
                    subscribed = true;
                    if self.args.exit_after_subscribing {
                        return Ok(Ending::Done);
                    }
                }
                count = Rate::next(&mut self.rate) => {
                    match write(format!("{count}\n").as_bytes()) {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(Ending::BrokenPipe);
                        }
                        Err(error) => return Err(unwritable(error)),
                    }
                }
                first = incoming.recv() => {
                    let Some(first) = first else {
                        let ended = self.client.closed().await;
                        return Err(self.failure(ended.err().unwrap_or(Error::ConnectionLost)));
                    };
                    if let Some(ending) = self.batch(first, &mut incoming).await? {
                        if matches!(ending, Ending::Done) && !subscribed {
                            // A kept session had enough waiting. What was asked for is still
                            // to be in it.
                            subscribing.await?;
                        }
                        return Ok(ending);
                    }
                }
            }
        }
    }

    /// Prints the first message and those that wait behind it with one write, then acknowledges.
    async fn batch(
        &mut self,
        first: Received,
        incoming: &mut Incoming,
    ) -> Result<Option<Ending>, Failure> {
        let (mut out, mut problems, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        let mut ending = None;
        let mut next = Some(first);
        while let Some(message) = next {
            ending = self.print(&message, &mut out, &mut problems).await?;
            taken.push(message);
            if ending.is_some() || out.len() >= BATCH {
                break;
            }
            next = incoming.try_recv();
        }
        let written = write(&out);
        if !self.args.common.quiet {
            format::report(&mut problems);
        }
        match written {
            Ok(()) => {
                for message in &taken {
                    incoming.acknowledge(message);
                }
                Ok(ending)
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Some(Ending::BrokenPipe)),
            Err(error) => Err(unwritable(error)),
        }
    }

    async fn print(
        &mut self,
        message: &Received,
        out: &mut Vec<u8>,
        problems: &mut Vec<String>,
    ) -> Result<Option<Ending>, Failure> {
        if self.args.retained_only && !message.is_retained() {
            return Ok(Some(Ending::Done));
        }
        if message.is_retained() && self.args.remove_retained && !self.is_filtered_out(message) {
            let removal =
                Message::new(message.topic(), "").map_err(|error| self.failure(error.into()))?;
            let removal = removal.qos(QoS::AtLeastOnce).retain(true);
            let receipt = self
                .client
                .publish(removal)
                .await
                .map_err(|error| self.failure(error))?;
            self.removals.push(receipt);
        }
        if (message.is_retained() && self.args.hide_retained) || self.is_filtered_out(message) {
            return Ok(None);
        }
        if let Some(rate) = &mut self.rate {
            rate.count();
        } else if self.args.random_filter.is_none_or(chance) {
            match &mut self.screen {
                Some(screen) => screen.print(message, &self.output, out, problems),
                None => self.output.print(message, out, problems),
            }
        }
        self.printed += 1;
        Ok((Some(self.printed) == self.args.count).then_some(Ending::Done))
    }

    fn is_filtered_out(&self, message: &Received) -> bool {
        let Ok(topic) = TopicName::new(message.topic()) else {
            return false;
        };
        let mut filters = self.args.filter_out.iter();
        filters.any(|filter| TopicFilter::new(filter).is_ok_and(|filter| filter.matches(topic)))
    }

    /// Waits for removals and disconnects. As mosquitto_sub does, an end by signal or time has the
    /// server publish the Will where the version can ask for it.
    async fn finish(mut self, ending: Result<Ending, Failure>) -> Result<(), Failure> {
        let ending = match ending {
            Ok(ending) => ending,
            Err(failure) => {
                // It may be lost already; if not, an orderly end keeps the Will back.
                let _ = self.client.disconnect().await;
                return Err(failure);
            }
        };
        if matches!(ending, Ending::Done) {
            for receipt in std::mem::take(&mut self.removals) {
                receipt.await.map_err(|error| self.failure(error))?;
            }
        }
        let properties: DisconnectOptions = self.setup.properties.disconnect.clone();
        let properties = match ending {
            // Nothing is waited for.
            Ending::Interrupted | Ending::TimedOut => properties.with_will().drain(Duration::ZERO),
            Ending::Done | Ending::BrokenPipe => properties,
        };
        let disconnected = self.client.disconnect_with(properties).await;
        match ending {
            Ending::TimedOut => Err(Failure::TimedOut),
            // The connection may be gone already: nothing is lost by it.
            Ending::Interrupted | Ending::BrokenPipe => Ok(()),
            Ending::Done => disconnected.map_err(|error| self.failure(error)),
        }
    }
}

/// Whether a message is among this percentage.
fn chance(percent: f64) -> bool {
    let random = RandomState::new().hash_one(0_u8) % 10_000;
    (random as f64) < percent * 100.0
}

async fn subscribe(
    client: &Client,
    args: &SubArgs,
    setup: &Setup,
    filters: &[String],
) -> Result<(), Failure> {
    let failure = |error| Failure::Connection(error, setup.version);
    if !filters.is_empty() {
        let mut list = Vec::with_capacity(filters.len());
        for filter in filters {
            let mut filter = Filter::new(filter)
                .map_err(|error| failure(error.into()))?
                .qos(args.common.qos)
                .retain_as_published(args.retain_as_published);
            if let Some(handling) = args.retain_handling {
                filter = filter.retain_handling(handling);
            } else if args.hide_retained {
                filter = filter.retain_handling(RetainHandling::Never);
            }
            list.push(filter);
        }
        let options = setup.properties.of_subscribe();
        let codes = client
            .subscribe_unclaimed(list, options)
            .await
            .map_err(failure)?;
        if args.common.debug && !args.common.quiet {
            // mosquitto_sub says it on standard output, and scripts wait for it.
            let codes: Vec<_> = codes.iter().map(|code| code.0.to_string()).collect();
            let line = format!("Subscribed (mid: 1): {}\n", codes.join(", "));
            write(line.as_bytes()).map_err(unwritable)?;
        }
        if codes.iter().all(|code| code.is_error()) {
            return Err(Failure::Message(
                "All subscription requests were denied.".to_owned(),
            ));
        }
    }
    if !args.unsubscribe.is_empty() {
        client
            .unsubscribe_with(
                args.unsubscribe.clone(),
                setup.properties.unsubscribe.clone(),
            )
            .await
            .map_err(failure)?;
    }
    Ok(())
}
