//! Enhanced authentication, redirection, and requests with their answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mqtt_client::{
    AuthenticationError, Authenticator, Blame, Client, Error, Event, Message, Options,
    ProtocolVersion, QoS, ReasonCode, Target, TopicName,
};
use mqtt_codec::{Auth, ConnAck, Disconnect, Packet, Publish, SubAck};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::peer::{Peer, ack, connect, message, options};

const V5: ProtocolVersion = ProtocolVersion::V5;

/// A method in which each end counts one up, to three.
struct Counting(u8);

impl Counting {
    fn next(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
        if data != Some(&[self.0 + 1]) {
            return Err("the server cannot count".into());
        }
        self.0 += 2;
        Ok(())
    }
}

impl Authenticator for Counting {
    fn method(&self) -> &str {
        "COUNT"
    }

    fn start(&mut self) -> Result<Option<Bytes>, AuthenticationError> {
        Ok(Some(Bytes::from(vec![self.0])))
    }

    fn proceed(&mut self, data: Option<&[u8]>) -> Result<Option<Bytes>, AuthenticationError> {
        self.next(data)?;
        Ok(Some(Bytes::from(vec![self.0])))
    }

    fn finish(&mut self, data: Option<&[u8]>) -> Result<(), AuthenticationError> {
        self.next(data)
    }
}

fn counting() -> Options {
    options(V5).authenticator(|| Box::new(Counting(1)))
}

async fn expect_auth(peer: &mut Peer, reason: ReasonCode, data: u8) {
    peer.expect(|packet| {
        let Packet::Auth(auth) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(auth.reason_code, reason);
        assert_eq!(auth.properties.authentication_method, Some("COUNT"));
        assert_eq!(auth.properties.authentication_data, Some(&[data][..]));
    })
    .await;
}

async fn send_auth(peer: &mut Peer, reason: ReasonCode, data: u8) {
    let mut auth = Auth::new(reason, "COUNT");
    let data = [data];
    auth.properties.authentication_data = Some(&data);
    peer.send(Packet::Auth(auth)).await;
}

/// The server's part up to CONNACK, which says `last`.
async fn authenticate(peer: &mut Peer, last: u8) {
    peer.expect(|packet| {
        let Packet::Connect(connect) = packet else {
            panic!("{packet:?}")
        };
        let properties = &connect.properties;
        assert_eq!(properties.authentication_method, Some("COUNT"));
        assert_eq!(properties.authentication_data, Some(&[1][..]));
    })
    .await;
    send_auth(peer, ReasonCode::CONTINUE_AUTHENTICATION, 2).await;
    expect_auth(peer, ReasonCode::CONTINUE_AUTHENTICATION, 3).await;
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.authentication_method = Some("COUNT");
    let data = [last];
    connack.properties.authentication_data = Some(&data);
    peer.send(Packet::ConnAck(Box::new(connack))).await;
}

/// [MQTT-4.12.0-3] and again on the connection: section 4.12.1.
#[tokio::test(start_paused = true)]
async fn an_exchange_of_auth_packets() {
    let (near, far) = duplex(4096);
    let mut peer = Peer::new(far, V5);
    let (client, ()) = tokio::join!(
        Client::connect_with(near, counting()),
        authenticate(&mut peer, 4)
    );
    let client = client.unwrap();
    let server = async {
        expect_auth(&mut peer, ReasonCode::REAUTHENTICATE, 1).await;
        send_auth(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION, 2).await;
        expect_auth(&mut peer, ReasonCode::CONTINUE_AUTHENTICATION, 3).await;
        send_auth(&mut peer, ReasonCode::SUCCESS, 4).await;
    };
    let (outcome, ()) = tokio::join!(client.reauthenticate(), server);
    outcome.unwrap();
    // Nobody asked for another exchange.
    send_auth(&mut peer, ReasonCode::SUCCESS, 4).await;
    peer.expect_end(ReasonCode::PROTOCOL_ERROR).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_know_the_secret_is_left() {
    let (near, far) = duplex(4096);
    let mut peer = Peer::new(far, V5);
    let (client, ()) = tokio::join!(
        Client::connect_with(near, counting()),
        authenticate(&mut peer, 9)
    );
    let error = client.map(drop).unwrap_err();
    assert!(matches!(error, Error::Authentication(_)), "{error}");
    let (client, _incoming, _peer) = connect(options(V5)).await;
    let error = client.reauthenticate().await.unwrap_err();
    assert_eq!(error.blame(), Blame::Caller);
}

type Opened = std::future::Ready<std::io::Result<DuplexStream>>;
type Peers = mpsc::UnboundedReceiver<(Target, Peer)>;

/// Opens streams in memory and tells which targets they were for.
fn switchboard() -> (impl Fn(Target) -> Opened + Send + Sync + 'static, Peers) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let open = move |target| {
        let (near, far) = duplex(1 << 16);
        let _ = sender.send((target, Peer::new(far, V5)));
        std::future::ready(Ok(near))
    };
    (open, receiver)
}

