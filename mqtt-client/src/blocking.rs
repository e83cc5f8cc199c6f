//! The client for programs without an async runtime: the same calls, which wait.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{
    DisconnectOptions, Ended, Error, Filter, Message, Options, Receipt, Received, ServerInfo,
    SubscribeOptions, TryPublishError,
};

/// A connection to a server, driven by a thread of its own. Clones share it; when the last of them and of
/// its [`Subscription`]s is dropped, the client disconnects: as [`disconnect`](Self::disconnect), the drop waits until
/// what was published is acknowledged, 5 s at most, and DISCONNECT is sent.
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
    client: crate::Client,
    thread: Arc<Thread>,
}

/// How long a dropped client may take to end: the time to drain, that for a last packet to leave, and some for the
/// disk of an outbox.
const LAST_MOMENTS: Duration = Duration::from_secs(10);

/// The runtime of a client and the thread that drives it.
#[derive(Debug)]
struct Thread {
    runtime: Option<Runtime>,
    /// The client that it drives, once there is one.
    client: OnceLock<crate::Client>,
}

impl Thread {
    fn start() -> Result<Arc<Self>, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mqtt-client")
            .enable_all()
            .build()?;
        Ok(Arc::new(Self {
            runtime: Some(runtime),
            client: OnceLock::new(),
        }))
    }

    /// The client that is to disconnect at the end.
    fn drives(self: Arc<Self>, client: crate::Client) -> Client {
        let client = self.client.get_or_init(|| client).clone();
        Client {
            client,
            thread: self,
        }
    }

    fn handle(&self) -> Option<&Handle> {
        self.runtime.as_ref().map(Runtime::handle)
    }

    fn wait<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let handle = self.handle().ok_or(Error::Closed)?;
        Ok(handle.block_on(future))
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        if let Some(client) = self.client.take() {
            let (sender, ended) = std::sync::mpsc::channel();
            runtime.spawn(async move {
                // Nobody is left who could be told how it ended.
                let _ = client.disconnect().await;
                let _ = sender.send(());
            });
            let _ = ended.recv_timeout(LAST_MOMENTS);
        }
        // Does not wait for a name that is still looked up, and may be called anywhere.
        runtime.shutdown_background();
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
        Ok(thread.drives(client))
    }

    /// As [`crate::Client::start`].
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
    pub fn start(options: Options) -> Result<Self, Error> {
        let thread = Thread::start()?;
        let client = thread.wait(async { crate::Client::start(options) })?;
        Ok(thread.drives(client))
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
