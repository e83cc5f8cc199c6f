//! The real client and the real broker on streams in memory and in virtual time, with a link that is cut
//! at every byte, a broker that forgets, and clients that go and come.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_broker::{Broker, Config};
use mqtt_client::{
    Backoff, Client, Error, Filter, Message, Options, ProtocolVersion, QoS, ReasonCode, Receipt,
    Target, Uncertain,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

const EVERY_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(crate) fn broker() -> Broker {
    let broker = Broker::new(Config::default());
    tokio::spawn(broker.clone().run(Vec::new(), std::future::pending()));
    broker
}

/// How many bytes may pass, both ways together, before the link is cut, once.
#[derive(Clone)]
pub(crate) struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Cuts the link that there is.
    #[cfg(feature = "outbox")]
    pub(crate) fn cut(&self) {
        self.burn(0);
    }

    /// Cuts the link after so many bytes.
    #[cfg(feature = "outbox")]
    pub(crate) fn burn(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Cuts nothing any more.
    #[cfg(feature = "outbox")]
    pub(crate) fn heal(&self) {
        self.0.store(usize::MAX, Ordering::Relaxed);
    }

    /// Takes as many of `wanted` bytes as may pass; zero: the link breaks, and the next one holds.
    fn take(&self, wanted: usize) -> usize {
        let left = self.0.load(Ordering::Relaxed);
        if left == 0 {
            self.0.store(usize::MAX, Ordering::Relaxed);
            return 0;
        }
        let count = wanted.min(left);
        if left != usize::MAX {
            self.0.store(left - count, Ordering::Relaxed);
        }
        count
    }
}

/// The client's end of a link, a byte at a time where it matters.
pub(crate) struct Cut {
    stream: DuplexStream,
    fuse: Fuse,
    is_broken: bool,
}

impl Cut {
    fn broken(&mut self) -> io::Error {
        self.is_broken = true;
        io::ErrorKind::ConnectionReset.into()
    }
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut byte = [0; 1];
        let mut one = ReadBuf::new(&mut byte);
        match Pin::new(&mut self.stream).poll_read(context, &mut one) {
            Poll::Ready(Ok(())) if one.filled().is_empty() => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) => {
                if self.fuse.take(1) == 0 {
                    return Poll::Ready(Err(self.broken()));
                }
                buffer.put_slice(one.filled());
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = self.fuse.take(bytes.len());
        if count == 0 {
            return Poll::Ready(Err(self.broken()));
        }
        Pin::new(&mut self.stream).poll_write(context, &bytes[..count])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pieces: Vec<&[u8]> = slices.iter().map(|slice| &slice[..]).collect();
        self.poll_write(context, &pieces.concat())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Links to whatever broker is in the place, each with the same fuse.
pub(crate) fn opener(
    broker: &Arc<Mutex<Broker>>,
    fuse: &Fuse,
) -> impl Fn(Target) -> std::future::Ready<io::Result<Cut>> + Send + Sync + 'static {
    let (broker, fuse) = (Arc::clone(broker), fuse.clone());
    move |_target| {
        let (near, far) = duplex(1 << 16);
        broker.lock().unwrap().serve(far, "test");
        std::future::ready(Ok(Cut {
            stream: near,
            fuse: fuse.clone(),
            is_broken: false,
        }))
    }
}

pub(crate) fn options(version: ProtocolVersion, id: &str) -> Options {
    let backoff = Backoff {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(100),
    };
    Options::new("", 0)
        .version(version)
        .client_id(id)
        .clean_start(false)
        .adopt_session(true)
        .session_expiry_interval(u32::MAX)
        .reconnect(backoff)
}

fn filter() -> Filter {
    Filter::new("t/#").unwrap().qos(QoS::ExactlyOnce)
}

/// Publishes a message of each QoS to itself, with so many bytes behind the text, and the link cut after so many bytes.
/// Returns whether the fuse blew: if not, no cut comes any more.
async fn exchange(version: ProtocolVersion, padding: usize, bytes: usize) -> bool {
    let place = Arc::new(Mutex::new(broker()));
    let fuse = Fuse::new(bytes);
    let client = Client::start_through(opener(&place, &fuse), options(version, "c"));
    let mut subscription = client.subscribe(filter()).await.unwrap();
    let mut receipts: Vec<(QoS, Receipt)> = Vec::new();
    for qos in EVERY_QOS {
        let text = format!("{qos:?}{}", " ".repeat(padding));
        let message = Message::new("t/x", text).unwrap().qos(qos);
        receipts.push((qos, client.publish(message).await.unwrap()));
    }
    for (qos, receipt) in receipts {
        let reason = receipt.await;
        assert!(reason.is_ok(), "cut at {bytes}, {qos:?}: {reason:?}");
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    let patience = Duration::from_secs(1);
    while let Ok(Some(message)) = tokio::time::timeout(patience, subscription.recv()).await {
        let payload = String::from_utf8_lossy(message.payload());
        let text = payload.trim_end();
        assert_eq!(payload.len(), text.len() + padding, "cut at {bytes}");
        *counts.entry(text.to_owned()).or_default() += 1;
    }
    let count = |qos: QoS| counts.get(&format!("{qos:?}")).copied().unwrap_or(0);
    assert!(count(QoS::AtMostOnce) <= 1, "cut at {bytes}: {counts:?}");
    assert!(count(QoS::AtLeastOnce) >= 1, "cut at {bytes}: {counts:?}");
    assert_eq!(count(QoS::ExactlyOnce), 1, "cut at {bytes}: {counts:?}");
    // The cut may come now.
    let _ = client.disconnect().await;
    fuse.0.load(Ordering::Relaxed) == usize::MAX
}

/// Every place at which an exchange can be cut, until one is behind its end.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_at_every_byte() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let mut bytes = 1;
        while exchange(version, 0, bytes).await {
            bytes += 1;
        }
        assert!(bytes > 150, "only {bytes} bytes were exchanged");
    }
}

/// The same with messages that are too large to be copied into one buffer.
#[tokio::test(start_paused = true)]
async fn a_link_that_is_cut_amid_large_messages() {
    let mut bytes = 1;
    while exchange(ProtocolVersion::V5, 10_000, bytes).await {
        bytes += 331;
    }
    assert!(bytes > 60_000, "only {bytes} bytes were exchanged");
}

/// The server comes back without its sessions while a message of each kind is under way, the link cut at
/// every byte: each receipt resolves once, and says what is true.
#[tokio::test(start_paused = true)]
async fn a_server_that_loses_the_session() {
    let mut seen = HashMap::new();
    for when_uncertain in [Uncertain::Tell, Uncertain::PublishAnew] {
        let mut bytes = 1;
        while forgetful(when_uncertain, bytes, &mut seen).await {
            bytes += 1;
        }
    }
    for outcome in ["complete", "uncertain"] {
        assert!(seen.contains_key(outcome), "{outcome}: {seen:?}");
    }
}

/// Returns whether the fuse blew.
async fn forgetful(
    when_uncertain: Uncertain,
    bytes: usize,
    seen: &mut HashMap<&'static str, usize>,
) -> bool {
    let place = Arc::new(Mutex::new(broker()));
    let options = options(ProtocolVersion::V5, "c").when_uncertain(when_uncertain);
    let fuse = Fuse::new(usize::MAX);
    let client = Client::connect_through(opener(&place, &fuse), options)
        .await
        .unwrap();
    // The first server knows what came to it.
    let before = place.lock().unwrap().clone();
    let watch = watcher(&before).await;
    fuse.0.store(bytes, Ordering::Relaxed);
    let after = broker();
    let watch_after = watcher(&after).await;
    *place.lock().unwrap() = after;
    let mut receipts = Vec::new();
    for qos in EVERY_QOS {
        let message = Message::new("t/x", format!("{qos:?}")).unwrap().qos(qos);
        receipts.push((qos, client.publish(message).await.unwrap()));
    }
    let mut outcomes = Vec::new();
    for (qos, receipt) in receipts {
        outcomes.push((qos, receipt.await));
    }
    let has_blown = fuse.0.load(Ordering::Relaxed) == usize::MAX;
    let counts = |qos: QoS, watch: &Watcher| watch.count(&format!("{qos:?}"));
    // Time for what is on its way.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (qos, outcome) in outcomes {
        let (first, second) = (counts(qos, &watch), counts(qos, &watch_after));
        let context = format!("{when_uncertain:?}, cut at {bytes}, {qos:?}: {first}+{second}");
        match outcome {
            Ok(reason) => {
                assert!(
                    !reason.is_error() || reason == ReasonCode::SUCCESS,
                    "{context}"
                );
                *seen.entry("complete").or_default() += 1;
                if qos > QoS::AtMostOnce {
                    assert!(first + second >= 1, "{context}");
                }
                if qos == QoS::AtMostOnce {
                    assert!(first + second <= 1, "{context}");
                }
                if qos == QoS::ExactlyOnce && when_uncertain == Uncertain::Tell {
                    assert_eq!(first + second, 1, "{context}");
                }
            }
            Err(Error::Uncertain(_)) => {
                *seen.entry("uncertain").or_default() += 1;
                assert_eq!(qos, QoS::ExactlyOnce, "{context}");
                assert_eq!(when_uncertain, Uncertain::Tell, "{context}");
                assert!(first <= 1 && second == 0, "{context}");
            }
            Err(error) => panic!("{context}: {error}"),
        }
    }
    drop(before);
    let _ = client.disconnect().await;
    has_blown
}

