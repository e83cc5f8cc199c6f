//! Several readers of one message, over connections that are lost while the session goes on: at QoS 2 each
//! gets it once.

use std::time::Duration;

use mqtt_client::{
    Acknowledge, Backoff, Client, Filter, Options, PacketId, ProtocolVersion, QoS, ReasonCode,
    Subscription, SubscriptionIdentifier, Target, TopicName,
};
use mqtt_codec::{ConnAck, Packet, Publish, SubAck};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::peer::{Peer, ack, options};

/// What each of the readers gets in the end, by its number.
type Taken = [Vec<String>; 2];

/// A server that a client connects to again and again.
struct Server {
    streams: mpsc::UnboundedReceiver<DuplexStream>,
    version: ProtocolVersion,
    identifiers: Vec<Option<SubscriptionIdentifier>>,
}

impl Server {
    fn start(options: Options, version: ProtocolVersion) -> (Client, Self) {
        let (sender, streams) = mpsc::unbounded_channel();
        let open = move |_target: Target| {
            let (near, far) = duplex(1 << 16);
            sender.send(far).unwrap();
            std::future::ready(Ok(near))
        };
        let backoff = Backoff {
            first: Duration::ZERO,
            longest: Duration::ZERO,
        };
        let client = Client::start_through(open, options.reconnect(backoff));
        let server = Self {
            streams,
            version,
            identifiers: Vec::new(),
        };
        (client, server)
    }

    async fn accept(&mut self, session_present: bool) -> Peer {
        let mut peer = Peer::new(self.streams.recv().await.unwrap(), self.version);
        peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
            .await;
        let mut connack = ConnAck::new(ReasonCode::SUCCESS);
        connack.session_present = session_present;
        peer.send(Packet::ConnAck(Box::new(connack))).await;
        peer
    }

    /// Grants one SUBSCRIBE.
    async fn grant(&mut self, peer: &mut Peer) {
        let (id, identifier) = peer
            .expect(|packet| match packet {
                Packet::Subscribe(subscribe) => (
                    subscribe.packet_id,
                    subscribe.properties.subscription_identifier,
                ),
                packet => panic!("{packet:?}"),
            })
            .await;
        self.identifiers.push(identifier);
        let codes = vec![ReasonCode::GRANTED_QOS_2];
        peer.send(Packet::SubAck(SubAck::new(id, codes))).await;
    }

    /// A message of QoS 2 for all, under the identifier 7.
    async fn publish(&self, peer: &mut Peer, payload: &str, dup: bool) {
        let topic = TopicName::new("a/b").unwrap();
        let mut publish = Publish::new(topic, payload.as_bytes());
        publish.qos = QoS::ExactlyOnce;
        publish.dup = dup;
        publish.packet_id = PacketId::new(7);
        publish.properties.subscription_identifiers =
            self.identifiers.iter().filter_map(|id| *id).collect();
        peer.send(Packet::Publish(publish)).await;
        peer.silent().await;
    }
}

fn take(subscription: &mut Subscription, into: &mut Vec<String>) {
    while let Some(message) = subscription.try_recv() {
        message.acknowledge();
        into.push(String::from_utf8_lossy(message.payload()).into_owned());
    }
}

async fn two_readers(
    version: ProtocolVersion,
    acknowledge: Acknowledge,
) -> (Client, Server, Peer, [Subscription; 2]) {
    let options = options(version).acknowledge(acknowledge);
    let options = match version.has_properties() {
        true => options.session_expiry_interval(60),
        false => options.clean_start(false),
    };
    let (client, mut server) = Server::start(options, version);
    let mut peer = server.accept(false).await;
    let mut readers = Vec::new();
    for filter in ["a/#", "a/b"] {
        let filter = Filter::new(filter).unwrap().qos(QoS::ExactlyOnce);
        let (reader, ()) = tokio::join!(client.subscribe(filter), server.grant(&mut peer));
        readers.push(reader.unwrap());
    }
    (client, server, peer, readers.try_into().unwrap())
}

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V3_1_1, ProtocolVersion::V5];
const BOTH: [Acknowledge; 2] = [Acknowledge::WhenTaken, Acknowledge::Manually];

/// One has it and the other has not when the connection is lost, and again when the next one is.
#[tokio::test(start_paused = true)]
async fn who_had_a_message_does_not_get_it_again_when_the_session_goes_on() {
    for (version, acknowledge) in VERSIONS.iter().flat_map(|v| BOTH.map(|a| (*v, a))) {
        let (_client, mut server, mut peer, mut readers) = two_readers(version, acknowledge).await;
        let mut taken = Taken::default();
        server.publish(&mut peer, "x", false).await;
        take(&mut readers[0], &mut taken[0]);
        for _ in 0..2 {
            drop(peer);
            peer = server.accept(true).await;
            server.publish(&mut peer, "x", true).await;
            take(&mut readers[0], &mut taken[0]);
        }
        take(&mut readers[1], &mut taken[1]);
        assert_eq!(taken, [["x"], ["x"]], "{version:?} {acknowledge:?}");
        peer.expect_packet(Packet::PubRec(ack(7))).await;
    }
}

