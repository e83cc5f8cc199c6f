//! The handle of a connection: publish, subscribe, disconnect.

use std::sync::Arc;

use mqtt_codec::ReasonCode;
use mqtt_session::Time;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::event_loop::{self, Control, EventLoop, Inputs, Outputs, State};
use crate::link::{Link, new_session};
use crate::outbound::{self, Outbound};
use crate::{
    Backoff, DisconnectOptions, Error, Event, Filter, Incoming, Message, Options, Receipt,
    ServerInfo, SubscribeOptions, TryPublishError, transport,
};

/// How a connection ended: `Ok` after [`Client::disconnect`], else why it was lost.
pub type Ended = Result<(), Error>;

/// A connection to a server. Clones share it; a task of its own drives it.
///
/// All methods can be called from any task, and every future can be dropped: a publication that
/// still waited for room is then not made; any other request is carried out, only its answer is
/// not told. When the last clone is dropped the client disconnects.
#[derive(Debug, Clone)]
pub struct Client {
    publishes: mpsc::Sender<Outbound>,
    control: mpsc::UnboundedSender<Control>,
    state: watch::Receiver<State>,
    events: broadcast::Sender<Event>,
    origin: Instant,
}

/// The events of a connection, from the call of [`Client::events`] on.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when the connection has ended for good. Of more than 16 events that
    /// wait the oldest are left out.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Client {
    /// Connects over TCP and waits for the server's acceptance.
    ///
    /// # Errors
    ///
    /// If the host cannot be reached, the server refuses or does not answer in time, or the
    /// options cannot be written as CONNECT.
    pub async fn connect(options: Options) -> Result<(Self, Incoming), Error> {
        let origin = Instant::now();
        let link = event_loop::connect(&options, new_session(), options.clean_start, origin).await;
        let link = link.map_err(|(_, error)| error)?;
        let backoff = options.reconnect;
        Ok(Self::start(options, link, origin, backoff))
    }

    /// Connects over any stream of bytes, such as one in memory, and waits for the server's
    /// acceptance. Host and port of the options are not used, and it cannot connect again.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with<S>(stream: S, options: Options) -> Result<(Self, Incoming), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let origin = Instant::now();
        let stream: Box<dyn transport::Stream> = Box::new(stream);
        let times = (origin, origin + options.connect_timeout);
        let link =
            Link::establish(stream, &options, new_session(), options.clean_start, times).await;
        let link = link.map_err(|(_, error)| error)?;
        Ok(Self::start(options, link, origin, None))
    }

    fn start(
        options: Options,
        link: Link,
        origin: Instant,
        backoff: Option<Backoff>,
    ) -> (Self, Incoming) {
        let (publishes, publish_receiver) = mpsc::channel(options.queue_capacity);
        let (control, control_receiver) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(16);
        let (state_sender, state) = watch::channel(State::Connected(Arc::clone(&link.server)));
        let (inbox, incoming) =
            crate::incoming::channel(options.acknowledge, options.unreliable_capacity);
        let inputs = Inputs {
            publishes: publish_receiver,
            control: control_receiver,
        };
        let outputs = Outputs {
            inbox,
            state: state_sender,
            events: events.clone(),
        };
        let event_loop = EventLoop::new(options, origin, backoff, inputs, outputs);
        tokio::spawn(event_loop.run(link));
        (
            Self {
                publishes,
                control,
                state,
                events,
                origin,
            },
            incoming,
        )
    }

    /// What the server said when it accepted the connection, the latest one.
    pub fn server(&self) -> Arc<ServerInfo> {
        self.state.borrow().server()
    }

    /// Queues a message, waiting for room, and returns the receipt that tells what became of it.
    ///
    /// # Errors
    ///
    /// If the message cannot be a packet, or the client has disconnected.
    pub async fn publish(&self, message: Message) -> Result<Receipt, Error> {
        self.check(&message)?;
        let (outbound, receipt) = Outbound::new(message, self.now());
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
        let (outbound, receipt) = Outbound::new(message, self.now());
        if let Err(error) = checked {
            outbound.resolve(Err(error));
            return Ok(receipt);
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

    fn check(&self, message: &Message) -> Result<(), Error> {
        outbound::check(message, self.server().version)
    }

    /// Subscribes and waits for SUBACK: one reason code a filter, of which 0 to 2 are the granted
    /// qualities of service and 0x80 and above refusals.
    ///
    /// # Errors
    ///
    /// If the list is empty or too long for a packet, or the connection ends before the answer.
    pub async fn subscribe(
        &self,
        filters: impl IntoIterator<Item = Filter>,
    ) -> Result<Vec<ReasonCode>, Error> {
        self.subscribe_with(filters, SubscribeOptions::new()).await
    }

    /// Subscribes with properties.
    ///
    /// # Errors
    ///
    /// As [`subscribe`](Self::subscribe).
    pub async fn subscribe_with(
        &self,
        filters: impl IntoIterator<Item = Filter>,
        options: SubscribeOptions,
    ) -> Result<Vec<ReasonCode>, Error> {
        let filters = filters.into_iter().collect();
        self.request(|reply| Control::Subscribe {
            filters,
            options,
            reply,
        })
        .await
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
        self.request(|reply| Control::Unsubscribe {
            filters,
            user_properties,
            reply,
        })
        .await
    }

    async fn request(
        &self,
        control: impl FnOnce(oneshot::Sender<Result<Vec<ReasonCode>, Error>>) -> Control,
    ) -> Result<Vec<ReasonCode>, Error> {
        let (reply, answer) = oneshot::channel();
        self.control.send(control(reply)).map_err(|_| self.end())?;
        answer.await.unwrap_or_else(|_| Err(self.end()))
    }

    /// Sends what is queued and acknowledged as far as the server takes it at once, then
    /// DISCONNECT, and closes. Messages whose receipts have not resolved are given up: to be sure
    /// of a message, wait for its receipt first.
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
        let _ = self.control.send(Control::Disconnect(options));
        self.closed().await
    }

    /// Waits for the end of the connection, after which it is not made again.
    ///
    /// # Errors
    ///
    /// Why it ended, unless it was [`disconnect`](Self::disconnect).
    pub async fn closed(&self) -> Ended {
        let mut state = self.state.clone();
        match state
            .wait_for(|state| matches!(state, State::Ended(..)))
            .await
        {
            Ok(state) => state.end(),
            Err(_) => Err(Error::Closed),
        }
    }

    /// What happens to the connection from now on.
    pub fn events(&self) -> Events {
        Events(self.events.subscribe())
    }

    fn end(&self) -> Error {
        self.state.borrow().end().err().unwrap_or(Error::Closed)
    }

    fn now(&self) -> Time {
        event_loop::time_since(self.origin)
    }
}
