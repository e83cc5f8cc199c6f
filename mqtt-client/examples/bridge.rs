//! A bridge: what one broker gets below a filter is published to another one, surviving the loss of either.
//!
//! `cargo run --example bridge -- mqtt://localhost:1883 mqtt://localhost:1884 'sensors/#'`

use std::env;
use std::error::Error;

use mqtt_client::{Acknowledge, Backoff, Blame, Client, Filter, Options, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [from, to, filter] = arguments.as_slice() else {
        return Err("usage: bridge FROM TO FILTER".into());
    };
    bridge(from, to, filter).await
}

/// Passes messages on until one of the clients ends.
pub(crate) async fn bridge(from: &str, to: &str, filter: &str) -> Result<(), Box<dyn Error>> {
    let options = |url: &str| -> Result<Options, Box<dyn Error>> {
        Ok(Options::from_url(url)?
            .client_id("bridge")
            .clean_start(false)
            .adopt_session(true)
            .session_expiry_interval(24 * 3600)
            .acknowledge(Acknowledge::Manually)
            .reconnect(Backoff::default()))
    };
    let source = Client::start(options(from)?);
    let destination = Client::start(options(to)?);
    let filter = Filter::new(filter)?.qos(QoS::AtLeastOnce).no_local(true);
    let mut messages = source.subscribe(filter).await?;
    while let Some(message) = messages.recv().await {
        let receipt = destination.publish((*message).clone()).await?;
        tokio::spawn(async move {
            // The source keeps the message until the destination has it, or does not want it: acknowledgements leave
            // in the order of the messages, so that one which is never given would hold up all behind it.
            match receipt.await {
                Ok(reason) if reason.is_error() => {
                    eprintln!("{} was refused: {}", message.topic(), reason.name());
                    message.acknowledge();
                }
                Ok(_) => message.acknowledge(),
                Err(error) if error.blame() == Blame::Caller => {
                    eprintln!("{} cannot be passed on: {error}", message.topic());
                    message.acknowledge();
                }
                // The destination has ended, and the bridge with it.
                Err(error) => eprintln!("{} was not passed on: {error}", message.topic()),
            }
        });
    }
    Ok(source.closed().await?)
}
