//! A configuration that is read again under thousands of connected clients and traffic: nobody is disconnected, and
//! every message arrives, once and in order.

use core::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use mqtt_codec::{Ack, Frame, Packet, PacketType, Publish, QoS, ReasonCode, Subscribe};
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::harness::{V5, filter, hello, id, name};

/// Clients that listen.
const CLIENTS: usize = 5_000;
/// Each tenth of them comes through TLS.
const TLS_SHARE: usize = 10;
/// Topics, each of which has as many of the clients.
const TOPICS: usize = 50;
/// Clients that publish, each to as many of the topics.
const PUBLISHERS: usize = 5;
/// Clients that connect at the same time.
const AT_ONCE: usize = 100;
/// Files that a process opens besides its clients.
const OTHER_FILES: usize = 200;
/// How long all of it may take on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(500);
const END: &[u8] = b"end";

/// Lets this process, and the broker that it starts, open as many files as the clients need.
fn allow_files() {
    let needed = (CLIENTS + OTHER_FILES) as u64;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < needed) {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    let most = limit.current.unwrap_or(u64::MAX);
    assert!(
        most >= needed,
        "{CLIENTS} clients need {needed} open files, and the hard limit is {most} (ulimit -Hn)"
    );
}

/// The program, whose log is read all the time.
struct Program {
    child: Child,
    plain: SocketAddr,
    secure: SocketAddr,
    log: mpsc::UnboundedReceiver<String>,
}

impl Program {
    fn start(config: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mqtt-broker"))
            .arg("--in-memory")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut address = |scheme: &str| {
            let line = lines.next().unwrap().unwrap();
            let (_, address) = line.split_once(scheme).unwrap();
            address.parse().unwrap()
        };
        let (plain, secure) = (address("tcp://"), address("tls://"));
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, receiver) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.contains("configuration") && sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            plain,
            secure,
            log: receiver,
        }
    }

    /// Has the configuration read again, and waits for a line about it.
    async fn reload(&mut self, expected: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args(["-HUP", &id]).status().unwrap();
        assert!(done.success());
        loop {
            let line = self.log.recv().await.expect("the broker has ended");
            if line.contains(expected) {
                return;
            }
            assert!(line.contains("reading the configuration"), "{line}");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection as its packets, with as little as thousands of them allow.
struct Line<S> {
    stream: S,
    buffer: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Connects as this client and subscribes to a topic.
    async fn begin(stream: S, client_id: &str, topic: &str) -> Self {
        let buffer = BytesMut::new();
        let mut line = Self { stream, buffer };
        let connect = Box::new(hello(V5, client_id));
        line.send(&Packet::Connect(connect)).await;
        line.expect(PacketType::ConnAck).await;
        let subscribe = Subscribe::new(id(1), vec![filter(topic, QoS::AtLeastOnce)]);
        line.send(&Packet::Subscribe(subscribe)).await;
        line.expect(PacketType::SubAck).await;
        line
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = packet.to_vec(V5).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn receive(&mut self) -> Frame {
        loop {
            if let Some(frame) = Frame::split_from(&mut self.buffer, V5, u32::MAX).unwrap() {
                return frame;
            }
            let count = self.stream.read_buf(&mut self.buffer).await.unwrap();
            assert!(count > 0, "the broker closed the connection");
        }
    }

    async fn expect(&mut self, expected: PacketType) {
        let frame = self.receive().await;
        assert_eq!(frame.packet(V5).unwrap().packet_type(), expected);
    }

    /// Receives messages with the numbers from 0 on, until the last one; returns how many they were.
    async fn listen(mut self) -> u32 {
        let mut next = 0_u32;
        loop {
            let frame = self.receive().await;
            let packet = frame.packet(V5).unwrap();
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?} instead of a message");
            };
            let ack = Ack::new(publish.packet_id.unwrap(), ReasonCode::SUCCESS);
            self.send(&Packet::PubAck(ack)).await;
            if publish.payload == END {
                return next;
            }
            assert_eq!(publish.payload, next.to_be_bytes());
            next += 1;
        }
    }

    /// Publishes a message to each topic and waits for the acknowledgements; its own subscription keeps it from
    /// being faster than the others.
    async fn publish(&mut self, topics: &[String], payload: &[u8]) {
        for topic in topics {
            let mut publish = Publish::new(name(topic), payload);
            publish.qos = QoS::AtLeastOnce;
            publish.packet_id = Some(id(7));
            self.send(&Packet::Publish(publish)).await;
        }
        // Its own message comes as well, from one of its topics.
        let (mut acknowledged, mut came) = (0, false);
        while acknowledged < topics.len() || !came {
            let frame = self.receive().await;
            match frame.packet(V5).unwrap() {
                Packet::PubAck(ack) => {
                    assert_eq!(ack.reason_code, ReasonCode::SUCCESS);
                    acknowledged += 1;
                }
                Packet::Publish(publish) => {
                    came = true;
                    let ack = Ack::new(publish.packet_id.unwrap(), ReasonCode::SUCCESS);
                    self.send(&Packet::PubAck(ack)).await;
                }
                other => panic!("{other:?} instead of an acknowledgement"),
            }
        }
    }
}

/// Writes a certificate that signs itself, and its key; returns it.
fn new_certificate(folder: &Path) -> CertificateDer<'static> {
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()
}

