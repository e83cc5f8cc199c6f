//! A sensor that survives restarts, its own and the broker's: it keeps its session, connects again, and
//! says goodbye even when it is cut off.
//!
//! `cargo run --example sensor -- mqtt://localhost`; stop it with Ctrl-C.

use std::env;
use std::error::Error;
use std::time::Duration;

use mqtt_client::{Backoff, Client, Message, Options, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args()
        .nth(1)
        .unwrap_or_else(|| "mqtt://localhost".to_owned());
    let client = start(&url)?;
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

/// A client that need not find the broker at once.
pub fn start(url: &str) -> Result<Client, Box<dyn Error>> {
    let will = Message::new("sensors/example/state", "gone")?.retain(true);
    let options = Options::from_url(url)?
        .client_id("example-sensor")
        .clean_start(false)
        .adopt_session(true)
        .session_expiry_interval(3600)
        .will(will, Some(10))
        .reconnect(Backoff::default());
    Ok(Client::start(options))
}

/// Publishes a reading each time. The answers may take until the connection is back; the next reading does
/// not wait for them.
pub async fn measure(client: &Client, pause: Duration) -> Result<(), Box<dyn Error>> {
    let mut ticks = tokio::time::interval(pause);
    for reading in 0_u32.. {
        ticks.tick().await;
        let message = Message::new("sensors/example/reading", reading.to_string())?;
        let receipt = client.publish(message.qos(QoS::AtLeastOnce)).await?;
        tokio::spawn(async move {
            match receipt.await {
                Ok(reason) => println!("reading {reading}: {}", reason.name()),
                Err(error) => eprintln!("reading {reading}: {error}"),
            }
        });
    }
    Ok(())
}
