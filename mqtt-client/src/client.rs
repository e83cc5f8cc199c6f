//! The handle of a connection: publish, subscribe, disconnect.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_codec::{ProtocolVersion, ReasonCode};
use mqtt_session::Time;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::control::{Control, Handle, HandleId, Reply};
use crate::event_loop::{self, EventLoop, Inputs, Outputs, Phase, Start, State};
use crate::mailbox::{Mailbox, Post};
use crate::outbound::{self, Outbound};
use crate::outbox::{Desk, Keeper};
use crate::registry::Registry;
use crate::requester::Requester;
use crate::transport::{Connect, Custom, Network, Once};
use crate::{
    Acknowledge, DisconnectOptions, Error, Event, Filter, Incoming, Message, Options, Receipt,
    Received, ServerInfo, SubscribeOptions, Subscription, Target, TryPublishError,
};

/// Requests that wait for the event loop.
const REQUESTS: usize = 64;

/// How a connection ended: `Ok` after [`Client::disconnect`], else why it was lost.
pub type Ended = Result<(), Error>;

/// A connection to a server. Clones share it; a task of its own drives it.
///
/// All methods can be called from any task, and every future can be dropped: a publication that
/// still waited for room is then not made; any other request is carried out, only its answer is
/// not told. When the last clone is dropped the client disconnects, as [`disconnect`](Self::disconnect)
/// does; a [`Subscription`] or a [`Receipt`] does not hold it.
#[derive(Debug, Clone)]
pub struct Client {
    publishes: mpsc::Sender<Outbound>,
    control: mpsc::Sender<Control>,
    shared: Arc<Shared>,
}

/// What the clones share.
#[derive(Debug)]
struct Shared {
    dropped: mpsc::UnboundedSender<HandleId>,
    state: watch::Receiver<State>,
    events: broadcast::WeakSender<Event>,
    first_events: std::sync::Mutex<Option<broadcast::Receiver<Event>>>,
    origin: Instant,
    version: ProtocolVersion,
    post: Arc<Post>,
    held: Arc<Mailbox>,
    acknowledge: Acknowledge,
    unreliable_capacity: usize,
    next_handle: AtomicU64,
    response_topic: Option<String>,
    requester: Requester,
    /// Where messages are stored.
    desk: Option<Desk>,
}

/// The events of a connection.
#[derive(Debug)]
pub struct Events(Option<broadcast::Receiver<Event>>);

impl Events {
    /// The next event; `None` when the connection has ended for good. Of more than 16 events that
    /// wait the oldest are left out.
    pub async fn next(&mut self) -> Option<Event> {
        let events = self.0.as_mut()?;
        loop {
            match events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Client {
    /// Connects as the options say and waits for the server's acceptance.
    ///
    /// # Errors
    ///
    /// If the host cannot be reached, the server refuses or does not answer in time, or the
    /// options cannot be written as CONNECT.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        Self::connect_by(Arc::new(Network), options).await
    }

    /// Connects over any stream of bytes, such as one in memory, and waits for the server's
    /// acceptance. Host and port of the options are not used, and it cannot connect again.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with<S>(stream: S, mut options: Options) -> Result<Self, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        options.reconnect = None;
        options.redirections = 0;
        Self::connect_by(Arc::new(Once::new(Box::new(stream))), options).await
    }

    /// Connects over the streams that a function opens, one for each connection, and waits for the
    /// server's acceptance. The function gets host and port of the options, or those of the server that
    /// it was [redirected](Options::redirections) to.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_through<F, O, S>(open: F, options: Options) -> Result<Self, Error>
    where
        F: Fn(Target) -> O + Send + Sync + 'static,
        O: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::connect_by(Arc::new(Custom(open)), options).await
    }

    async fn connect_by(connector: Arc<dyn Connect>, options: Options) -> Result<Self, Error> {
        let (client, mut event_loop) = Self::new(connector, options);
        let link = event_loop.first().await?;
        tokio::spawn(event_loop.run(Start::Connected(Box::new(link))));
        Ok(client)
    }

    /// Returns at once and connects in the background, until it succeeds if the options say to
    /// [`reconnect`](Options::reconnect). Messages and requests wait for the connection.
    ///
    /// Must be called within a tokio runtime.
    pub fn start(options: Options) -> Self {
        Self::start_by(Arc::new(Network), options)
    }

