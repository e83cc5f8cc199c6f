//! A server that a test plays packet by packet.

use bytes::BytesMut;
use mqtt_client::{
    Client, Error, Incoming, Message, Options, PacketId, ProtocolVersion, QoS, ReasonCode,
    TopicName,
};
use mqtt_codec::{Ack, ConnAck, Disconnect, Frame, Packet, Publish};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};

/// The server's end of a connection.
pub(crate) struct Peer<S = DuplexStream> {
    stream: S,
    input: BytesMut,
    pub(crate) version: ProtocolVersion,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) fn new(stream: S, version: ProtocolVersion) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            version,
        }
    }

    /// The next packet of the client; `None` if it closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::split_from(&mut self.input, self.version, u32::MAX).unwrap()
            {
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Passes the next packet to `check`.
    pub(crate) async fn expect<R>(&mut self, check: impl FnOnce(Packet<'_>) -> R) -> R {
        let frame = self.next().await.expect("the client closed");
        check(frame.packet(self.version).unwrap())
    }

    /// Expects this very packet.
    pub(crate) async fn expect_packet(&mut self, packet: Packet<'_>) {
        self.expect(|got| assert_eq!(got, packet)).await;
    }

    /// Expects a PUBLISH with this payload and returns its identifier and DUP flag.
    pub(crate) async fn expect_publish(&mut self, payload: &str) -> (Option<PacketId>, bool) {
        self.expect(|packet| match packet {
            Packet::Publish(publish) => {
                assert_eq!(publish.payload.escape_ascii().to_string(), payload);
                (publish.packet_id, publish.dup)
            }
            packet => panic!("{packet:?}"),
        })
        .await
    }

    /// Expects DISCONNECT with this reason, then the end of the stream.
    pub(crate) async fn expect_end(&mut self, reason: ReasonCode) {
        self.expect_packet(Packet::Disconnect(Disconnect::new(reason)))
            .await;
        assert_eq!(self.next().await, None);
    }

    /// What is there to read without waiting for time to pass.
    pub(crate) async fn silent(&mut self) {
        assert_eq!(self.input.len(), 0);
        let read = self.stream.read_buf(&mut self.input);
        let moment = std::time::Duration::from_millis(1);
        let outcome = tokio::time::timeout(moment, read).await;
        assert!(outcome.is_err(), "{:?}", self.input);
    }

    pub(crate) async fn send(&mut self, packet: Packet<'_>) {
        self.send_bytes(&packet.to_vec(self.version).unwrap()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn publish(&mut self, qos: QoS, id: u16, payload: &str) {
        let mut publish = Publish::new(TopicName::new("t").unwrap(), payload.as_bytes());
        publish.qos = qos;
        publish.packet_id = PacketId::new(id);
        self.send(Packet::Publish(publish)).await;
    }
}

/// An acknowledgement with the reason "success".
pub(crate) fn ack(id: u16) -> Ack<'static> {
    Ack::new(PacketId::new(id).unwrap(), ReasonCode::SUCCESS)
}

/// Options of a version, everything else default.
pub(crate) fn options(version: ProtocolVersion) -> Options {
    Options::new("", 0)
        .version(version)
        .client_id("c")
        .topic_alias_maximum(0)
}

/// A client whose CONNECT the server answered with this.
pub(crate) async fn try_connect(
    options: Options,
    connack: ConnAck<'_>,
) -> (Result<(Client, Incoming), Error>, Peer) {
    let (near, far) = duplex(1 << 20);
    let version = version_of(&options);
    let mut peer = Peer::new(far, version);
    let answer = async {
        peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
            .await;
        peer.send(Packet::ConnAck(Box::new(connack))).await;
    };
    let (connected, ()) = tokio::join!(Client::connect_with(near, options), answer);
    let connected = connected.map(|client| {
        let incoming = client.unclaimed();
        (client, incoming)
    });
    (connected, peer)
}

/// A client whose connection was accepted.
pub(crate) async fn connect(options: Options) -> (Client, Incoming, Peer) {
    let (connected, peer) = try_connect(options, ConnAck::new(ReasonCode::SUCCESS)).await;
    let (client, incoming) = connected.unwrap();
    (client, incoming, peer)
}

/// The version is known to the options only; their debug form tells it.
fn version_of(options: &Options) -> ProtocolVersion {
    let text = format!("{options:?}");
    let named = |version: &ProtocolVersion| text.contains(&format!("version: {version:?},"));
    ProtocolVersion::ALL.into_iter().find(named).unwrap()
}

pub(crate) fn message(qos: QoS, payload: &str) -> Message {
    Message::new("t", payload.to_owned()).unwrap().qos(qos)
}
