//! Subscribes, publishes one message to itself, prints it, and disconnects.
//!
//! `cargo run --example hello -- localhost 1883`

use std::env;
use std::error::Error;

use mqtt_client::{Client, Filter, Message, Options, QoS};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let host = arguments.next().unwrap_or_else(|| "localhost".to_owned());
    let port = arguments.next().map_or(Ok(1883), |port| port.parse())?;

    let client = Client::connect(Options::new(host, port)).await?;
    println!("connected as {}", client.server().client_id);

    let filter = Filter::new("hello/#")?.qos(QoS::ExactlyOnce);
    let mut greetings = client.subscribe(filter).await?;
    let message = Message::new("hello/world", "hello")?.qos(QoS::ExactlyOnce);
    let receipt = client.publish(message).await?;
    println!("published: {}", receipt.await?.name());

    if let Some(message) = greetings.recv().await {
        println!(
            "received {}: {}",
            message.topic(),
            String::from_utf8_lossy(message.payload())
        );
    }
    client.disconnect().await?;
    Ok(())
}
