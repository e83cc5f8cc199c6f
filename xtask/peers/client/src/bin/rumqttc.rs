//! The client rumqttc.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client_peers::{Arguments, CREDITS, Meter, TOPIC, WINDOW, report_latency};
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing, Packet, QoS,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read().ok_or("MODE PORT QOS SIZE COUNT")?;
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(arguments.qos)];
    let id = format!("rumqttc-{}", arguments.mode);
    let mut options = MqttOptions::new(id, "127.0.0.1", arguments.port);
    options.set_keep_alive(Duration::from_secs(60));
    options.set_inflight(WINDOW);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 1000);
    // As the others do. Else a round trip above QoS 0 waits for a delayed acknowledgement of TCP: 44 ms.
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    until(&mut events, |event| matches!(event, Event::Incoming(Packet::ConnAck(_)))).await?;
    let payload = Bytes::from(vec![b'x'; arguments.size]);
    if arguments.mode != "publish" {
        client.subscribe(TOPIC, qos).await?;
        until(&mut events, |event| matches!(event, Event::Incoming(Packet::SubAck(_)))).await?;
        println!("ready");
    }
    match arguments.mode.as_str() {
        "publish" => {
            let meter = Meter::start();
            let count = arguments.count;
            let publisher = tokio::spawn({
                let (client, payload) = (client.clone(), payload.clone());
                async move {
                    for _ in 0..count {
                        client.publish_bytes(TOPIC, qos, false, payload.clone()).await?;
                    }
                    Ok::<(), rumqttc::ClientError>(())
                }
            });
            let mut done = 0;
            while done < count {
                match (events.poll().await?, qos) {
                    (Event::Outgoing(Outgoing::Publish(_)), QoS::AtMostOnce)
                    | (Event::Incoming(Packet::PubAck(_)), QoS::AtLeastOnce)
                    | (Event::Incoming(Packet::PubComp(_)), QoS::ExactlyOnce) => done += 1,
                    _ => {}
                }
            }
            publisher.await??;
            meter.report(count);
        }
        "receive" => {
            let credit = || client.try_publish(CREDITS, QoS::AtMostOnce, false, Bytes::new());
            credit()?;
            credit()?;
            let mut meter = None;
            for number in 1..=arguments.count {
                let is_message = |event: &Event| matches!(event, Event::Incoming(Packet::Publish(_)));
                until(&mut events, is_message).await?;
                meter.get_or_insert_with(Meter::start);
                if number % arguments.batch() == 0 {
                    credit()?;
                }
            }
            if let Some(meter) = meter {
                meter.report(arguments.count);
            }
        }
        _ => {
            let mut times = Vec::new();
            for _ in 0..arguments.count {
                let start = Instant::now();
                client.publish_bytes(TOPIC, qos, false, payload.clone()).await?;
                let is_message = |event: &Event| matches!(event, Event::Incoming(Packet::Publish(_)));
                until(&mut events, is_message).await?;
                times.push(start.elapsed());
            }
            report_latency(times);
        }
    }
    client.disconnect().await?;
    // What is queued leaves before the end of the loop.
    while events.poll().await.is_ok() {}
    Ok(())
}

async fn until(
    events: &mut EventLoop,
    is_wanted: impl Fn(&Event) -> bool,
) -> Result<(), Box<dyn Error>> {
    loop {
        if is_wanted(&events.poll().await?) {
            return Ok(());
        }
    }
}
