//! The program `mqtt-client` as a process: output and exit status.

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

#[cfg(unix)]
use mqtt_broker::{Broker, Config};
use mqtt_client::{ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{ConnAck, Packet, SubAck};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::peer::{Peer, ack};

/// Starts the program with these arguments, this input, and no configuration of the user's.
pub(crate) fn start(arguments: &[&str], input: &'static str) -> JoinHandle<Output> {
    finish(spawn(arguments), input)
}

/// The same, but its input stays open until `finish`.
pub(crate) fn spawn(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqtt-client"));
    command.args(arguments).env_clear();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for its end.
pub(crate) fn finish(mut child: Child, input: &'static str) -> JoinHandle<Output> {
    tokio::task::spawn_blocking(move || {
        let mut stdin = child.stdin.take().unwrap();
        // A program that refuses its arguments does not read.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    })
}

/// Starts the program against a server that answers its CONNECT with this reason.
pub(crate) async fn start_against(
    version: ProtocolVersion,
    reason: ReasonCode,
    arguments: &[&str],
    input: &'static str,
) -> (JoinHandle<Output>, Peer<TcpStream>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let version_name = match version {
        ProtocolVersion::V3_1 => "31",
        ProtocolVersion::V3_1_1 => "311",
        ProtocolVersion::V5 => "5",
    };
    let mut all = arguments.to_vec();
    all.extend(["-h", "127.0.0.1", "-p", &port, "-V", version_name]);
    let program = start(&all, input);
    let peer = answer(&listener, version, reason).await;
    (program, peer)
}

/// The next client, whose CONNECT is answered with this reason.
pub(crate) async fn answer(
    listener: &TcpListener,
    version: ProtocolVersion,
    reason: ReasonCode,
) -> Peer<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer::new(stream, version);
    peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
        .await;
    peer.send(Packet::ConnAck(Box::new(ConnAck::new(reason))))
        .await;
    peer
}

/// A broker on a port.
#[cfg(unix)]
pub(crate) async fn broker() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = Broker::new(Config::default());
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });
    port
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_refused_connection_gives_its_code() {
    for (version, status) in [
        (ProtocolVersion::V3_1, 5),
        (ProtocolVersion::V3_1_1, 5),
        (ProtocolVersion::V5, 135),
    ] {
        for arguments in [&["pub", "-t", "a", "-m", "x"][..], &["sub", "-t", "a"]] {
            let (program, _peer) =
                start_against(version, ReasonCode::NOT_AUTHORIZED, arguments, "").await;
            let output = program.await.unwrap();
            assert_eq!(output.status.code(), Some(status));
            assert_eq!(text(&output.stderr), "Connection error: Not authorized\n");
        }
    }
}

#[tokio::test]
async fn mistakes_give_1_and_say_what() {
    for (arguments, expected) in [
        (
            &["pub", "-t", "a/+", "-m", "x"][..],
            "invalid publish topic",
        ),
        (
            &["pub", "-t", "a"],
            "Both topic and message must be supplied",
        ),
        (
            &["pub", "-t", "a", "-m", "x", "-m", "y"],
            "Only one message can be sent at once",
        ),
        (
            &["rr", "-t", "a", "-e", "b", "-m", "x", "-f", "y"],
            "cannot be used with",
        ),
        (&["sub"], "You must specify a topic"),
        (
            &["sub", "-t", "a", "--psk", "00"],
            "--psk is not available: rustls",
        ),
        (
            &["sub", "-t", "a", "-F", "%z"],
            "Invalid format specifier 'z'",
        ),
        (
            &["sub", "-t", "a", "-R", "--retained-only"],
            "makes no sense",
        ),
        (&["pub", "-t", "a", "-m", "x", "-c"], "client id"),
        (&["bogus"], "bogus"),
    ] {
        let output = start(arguments, "").await.unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_port_without_a_server_gives_1() {
    // Bound but not listening: nobody else gets the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port().to_string();
    let output = start(
        &["pub", "-h", "127.0.0.1", "-p", &port, "-t", "a", "-m", "x"],
        "",
    )
    .await
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "Error: Connection refused\n");
}

#[tokio::test]
async fn pub_sends_each_line_and_waits_for_the_answers() {
    let arguments = ["pub", "-t", "a", "-l", "-q", "1"];
    let (program, mut peer) = start_against(
        ProtocolVersion::V3_1_1,
        ReasonCode::SUCCESS,
        &arguments,
        "one\n\nthree",
    )
    .await;
    for line in ["one", "", "three"] {
        let (id, _) = peer.expect_publish(line).await;
        peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
    }
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    assert_eq!(program.await.unwrap().status.code(), Some(0));
}

#[tokio::test]
async fn sub_acknowledges_what_it_printed_and_no_more() {
    let arguments = ["sub", "-t", "t", "-q", "1", "-C", "2", "-v"];
    let (program, mut peer) =
        start_against(ProtocolVersion::V3_1_1, ReasonCode::SUCCESS, &arguments, "").await;
    let id = peer
        .expect(|packet| match packet {
            Packet::Subscribe(subscribe) => subscribe.packet_id,
            packet => panic!("{packet:?}"),
        })
        .await;
    peer.send(Packet::SubAck(SubAck::new(
        id,
        vec![ReasonCode::GRANTED_QOS_1],
    )))
    .await;
    for (id, payload) in [(1, "a"), (2, "b"), (3, "c")] {
        peer.publish(QoS::AtLeastOnce, id, payload).await;
    }
    peer.expect_packet(Packet::PubAck(ack(1))).await;
    peer.expect_packet(Packet::PubAck(ack(2))).await;
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    let output = program.await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "t a\nt b\n");
}
