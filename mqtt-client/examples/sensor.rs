//! A sensor that survives restarts, its own and the broker's: it keeps its session and, on disk, what it has not
//! delivered, connects again, and says goodbye even when it is cut off.
//!
//! `cargo run --features outbox --example sensor -- mqtt://localhost outbox`; stop it with Ctrl-C, or kill it.

use std::env;
use std::error::Error;
use std::time::Duration;

use mqtt_client::{Backoff, Client, Message, Options, Outbox, QoS, Receipt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args()
        .nth(1)
        .unwrap_or_else(|| "mqtt://localhost".to_owned());
    let folder = env::args().nth(2).unwrap_or_else(|| "outbox".to_owned());
    let client = start(&url, Outbox::open(folder)?)?;
    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            eprintln!("{event:?}");
        }
    });
    tokio::select! {
        outcome = measure(&client, Duration::from_secs(1)) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(client.disconnect().await?),
    }
}

/// A client that need not find the broker at once. What an earlier run has left goes first.
pub(crate) fn start(url: &str, outbox: Outbox) -> Result<Client, Box<dyn Error>> {
    for left in outbox.unfinished()? {
        let reading = String::from_utf8_lossy(left.message.payload()).into_owned();
        tokio::spawn(report(
            format!("{reading}, of an earlier run"),
            left.receipt,
        ));
    }
    let will = Message::new("sensors/example/state", "gone")?.retain(true);
    let options = Options::from_url(url)?
        .client_id("example-sensor")
        .session_expiry_interval(3600)
        .outbox(outbox)
        .will(will, Some(10))
        .reconnect(Backoff::default());
    Ok(Client::start(options))
}

/// Publishes a reading each time. When `publish` returns it is on the disk; the answer may take until the
/// connection is back, and the next reading does not wait for it.
pub(crate) async fn measure(client: &Client, pause: Duration) -> Result<(), Box<dyn Error>> {
    let mut ticks = tokio::time::interval(pause);
    for reading in 0_u32.. {
        ticks.tick().await;
        let message = Message::new("sensors/example/reading", reading.to_string())?;
        let receipt = client.publish(message.qos(QoS::AtLeastOnce)).await?;
        tokio::spawn(report(reading.to_string(), receipt));
    }
    Ok(())
}

async fn report(reading: String, receipt: Receipt) {
    match receipt.await {
        Ok(reason) => println!("reading {reading}: {}", reason.name()),
        Err(error) => eprintln!("reading {reading}: {error}"),
    }
}
