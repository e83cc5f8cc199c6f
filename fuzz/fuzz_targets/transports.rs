//! Bytes before there is MQTT: PROXY headers, WebSocket handshakes and frames. Whatever comes, the broker ends
//! the connection in time and serves the next client.
#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use mqtt_broker::{Broker, Config, Peer, ProxyOptions, Transport, WebSocketOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PIPE: usize = 4_096;
const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04fuzz";
const CONNACK: &[u8] = b"\x20\x02\0\0";

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    proxy: bool,
    websocket: bool,
    /// Whether each stage is done as it should be before the bytes.
    valid_header: bool,
    valid_handshake: bool,
    valid_connect: bool,
    /// Sent in these portions.
    portion: u8,
    bytes: &'a [u8],
}

fn transport(input: &Input<'_>) -> Transport {
    let mut transport = Transport::default();
    if input.proxy {
        transport.proxy = Some(Arc::new(ProxyOptions::new(Vec::new())));
    }
    if input.websocket {
        transport.websocket = Some(Arc::new(WebSocketOptions::default()));
    }
    transport
}

/// A frame of a client with a mask of zeros.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    out.extend_from_slice(payload);
    out
}

async fn drain(mut stream: DuplexStream) {
    let mut sink = vec![0; PIPE];
    while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

async fn run(input: Input<'_>) {
    let broker = Broker::new(Config::default());
    let (near, far) = tokio::io::duplex(PIPE);
    // Peers that are known by a name only are trusted to be proxies.
    broker.serve_through(far, Peer::named("fuzz"), Arc::default(), transport(&input));
    let mut stream = near;
    if input.proxy && input.valid_header {
        let _ = stream.write_all(b"PROXY UNKNOWN\r\n").await;
    }
    if input.websocket && input.valid_handshake {
        let _ = stream.write_all(REQUEST).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    }
    if input.valid_connect {
        let packet = match input.websocket {
            true => frame(CONNECT),
            false => CONNECT.to_vec(),
        };
        let _ = stream.write_all(&packet).await;
    }
    let (read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut read = read;
        let mut sink = vec![0; PIPE];
        while read.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    });
    for portion in input.bytes.chunks(usize::from(input.portion).max(1)) {
        if write.write_all(portion).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = write.shutdown().await;
    // Virtual time passes while everybody waits: the broker must end this by itself.
    let _ = reading.await;

    let (mut probe, far) = tokio::io::duplex(PIPE);
    broker.serve(far, "probe");
    probe.write_all(CONNECT).await.expect("the broker reads");
    let mut answer = [0; CONNACK.len()];
    probe
        .read_exact(&mut answer)
        .await
        .expect("the broker answers");
    assert_eq!(answer, CONNACK);
    probe.write_all(b"\xe0\0").await.expect("the broker reads");
    drain(probe).await;
}

fuzz_target!(|input: Input<'_>| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime
        .expect("a runtime without threads")
        .block_on(run(input));
});