/// A handshake of a client that trusts this certificate and no other.
async fn shake_hands(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await
}

fn configure(file: &Path, limits: &str, listener: &str) {
    let text = format!(
        "[limits]\n{limits}\n[auth]\nallow_anonymous = true\nacl_file = \"acl\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n{listener}\n\
         [[listener]]\naddress = \"127.0.0.2:0\"\n{listener}\n\
         [listener.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n"
    );
    fs::write(file, text).unwrap();
}

async fn run() {
    let directory = tempfile::tempdir().unwrap();
    let (folder, config) = (directory.path(), directory.path().join("broker.toml"));
    let old = new_certificate(folder);
    fs::write(folder.join("acl"), "topic readwrite t/#\n").unwrap();
    configure(&config, "", "");
    let mut program = Program::start(&config);

    let mut listening = JoinSet::new();
    let mut connecting = JoinSet::new();
    for number in 0..CLIENTS {
        if connecting.len() >= AT_ONCE {
            connecting.join_next().await.unwrap().unwrap();
        }
        let (client_id, topic) = (format!("c{number}"), format!("t/{}", number % TOPICS));
        // Both kinds of stream are one task each until the end: it is told when it has begun.
        let (begun, wait) = tokio::sync::oneshot::channel();
        if number % TLS_SHARE == 0 {
            let (address, old) = (program.secure, old.clone());
            listening.spawn(async move {
                let stream = shake_hands(address, &old).await.unwrap();
                let line = Line::begin(stream, &client_id, &topic).await;
                begun.send(()).unwrap();
                line.listen().await
            });
        } else {
            let address = program.plain;
            listening.spawn(async move {
                let stream = TcpStream::connect(address).await.unwrap();
                let line = Line::begin(stream, &client_id, &topic).await;
                begun.send(()).unwrap();
                line.listen().await
            });
        }
        connecting.spawn(async move { wait.await.expect("a client did not get in") });
    }
    while let Some(begun) = connecting.join_next().await {
        begun.unwrap();
    }

    let stop = Arc::new(AtomicBool::new(false));
    let (told, mut rounds) = watch::channel(0_u32);
    let mut publishing = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let topics: Vec<String> = (publisher..TOPICS)
            .step_by(PUBLISHERS)
            .map(|topic| format!("t/{topic}"))
            .collect();
        let (address, stop, told) = (program.plain, Arc::clone(&stop), told.clone());
        publishing.spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let client_id = format!("p{publisher}");
            let mut line = Line::begin(stream, &client_id, &topics[topics.len() - 1]).await;
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                line.publish(&topics, &number.to_be_bytes()).await;
                number += 1;
                told.send_modify(|rounds| *rounds += 1);
            }
            line.publish(&topics, END).await;
            number
        });
    }
    // Whatever is read again, there is traffic before and after.
    let mut traffic = async || {
        for _ in 0..2 * PUBLISHERS {
            rounds.changed().await.unwrap();
        }
    };

    traffic().await;
    let new = new_certificate(folder);
    program.reload("the new configuration holds").await;
    assert!(shake_hands(program.secure, &new).await.is_ok());
    assert!(shake_hands(program.secure, &old).await.is_err());
    traffic().await;
    fs::write(
        folder.join("acl"),
        "topic readwrite t/#\ntopic read other/#\n",
    )
    .unwrap();
    program.reload("the new configuration holds").await;
    traffic().await;
    configure(&config, "receive_maximum = 7", "max_packet_size = 1000");
    program.reload("the new configuration holds").await;
    traffic().await;
    // A certificate that is none changes nothing.
    fs::write(folder.join("server.pem"), "nothing").unwrap();
    program.reload("the old one stays").await;
    assert!(shake_hands(program.secure, &new).await.is_ok());
    traffic().await;
    stop.store(true, Ordering::Relaxed);

    let mut published = Vec::new();
    while let Some(number) = publishing.join_next().await {
        published.push(number.unwrap());
    }
    let mut received = 0;
    while let Some(number) = listening.join_next().await {
        let number = number.expect("a client was disconnected, or missed a message");
        assert!(published.contains(&number), "{number} of {published:?}");
        received += u64::from(number);
    }
    println!("{CLIENTS} clients, {received} messages received, none lost");
}

/// Certificates, permissions and options of listeners change while 5,000 clients are connected, a tenth of them through
/// TLS, and messages flow: new handshakes get the new certificate, and nobody notices anything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_under_load_disturbs_nobody() {
    allow_files();
    tokio::time::timeout(PATIENCE, run())
        .await
        .expect("somebody waits for ever");
}
