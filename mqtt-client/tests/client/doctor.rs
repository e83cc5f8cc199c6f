//! `doctor` against things that are broken in a known way: each must be named.

use mqtt_client::{ProtocolVersion, ReasonCode};
use mqtt_codec::{Packet, SubAck};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::peer::Peer;
use crate::program::{answer, broker, start, text};
use crate::transports::{Pki, listen, socks5};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// Serves every connection in a task of its own, until the test ends.
fn serve_all<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
}

/// A server that shakes hands and says nothing more.
async fn tls_server(acceptor: TlsAcceptor) -> u16 {
    let (listener, port) = listen().await;
    serve_all(listener, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read_u8().await;
            }
        }
    });
    port
}

/// Starts the program against a server that answers its CONNECT with this reason.
async fn start_refused(
    version: ProtocolVersion,
    reason: ReasonCode,
    arguments: &[&str],
) -> (JoinHandle<std::process::Output>, Peer<TcpStream>) {
    let (listener, port) = listen().await;
    let version_name = if version == V5 { "5" } else { "311" };
    let program = doctor(port, &[arguments, &["-V", version_name]].concat());
    // The first connection only tries whether there is one.
    drop(listener.accept().await.unwrap());
    let peer = answer(&listener, version, reason).await;
    (program, peer)
}

fn doctor(port: u16, arguments: &[&str]) -> JoinHandle<std::process::Output> {
    let port = port.to_string();
    let base = ["doctor", "-h", "127.0.0.1", "-p", &port];
    start(&[&base, arguments].concat(), "")
}

/// The status must be this, and the last line say that.
#[track_caller]
fn assert_diagnosis(output: &std::process::Output, status: i32, expected: &str) {
    let stdout = text(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("Diagnosis: "), "{stdout}");
    assert!(last.contains(expected), "{stdout}");
    assert_eq!(output.status.code(), Some(status), "{stdout}");
    assert_eq!(text(&output.stderr), "");
    // Plain text where it is no terminal.
    assert!(!stdout.contains('\x1b'), "{stdout:?}");
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn add(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_broker_that_is_well() {
    let port = broker().await;
    for version in ["31", "311", "5"] {
        let output = doctor(port, &["-V", version, "-C", "2"]).await.unwrap();
        assert_diagnosis(&output, 0, "all is well.");
        let stdout = text(&output.stdout);
        for what in ["QoS 0", "QoS 1", "QoS 2"] {
            let line = stdout.lines().find(|line| line.contains(what)).unwrap();
            assert!(line.starts_with("ok "), "{line}");
            assert!(line.contains("2 round trips, median "), "{line}");
        }
        assert_eq!(stdout.contains("receive maximum"), version == "5");
    }
    let url = format!("mqtt://127.0.0.1:{port}");
    let output = start(&["doctor", "-L", &url], "").await.unwrap();
    assert_diagnosis(&output, 0, "all is well.");
}

#[tokio::test]
async fn a_port_where_nothing_listens() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let output = doctor(port, &[]).await.unwrap();
    assert_diagnosis(&output, 1, &format!("nothing listens on 127.0.0.1:{port}"));
}

#[tokio::test]
async fn tls_where_there_is_none_and_none_where_there_is() {
    let (pki, files) = (Pki::new(), Files::new());
    let root = files.add("root.pem", &pki.root());
    let port = broker().await;
    let output = doctor(port, &["--cafile", &root]).await.unwrap();
    assert_diagnosis(&output, 1, "speaks MQTT without TLS");

    let port = tls_server(pki.acceptor(false)).await;
    let output = doctor(port, &[]).await.unwrap();
    assert_diagnosis(&output, 1, "speaks TLS: use mqtts://");
}

#[tokio::test]
async fn certificates_that_are_not_trusted() {
    let (pki, other, files) = (Pki::new(), Pki::new(), Files::new());
    let root = files.add("root.pem", &pki.root());
    let wrong = files.add("other.pem", &other.root());
    let port = tls_server(pki.acceptor(false)).await;
    let output = doctor(port, &["--cafile", &wrong]).await.unwrap();
    assert_diagnosis(&output, 1, "which is not trusted here");
    let stdout = text(&output.stdout);
    assert!(stdout.contains(" for localhost, from "), "{stdout}");
    assert!(stdout.contains("TLSv1_3"), "{stdout}");

    // The certificate is one of localhost.
    let output = doctor(port, &["--cafile", &root]).await.unwrap();
    assert_diagnosis(&output, 1, "connect by one of its names (localhost)");

    let port = tls_server(pki.acceptor(true)).await;
    let arguments = ["--cafile", &root, "--insecure", "-W", "2"];
    let output = doctor(port, &arguments).await.unwrap();
    assert_diagnosis(&output, 1, "wants a certificate of this client");
}

#[tokio::test]
async fn a_certificate_that_has_expired() {
    let (pki, files) = (Pki::new(), Files::new());
    let root = files.add("root.pem", &pki.root());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 2, 3);
    let key = KeyPair::generate().unwrap();
    let port = tls_server(pki.acceptor_with(&params, &key)).await;
    let arguments = ["--cafile", &root, "--insecure"];
    let output = doctor(port, &arguments).await.unwrap();
    assert_diagnosis(&output, 1, "has expired (its own on 2021-02-03)");
}

