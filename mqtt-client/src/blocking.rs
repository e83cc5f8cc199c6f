//! The client for programs without an async runtime: the same calls, which wait.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    DisconnectOptions, Ended, Error, Filter, Message, Options, Receipt, Received, ServerInfo,
    SubscribeOptions, TryPublishError,
};

/// A connection to a server, driven by a thread of its own. Clones share it; when the last of them and of
/// its [`Subscription`]s is dropped, the client disconnects.
///
/// Not to be used within an async runtime: the calls block, and panic there.
///
/// ```no_run
/// use mqtt_client::{Error, Filter, Message, Options, QoS, blocking::Client};
///
/// # fn main() -> Result<(), Error> {
/// let client = Client::connect(Options::new("localhost", 1883))?;
/// let mut greetings = client.subscribe(Filter::new("greetings/#")?)?;
/// let receipt = client.publish(Message::new("greetings/world", "hello")?.qos(QoS::AtLeastOnce))?;
/// println!("the server answered: {}", client.wait(receipt)?.name());
/// for message in greetings.by_ref().take(1) {
///     println!("{} {:?}", message.topic(), message.payload());
/// }
/// client.disconnect()
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    // Dropped before the runtime, so that it can say goodbye.
    client: crate::Client,
    thread: Arc<Thread>,
}

/// The runtime of a client and the thread that drives it.
#[derive(Debug)]
struct Thread(Option<Runtime>);

impl Thread {
    fn start() -> Result<Arc<Self>, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mqtt-client")
            .enable_all()
            .build()?;
        Ok(Arc::new(Self(Some(runtime))))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }

    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let handle = self.handle().ok_or(Error::Closed)?;
        Ok(handle.block_on(future))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The client has been dropped and has a moment to say goodbye.
            runtime.shutdown_timeout(Duration::from_millis(1));
        }
    }
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As there; also if the system has no thread left.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let thread = Thread::start()?;
        let client = thread.wait(crate::Client::connect(options))??;
        Ok(Self { client, thread })
    }

    /// As [`crate::Client::start`].
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start(options: Options) -> Result<Self, Error> {
        let thread = Thread::start()?;
        let client = thread.wait(async { crate::Client::start(options) })?;
        Ok(Self { client, thread })
    }

    /// The client itself, for whatever is not here.
    pub fn inner(&self) -> &crate::Client {
        &self.client
    }

    /// As [`crate::Client::server`].
    pub fn server(&self) -> Arc<ServerInfo> {
        self.client.server()
    }

    /// Queues a message, waiting for room.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::publish`].
    pub fn publish(&self, message: Message) -> Result<Receipt, Error> {
        self.thread.wait(self.client.publish(message))?
    }

    /// Queues a message if there is room for it.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::try_publish`].
    pub fn try_publish(&self, message: Message) -> Result<Receipt, TryPublishError> {
        self.client.try_publish(message)
    }

    /// Waits until a message is written, acknowledged or complete.
    ///
    /// # Errors
    ///
    /// As those of the [`Receipt`].
    pub fn wait(&self, receipt: Receipt) -> Result<crate::ReasonCode, Error> {
        self.thread.wait(receipt)?
    }

    /// As [`crate::Client::subscribe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn subscribe(&self, filter: Filter) -> Result<Subscription, Error> {
        self.subscribe_with([filter], SubscribeOptions::new())
    }

    /// As [`crate::Client::subscribe_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn subscribe_with(
        &self,
        filters: impl IntoIterator<Item = Filter>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let request = self.client.subscribe_with(filters, options);
        let subscription = self.thread.wait(request)??;
        Ok(Subscription {
            subscription,
            _client: self.client.clone(),
            thread: Arc::clone(&self.thread),
        })
    }

    /// Publishes a request and waits for its answer, so long at most.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::request`]; [`Error::TimedOut`] when the time is over.
    pub fn request(&self, message: Message, time: Duration) -> Result<Received, Error> {
        let answer = async {
            let request = self.client.request(message);
            let answer = tokio::time::timeout(time, request).await;
            answer.unwrap_or(Err(Error::TimedOut))
        };
        self.thread.wait(answer)?
    }

    /// As [`crate::Client::disconnect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn disconnect(&self) -> Ended {
        self.disconnect_with(DisconnectOptions::new())
    }

    /// As [`crate::Client::disconnect_with`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn disconnect_with(&self, options: DisconnectOptions) -> Ended {
        self.thread.wait(self.client.disconnect_with(options))?
    }
}

/// The messages of one or several filters, as an iterator that waits for each. It ends when the
/// [`crate::Subscription`] does.
#[derive(Debug)]
pub struct Subscription {
    subscription: crate::Subscription,
    _client: crate::Client,
    thread: Arc<Thread>,
}

impl Subscription {
    /// The next message if it comes within the time.
    pub fn recv_timeout(&mut self, time: Duration) -> Option<Received> {
        let next = self.subscription.recv();
        let next = async { tokio::time::timeout(time, next).await.ok().flatten() };
        self.thread.wait(next).ok().flatten()
    }

    /// As [`crate::Subscription::unsubscribe`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn unsubscribe(&self) -> Result<(), Error> {
        self.thread.wait(self.subscription.unsubscribe())?
    }
}

impl Iterator for Subscription {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        self.thread.wait(self.subscription.recv()).ok().flatten()
    }
}