/// What a broker passes on.
pub(crate) struct Watcher {
    messages: Arc<Mutex<Vec<String>>>,
    /// Connected as long as this is there.
    _client: Client,
}

impl Watcher {
    pub(crate) fn count(&self, payload: &str) -> usize {
        let messages = self.messages.lock().unwrap();
        messages
            .iter()
            .filter(|message| *message == payload)
            .count()
    }
}

pub(crate) async fn watcher(broker: &Broker) -> Watcher {
    let (near, far) = duplex(1 << 16);
    broker.serve(far, "watcher");
    let options = Options::new("", 0).client_id("watcher").keep_alive(0);
    let client = Client::connect_with(near, options).await.unwrap();
    let mut subscription = client.subscribe(filter()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            while let Some(message) = subscription.recv().await {
                let payload = String::from_utf8_lossy(message.payload()).into_owned();
                seen.lock().unwrap().push(payload);
            }
        }
    });
    Watcher {
        messages: seen,
        _client: client,
    }
}

/// Subscriptions come back with a server that has lost the session.
#[tokio::test(start_paused = true)]
async fn subscriptions_are_there_after_a_restart_of_the_server() {
    for version in [ProtocolVersion::V3_1_1, ProtocolVersion::V5] {
        let place = Arc::new(Mutex::new(broker()));
        let fuse = Fuse::new(usize::MAX);
        let client = Client::connect_through(opener(&place, &fuse), options(version, "c"))
            .await
            .unwrap();
        let mut subscription = client.subscribe(filter()).await.unwrap();
        for round in 0..3 {
            *place.lock().unwrap() = broker();
            fuse.0.store(0, Ordering::Relaxed);
            let text = format!("round {round}");
            let message = Message::new("t/x", text.clone()).unwrap();
            let receipt = client.publish(message.qos(QoS::AtLeastOnce)).await.unwrap();
            receipt.await.unwrap();
            assert_eq!(
                subscription.recv().await.unwrap().payload()[..],
                *text.as_bytes()
            );
        }
    }
}

/// Dropping the last client ends its task, the connection, and the streams.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_client_that_was_dropped() {
    let place = Arc::new(Mutex::new(broker()));
    let fuse = Fuse::new(usize::MAX);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    for _ in 0..3 {
        let client = Client::connect_through(
            opener(&place, &fuse),
            options(ProtocolVersion::V5, "c").session_expiry_interval(0),
        )
        .await
        .unwrap();
        let mut subscription = client.subscribe(filter()).await.unwrap();
        let request = Message::new("t/request", "?").unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(1), client.request(request));
        assert!(asked.await.is_err());
        subscription.recv().await.unwrap();
        drop(client);
        assert_eq!(subscription.recv().await, None);
    }
    // The broker's tasks end when they have seen the end of the streams.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert_eq!(after, before);
}