    /// The same over the streams that a function opens: see [`connect_through`](Self::connect_through).
    pub fn start_through<F, O, S>(open: F, options: Options) -> Self
    where
        F: Fn(Target) -> O + Send + Sync + 'static,
        O: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self::start_by(Arc::new(Custom(open)), options)
    }

    fn start_by(connector: Arc<dyn Connect>, options: Options) -> Self {
        let (client, event_loop) = Self::new(connector, options);
        tokio::spawn(event_loop.run(Start::Offline));
        client
    }

    fn new(connector: Arc<dyn Connect>, options: Options) -> (Self, EventLoop) {
        let origin = Instant::now();
        let (publishes, publish_receiver) = mpsc::channel(options.queue_capacity);
        let (control, control_receiver) = mpsc::channel(REQUESTS);
        // No more than there are subscriptions wait in it.
        let (dropped, dropped_receiver) = mpsc::unbounded_channel();
        let (events, first_events) = broadcast::channel(16);
        let (state_sender, state) = watch::channel(State {
            server: Arc::new(ServerInfo::requested(&options)),
            phase: Phase::Offline,
        });
        let post = Arc::new(Post::default());
        let held = Mailbox::new(options.unreliable_capacity);
        let (keeper, desk) = Keeper::new(&options, &post);
        let shared = Shared {
            dropped,
            state,
            events: events.downgrade(),
            first_events: std::sync::Mutex::new(Some(first_events)),
            origin,
            version: options.version,
            post: Arc::clone(&post),
            held: Arc::clone(&held),
            acknowledge: options.acknowledge,
            unreliable_capacity: options.unreliable_capacity,
            next_handle: AtomicU64::new(0),
            response_topic: options.response_topic.clone(),
            requester: Requester::default(),
            desk,
        };
        let inputs = Inputs {
            publishes: publish_receiver,
            control: control_receiver,
            dropped: dropped_receiver,
            post: Arc::clone(&post),
        };
        let outputs = Outputs {
            registry: Registry::new(held, post, !options.outlives_connection()),
            state: state_sender,
            events,
        };
        let event_loop = EventLoop::new(options, origin, connector, inputs, outputs, keeper);
        let client = Self {
            publishes,
            control,
            shared: Arc::new(shared),
        };
        (client, event_loop)
    }

    /// What the server said when it accepted the connection, the latest one; before the first, what the
    /// options ask for.
    pub fn server(&self) -> Arc<ServerInfo> {
        Arc::clone(&self.shared.state.borrow().server)
    }

    /// Waits until there is a connection, and returns what the server said.
    ///
    /// # Errors
    ///
    /// If the client ends before.
    pub async fn connected(&self) -> Result<Arc<ServerInfo>, Error> {
        let mut state = self.shared.state.clone();
        let settled = state.wait_for(|state| !matches!(state.phase, Phase::Offline));
        match settled.await {
            Ok(state) if matches!(state.phase, Phase::Connected) => Ok(Arc::clone(&state.server)),
            Ok(state) => Err(state.end().err().unwrap_or(Error::Closed)),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Queues a message, waiting for room, and returns the receipt that tells what became of it. With an
    /// outbox (feature `outbox`) a message of QoS 1 or 2 is on the disk when this returns; if the future is
    /// dropped while the disk is written, it may be stored all the same.
    ///
    /// # Errors
    ///
    /// If the message cannot be a packet or cannot be stored, or the client has disconnected.
    pub async fn publish(&self, message: Message) -> Result<Receipt, Error> {
        self.check(&message)?;
        let (outbound, receipt) = Outbound::new(message, || self.now());
        if let Some(desk) = self.desk(&outbound.message) {
            let stored = desk.publish(&self.publishes, outbound, receipt).await;
            return stored.map_err(|error| match error {
                Error::Closed => self.end(),
                error => error,
            });
        }
        match self.publishes.send(outbound).await {
            Ok(()) => Ok(receipt),
            Err(_) => Err(self.end()),
        }
    }

    /// Queues a message if there is room for it.
    ///
    /// # Errors
    ///
    /// Gives the message back if the queue is full or the client has disconnected. Whether it can
    /// be a packet is told by the receipt.
    pub fn try_publish(&self, message: Message) -> Result<Receipt, TryPublishError> {
        let checked = self.check(&message);
        let (outbound, receipt) = Outbound::new(message, || self.now());
        if let Err(error) = checked {
            outbound.resolve(Err(error));
            return Ok(receipt);
        }
        if let Some(desk) = self.desk(&outbound.message) {
            return desk.try_publish(&self.publishes, outbound, receipt);
        }
        match self.publishes.try_send(outbound) {
            Ok(()) => Ok(receipt),
            Err(mpsc::error::TrySendError::Full(outbound)) => {
                Err(TryPublishError::Full(outbound.message))
            }
            Err(mpsc::error::TrySendError::Closed(outbound)) => {
                Err(TryPublishError::Closed(outbound.message))
            }
        }
    }

    /// Where a message is stored, if it is.
    fn desk(&self, message: &Message) -> Option<&Desk> {
        let desk = self.shared.desk.as_ref();
        desk.filter(|desk| desk.takes(message))
    }

    fn check(&self, message: &Message) -> Result<(), Error> {
        outbound::check(message, self.shared.version)
    }

    /// Subscribes and waits for the server's answer.
    ///
    /// # Errors
    ///
    /// If the server refuses, or the client ends before the answer.
    pub async fn subscribe(&self, filter: Filter) -> Result<Subscription, Error> {
        self.subscribe_with([filter], SubscribeOptions::new()).await
    }

    /// Subscribes several filters whose messages come in one stream, with properties. A Subscription
    /// Identifier is chosen by the client itself.
    ///
    /// # Errors
    ///
    /// If the server refuses all of them, the list is empty or too long for a packet, or the client ends
    /// before the answer.
    pub async fn subscribe_with(
        &self,
        filters: impl IntoIterator<Item = Filter>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let filters = filters.into_iter().collect();
        let shared = &self.shared;
        let handle = Handle {
            id: HandleId(shared.next_handle.fetch_add(1, Ordering::Relaxed)),
            mailbox: Mailbox::new(shared.unreliable_capacity),
        };
        // If this future is dropped, so is the subscription.
        let mut subscription = Subscription::new(
            &handle,
            Arc::clone(&shared.post),
            shared.acknowledge,
            self.control.downgrade(),
            shared.dropped.clone(),
        );
        let request = |reply| Control::Subscribe {
            filters,
            options,
            handle: Some(handle),
            reply,
        };
        let codes = self.ask(request).await?;
        if let Some(reason) = codes.iter().copied().find(|code| code.is_error())
            && codes.iter().all(|code| code.is_error())
        {
            return Err(Error::SubscriptionRefused { reason });
        }
        subscription.answered(codes);
        Ok(subscription)
    }

    /// Subscribes without a [`Subscription`]: the messages come to [`unclaimed`](Self::unclaimed). Waits
    /// for SUBACK: one reason code a filter, of which 0 to 2 are the granted qualities of service and 0x80
    /// and above refusals.
    ///
    /// # Errors
    ///
    /// If the list is empty or too long for a packet, or the client ends before the answer.
    pub async fn subscribe_unclaimed(
        &self,
        filters: impl IntoIterator<Item = Filter>,
        options: SubscribeOptions,
    ) -> Result<Vec<ReasonCode>, Error> {
        let filters = filters.into_iter().collect();
        self.ask(|reply| Control::Subscribe {
            filters,
            options,
            handle: None,
            reply,
        })
        .await
    }

    /// The messages that no [`Subscription`] claims. They wait, those of QoS 1 and 2 unacknowledged, until
    /// they are read here or a subscription is made that claims them. If nobody does either, the server
    /// sends no further messages of QoS 1 and 2 once the Receive Maximum is reached.
    pub fn unclaimed(&self) -> Incoming {
        let shared = &self.shared;
        Incoming::new(
            Arc::clone(&shared.held),
            Arc::clone(&shared.post),
            shared.acknowledge,
        )
    }

    /// Publishes a request and waits for the message that answers it (MQTT 5). Response Topic and
    /// Correlation Data are set here; whoever answers needs only [`Received::response`]. The wait has no
    /// end of its own: use a timeout.
    ///
    /// # Errors
    ///
    /// If the server refuses the message or the subscription to the answers, or the client ends before
    /// the answer.
    pub async fn request(&self, message: Message) -> Result<Received, Error> {
        self.shared.requester.request(self, message).await
    }

    /// The topic that answers to this client come to.
    pub(crate) fn response_topic(&self) -> String {
        let server = self.server();
        let prefix = self.shared.response_topic.as_ref();
        match prefix.or(server.response_information.as_ref()) {
            Some(prefix) => format!("{}/answers", prefix.trim_end_matches('/')),
            None => format!("responses/{}", server.client_id),
        }
    }

    /// Authenticates again with the [`authenticator`](Options::authenticator) of the options (MQTT 5).
    ///
    /// # Errors
    ///
    /// If there is none, the exchange fails, which ends the connection, or the connection is lost.
    pub async fn reauthenticate(&self) -> Result<(), Error> {
        self.ask(|reply| Control::Reauthenticate { reply })
            .await
            .map(drop)
    }

    /// Unsubscribes and waits for UNSUBACK: one reason code a filter; none from servers of MQTT 3.
    ///
    /// # Errors
    ///
    /// If a filter is not one, the list is empty or too long for a packet, or the connection ends
    /// before the answer.
    pub async fn unsubscribe(
        &self,
        filters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<ReasonCode>, Error> {
        self.unsubscribe_with(filters, Vec::new()).await
    }

    /// Unsubscribes with User Properties.
    ///
    /// # Errors
    ///
    /// As [`unsubscribe`](Self::unsubscribe).
    pub async fn unsubscribe_with(
        &self,
        filters: impl IntoIterator<Item = impl Into<String>>,
        user_properties: Vec<(String, String)>,
    ) -> Result<Vec<ReasonCode>, Error> {
        let filters = filters.into_iter().map(Into::into).collect();
        self.ask(|reply| Control::Unsubscribe {
            filters,
            user_properties,
            reply,
        })
        .await
    }

    async fn ask(&self, control: impl FnOnce(Reply) -> Control) -> Result<Vec<ReasonCode>, Error> {
        let (reply, answer) = oneshot::channel();
        let sent = self.control.send(control(reply)).await;
        sent.map_err(|_| self.end())?;
        answer.await.unwrap_or_else(|_| Err(self.end()))
    }

    /// Takes no further messages, sends those that wait, and waits until they are acknowledged or 5 s have
    /// passed ([`DisconnectOptions::drain`]); then sends DISCONNECT and closes. The receipts tell which
    /// messages were given up.
    ///
    /// # Errors
    ///
    /// If the connection was lost before DISCONNECT was written.
    pub async fn disconnect(&self) -> Ended {
        self.disconnect_with(DisconnectOptions::new()).await
    }

    /// Disconnects with properties.
    ///
    /// # Errors
    ///
    /// As [`disconnect`](Self::disconnect).
    pub async fn disconnect_with(&self, options: DisconnectOptions) -> Ended {
        // Without a receiver it has ended, and `closed` tells how.
        let _ = self.control.send(Control::Disconnect(options)).await;
        self.closed().await
    }

    /// Waits for the end of the connection, after which it is not made again.
    ///
    /// # Errors
    ///
    /// Why it ended, unless it was [`disconnect`](Self::disconnect).
    pub async fn closed(&self) -> Ended {
        let mut state = self.shared.state.clone();
        match state
            .wait_for(|state| matches!(state.phase, Phase::Ended(_)))
            .await
        {
            Ok(state) => state.end(),
            Err(_) => Err(Error::Closed),
        }
    }

    /// What happens to the connection from now on; for the first caller, from the beginning.
    pub fn events(&self) -> Events {
        let mut first = self
            .shared
            .first_events
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let events = first.take();
        Events(events.or_else(|| Some(self.shared.events.upgrade()?.subscribe())))
    }

    fn end(&self) -> Error {
        let state = self.shared.state.borrow();
        state.end().err().unwrap_or(Error::Closed)
    }

    fn now(&self) -> Time {
        event_loop::time_since(self.shared.origin)
    }
}
