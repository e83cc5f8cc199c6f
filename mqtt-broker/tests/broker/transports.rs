//! WebSocket, PROXY and sockets of the file system: the same broker behind each.

use std::sync::Arc;

use mqtt_broker::auth::Authority;
use mqtt_broker::{
    Address as Bound, Broker, Listener, ListenerOptions, Peer as Address, PeerAddress,
    ProxyOptions, RefusalReason, Transport, WebSocketOptions,
};
use mqtt_codec::{Connect, Packet, ProtocolVersion, Publish, QoS, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpStream, UnixStream};

use crate::guarded::{Files, user};
use crate::harness::{ALL, Peer, V3_1_1, V5, broker, broker_with, hello, message};

fn web_socket() -> Transport {
    let mut transport = Transport::default();
    transport.websocket = Some(Arc::new(WebSocketOptions::default()));
    transport
}

fn proxy(trusted: &str) -> Transport {
    let mut transport = Transport::default();
    let trusted = vec![trusted.parse().unwrap()];
    transport.proxy = Some(Arc::new(ProxyOptions::new(trusted)));
    transport
}

fn through(broker: &Broker, peer: Address, transport: Transport) -> DuplexStream {
    let (near, far) = duplex(1 << 16);
    broker.serve_through(far, peer, Arc::default(), transport);
    near
}

const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap();
        head.push(byte);
    }
    String::from_utf8(head).unwrap()
}

async fn opened(broker: &Broker) -> DuplexStream {
    let mut stream = through(broker, Address::named("ws"), web_socket());
    stream.write_all(REQUEST).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
    stream
}

/// A frame as a browser sends it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xde, 0xad, 0xbe, 0xef];
    let mut out = vec![first];
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 126);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    out
}