/// Without a connection one takes it, then the other; what the server sends again is nobody's.
#[tokio::test(start_paused = true)]
async fn both_take_it_between_two_connections() {
    for version in VERSIONS {
        let (_client, mut server, mut peer, mut readers) =
            two_readers(version, Acknowledge::WhenTaken).await;
        let mut taken = Taken::default();
        server.publish(&mut peer, "x", false).await;
        take(&mut readers[0], &mut taken[0]);
        drop(peer);
        // The client is about to connect, and the server does not answer yet.
        let stream = server.streams.recv().await.unwrap();
        take(&mut readers[1], &mut taken[1]);
        drop(stream);
        peer = server.accept(true).await;
        server_sends_again_and_is_answered(&server, &mut peer).await;
        for (reader, taken) in readers.iter_mut().zip(&mut taken) {
            take(reader, taken);
        }
        assert_eq!(taken, [["x"], ["x"]]);
    }
}

async fn server_sends_again_and_is_answered(server: &Server, peer: &mut Peer) {
    let topic = TopicName::new("a/b").unwrap();
    let mut publish = Publish::new(topic, b"x");
    publish.qos = QoS::ExactlyOnce;
    publish.dup = true;
    publish.packet_id = PacketId::new(7);
    publish.properties.subscription_identifiers =
        server.identifiers.iter().filter_map(|id| *id).collect();
    peer.send(Packet::Publish(publish)).await;
    peer.expect_packet(Packet::PubRec(ack(7))).await;
}

/// The only one who has not had it goes: nobody is left to wait for.
#[tokio::test(start_paused = true)]
async fn a_message_that_all_have_had_who_are_left_is_acknowledged() {
    for version in VERSIONS {
        let (_client, mut server, mut peer, [mut first, second]) =
            two_readers(version, Acknowledge::WhenTaken).await;
        let mut taken = Vec::new();
        server.publish(&mut peer, "x", false).await;
        take(&mut first, &mut taken);
        drop(peer);
        peer = server.accept(true).await;
        // It hears of the reader that goes before it hears of the message.
        drop(second);
        peer.silent().await;
        server_sends_again_and_is_answered(&server, &mut peer).await;
        take(&mut first, &mut taken);
        assert_eq!(taken, ["x"]);
    }
}

/// Who goes without having taken it does not count, even if all go.
#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_had_waits_for_the_next_reader() {
    for version in VERSIONS {
        let (client, mut server, mut peer, readers) =
            two_readers(version, Acknowledge::WhenTaken).await;
        server.publish(&mut peer, "x", false).await;
        for reader in readers {
            drop(reader);
            peer.silent().await;
        }
        drop(peer);
        peer = server.accept(true).await;
        server.publish(&mut peer, "x", true).await;
        let filter = Filter::new("a/#").unwrap().qos(QoS::ExactlyOnce);
        let (reader, ()) = tokio::join!(client.subscribe(filter), server.grant(&mut peer));
        let mut taken = Vec::new();
        take(&mut reader.unwrap(), &mut taken);
        assert_eq!(taken, ["x"]);
        peer.expect_packet(Packet::PubRec(ack(7))).await;
    }
}

/// The identifier may come back for another message, be it that the server forgot the session or the message.
#[tokio::test(start_paused = true)]
async fn another_message_of_the_same_identifier_goes_to_all() {
    for (session_present, dup, payload) in
        [(false, true, "x"), (true, false, "x"), (true, true, "y")]
    {
        let (_client, mut server, mut peer, mut readers) =
            two_readers(ProtocolVersion::V5, Acknowledge::WhenTaken).await;
        let mut taken = Taken::default();
        server.publish(&mut peer, "x", false).await;
        take(&mut readers[0], &mut taken[0]);
        drop(peer);
        peer = server.accept(session_present).await;
        if !session_present {
            // Filters of different identifiers are packets of their own.
            server.identifiers.clear();
            server.grant(&mut peer).await;
            server.grant(&mut peer).await;
            take(&mut readers[1], &mut Vec::new());
        }
        server.publish(&mut peer, payload, dup).await;
        take(&mut readers[0], &mut taken[0]);
        take(&mut readers[1], &mut taken[1]);
        assert_eq!(taken, [vec!["x", payload], vec![payload]]);
        peer.expect_packet(Packet::PubRec(ack(7))).await;
    }
}
