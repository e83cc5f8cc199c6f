//! `pub`: publishes and waits for the acknowledgements.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use mqtt_client::{Backoff, Client, Error, Message, ProtocolVersion, Receipt};
use tokio::io::BufReader;

use super::args::PubArgs;
use super::connection::{self, Setup};
use super::payload::{self, Lines};
use super::signals::Signals;
use super::{Failure, UsageError, complain};

/// Most lines that wait for their acknowledgement before another is read.
const WINDOW: usize = 1024;

/// Runs the command to its end.
pub(crate) async fn run(args: PubArgs) -> Result<(), Failure> {
    let mut setup = Setup::new(&args.common, ProtocolVersion::V3_1_1)?;
    if args.stdin_line {
        // The lines go on after a loss, as with mosquitto_pub.
        setup.options = setup.options.reconnect(Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(30),
        });
    }
    let missing = || UsageError("Error: Both topic and message must be supplied.".to_owned());
    let topic = setup.topic(args.topic.as_ref()).ok_or_else(missing)?;
    connection::publishable(&topic)?;
    let mut signals =
        Signals::new().map_err(|error| Failure::Message(format!("Error: {error}")))?;
    let payload = tokio::select! {
        payload = payload::read(&args.payload) => payload?,
        status = signals.recv() => return Err(Failure::Interrupted(status)),
    };
    if payload.is_none() && !args.stdin_line {
        return Err(missing().into());
    }
    let (client, incoming) = tokio::select! {
        connected = setup.connect() => connected?,
        status = signals.recv() => return Err(Failure::Interrupted(status)),
    };
    // What a kept session delivers stays with the server: nothing acknowledges it.
    drop(incoming);
    let mut publisher = Publisher {
        args: &args,
        setup: &setup,
        client: client.clone(),
        topic,
        published: 0,
    };
    let work = async {
        match payload {
            Some(payload) => publisher.repeat(payload).await,
            None => {
                let input = BufReader::new(tokio::io::stdin());
                publisher.lines(Lines::new(input)).await
            }
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        status = signals.recv() => Err(Failure::Interrupted(status)),
    };
    let mut ending = setup.properties.disconnect.clone();
    if matches!(outcome, Err(Failure::Interrupted(_))) {
        ending = ending.drain(Duration::ZERO);
    }
    let disconnected = client.disconnect_with(ending).await;
    outcome?;
    disconnected.map_err(|error| Failure::Connection(error, setup.version))
}

struct Publisher<'a> {
    args: &'a PubArgs,
    setup: &'a Setup,
    client: Client,
    topic: String,
    published: u64,
}

impl Publisher<'_> {
    async fn send(&self, payload: Bytes) -> Result<Receipt, Failure> {
        let message = Message::new(&self.topic, payload)
            .map_err(|error| self.failure(error.into()))?
            .qos(self.args.common.qos)
            .retain(self.args.retain)
            .properties(self.setup.properties.publish.clone());
        self.client
            .publish(message)
            .await
            .map_err(|error| self.failure(error))
    }

    fn failure(&self, error: Error) -> Failure {
        Failure::Connection(error, self.setup.version)
    }

    /// Waits until a message is through. A refusal is a warning, as with mosquitto_pub.
    async fn confirm(&mut self, receipt: Receipt) -> Result<(), Failure> {
        self.published += 1;
        match receipt.await {
            Ok(reason) if reason.is_error() && !self.args.common.quiet => {
                complain(&format!(
                    "Warning: Publish {} failed: {}.",
                    self.published,
                    reason.name()
                ));
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// One payload as often as `--repeat` says; the delay begins when a message is through.
    async fn repeat(&mut self, payload: Bytes) -> Result<(), Failure> {
        for turn in 0..self.args.repeat {
            if turn > 0 && !self.args.repeat_delay.is_zero() {
                tokio::time::sleep(self.args.repeat_delay).await;
            }
            let receipt = self.send(payload.clone()).await?;
            self.confirm(receipt).await?;
        }
        Ok(())
    }

    /// A message a line, many of them in flight.
    async fn lines(
        &mut self,
        mut lines: Lines<impl tokio::io::AsyncBufRead + Unpin>,
    ) -> Result<(), Failure> {
        let mut receipts = VecDeque::new();
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                ended = self.client.closed() => {
                    return Err(self.failure(ended.err().unwrap_or(Error::Closed)));
                }
            };
            let Some(line) = line.map_err(|error| {
                Failure::Message(format!("Error: Unable to read standard input: {error}."))
            })?
            else {
                break;
            };
            receipts.push_back(self.send(line).await?);
            while receipts.len() >= WINDOW
                && let Some(receipt) = receipts.pop_front()
            {
                self.confirm(receipt).await?;
            }
        }
        for receipt in receipts {
            self.confirm(receipt).await?;
        }
        Ok(())
    }
}