async fn answer(peer: &mut Peer, connack: ConnAck<'_>) {
    peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
        .await;
    peer.send(Packet::ConnAck(Box::new(connack))).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_points_to_another_one() {
    let (open, mut peers) = switchboard();
    let options = Options::new("first", 1883).client_id("c").redirections(1);
    let server = async {
        let (target, mut peer) = peers.recv().await.unwrap();
        assert_eq!(target.to_string(), "first:1883");
        let mut connack = ConnAck::new(ReasonCode::SERVER_MOVED);
        connack.properties.server_reference = Some("second:1884");
        answer(&mut peer, connack).await;
        let (target, mut peer) = peers.recv().await.unwrap();
        assert_eq!(target.to_string(), "second:1884");
        answer(&mut peer, ConnAck::new(ReasonCode::SUCCESS)).await;
        // A connection that lasts ends the row.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut disconnect = Disconnect::new(ReasonCode::USE_ANOTHER_SERVER);
        disconnect.properties.server_reference = Some("[::1]");
        peer.send(Packet::Disconnect(disconnect)).await;
        let (target, mut peer) = peers.recv().await.unwrap();
        assert_eq!(target.to_string(), "[::1]:1884");
        // A second one in a row is not followed.
        let mut connack = ConnAck::new(ReasonCode::SERVER_MOVED);
        connack.properties.server_reference = Some("fourth");
        answer(&mut peer, connack).await;
    };
    let client = async {
        let client = Client::connect_through(open, options).await.unwrap();
        let mut events = client.events();
        let mut targets = Vec::new();
        while let Some(event) = events.next().await {
            if let Event::Redirected {
                target,
                permanently,
            } = event
            {
                targets.push((target.host, permanently));
            }
        }
        assert_eq!(
            targets,
            [("second".to_owned(), true), ("::1".to_owned(), false)]
        );
        assert!(matches!(client.closed().await, Err(Error::Refused { .. })));
    };
    tokio::join!(client, server);
}

#[tokio::test(start_paused = true)]
async fn a_redirection_is_not_followed_unasked() {
    let (open, mut peers) = switchboard();
    let server = async {
        let (_, mut peer) = peers.recv().await.unwrap();
        let mut connack = ConnAck::new(ReasonCode::SERVER_MOVED);
        connack.properties.server_reference = Some("second");
        answer(&mut peer, connack).await;
    };
    let options = Options::new("first", 1883);
    let (client, ()) = tokio::join!(Client::connect_through(open, options), server);
    assert!(matches!(client.map(drop), Err(Error::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_starts_without_a_server() {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let open = {
        let peers = Arc::clone(&peers);
        move |_target| {
            let mut peers = peers.lock().unwrap();
            let (near, far) = duplex(1 << 16);
            peers.push(far);
            // The third attempt succeeds.
            std::future::ready(match peers.len() {
                3 => Ok(near),
                _ => Err(std::io::ErrorKind::ConnectionRefused.into()),
            })
        }
    };
    let client = Client::start_through(open, options(V5).reconnect(Default::default()));
    let mut events = client.events();
    let receipt = client
        .publish(message(QoS::AtLeastOnce, "x"))
        .await
        .unwrap();
    assert!(matches!(events.next().await, Some(Event::Disconnected(_))));
    assert!(matches!(events.next().await, Some(Event::Disconnected(_))));
    let far = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut peers = peers.lock().unwrap();
        if peers.len() == 3 {
            break peers.pop().unwrap();
        }
    };
    let mut peer = Peer::new(far, V5);
    answer(&mut peer, ConnAck::new(ReasonCode::SUCCESS)).await;
    assert!(matches!(events.next().await, Some(Event::Connected(_))));
    client.connected().await.unwrap();
    let (id, _) = peer.expect_publish("x").await;
    peer.send(Packet::PubAck(ack(id.unwrap().get()))).await;
    receipt.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_its_answer() {
    let (client, _incoming, mut peer) = connect(options(V5)).await;
    let server = async {
        let id = peer
            .expect(|packet| match packet {
                Packet::Subscribe(subscribe) => {
                    assert_eq!(subscribe.filters[0].filter.as_str(), "responses/c");
                    subscribe.packet_id
                }
                packet => panic!("{packet:?}"),
            })
            .await;
        let granted = vec![ReasonCode::GRANTED_QOS_1];
        peer.send(Packet::SubAck(SubAck::new(id, granted))).await;
        let mut requests = Vec::new();
        for _ in 0..2 {
            let request = peer.expect(|packet| match packet {
                Packet::Publish(publish) => (
                    publish.payload.to_vec(),
                    publish
                        .properties
                        .response_topic
                        .unwrap()
                        .as_str()
                        .to_owned(),
                    publish.properties.correlation_data.unwrap().to_vec(),
                ),
                packet => panic!("{packet:?}"),
            });
            requests.push(request.await);
        }
        // In the other order.
        for (payload, topic, correlation) in requests.iter().rev() {
            let mut publish = Publish::new(TopicName::new(topic).unwrap(), payload);
            publish.properties.correlation_data = Some(correlation);
            peer.send(Packet::Publish(publish)).await;
        }
    };
    let ask = |text: &'static str| client.request(Message::new("service", text).unwrap());
    let (one, two, ()) = tokio::join!(ask("one"), ask("two"), server);
    assert_eq!(one.unwrap().payload()[..], *b"one");
    assert_eq!(two.unwrap().payload()[..], *b"two");

    let (client, _incoming, _peer) = connect(options(ProtocolVersion::V3_1_1)).await;
    let error = client
        .request(Message::new("service", "").unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)));
}
