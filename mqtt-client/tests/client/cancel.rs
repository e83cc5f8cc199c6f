//! Futures that are dropped at each of their await points: nothing is lost that was promised, nothing stays behind, and
//! the client works on.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use mqtt_broker::Broker;
use mqtt_client::{
    Client, DisconnectOptions, Error, Event, Filter, Message, ProtocolVersion, QoS, ReasonCode,
    TryPublishError,
};
use mqtt_codec::ConnAck;
use tokio::time::{Instant, timeout};

use crate::peer;
use crate::simulation::{Fuse, broker, opener, options};

/// Polls the future so often at most, and lets everybody else go on in between.
async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let poll = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn connect(place: &Arc<Mutex<Broker>>, id: &str) -> Client {
    let options = options(ProtocolVersion::V5, id)
        .clean_start(true)
        .session_expiry_interval(0)
        .queue_capacity(2);
    let fuse = Fuse::new(usize::MAX);
    Client::connect_through(opener(place, &fuse), options)
        .await
        .unwrap()
}

fn message(text: &str) -> Message {
    Message::new("t/x", text.to_owned())
        .unwrap()
        .qos(QoS::AtLeastOnce)
}

fn filter() -> Filter {
    Filter::new("t/x").unwrap().qos(QoS::AtLeastOnce)
}

/// Waits until the server has no subscription any more.
async fn until_nobody_listens(client: &Client) {
    let gone = async {
        loop {
            let receipt = client.publish(message("anybody?")).await.unwrap();
            if receipt.await.unwrap() == ReasonCode::NO_MATCHING_SUBSCRIBERS {
                return;
            }
        }
    };
    let gone = timeout(Duration::from_secs(60), gone).await;
    assert!(gone.is_ok(), "a subscription stays behind");
}

/// Until a future comes to its end, so that it was dropped at each point before.
const MOST_POLLS: usize = 100;

