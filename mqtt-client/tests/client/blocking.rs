//! The blocking client, against a broker in this process.

use std::time::Duration;

use mqtt_broker::{Broker, Config};
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
