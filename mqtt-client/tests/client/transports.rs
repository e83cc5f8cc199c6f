//! What lies under a connection: TLS, WebSocket, Unix sockets, proxies, on ports that the system chooses.

use std::io;
use std::sync::Arc;

use mqtt_client::{Blame, Client, Error, Options, ProtocolVersion, Proxy, QoS, Tls, WebSocket};
use mqtt_codec::{ConnAck, Packet, ReasonCode};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::peer::{Peer, ack, message};

const V5: ProtocolVersion = ProtocolVersion::V5;

pub(crate) async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Accepts a client, takes one message of QoS 1, and waits for the end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let mut peer = Peer::new(stream, V5);
    peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
        .await;
    peer.send(Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::SUCCESS))))
        .await;
    let (id, _) = peer.expect_publish("hello").await;
    peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
    peer.expect(|packet| assert!(matches!(packet, Packet::Disconnect(_))))
        .await;
}

/// Connects, publishes, disconnects.
async fn speak(options: Options) -> Result<(), Error> {
    let client = Client::connect(options.client_id("c")).await?;
    let receipt = client.publish(message(QoS::AtLeastOnce, "hello")).await?;
    assert_eq!(receipt.await?, ReasonCode::SUCCESS);
    client.disconnect().await
}

/// An authority, with certificates for a server called `localhost` and for a client.
pub(crate) struct Pki {
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { authority }
    }

    pub(crate) fn root(&self) -> String {
        self.authority.pem()
    }

    /// Certificate and key as PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn acceptor(&self, wants_client: bool) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        self.acceptor_of(&params, &key, wants_client)
    }

    /// A server with a certificate of one's own making.
    pub(crate) fn acceptor_with(&self, params: &CertificateParams, key: &KeyPair) -> TlsAcceptor {
        self.acceptor_of(params, key, false)
    }

    fn acceptor_of(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
        wants_client: bool,
    ) -> TlsAcceptor {
        let certificate = params.signed_by(key, &self.authority).unwrap();
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots
                .add(CertificateDer::from_pem_slice(self.root().as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn tls(&self) -> Tls {
        Tls::new().trust_pem(self.root().as_bytes()).unwrap()
    }
}

#[tokio::test]
async fn tls_with_a_root_alpn_and_a_client_certificate() {
    let pki = Pki::new();
    let (listener, port) = listen().await;
    let acceptor = pki.acceptor(true);
    let (certificate, key) = pki.issue("sensor");
    let tls = pki
        .tls()
        .alpn("mqtt")
        .identity_pem(certificate.as_bytes(), key.as_bytes())
        .unwrap();
    let server = async {
        for version in [None, Some(12), Some(13)] {
            let (stream, _) = listener.accept().await.unwrap();
            let stream = acceptor.accept(stream).await.unwrap();
            let (_, session) = stream.get_ref();
            assert_eq!(session.alpn_protocol(), Some(&b"mqtt"[..]));
            assert!(session.peer_certificates().is_some(), "{version:?}");
            serve(stream).await;
        }
    };
    let client = async {
        for tls in [tls.clone(), tls.clone().only_tls12(), tls.only_tls13()] {
            let url = format!("mqtts://localhost:{port}");
            speak(Options::from_url(&url).unwrap().tls(tls))
                .await
                .unwrap();
        }
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_server_that_is_not_to_be_trusted() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (listener, port) = listen().await;
    let acceptor = pki.acceptor(false);
    let server = async {
        for is_fine in [false, false, true, true] {
            let (stream, _) = listener.accept().await.unwrap();
            match acceptor.accept(stream).await {
                Ok(stream) if is_fine => serve(stream).await,
                Ok(mut stream) => assert!(stream.read_u8().await.is_err()),
                Err(_) => assert!(!is_fine),
            }
        }
    };
    let client = async {
        let options = |tls| Options::new("127.0.0.1", port).tls(tls);
        for tls in [pki.tls(), other.tls().danger_accept_any_name()] {
            let error = speak(options(tls)).await.unwrap_err();
            assert!(matches!(error, Error::Tls(_)), "{error}");
            assert_eq!(error.blame(), Blame::Server);
        }
        speak(options(pki.tls().server_name("localhost")))
            .await
            .unwrap();
        speak(options(pki.tls().danger_accept_any_name()))
            .await
            .unwrap();
    };
    tokio::join!(server, client);
}

/// A WebSocket server's end: the bytes of its frames, back and forth.
pub(crate) async fn accept_websocket<S>(stream: S, path: &'static str, then_close: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message as Frame;

    #[allow(
        clippy::result_large_err,
        reason = "the callback's type is that of the library"
    )]
    let check = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), path);
        assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", "mqtt".parse().unwrap());
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, check)
        .await
        .unwrap();
    let (near, far) = tokio::io::duplex(1 << 16);
    let serving = tokio::spawn(serve(far));
    let (mut reader, mut writer) = tokio::io::split(near);
    let mut buffer = [0; 3];
    loop {
        tokio::select! {
            // Three bytes a frame: packets are cut anywhere.
            read = reader.read(&mut buffer) => match read.unwrap() {
                0 => break,
                count => {
                    let frame = Frame::binary(buffer[..count].to_vec());
                    socket.send(frame).await.unwrap();
                    socket.send(Frame::Ping(Vec::new().into())).await.unwrap();
                }
            },
            frame = socket.next() => match frame {
                Some(Ok(Frame::Binary(bytes))) => writer.write_all(&bytes).await.unwrap(),
                Some(Ok(Frame::Pong(_))) => {}
                _ => break,
            },
        }
    }
    serving.await.unwrap();
    if then_close {
        let _ = socket.close(None).await;
    }
}

