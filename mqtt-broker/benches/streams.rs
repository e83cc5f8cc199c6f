//! What a session takes where no socket bounds their number: clients on streams in memory, each with one
//! subscription, and messages to one after the other.
//!
//! `cargo bench -p ternmq-broker --bench streams -- SESSIONS [SECONDS]` prints a line of JSON. Time and memory
//! are those of the whole process, the clients' ends of the streams included.

use std::fs;
use std::time::{Duration, Instant};

use mqtt_broker::{Broker, Config};
use mqtt_codec::{
    Connect, Packet, PacketId, ProtocolVersion, Publish, QoS, Subscribe, SubscribeFilter,
    TopicFilter, TopicName, decode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const V3: ProtocolVersion = ProtocolVersion::V3_1_1;
/// Bytes that wait in a stream at most.
const STREAM: usize = 4096;
/// Messages that are under way at once.
const BATCH: usize = 100;
/// Between the receivers of two messages: a prime, so that all have their turn and none is near the last.
const STRIDE: usize = 7919;
const PAYLOAD: [u8; 64] = [b'.'; 64];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The client's end of a connection.
struct Client(DuplexStream);

impl Client {
    async fn connect(broker: &Broker, name: &str) -> Self {
        let (near, far) = tokio::io::duplex(STREAM);
        broker.serve(far, "memory");
        let mut client = Self(near);
        let mut connect = Connect::new(V3, name);
        connect.clean_start = true;
        client.send(&Packet::Connect(Box::new(connect))).await;
        client.receive().await;
        client
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = packet.to_vec(V3).expect("a packet");
        self.0.write_all(&bytes).await.expect("the broker is there");
    }

    /// Takes one packet, which comes alone.
    async fn receive(&mut self) {
        let mut buffer = [0; 256];
        let mut len = 0;
        loop {
            let count = self.0.read(&mut buffer[len..]).await;
            len += count.expect("the broker is there");
            match decode(&buffer[..len], V3, u32::MAX) {
                Ok(Some((_, whole))) if whole == len => return,
                Ok(None) if len < buffer.len() => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn topic(number: usize) -> String {
    format!("site/{}/device/{number}/value", number % 1000)
}

async fn subscriber(broker: &Broker, number: usize) -> Client {
    let mut client = Client::connect(broker, &format!("device-{number}")).await;
    let topic = topic(number);
    let filter = TopicFilter::new(&topic).expect("a filter");
    let filter = SubscribeFilter::new(filter, QoS::AtMostOnce);
    let subscribe = Subscribe::new(PacketId::MIN, vec![filter]);
    client.send(&Packet::Subscribe(subscribe)).await;
    client.receive().await;
    client
}

/// Publishes to one receiver after the other until the time is over; returns how many messages came.
async fn load(broker: &Broker, receivers: &mut [Client], time: Duration) -> usize {
    let mut publisher = Client::connect(broker, "publisher").await;
    let begin = Instant::now();
    let (mut messages, mut at) = (0, 0);
    while begin.elapsed() < time {
        let turn: Vec<usize> = (0..BATCH.min(receivers.len()))
            .map(|number| (at + number * STRIDE) % receivers.len())
            .collect();
        at = (at + BATCH * STRIDE) % receivers.len();
        for &number in &turn {
            let topic = topic(number);
            let topic = TopicName::new(&topic).expect("a topic");
            let publish = Publish::new(topic, &PAYLOAD);
            publisher.send(&Packet::Publish(publish)).await;
        }
        for number in turn {
            receivers[number].receive().await;
            messages += 1;
        }
    }
    messages
}

/// Processor time of the process so far, in microseconds, and its resident memory, in KiB.
fn usage() -> (f64, f64) {
    let read = |file: &str| fs::read_to_string(file).expect("Linux");
    let stat = read("/proc/self/stat");
    // Behind the name, which may contain anything; a tick is 10 ms.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    let status = read("/proc/self/status");
    let memory = status.lines().find_map(|line| {
        let kib = line.strip_prefix("VmRSS:")?.split_whitespace().next()?;
        kib.parse().ok()
    });
    (ticks * 10_000.0, memory.expect("VmRSS"))
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let sessions: usize = numbers.next().unwrap_or(1000);
    let seconds: usize = numbers.next().unwrap_or(1);
    let runtime = mqtt_broker::runtime().expect("a runtime");
    runtime.block_on(async {
        let broker = Broker::new(Config::default());
        let (_, before) = usage();
        let mut receivers = Vec::with_capacity(sessions);
        for number in 0..sessions {
            receivers.push(subscriber(&broker, number).await);
        }
        let (from, memory) = usage();
        let time = Duration::from_secs(seconds as u64);
        let messages = load(&broker, &mut receivers, time).await;
        let (to, _) = usage();
        let cost = (to - from) / messages as f64;
        let each = (memory - before) / sessions as f64;
        println!(
            "{{\"sessions\":{sessions},\"messages\":{messages},\"cpu_us_per_message\":{cost:.3},\
             \"rss_kib\":{memory},\"kib_per_session\":{each:.3}}}"
        );
    });
}
