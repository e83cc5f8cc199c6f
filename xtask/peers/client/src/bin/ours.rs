//! The client of this workspace.

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use client_peers::{Arguments, CREDITS, Meter, TOPIC, WINDOW, report_latency};
use mqtt_client::{Client, Filter, Message, Options, ProtocolVersion, QoS, Receipt};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    // As a task beside that of the client: what runs in `main` itself costs the runtime a system call each time it is
    // woken.
    tokio::spawn(run()).await?
}

async fn run() -> Result<(), Failure> {
    let arguments = Arguments::read().ok_or("MODE PORT QOS SIZE COUNT")?;
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(arguments.qos)];
    let options = Options::new("127.0.0.1", arguments.port)
        .version(ProtocolVersion::V3_1_1)
        .client_id(format!("ours-{}", arguments.mode))
        .send_maximum(WINDOW);
    let client = Client::connect(options).await?;
    let payload = Bytes::from(vec![b'x'; arguments.size]);
    let message = || Ok::<_, Failure>(Message::new(TOPIC, payload.clone())?.qos(qos));
    let filter = |topic| Filter::new(topic).map(|filter: Filter| filter.qos(qos));
    match arguments.mode.as_str() {
        "publish" => {
            let meter = Meter::start();
            let mut receipts = std::collections::VecDeque::<Receipt>::new();
            for _ in 0..arguments.count {
                receipts.push_back(client.publish(message()?).await?);
                if receipts.len() > 1000
                    && let Some(receipt) = receipts.pop_front()
                {
                    receipt.await?;
                }
            }
            for receipt in receipts {
                receipt.await?;
            }
            meter.report(arguments.count);
        }
        // The load for whoever receives: a batch for each credit.
        "feed" => {
            let mut credits = client.subscribe(Filter::new(CREDITS)?).await?;
            println!("ready");
            let mut left = arguments.count;
            while left > 0 {
                credits.recv().await.ok_or("the connection ended")?;
                for _ in 0..arguments.batch().min(left) {
                    drop(client.publish(message()?).await?);
                    left -= 1;
                }
            }
        }
        "receive" => {
            let mut messages = client.subscribe(filter(TOPIC)?).await?;
            println!("ready");
            let credit = || Message::new(CREDITS, Bytes::new());
            let mut meter = None;
            drop(client.publish(credit()?).await?);
            drop(client.publish(credit()?).await?);
            for number in 1..=arguments.count {
                messages.recv().await.ok_or("the connection ended")?;
                meter.get_or_insert_with(Meter::start);
                if number % arguments.batch() == 0 {
                    drop(client.publish(credit()?).await?);
                }
            }
            if let Some(meter) = meter {
                meter.report(arguments.count);
            }
        }
        _ => {
            let mut messages = client.subscribe(filter(TOPIC)?).await?;
            let mut times = Vec::new();
            for _ in 0..arguments.count {
                let start = Instant::now();
                drop(client.publish(message()?).await?);
                messages.recv().await.ok_or("the connection ended")?;
                times.push(start.elapsed());
            }
            report_latency(times);
        }
    }
    client.disconnect().await?;
    Ok(())
}