#[tokio::test]
async fn websocket_with_and_without_tls() {
    let pki = Pki::new();
    let (listener, port) = listen().await;
    let acceptor = pki.acceptor(false);
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        accept_websocket(stream, "/mqtt", true).await;
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        accept_websocket(stream, "/elsewhere", false).await;
    };
    let client = async {
        let url = format!("ws://localhost:{port}");
        speak(Options::from_url(&url).unwrap()).await.unwrap();
        let url = format!("wss://localhost:{port}/elsewhere");
        let options = Options::from_url(&url).unwrap().tls(pki.tls());
        speak(options).await.unwrap();
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_server_of_something_else_is_no_websocket() {
    let (listener, port) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 16];
        stream.read_exact(&mut request).await.unwrap();
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    };
    let options = Options::new("127.0.0.1", port).websocket(WebSocket::new("x").header("a", "b"));
    let (outcome, ()) = tokio::join!(speak(options), server);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::WebSocket(_)), "{error}");
}

#[tokio::test]
async fn a_unix_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    };
    let url = format!("unix:{}", path.display());
    let (outcome, ()) = tokio::join!(speak(Options::from_url(&url).unwrap()), server);
    outcome.unwrap();
}

#[tokio::test]
async fn urls_that_are_none() {
    for url in [
        "localhost",
        "http://localhost",
        "mqtt://",
        "mqtt://host/path",
        "unix:",
        "mqtt://host:x",
    ] {
        let error = Options::from_url(url).map(drop).unwrap_err();
        assert_eq!(error.blame(), Blame::Caller, "{url}: {error}");
    }
}

async fn read_until(stream: &mut TcpStream, end: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(stream.read_u8().await?);
    }
    Ok(bytes)
}

/// A proxy that connects whatever it is asked to one server.
pub(crate) async fn socks5(mut stream: TcpStream, server: u16, status: u8) {
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [5, 2, 0, 2]);
    stream.write_all(&[5, 2]).await.unwrap();
    let mut login = [0; 9];
    stream.read_exact(&mut login).await.unwrap();
    assert_eq!(&login, b"\x01\x03me!\x03pw!");
    stream.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request, [5, 1, 0, 3]);
    let mut host = [0; 17];
    stream.read_exact(&mut host).await.unwrap();
    assert_eq!(&host[..15], b"\x0ebroker.example");
    assert_eq!(host[15..], 1883_u16.to_be_bytes());
    let mut answer = vec![5, status, 0, 1];
    answer.extend([127, 0, 0, 1, 0, 0]);
    stream.write_all(&answer).await.unwrap();
    if status == 0 {
        let mut behind = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut behind).await;
    }
}

#[tokio::test]
async fn a_socks5_proxy() {
    let (listener, port) = listen().await;
    let (proxies, proxy_port) = listen().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    };
    let proxy = async {
        for status in [0, 5] {
            let (stream, _) = proxies.accept().await.unwrap();
            socks5(stream, port, status).await;
        }
    };
    let client = async {
        let proxy = Proxy::socks5("127.0.0.1", proxy_port).credentials("me!", "pw!");
        let options = Options::new("broker.example", 1883).proxy(proxy);
        speak(options.clone()).await.unwrap();
        let error = speak(options).await.unwrap_err();
        assert!(matches!(error, Error::Proxy(_)), "{error}");
    };
    tokio::join!(server, proxy, client);
}

#[tokio::test]
async fn an_http_proxy() {
    let (listener, port) = listen().await;
    let (proxies, proxy_port) = listen().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    };
    let proxy = async {
        let (mut stream, _) = proxies.accept().await.unwrap();
        let request = read_until(&mut stream, b"\r\n\r\n").await.unwrap();
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("CONNECT broker.example:1883 HTTP/1.1\r\n"));
        assert!(request.contains("Proxy-Authorization: Basic bWUhOnB3IQ==\r\n"));
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = copy_bidirectional(&mut stream, &mut behind).await;
        let (mut stream, _) = proxies.accept().await.unwrap();
        read_until(&mut stream, b"\r\n\r\n").await.unwrap();
        let answer = b"HTTP/1.0 407 Proxy Authentication Required\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    };
    let client = async {
        let proxy = Proxy::http("127.0.0.1", proxy_port).credentials("me!", "pw!");
        let options = Options::new("broker.example", 1883).proxy(proxy);
        speak(options.clone()).await.unwrap();
        let error = speak(options).await.unwrap_err();
        assert!(matches!(error, Error::Proxy(_)), "{error}");
    };
    tokio::join!(server, proxy, client);
}
