//! A service that adds numbers, and a program that asks it (MQTT 5).
//!
//! `cargo run --example service -- mqtt://localhost`, then `cargo run --example service -- mqtt://localhost 1 2 3`

use std::env;
use std::error::Error;
use std::time::Duration;

use mqtt_client::{Backoff, Client, Filter, Message, Options, QoS};

const TOPIC: &str = "services/add";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let url = arguments
        .next()
        .unwrap_or_else(|| "mqtt://localhost".to_owned());
    let numbers: Vec<String> = arguments.collect();
    if numbers.is_empty() {
        return serve(&url).await;
    }
    println!("{}", ask(&url, &numbers.join(" ")).await?);
    Ok(())
}

/// Answers requests. Several services share the work.
pub(crate) async fn serve(url: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::start(Options::from_url(url)?.reconnect(Backoff::default()));
    let filter = Filter::new(format!("$share/adders/{TOPIC}"))?.qos(QoS::AtLeastOnce);
    let mut requests = client.subscribe(filter).await?;
    while let Some(request) = requests.recv().await {
        let text = String::from_utf8_lossy(request.payload());
        let sum: Result<i64, _> = text.split_whitespace().map(str::parse::<i64>).sum();
        let answer = sum.map_or_else(|error| error.to_string(), |sum| sum.to_string());
        if let Some(response) = request.response(answer)? {
            client.publish(response).await?.await?;
        }
    }
    Ok(client.closed().await?)
}

/// Asks once, and waits ten seconds at most.
pub(crate) async fn ask(url: &str, numbers: &str) -> Result<String, Box<dyn Error>> {
    let client = Client::connect(Options::from_url(url)?).await?;
    let request = Message::new(TOPIC, numbers.to_owned())?.qos(QoS::AtLeastOnce);
    let answer = tokio::time::timeout(Duration::from_secs(10), client.request(request)).await??;
    client.disconnect().await?;
    Ok(String::from_utf8_lossy(answer.payload()).into_owned())
}
