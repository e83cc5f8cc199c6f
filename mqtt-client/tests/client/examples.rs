//! The examples run, against a broker in this process.

use mqtt_broker::{Broker, Config};
use mqtt_client::{Client, Filter, Message, Options, QoS};
use tokio::net::TcpListener;

#[expect(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/bridge.rs"]
mod bridge;
#[cfg(feature = "outbox")]
#[expect(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/dashboard.rs"]
mod dashboard;
#[cfg(feature = "outbox")]
#[expect(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/sensor.rs"]
mod sensor;
#[expect(dead_code, reason = "its `main` is not called here")]
#[path = "../../examples/service.rs"]
mod service;

/// A broker on a port that the system chooses; its URL.
async fn broker() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    let broker = Broker::new(Config::default());
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            broker.serve(stream, peer);
        }
    });
    url
}

async fn connect(url: &str) -> Client {
    let options = Options::from_url(url).unwrap();
    Client::connect(options).await.unwrap()
}

#[tokio::test]
async fn a_service_answers() {
    let url = broker().await;
    let answer = async {
        loop {
            // The service may not have subscribed yet: it is asked until it has.
            let client = connect(&url).await;
            let probe = Message::new("services/add", "").unwrap();
            let reason = client.publish(probe.qos(QoS::AtLeastOnce)).await.unwrap();
            if reason.await.unwrap() == mqtt_client::ReasonCode::SUCCESS {
                return service::ask(&url, "1 2 39").await.unwrap();
            }
        }
    };
    tokio::select! {
        answer = answer => assert_eq!(answer, "42"),
        outcome = service::serve(&url) => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn a_bridge_passes_on() {
    let (from, to) = (broker().await, broker().await);
    let destination = connect(&to).await;
    let mut arriving = destination
        .subscribe(Filter::new("#").unwrap())
        .await
        .unwrap();
    let source = connect(&from).await;
    let check = async {
        loop {
            let message = Message::new("sensors/1", "21")
                .unwrap()
                .qos(QoS::AtLeastOnce);
            let reason = source.publish(message).await.unwrap().await.unwrap();
            if reason == mqtt_client::ReasonCode::SUCCESS {
                return arriving.recv().await.unwrap();
            }
        }
    };
    tokio::select! {
        message = check => assert_eq!(message.topic(), "sensors/1"),
        outcome = bridge::bridge(&from, &to, "sensors/#") => panic!("{outcome:?}"),
    }
}

/// With the feature that the sensor keeps its readings by.
#[cfg(feature = "outbox")]
mod with_an_outbox {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::{broker, dashboard, sensor};

    /// Writes to a screen that the test can look at.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_dashboard_shows_a_sensor() {
        let url = broker().await;
        let screen = Screen::default();
        let mut out = screen.clone();
        let folder = tempfile::tempdir().unwrap();
        let outbox = mqtt_client::Outbox::open(folder.path()).unwrap();
        let client = sensor::start(&url, outbox).unwrap();
        let shown = async {
            loop {
                tokio::task::yield_now().await;
                let text = String::from_utf8_lossy(&screen.0.lock().unwrap()).into_owned();
                if text.contains("sensors/example/reading") && text.contains("connected as") {
                    return;
                }
            }
        };
        tokio::select! {
            () = shown => {}
            outcome = dashboard::watch(&url, "sensors/#", &mut out) => panic!("{outcome:?}"),
            outcome = sensor::measure(&client, Duration::from_millis(1)) => panic!("{outcome:?}"),
        }
    }
}
