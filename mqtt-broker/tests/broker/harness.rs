//! A broker without sockets, and peers that speak packets to it.
//!
//! Time is virtual: it moves when everybody waits, so that no test takes as long as what it tests.

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use futures_util::FutureExt;
use mqtt_broker::{Broker, Config, ListenerOptions, Peer as Address};
use mqtt_codec::{
    Ack, ConnAck, Connect, Disconnect, Frame, Packet, PacketId, PacketType, ProtocolVersion,
    Publish, QoS, ReasonCode, Subscribe, SubscribeFilter, SubscriptionIdentifier, TopicFilter,
    TopicName, Unsubscribe,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::sleep;

/// Bytes between a peer and the broker before either side has to wait.
const PIPE: usize = 1 << 20;
/// Virtual time after which a test gives up waiting.
const PATIENCE: Duration = Duration::from_secs(100_000);

pub(crate) const V3_1: ProtocolVersion = ProtocolVersion::V3_1;
pub(crate) const V3_1_1: ProtocolVersion = ProtocolVersion::V3_1_1;
pub(crate) const V5: ProtocolVersion = ProtocolVersion::V5;
/// Every version.
pub(crate) const ALL: [ProtocolVersion; 3] = [V3_1, V3_1_1, V5];
/// The versions without properties.
pub(crate) const V3: [ProtocolVersion; 2] = [V3_1, V3_1_1];
/// Every quality of service.
pub(crate) const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// A broker whose deadlines run.
pub(crate) fn broker() -> Broker {
    broker_with(Config::default())
}

/// Somebody who listens to every line of the log as long as the process lasts. Else a thread that comes to a line for
/// the first time, while nobody listens, may take note of that just after a test began to: then the line is not heard.
static LISTENER: LazyLock<tracing::Dispatch> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    tracing::Dispatch::new(log.with_writer(std::io::sink).finish())
});

/// The same with a configuration.
pub(crate) fn broker_with(config: Config) -> Broker {
    LazyLock::force(&LISTENER);
    let broker = Broker::new(config);
    tokio::spawn(broker.clone().run(Vec::new(), core::future::pending()));
    broker
}

