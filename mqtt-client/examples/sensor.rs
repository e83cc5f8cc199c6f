//! A sensor that keeps its session and goes on after the connection is lost.
//!
//! `cargo run --example sensor -- localhost 1883`; stop it with Ctrl-C.

use std::env;
use std::error::Error;
use std::time::Duration;

use mqtt_client::{Backoff, Client, Message, Options, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "localhost".to_owned());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;

    let will = Message::new("sensors/example/state", "gone")?.retain(true);
    let options = Options::new(host, port)
        .client_id("example-sensor")
        .session_expiry_interval(3600)
        .will(will, Some(10))
        .reconnect(Backoff::default());
    let client = Client::connect(options).await?;

    let mut events = client.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            eprintln!("{event:?}");
        }
    });

    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut reading = 0_u32;
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                reading += 1;
                let message = Message::new("sensors/example/reading", reading.to_string())?;
                let receipt = client.publish(message.qos(QoS::AtLeastOnce)).await?;
                // The answer may take until the connection is back; the next reading does not wait.
                tokio::spawn(async move {
                    match receipt.await {
                        Ok(reason) => println!("reading {reading}: {}", reason.name()),
                        Err(error) => eprintln!("reading {reading}: {error}"),
                    }
                });
            }
            _ = tokio::signal::ctrl_c() => return Ok(client.disconnect().await?),
        }
    }
}
