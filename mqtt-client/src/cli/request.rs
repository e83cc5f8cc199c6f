//! `rr`: publishes a request and prints the first message that comes to the response topic.

use std::time::{Duration, Instant};

use mqtt_client::{
    Acknowledge, Backoff, Client, Error, Filter, Incoming, Message, ProtocolVersion, Received,
    RetainHandling,
};

use super::args::RequestArgs;
use super::connection::{self, Setup};
use super::output::{Output, unwritable, write};
use super::signals::Signals;
use super::{Failure, UsageError, complain, format, payload};

/// Runs the command to its end.
pub(crate) async fn run(args: RequestArgs) -> Result<(), Failure> {
    let mut setup = Setup::new(&args.common, ProtocolVersion::V5)?;
    setup.options = setup
        .options
        .acknowledge(Acknowledge::Manually)
        .reconnect(Backoff::default());
    let missing = || {
        let text = "Error: All of topic, message, and response topic must be supplied.";
        UsageError(text.to_owned())
    };
    let topic = setup.topic(args.topic.as_ref()).ok_or_else(missing)?;
    connection::publishable(&topic)?;
    let response_topic = args.response_topic.clone().ok_or_else(missing)?;
    let output = Output::new(&args.output)?;
    let mut properties = setup.properties.publish.clone();
    if properties.response_topic.is_some() {
        let text = "Error: The response topic is that of -e, and needs no -D.";
        return Err(UsageError(text.to_owned()).into());
    }
    if setup.version.has_properties() {
        properties.response_topic = Some(response_topic.clone());
    }
    let mut signals =
        Signals::new().map_err(|error| Failure::Message(format!("Error: {error}")))?;
    let payload = tokio::select! {
        payload = payload::read(&args.payload) => payload?.ok_or_else(missing)?,
        status = signals.recv() => return Err(Failure::Interrupted(status)),
    };
    let request = Message::new(&topic, payload)
        .map_err(|error| Failure::Connection(error.into(), setup.version))?
        .qos(args.common.qos)
        .properties(properties);

    let deadline = async {
        match args.timeout {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds.into())).await,
            None => std::future::pending().await,
        }
    };
    let mut connection = None;
    let work = async {
        let (client, incoming) = setup.connect().await?;
        connection = Some(client.clone());
        exchange(&args, &setup, &client, incoming, &response_topic, request).await
    };
    let answer = tokio::select! {
        answer = work => answer,
        () = deadline => Err(Failure::TimedOut),
        status = signals.recv() => Err(Failure::Interrupted(status)),
    };
    let printed = answer.and_then(|(answer, time)| {
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        output.print(&answer, &mut out, &mut problems);
        write(&out).map_err(unwritable)?;
        if !args.common.quiet {
            format::report(&mut problems);
        }
        answer.acknowledge();
        if args.latency {
            complain(&format!("Latency: {:.3} ms", time.as_secs_f64() * 1000.0));
        }
        Ok(())
    });
    let Some(client) = connection else {
        return printed;
    };
    let mut ending = setup.properties.disconnect.clone();
    if matches!(printed, Err(Failure::TimedOut | Failure::Interrupted(_))) {
        // As mosquitto_rr does.
        ending = ending.with_will().drain(Duration::ZERO);
    }
    let disconnected = client.disconnect_with(ending).await;
    printed?;
    disconnected.map_err(|error| Failure::Connection(error, setup.version))
}

/// Subscribes, publishes, and waits; the answer and how long it took.
async fn exchange(
    args: &RequestArgs,
    setup: &Setup,
    client: &Client,
    mut incoming: Incoming,
    response_topic: &str,
    request: Message,
) -> Result<(Received, Duration), Failure> {
    let failure = |error| Failure::Connection(error, setup.version);
    let mut filter = Filter::new(response_topic)
        .map_err(|error| failure(error.into()))?
        .qos(args.common.qos);
    if let Some(handling) = args.retain_handling {
        filter = filter.retain_handling(handling);
    } else if args.hide_retained {
        filter = filter.retain_handling(RetainHandling::Never);
    }
    let options = setup.properties.of_subscribe();
    let codes = client
        .subscribe_unclaimed([filter], options)
        .await
        .map_err(failure)?;
    if let Some(code) = codes.iter().find(|code| code.is_error()) {
        return Err(Failure::Message(format!(
            "Error: The subscription to the response topic was refused: {}.",
            code.name()
        )));
    }
    let sent = Instant::now();
    let receipt = client.publish(request).await.map_err(failure)?;
    let mut receipt = Some(receipt);
    loop {
        tokio::select! {
            reason = async { receipt.as_mut().expect("polled only while there is one").await },
                if receipt.is_some() =>
            {
                receipt = None;
                let reason = reason.map_err(failure)?;
                if reason.is_error() {
                    return Err(Failure::Message(format!(
                        "Error: The request was refused: {}.",
                        reason.name()
                    )));
                }
            }
            answer = incoming.recv() => {
                let Some(answer) = answer else {
                    let ended = client.closed().await;
                    return Err(failure(ended.err().unwrap_or(Error::ConnectionLost)));
                };
                if answer.topic() != response_topic || (args.hide_retained && answer.is_retained()) {
                    answer.acknowledge();
                    continue;
                }
                return Ok((answer, sent.elapsed()));
            }
        }
    }
}