/// Reads a frame of the broker: its first byte and its payload.
async fn read_frame(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let len = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap() as usize,
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn bytes(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    packet.to_vec(version).unwrap()
}

/// [MQTT-6.0.0-2]: packets need not be aligned on frame boundaries, in either direction.
#[tokio::test(start_paused = true)]
async fn packets_and_frames_are_not_aligned() {
    let broker = broker();
    for version in ALL {
        let mut stream = opened(&broker).await;
        let mut publish = message("a", "text", QoS::AtLeastOnce);
        publish.packet_id = mqtt_codec::PacketId::new(1);
        let mut all = bytes(
            &Packet::Connect(Box::new(hello(version, "client"))),
            version,
        );
        all.extend(bytes(&Packet::PingReq, version));
        all.extend(bytes(&Packet::Publish(publish), version));
        // Three packets in two frames, the second of two fragments with a PING between them.
        stream.write_all(&masked(0x82, &all[..5])).await.unwrap();
        stream.write_all(&masked(0x02, &all[5..20])).await.unwrap();
        stream.write_all(&masked(0x89, b"ping")).await.unwrap();
        stream.write_all(&masked(0x80, &all[20..])).await.unwrap();
        let mut data = Vec::new();
        let mut pongs = 0;
        // CONNACK, PINGRESP and PUBACK, in frames as the broker likes them.
        while pongs == 0 || !(has(&data, b"\xd0\0") && has(&data, b"\0\x01")) {
            let (first, payload) = read_frame(&mut stream).await;
            match first {
                0x82 => data.extend(payload),
                0x8a => {
                    assert_eq!(payload, b"ping");
                    pongs += 1;
                }
                other => panic!("frame {other:#x}"),
            }
        }
        assert_eq!(data[0], 0x20, "CONNACK comes first");
        // [MQTT-6.0.0-1] is for text; the end of a WebSocket is its own CLOSE.
        stream
            .write_all(&masked(0x88, &[0x03, 0xe8]))
            .await
            .unwrap();
        let (first, payload) = read_frame(&mut stream).await;
        assert_eq!((first, payload.as_slice()), (0x88, [0x03, 0xe8].as_slice()));
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

/// [MQTT-6.0.0-1]: other frames than binary ones end the connection.
#[tokio::test(start_paused = true)]
async fn text_frames_end_the_connection() {
    let broker = broker();
    let mut stream = opened(&broker).await;
    stream.write_all(&masked(0x81, b"hello")).await.unwrap();
    let (first, payload) = read_frame(&mut stream).await;
    assert_eq!((first, payload), (0x88, 1003_u16.to_be_bytes().to_vec()));
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_refused_are_counted() {
    let broker = broker();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], "HTTP/1.1 404 "),
        (b"\x10\x0e\0\x04MQTT", "HTTP/1.1 400 "),
    ] {
        let mut stream = through(&broker, Address::named("ws"), web_socket());
        stream.write_all(request).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with(status), "{head}");
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
    assert_eq!(broker.counters().refused(RefusalReason::WebSocket), 2);
}

fn at(address: &str) -> Address {
    Address::new(PeerAddress::Socket(address.parse().unwrap()))
}

/// Behind a proxy limits hold for the address of the client.
#[tokio::test(start_paused = true)]
async fn a_trusted_proxy_names_the_client() {
    let mut config = mqtt_broker::Config::default();
    config.max_connections_per_address = 1;
    let broker = broker_with(config);
    let mut peers = Vec::new();
    for (number, port, expected) in [(1, 1, true), (2, 2, true), (1, 3, false)] {
        let mut stream = through(&broker, at("10.0.0.1:999"), proxy("10.0.0.0/8"));
        let header = format!("PROXY TCP4 192.0.2.{number} 10.0.0.1 {port} 1883\r\n");
        stream.write_all(header.as_bytes()).await.unwrap();
        let mut peer = Peer::over(stream, V5);
        let id = format!("client-{port}");
        peer.send(&Packet::Connect(Box::new(hello(V5, &id)))).await;
        let reason = peer.receive().await.connack().reason_code;
        assert_eq!(!reason.is_error(), expected, "{reason:?}");
        peers.push(peer);
    }
    assert_eq!(broker.counters().refused(RefusalReason::AddressFull), 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_else_speaks_for_clients() {
    let broker = broker();
    let header = b"PROXY TCP4 192.0.2.1 10.0.0.1 1 1883\r\n";
    let mut stream = through(&broker, at("192.0.2.9:999"), proxy("10.0.0.0/8"));
    let _ = stream.write_all(header).await;
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    let mut stream = through(&broker, at("10.0.0.9:999"), proxy("10.0.0.0/8"));
    let connect = bytes(&Packet::Connect(Box::new(hello(V5, "client"))), V5);
    stream.write_all(&connect).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    let counters = broker.counters();
    assert_eq!(counters.refused(RefusalReason::UntrustedProxy), 1);
    assert_eq!(counters.refused(RefusalReason::Proxy), 1);
}

/// A header, TLS aside, and WebSocket after it.
#[tokio::test(start_paused = true)]
async fn a_proxy_may_stand_before_a_web_socket() {
    let broker = broker();
    let mut transport = web_socket();
    transport.proxy = proxy("10.0.0.0/8").proxy;
    let mut stream = through(&broker, at("10.0.0.1:999"), transport);
    stream.write_all(b"PROXY UNKNOWN\r\n").await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
}

/// A socket of the file system, made anew where a dead one is in its place, gone afterwards.
#[tokio::test]
async fn a_unix_socket_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mqtt.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = Bound::Unix(path.clone());
    let listener = Listener::bind(&bound, Some(0o600)).unwrap();
    assert_eq!(listener.to_string(), format!("unix://{}", path.display()));
    assert!(Listener::bind(&bound, None).is_err(), "in use");
    let mode = std::fs::metadata(&path).unwrap().permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(mqtt_broker::run(
        vec![listener],
        mqtt_broker::Config::default(),
        async move {
            let _ = stopped.await;
        },
    ));
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut peer = Peer::over(stream, V3_1_1);
    peer.introduce("client").await;
    stop.send(()).unwrap();
    peer.expect_closed().await;
    served.await.unwrap();
    assert!(!path.exists());
}

/// What a listener says of itself, and that it changes while connections live.
#[tokio::test]
async fn a_listener_changes_while_it_serves() {
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(listener.to_string(), format!("tcp://{address}"));
    let control = listener.control();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(mqtt_broker::run(
        vec![listener],
        mqtt_broker::Config::default(),
        async move {
            let _ = stopped.await;
        },
    ));
    let mut old = Peer::over(TcpStream::connect(address).await.unwrap(), V5);
    old.introduce("old").await;

    control.replace(ListenerOptions::default(), web_socket());
    let mut new = TcpStream::connect(address).await.unwrap();
    new.write_all(REQUEST).await.unwrap();
    let mut status = [0; 12];
    new.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");

    old.subscribe("a", QoS::AtMostOnce).await;
    let publish: Publish<'_> = message("a", "still here", QoS::AtMostOnce);
    old.publish(&publish).await;
    old.expect_message("a", "still here", QoS::AtMostOnce).await;
    stop.send(()).unwrap();
    served.await.unwrap();
}

/// Who came while a listener let everybody in does not stay when it asks who clients are.
#[tokio::test]
async fn a_listener_that_comes_to_ask_who_clients_are_asks_those_who_are_there() {
    let files = Files::without_permissions();
    let mut settings = files.settings.clone();
    settings.allow_anonymous = Some(true);
    let mut config = mqtt_broker::Config::default();
    config.auth = Authority::load(&settings).unwrap();
    let broker = broker_with(config);
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, control) = (listener.local_addr().unwrap(), listener.control());
    broker.listen(listener);
    let come = async |connect: Connect<'_>| {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut peer = Peer::over(stream, V5);
        peer.send(&Packet::Connect(Box::new(connect))).await;
        let answer = peer.receive().await;
        assert_eq!(answer.connack().reason_code, ReasonCode::SUCCESS);
        peer
    };
    let mut anna = come(user(V5, "anna", "a")).await;
    let mut anybody = come(hello(V5, "b")).await;

    let mut options = ListenerOptions::default();
    options.allow_anonymous = false;
    control.replace(options, Transport::default());
    broker.look_again();
    anybody.expect_disconnect(ReasonCode::NOT_AUTHORIZED).await;
    anybody.expect_closed().await;
    anna.subscribe("a", QoS::AtMostOnce).await;
    anna.publish(&message("a", "still here", QoS::AtMostOnce))
        .await;
    anna.expect_message("a", "still here", QoS::AtMostOnce)
        .await;
}