pub(crate) fn name(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

pub(crate) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

/// A CONNECT without anything optional.
pub(crate) fn hello(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    Connect::new(version, client_id)
}

/// A PUBLISH of a text.
pub(crate) fn message<'a>(topic: &'a str, payload: &'a str, qos: QoS) -> Publish<'a> {
    let mut publish = Publish::new(name(topic), payload.as_bytes());
    publish.qos = qos;
    publish
}

/// A filter at a QoS, everything else as by default.
pub(crate) fn filter(text: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter::new(TopicFilter::new(text).unwrap(), qos)
}

/// A received packet with the bytes it lives in.
pub(crate) struct Received {
    frame: Frame,
    version: ProtocolVersion,
}

impl Received {
    pub(crate) fn packet(&self) -> Packet<'_> {
        self.frame.packet(self.version).unwrap()
    }

    pub(crate) fn publish(&self) -> Publish<'_> {
        match self.packet() {
            Packet::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    pub(crate) fn connack(&self) -> ConnAck<'_> {
        match self.packet() {
            Packet::ConnAck(connack) => *connack,
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    pub(crate) fn disconnect(&self) -> Disconnect<'_> {
        match self.packet() {
            Packet::Disconnect(disconnect) => disconnect,
            other => panic!("expected DISCONNECT, got {other:?}"),
        }
    }

    /// The codes of SUBACK.
    pub(crate) fn subscribed(&self) -> Vec<ReasonCode> {
        match self.packet() {
            Packet::SubAck(suback) => suback.reason_codes,
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    /// The packet as it came.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.frame.as_bytes()
    }

    /// The Subscription Identifiers of a PUBLISH, in ascending order.
    pub(crate) fn identifiers(&self) -> Vec<u32> {
        let identifiers = self.publish().properties.subscription_identifiers;
        let mut numbers: Vec<u32> = identifiers.iter().map(|id| id.get()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// One client, as its packets.
pub(crate) struct Peer {
    stream: DuplexStream,
    pub(crate) version: ProtocolVersion,
    buffer: bytes::BytesMut,
    /// What came while an acknowledgement was awaited.
    aside: VecDeque<Received>,
    next_id: u16,
}

impl Peer {
    /// A stream on which nothing was said yet.
    pub(crate) fn open(broker: &Broker, version: ProtocolVersion) -> Self {
        Self::open_with(broker, version, PIPE)
    }

    /// The same with room for so many bytes on their way.
    pub(crate) fn open_with(broker: &Broker, version: ProtocolVersion, pipe: usize) -> Self {
        let (stream, other) = tokio::io::duplex(pipe);
        broker.serve(other, "test");
        Self::on(stream, version)
    }

    /// The same through a listener with options.
    pub(crate) fn open_through(
        broker: &Broker,
        options: &Arc<ListenerOptions>,
        version: ProtocolVersion,
    ) -> Self {
        Self::open_from(broker, options, Address::named("test"), version)
    }

    /// The same as a peer of which the transport knows more.
    pub(crate) fn open_from(
        broker: &Broker,
        options: &Arc<ListenerOptions>,
        address: Address,
        version: ProtocolVersion,
    ) -> Self {
        let (stream, other) = tokio::io::duplex(PIPE);
        broker.serve_with(other, address, Arc::clone(options));
        Self::on(stream, version)
    }

    /// On a stream that leads to a broker in another way.
    pub(crate) fn over<S>(mut stream: S, version: ProtocolVersion) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (near, mut far) = tokio::io::duplex(PIPE);
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut far).await });
        Self::on(near, version)
    }

    fn on(stream: DuplexStream, version: ProtocolVersion) -> Self {
        Self {
            stream,
            version,
            buffer: bytes::BytesMut::new(),
            aside: VecDeque::new(),
            next_id: 0,
        }
    }

    /// Sends CONNECT through a listener with options and returns the peer and CONNACK.
    pub(crate) async fn connect_through(
        broker: &Broker,
        options: &Arc<ListenerOptions>,
        connect: &Connect<'_>,
    ) -> (Self, Received) {
        let mut peer = Self::open_through(broker, options, connect.version);
        peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
        let connack = peer.receive().await;
        (peer, connack)
    }

    /// Sends CONNECT, which must be accepted.
    pub(crate) async fn introduce(&mut self, client_id: &str) {
        let mut connect = hello(self.version, client_id);
        connect.clean_start = true;
        self.send(&Packet::Connect(Box::new(connect))).await;
        let reason = self.receive().await.connack().reason_code;
        assert_eq!(reason, ReasonCode::SUCCESS);
    }

    /// Sends CONNECT and returns the peer and CONNACK.
    pub(crate) async fn connect(broker: &Broker, connect: &Connect<'_>) -> (Self, Received) {
        let mut peer = Self::open(broker, connect.version);
        peer.send(&Packet::Connect(Box::new(connect.clone()))).await;
        let connack = peer.receive().await;
        (peer, connack)
    }

    /// A peer whose CONNECT was accepted.
    pub(crate) async fn accepted(broker: &Broker, connect: &Connect<'_>) -> Self {
        Self::resumed(broker, connect).await.0
    }

    /// The same, and whether the broker had the session.
    pub(crate) async fn resumed(broker: &Broker, connect: &Connect<'_>) -> (Self, bool) {
        let (peer, connack) = Self::connect(broker, connect).await;
        let Packet::ConnAck(connack) = connack.packet() else {
            panic!("no CONNACK: {:?}", connack.packet())
        };
        assert_eq!(connack.reason_code, ReasonCode::SUCCESS);
        (peer, connack.session_present)
    }

    /// The broker must refuse this CONNECT with this reason, and close.
    pub(crate) async fn refused(broker: &Broker, connect: &Connect<'_>, reason: ReasonCode) {
        let (mut peer, received) = Self::connect(broker, connect).await;
        let connack = received.connack();
        assert_eq!(connack.reason_code, reason);
        assert!(!connack.session_present, "[MQTT-3.2.2-6]");
        peer.expect_closed().await;
    }

    /// Sends bytes in place of CONNECT and returns all that the broker answers before it closes.
    pub(crate) async fn answer_to(broker: &Broker, bytes: &[u8]) -> Vec<u8> {
        let mut peer = Self::open(broker, V5);
        peer.send_raw(bytes).await;
        peer.rest().await
    }

    /// A new client with a session that ends with the connection.
    pub(crate) async fn new(broker: &Broker, version: ProtocolVersion, client_id: &str) -> Self {
        let mut connect = hello(version, client_id);
        connect.clean_start = true;
        Self::accepted(broker, &connect).await
    }

    /// A client whose session outlives the connection for good, resumed if it was there.
    pub(crate) async fn lasting(
        broker: &Broker,
        version: ProtocolVersion,
        client_id: &str,
    ) -> (Self, bool) {
        Self::resumed(broker, &lasting(version, client_id)).await
    }

    pub(crate) async fn send(&mut self, packet: &Packet<'_>) {
        let bytes = packet.to_vec(self.version).unwrap();
        self.send_raw(&bytes).await;
    }

    /// Sends bytes as they are. A closed connection is found out when it is read.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        _ = self.stream.write_all(bytes).await;
    }

    /// The next packet, or `None` when the broker has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Received> {
        match self.aside.pop_front() {
            Some(received) => Some(received),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Option<Received> {
        let version = self.version;
        let wait = async {
            loop {
                if let Some(frame) = Frame::split_from(&mut self.buffer, version, u32::MAX).unwrap()
                {
                    return Some(Received { frame, version });
                }
                // All that is there at once, as a client with a large buffer reads.
                self.buffer.reserve(PIPE);
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    assert!(
                        self.buffer.is_empty(),
                        "the connection ended within a packet"
                    );
                    return None;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("the broker neither sends nor closes")
    }

    pub(crate) async fn receive(&mut self) -> Received {
        self.next().await.expect("the broker closed the connection")
    }

    /// The next packet must be this one.
    pub(crate) async fn expect(&mut self, packet: &Packet<'_>) {
        let received = self.receive().await;
        assert_eq!(&received.packet(), packet);
    }

    /// The next packet must be an acknowledgement of this type with this reason code.
    pub(crate) async fn expect_ack(
        &mut self,
        packet_type: PacketType,
        number: PacketId,
        reason: ReasonCode,
    ) {
        self.expect(&acknowledgement(packet_type, number, reason))
            .await;
    }

    /// Sends an acknowledgement.
    pub(crate) async fn send_ack(
        &mut self,
        packet_type: PacketType,
        number: PacketId,
        reason: ReasonCode,
    ) {
        self.send(&acknowledgement(packet_type, number, reason))
            .await;
    }

    /// The broker must end the connection: with DISCONNECT of this reason where the version has it.
    pub(crate) async fn expect_disconnect(&mut self, reason: ReasonCode) {
        if self.version.has_server_disconnect() {
            assert_eq!(self.receive().await.disconnect().reason_code, reason);
        }
        self.expect_closed().await;
    }

    pub(crate) async fn expect_closed(&mut self) {
        if let Some(received) = self.next().await {
            panic!(
                "expected the end of the connection, got {:?}",
                received.packet()
            );
        }
    }

    /// Whether the broker has closed the connection, as far as it can be told without waiting. What came is
    /// thrown away.
    pub(crate) async fn is_closed(&mut self) -> bool {
        settle().await;
        let mut buffer = [0; 1_024];
        loop {
            match self.stream.read(&mut buffer).now_or_never() {
                Some(Ok(0) | Err(_)) => return true,
                Some(Ok(_)) => {}
                None => return false,
            }
        }
    }

    /// All bytes that come until the broker closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = self.buffer.to_vec();
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut bytes))
            .await
            .expect("the broker does not close")
            .unwrap();
        bytes
    }

    /// Nothing may be on its way: the answer to a PINGREQ must come next.
    pub(crate) async fn expect_nothing(&mut self) {
        // What other tasks have begun is finished first.
        settle().await;
        self.send(&Packet::PingReq).await;
        self.expect(&Packet::PingResp).await;
    }

    /// A packet identifier that was not used before.
    pub(crate) fn fresh_id(&mut self) -> PacketId {
        self.next_id += 1;
        id(self.next_id)
    }

    /// Sends SUBSCRIBE and returns the codes of SUBACK, which must come next.
    pub(crate) async fn subscribe_with(
        &mut self,
        filters: Vec<SubscribeFilter<'_>>,
        identifier: Option<u32>,
    ) -> Vec<ReasonCode> {
        let number = self.fresh_id();
        let mut subscribe = Subscribe::new(number, filters);
        subscribe.properties.subscription_identifier =
            identifier.and_then(SubscriptionIdentifier::new);
        self.send(&Packet::Subscribe(subscribe)).await;
        match self.receive().await.packet() {
            Packet::SubAck(suback) => {
                assert_eq!(suback.packet_id, number);
                suback.reason_codes
            }
            other => panic!("expected SUBACK, got {other:?}"),
        }
    }

    /// Subscribes to one filter; the QoS must be granted.
    pub(crate) async fn subscribe(&mut self, text: &str, qos: QoS) {
        let codes = self.subscribe_with(vec![filter(text, qos)], None).await;
        assert_eq!(codes, [ReasonCode(qos as u8)]);
    }

    /// Sends UNSUBSCRIBE and returns the codes of UNSUBACK, which must come next.
    pub(crate) async fn unsubscribe(&mut self, text: &str) -> Vec<ReasonCode> {
        let number = self.fresh_id();
        let filters = vec![TopicFilter::new(text).unwrap()];
        self.send(&Packet::Unsubscribe(Unsubscribe::new(number, filters)))
            .await;
        match self.receive().await.packet() {
            Packet::UnsubAck(unsuback) => {
                assert_eq!(unsuback.packet_id, number);
                unsuback.reason_codes
            }
            other => panic!("expected UNSUBACK, got {other:?}"),
        }
    }

    /// Sends a PUBLISH with an identifier of its own where it needs one.
    pub(crate) async fn send_publish(&mut self, publish: &Publish<'_>) -> Option<PacketId> {
        let mut publish = publish.clone();
        if publish.qos != QoS::AtMostOnce && publish.packet_id.is_none() {
            publish.packet_id = Some(self.fresh_id());
        }
        let number = publish.packet_id;
        self.send(&Packet::Publish(publish)).await;
        number
    }

    /// Publishes and completes the acknowledgement, whatever its reason code below 0x80.
    pub(crate) async fn publish(&mut self, publish: &Publish<'_>) {
        let Some(number) = self.send_publish(publish).await else {
            return;
        };
        let first = self.receive().await;
        match (publish.qos, first.packet()) {
            (QoS::AtLeastOnce, Packet::PubAck(ack)) => {
                assert_eq!(ack.packet_id, number);
                assert!(
                    !ack.reason_code.is_error(),
                    "refused: {:?}",
                    ack.reason_code
                );
            }
            (QoS::ExactlyOnce, Packet::PubRec(ack)) => {
                assert_eq!(ack.packet_id, number);
                assert!(
                    !ack.reason_code.is_error(),
                    "refused: {:?}",
                    ack.reason_code
                );
                self.send(&Packet::PubRel(Ack::new(number, ReasonCode::SUCCESS)))
                    .await;
                self.expect_ack(PacketType::PubComp, number, ReasonCode::SUCCESS)
                    .await;
            }
            (qos, other) => panic!("expected the acknowledgement of {qos:?}, got {other:?}"),
        }
    }

    /// The next packet must be a PUBLISH; it is acknowledged to the end.
    pub(crate) async fn expect_message(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
    ) -> Received {
        let received = self.expect_publish(topic, payload, qos).await;
        self.acknowledge(&received.publish()).await;
        received
    }

    /// The next packet must be a PUBLISH; it is not acknowledged.
    pub(crate) async fn expect_publish(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
    ) -> Received {
        let received = self.receive().await;
        let publish = received.publish();
        assert_eq!(publish.topic.map(TopicName::as_str), Some(topic));
        assert_eq!(String::from_utf8_lossy(publish.payload), payload);
        assert_eq!(publish.qos, qos, "QoS of {payload}");
        received
    }

    /// Acknowledges a PUBLISH to the end.
    pub(crate) async fn acknowledge(&mut self, publish: &Publish<'_>) {
        let Some(number) = publish.packet_id else {
            return;
        };
        if publish.qos == QoS::AtLeastOnce {
            self.send(&Packet::PubAck(Ack::new(number, ReasonCode::SUCCESS)))
                .await;
            return;
        }
        self.send(&Packet::PubRec(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
        let pubrel = Packet::PubRel(Ack::new(number, ReasonCode::SUCCESS));
        // Other messages may come first.
        loop {
            let received = self.read().await.expect("the broker closed the connection");
            if received.packet() == pubrel {
                break;
            }
            self.aside.push_back(received);
        }
        self.send(&Packet::PubComp(Ack::new(number, ReasonCode::SUCCESS)))
            .await;
    }

    /// Says DISCONNECT 0x00 and waits for the end.
    pub(crate) async fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect::new(
            ReasonCode::NORMAL_DISCONNECTION,
        )))
        .await;
        self.expect_closed().await;
        settle().await;
    }

    /// Says that nothing more will come.
    pub(crate) async fn close_half(&mut self) {
        _ = self.stream.shutdown().await;
    }

    /// Closes the stream without a farewell, as a failing network would.
    pub(crate) async fn abort(self) {
        drop(self);
        settle().await;
    }
}

/// Bytes from hexadecimal digits; blanks between them mean nothing.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

fn acknowledgement(
    packet_type: PacketType,
    number: PacketId,
    reason: ReasonCode,
) -> Packet<'static> {
    let ack = Ack::new(number, reason);
    match packet_type {
        PacketType::PubAck => Packet::PubAck(ack),
        PacketType::PubRec => Packet::PubRec(ack),
        PacketType::PubRel => Packet::PubRel(ack),
        PacketType::PubComp => Packet::PubComp(ack),
        other => panic!("{other:?} is no acknowledgement"),
    }
}

/// Lets so many seconds of virtual time pass, and everything that is due in them happen.
pub(crate) async fn advance(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
    settle().await;
}

/// CONNECT of a client whose session never ends by itself.
pub(crate) fn lasting(version: ProtocolVersion, client_id: &str) -> Connect<'_> {
    let mut connect = hello(version, client_id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = version.has_properties().then_some(u32::MAX);
    connect
}

/// Lets every task run until it waits.
pub(crate) async fn settle() {
    // On one thread each yield lets all others run once; a chain of wake-ups is shorter than this.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