#[tokio::test(start_paused = true)]
async fn a_publication_that_is_given_up_takes_no_room() {
    let place = Arc::new(Mutex::new(broker()));
    let client = connect(&place, "c").await;
    for times in 0..8 {
        let mut receipts = Vec::new();
        let returned = loop {
            match client.try_publish(message("fills")) {
                Ok(receipt) => receipts.push(receipt),
                Err(TryPublishError::Full(message)) => break message,
                Err(error) => panic!("{error:?}"),
            }
        };
        // What did not fit comes back as it was.
        assert_eq!(*returned, message("fills"));
        if let Some(receipt) = polled(client.publish(message("given up")), times).await {
            receipts.push(receipt.unwrap());
        }
        for receipt in receipts {
            receipt.await.unwrap();
        }
    }
    for _ in 0..8 {
        client.publish(message("x")).await.unwrap().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_given_up_is_not_left_behind() {
    let place = Arc::new(Mutex::new(broker()));
    let client = connect(&place, "c").await;
    let mut has_ended = false;
    for times in 0..MOST_POLLS {
        has_ended = polled(client.subscribe(filter()), times).await.is_some();
        until_nobody_listens(&client).await;
        assert!(client.unclaimed().try_recv().is_none());
        let mut subscription = client.subscribe(filter()).await.unwrap();
        client
            .publish(message("after"))
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(subscription.recv().await.unwrap().payload(), "after");
        // The next round begins without it.
        polled(subscription.unsubscribe(), times).await;
        drop(subscription);
        until_nobody_listens(&client).await;
        if has_ended {
            break;
        }
    }
    assert!(has_ended);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_given_up_loses_nothing() {
    let place = Arc::new(Mutex::new(broker()));
    let client = connect(&place, "c").await;
    let mut subscription = client.subscribe(filter()).await.unwrap();
    let publisher = client.clone();
    tokio::spawn(async move {
        for number in 0..60 {
            let receipt = publisher
                .publish(message(&number.to_string()))
                .await
                .unwrap();
            if number % 3 == 0 {
                receipt.await.unwrap();
            }
        }
    });
    let mut expected = 0;
    let mut times = 0;
    while expected < 60 {
        times = (times + 1) % 4;
        if let Some(message) = polled(subscription.recv(), times).await {
            assert_eq!(
                message.unwrap().payload()[..],
                *expected.to_string().as_bytes()
            );
            expected += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_does_not_answer_another() {
    let place = Arc::new(Mutex::new(broker()));
    let (client, service) = (connect(&place, "c").await, connect(&place, "s").await);
    let mut requests = service.subscribe(filter()).await.unwrap();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let answer = request.response(request.payload().clone()).unwrap();
            let _ = service.publish(answer.unwrap()).await;
        }
    });
    let mut has_ended = false;
    for times in 0..MOST_POLLS {
        has_ended = polled(client.request(message("first")), times)
            .await
            .is_some();
        let text = format!("second {times}");
        let answer = client.request(message(&text)).await.unwrap();
        assert_eq!(answer.payload()[..], *text.as_bytes());
        if has_ended {
            break;
        }
    }
    assert!(has_ended);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_that_is_given_up_ends_the_client() {
    let place = Arc::new(Mutex::new(broker()));
    let mut has_ended = false;
    for times in 1..MOST_POLLS {
        let client = connect(&place, "c").await;
        let receipt = client.publish(message("last")).await.unwrap();
        has_ended = polled(client.disconnect(), times).await.is_some();
        client.closed().await.unwrap();
        receipt.await.unwrap();
        assert!(matches!(
            client.publish(message("late")).await,
            Err(Error::Closed)
        ));
        if has_ended {
            break;
        }
    }
    assert!(has_ended);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_given_up_leaves_no_task() {
    let place = Arc::new(Mutex::new(broker()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let mut has_ended = false;
    for times in 0..MOST_POLLS {
        has_ended = polled(connect(&place, "c"), times).await.is_some();
        // The broker's task sees the end of the stream.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(alive(), before, "given up after {times} polls");
        if has_ended {
            break;
        }
    }
    assert!(has_ended);
}

/// `disconnect` waits for acknowledgements as long as it was told, and no longer.
#[tokio::test(start_paused = true)]
async fn a_disconnect_has_a_deadline() {
    let (client, _incoming, _peer) = peer::connect(peer::options(ProtocolVersion::V5)).await;
    let receipt = client
        .publish(peer::message(QoS::AtLeastOnce, "never acknowledged"))
        .await
        .unwrap();
    let since = Instant::now();
    let options = DisconnectOptions::new().drain(Duration::from_secs(7));
    client.disconnect_with(options).await.unwrap();
    // And two seconds in which the server may close.
    let passed = since.elapsed();
    assert!(passed >= Duration::from_secs(7) && passed < Duration::from_secs(10));
    assert!(receipt.await.unwrap_err().is_uncertain());
}

/// The first event tells the limits of the server.
#[tokio::test(start_paused = true)]
async fn the_limits_of_the_server_are_told() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let near = Mutex::new(Some(near));
    let open = move |_target| {
        let near = near.lock().unwrap().take();
        std::future::ready(near.ok_or(std::io::ErrorKind::ConnectionRefused.into()))
    };
    let client = Client::start_through(open, peer::options(ProtocolVersion::V5));
    let mut events = client.events();
    let mut peer = peer::Peer::new(far, ProtocolVersion::V5);
    peer.next().await.unwrap();
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.properties.receive_maximum = std::num::NonZeroU16::new(7);
    connack.properties.maximum_packet_size = std::num::NonZeroU32::new(1000);
    connack.properties.maximum_qos = Some(QoS::AtLeastOnce);
    connack.properties.retain_available = Some(false);
    peer.send(mqtt_codec::Packet::ConnAck(Box::new(connack)))
        .await;
    let Some(Event::Connected(server)) = events.next().await else {
        panic!("no connection");
    };
    assert_eq!(server.receive_maximum, 7);
    assert_eq!(server.maximum_packet_size, Some(1000));
    assert_eq!(server.maximum_qos, QoS::AtLeastOnce);
    assert!(!server.retain_available && !server.session_present);
    let receipt = client.publish(peer::message(QoS::ExactlyOnce, "x")).await;
    assert!(matches!(
        receipt.unwrap().await,
        Err(Error::QosNotSupported)
    ));
    let long = "x".repeat(2000);
    let receipt = client.publish(peer::message(QoS::AtLeastOnce, &long)).await;
    assert!(matches!(receipt.unwrap().await, Err(Error::TooLarge)));
}
