//! The blocking client, against a broker in this process.

use std::time::Duration;

use mqtt_broker::{Broker, Config};
#[cfg(feature = "outbox")]
use mqtt_client::DisconnectOptions;
use mqtt_client::blocking::Client;
use mqtt_client::{Error, Filter, Message, Options, QoS, ReasonCode};
use tokio::net::TcpListener;

#[test]
fn a_program_without_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        let broker = Broker::new(Config::default());
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });

    let client = Client::connect(Options::new("127.0.0.1", port)).unwrap();
    let filter = Filter::new("a/#").unwrap().qos(QoS::ExactlyOnce);
    let mut subscription = client.subscribe(filter).unwrap();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let receipt = client
            .publish(Message::new("a/b", "x").unwrap().qos(qos))
            .unwrap();
        assert_eq!(client.wait(receipt).unwrap(), ReasonCode::SUCCESS);
        assert_eq!(subscription.next().unwrap().quality(), qos);
    }
    assert_eq!(subscription.recv_timeout(Duration::ZERO), None);
    let request = Message::new("nobody", "?").unwrap();
    let error = client.request(request, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::TimedOut));
    subscription.unsubscribe().unwrap();
    assert_eq!(subscription.next(), None);
    client.disconnect().unwrap();
    assert!(matches!(
        client.publish(Message::new("a", "").unwrap()),
        Err(Error::Closed)
    ));
}

/// To drop the client is to disconnect: what was published arrives, and the Will does not.
#[test]
fn dropping_a_client_drains_and_disconnects() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        let broker = Broker::new(Config::default());
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });
    let message = |text: &str| {
        let message = Message::new("a/b", text.to_owned()).unwrap();
        message.qos(QoS::ExactlyOnce)
    };
    let watcher = Client::connect(Options::new("127.0.0.1", port)).unwrap();
    let filter = Filter::new("a/#").unwrap().qos(QoS::ExactlyOnce);
    let arriving = watcher.subscribe(filter).unwrap();
    let options = Options::new("127.0.0.1", port).will(message("the will"), None);
    let client = Client::connect(options).unwrap();
    for number in 0..100 {
        let _receipt = client.publish(message(&number.to_string())).unwrap();
    }
    drop(client);
    let _receipt = watcher.publish(message("the end")).unwrap();
    let payloads = arriving.map(|message| String::from_utf8_lossy(message.payload()).into_owned());
    let arrived: Vec<_> = payloads.take_while(|text| text != "the end").collect();
    let published: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(arrived, published);
}

/// A message that was stored while there was no broker is sent by the next run of the program.
#[cfg(feature = "outbox")]
#[test]
fn a_program_without_a_runtime_and_with_an_outbox() {
    let folder = tempfile::tempdir().unwrap();
    let options = |port| {
        Options::new("127.0.0.1", port)
            .client_id("sensor")
            .session_expiry_interval(3600)
            .reconnect(mqtt_client::Backoff::default())
            .outbox(mqtt_client::Outbox::open(folder.path()).unwrap())
    };
    let message = || {
        let message = Message::new("a/b", "kept").unwrap();
        message.qos(QoS::ExactlyOnce)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    // Bound and not listening: there is no broker, and nobody else gets the port.
    let nobody = {
        let _context = runtime.enter();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        socket
    };
    let client = Client::start(options(nobody.local_addr().unwrap().port())).unwrap();
    let receipt = client.publish(message()).unwrap();
    // It is on the disk, and cannot be sent.
    let end = DisconnectOptions::new().drain(Duration::ZERO);
    let _ = client.disconnect_with(end);
    assert!(matches!(client.wait(receipt), Err(Error::Kept(_))));
    drop(client);

    let listener = runtime
        .block_on(TcpListener::bind(("127.0.0.1", 0)))
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        let broker = Broker::new(Config::default());
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });
    let watcher = Client::connect(Options::new("127.0.0.1", port)).unwrap();
    let filter = Filter::new("a/#").unwrap().qos(QoS::ExactlyOnce);
    let mut arriving = watcher.subscribe(filter).unwrap();
    let outbox = mqtt_client::Outbox::open(folder.path()).unwrap();
    let left = outbox.unfinished().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].message, message());
    drop((outbox, nobody));
    let client = Client::start(options(port)).unwrap();
    assert_eq!(arriving.next().unwrap().payload(), "kept");
    client.disconnect().unwrap();
    drop(client);
    let outbox = mqtt_client::Outbox::open(folder.path()).unwrap();
    assert!(outbox.is_empty());
}
