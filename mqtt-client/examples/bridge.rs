//! A bridge: what one broker gets below a filter is published to another one, surviving the loss of either.
//!
//! `cargo run --example bridge -- mqtt://localhost:1883 mqtt://localhost:1884 'sensors/#'`

use std::env;
use std::error::Error;

use mqtt_client::{Acknowledge, Backoff, Client, Filter, Options, QoS};

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
            // The source keeps the message until the destination has it.
            if receipt.await.is_ok_and(|reason| !reason.is_error()) {
                message.acknowledge();
            }
        });
    }
    Ok(source.closed().await?)
}
