//! A broker that stops.

use mqtt_broker::{Broker, Config, Listener};
use mqtt_codec::{Packet, ReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::harness::{ALL, Peer, V5, hello};

/// Clients are told, and `run` returns when all connections have ended.
#[tokio::test(start_paused = true)]
async fn clients_are_told() {
    let broker = Broker::new(Config::default());
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(broker.clone().run(Vec::new(), async { _ = stopped.await }));
    let mut peers = Vec::new();
    for version in ALL {
        peers.push(Peer::new(&broker, version, &format!("client-{version:?}")).await);
    }
    let mut silent = Peer::open(&broker, V5);
    drop(broker);
    stop.send(()).unwrap();
    for peer in &mut peers {
        peer.expect_disconnect(ReasonCode::SERVER_SHUTTING_DOWN)
            .await;
    }
    silent.expect_closed().await;
    running.await.unwrap();
}

/// [MQTT-4.2.0-1]: the same over TCP, on a port that the system chooses.
#[tokio::test]
async fn a_listener_serves_until_the_shutdown() {
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(listener.to_string(), format!("tcp://{address}"));
    let (stop, stopped) = oneshot::channel();
    let serving = mqtt_broker::run(vec![listener], Config::default(), async {
        _ = stopped.await
    });
    let running = tokio::spawn(serving);
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let connect = Packet::Connect(Box::new(hello(V5, "client")))
        .to_vec(V5)
        .unwrap();
    stream.write_all(&connect).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0x20);
    stop.send(()).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    // The rest of CONNACK, then DISCONNECT 0x8B.
    assert!(
        rest.ends_with(&[0xe0, 0x01, 0x8b]) || rest.ends_with(&[0xe0, 0x02, 0x8b, 0x00]),
        "{rest:02x?}"
    );
    running.await.unwrap();
}