#[tokio::test]
async fn refusals_are_explained_and_give_their_code() {
    for (version, reason, status, expected) in [
        (
            V5,
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            134,
            "check -u and -P.",
        ),
        (
            ProtocolVersion::V3_1_1,
            ReasonCode::NOT_AUTHORIZED,
            5,
            "and the permissions",
        ),
        (V5, ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, 132, "-V 311"),
        (V5, ReasonCode::BANNED, 138, "banned"),
    ] {
        let (program, peer) = start_refused(version, reason, &[]).await;
        let output = program.await.unwrap();
        drop(peer);
        assert_diagnosis(&output, status, expected);
    }
}

#[tokio::test]
async fn a_server_that_closes_or_is_silent() {
    let (listener, port) = listen().await;
    serve_all(listener, |stream| async {
        let mut peer = Peer::new(stream, V5);
        // It reads CONNECT, and goes.
        let _ = peer.next().await;
    });
    let output = doctor(port, &["-W", "2"]).await.unwrap();
    assert_diagnosis(&output, 1, "closes the connection without an answer");

    let (listener, port) = listen().await;
    serve_all(listener, |mut stream| async move {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    let output = doctor(port, &["-W", "1"]).await.unwrap();
    assert_diagnosis(&output, 1, "does not answer CONNECT");
}

/// Servers that accept the connection, and then do not answer, or answer with something wrong.
#[tokio::test]
async fn a_server_that_goes_wrong_behind_connack() {
    const SUCCESS: ReasonCode = ReasonCode::SUCCESS;
    let wait = ["-W", "1"];
    let (program, mut peer) = start_refused(V5, SUCCESS, &wait).await;
    while peer.next().await.is_some() {}
    let output = program.await.unwrap();
    assert_diagnosis(&output, 1, "does not answer SUBSCRIBE");

    let (program, mut peer) = start_refused(V5, SUCCESS, &[]).await;
    // PUBLISH with QoS 3.
    peer.send_bytes(&[0x36, 4, 0, 1, b't', 0]).await;
    while peer.next().await.is_some() {}
    let output = program.await.unwrap();
    assert_diagnosis(
        &output,
        1,
        "does not keep to the protocol: malformed packet",
    );

    let (program, mut peer) = start_refused(V5, SUCCESS, &[]).await;
    let id = peer.expect(|packet| match packet {
        Packet::Subscribe(subscribe) => subscribe.packet_id,
        packet => panic!("{packet:?}"),
    });
    let codes = vec![ReasonCode::GRANTED_QOS_0; 2];
    let suback = SubAck::new(id.await, codes);
    peer.send(Packet::SubAck(suback)).await;
    while peer.next().await.is_some() {}
    let output = program.await.unwrap();
    assert_diagnosis(
        &output,
        1,
        "does not keep to the protocol: protocol error of the server: unexpected SUBACK",
    );
}

#[tokio::test]
async fn a_web_server() {
    let (listener, port) = listen().await;
    serve_all(listener, |mut stream| async move {
        let mut begin = [0; 4];
        if stream.read_exact(&mut begin).await.is_ok() {
            let answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let output = doctor(port, &[]).await.unwrap();
    assert_diagnosis(&output, 1, "speaks HTTP");
    let output = doctor(port, &["--ws"]).await.unwrap();
    assert_diagnosis(&output, 1, "HTTP");
}

#[tokio::test]
async fn a_proxy_that_does_not_reach_it() {
    let (listener, port) = listen().await;
    let proxy = format!("socks5h://me!:pw!@127.0.0.1:{port}");
    let arguments = ["doctor", "--proxy", &proxy, "-h", "broker.example"];
    let program = start(&arguments, "");
    let (stream, _) = listener.accept().await.unwrap();
    socks5(stream, port, 5).await;
    assert_diagnosis(
        &program.await.unwrap(),
        1,
        "the proxy does not connect to broker.example:1883",
    );
}

#[tokio::test]
async fn a_subscription_that_is_denied_is_odd() {
    let (program, mut peer) = start_refused(V5, ReasonCode::SUCCESS, &["-t", "t"]).await;
    for _ in 0..3 {
        let id = peer
            .expect(|packet| match packet {
                Packet::Subscribe(subscribe) => subscribe.packet_id,
                packet => panic!("{packet:?}"),
            })
            .await;
        let denied = SubAck::new(id, vec![ReasonCode::NOT_AUTHORIZED]);
        peer.send(Packet::SubAck(denied)).await;
    }
    peer.expect_end(ReasonCode::SUCCESS).await;
    drop(peer);
    let output = program.await.unwrap();
    assert_diagnosis(&output, 0, "3 oddities");
    let stdout = text(&output.stdout);
    assert!(stdout.contains("subscribing to t fails"), "{stdout}");
}
