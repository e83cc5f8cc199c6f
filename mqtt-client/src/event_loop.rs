//! The task behind a [`Client`](crate::Client): it drives the connection and makes it again.

use std::sync::Arc;
use std::time::Duration;

use mqtt_codec::{Disconnect, DisconnectProperties, Packet, ReasonCode};
use mqtt_session::{Durability, Session, Time, Timeout};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::dispatch::{self, Subscriptions};
use crate::incoming::Inbox;
use crate::link::{Link, Progress, Reply};
use crate::outbound::Outbound;
use crate::{
    Backoff, Blame, DisconnectOptions, Ended, Error, Event, Filter, Options, ServerInfo,
    SubscribeOptions, message, request, transport,
};

/// How long a last packet may take to leave, and the server to close.
const FAREWELL: Duration = Duration::from_secs(2);

/// Microseconds since the origin of a client's time.
pub(crate) fn time_since(origin: Instant) -> Time {
    Time::default() + origin.elapsed()
}

/// What the handles ask for besides publishing.
pub(crate) enum Control {
    Subscribe {
        filters: Vec<Filter>,
        options: SubscribeOptions,
        reply: Reply,
    },
    Unsubscribe {
        filters: Vec<String>,
        user_properties: Vec<(String, String)>,
        reply: Reply,
    },
    Disconnect(DisconnectOptions),
}

/// What the handles see.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Connected(Arc<ServerInfo>),
    Ended(Arc<ServerInfo>, Ended),
}

impl State {
    pub(crate) fn server(&self) -> Arc<ServerInfo> {
        match self {
            Self::Connected(server) | Self::Ended(server, _) => Arc::clone(server),
        }
    }

    /// How it ended, or [`Error::Closed`] if it has not.
    pub(crate) fn end(&self) -> Ended {
        match self {
            Self::Connected(_) => Err(Error::Closed),
            Self::Ended(_, ended) => ended.clone(),
        }
    }
}

/// Why a connection is left.
enum Exit {
    /// `disconnect`, or no handle is left.
    Asked(DisconnectOptions),
    /// It broke, or the server did something wrong.
    Lost(Error),
}

/// Connects over TCP. On failure the session is given back.
pub(crate) async fn connect(
    options: &Options,
    session: Session<Outbound>,
    clean_start: bool,
    origin: Instant,
) -> Result<Link, (Box<Session<Outbound>>, Error)> {
    let deadline = Instant::now() + options.connect_timeout;
    match timeout_at(deadline, transport::connect(options)).await {
        Ok(Ok(stream)) => {
            Link::establish(stream, options, session, clean_start, (origin, deadline)).await
        }
        Ok(Err(error)) => Err((Box::new(session), error.into())),
        Err(_) => Err((Box::new(session), Error::TimedOut)),
    }
}

/// The state of the task.
pub(crate) struct EventLoop {
    options: Options,
    origin: Instant,
    backoff: Option<Backoff>,
    publishes: mpsc::Receiver<Outbound>,
    control: mpsc::UnboundedReceiver<Control>,
    inbox: Inbox,
    state: watch::Sender<State>,
    events: broadcast::Sender<Event>,
    subscriptions: Subscriptions,
}

/// The task's ends of the channels from the handles.
pub(crate) struct Inputs {
    pub(crate) publishes: mpsc::Receiver<Outbound>,
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
}

/// The task's ends of the channels to the handles.
pub(crate) struct Outputs {
    pub(crate) inbox: Inbox,
    pub(crate) state: watch::Sender<State>,
    pub(crate) events: broadcast::Sender<Event>,
}

impl EventLoop {
    /// A task that has not begun. `backoff` is how to connect again, if at all.
    pub(crate) fn new(
        options: Options,
        origin: Instant,
        backoff: Option<Backoff>,
        inputs: Inputs,
        outputs: Outputs,
    ) -> Self {
        Self {
            options,
            origin,
            backoff,
            publishes: inputs.publishes,
            control: inputs.control,
            inbox: outputs.inbox,
            state: outputs.state,
            events: outputs.events,
            subscriptions: Vec::new(),
        }
    }

    fn now(&self) -> Time {
        time_since(self.origin)
    }

    /// Drives connection after connection to the end of the last.
    pub(crate) async fn run(mut self, mut link: Link) {
        let mut server = Arc::clone(&link.server);
        let (ended, session) = loop {
            let exit = self.drive(&mut link).await;
            let error = match exit {
                Exit::Asked(options) => {
                    let ended = self.say_goodbye(&mut link, &options).await;
                    break (ended, link.leave(&Error::Closed));
                }
                Exit::Lost(error) => error,
            };
            tracing::debug!("connection lost: {error}");
            let farewell = error.farewell();
            if let Some(reason) = farewell.filter(|_| link.version.has_reason_codes()) {
                self.refuse(&mut link, reason).await;
            }
            let session = link.leave(&error);
            match self.reconnect(session, error).await {
                Ok(next) => link = next,
                Err((ended, session)) => break (ended, *session),
            }
            server = Arc::clone(&link.server);
        };
        self.finish(session, &ended);
        self.state.send_replace(State::Ended(server, ended));
    }

    /// Gives up what was not completed.
    fn finish(&mut self, mut session: Session<Outbound>, ended: &Ended) {
        let error = ended.clone().err().unwrap_or(Error::Closed);
        let mut rest: Vec<_> = session.discard().collect();
        rest.extend(session.take_queued(|_| true));
        self.publishes.close();
        while let Ok(message) = self.publishes.try_recv() {
            rest.push(message);
        }
        for message in rest {
            message.resolve(Err(error.clone()));
        }
    }

    async fn drive(&mut self, link: &mut Link) -> Exit {
        // CONNACK may have come with packets behind it.
        if let Err(error) =
            dispatch::packets(link, self.now(), &self.inbox, &mut self.subscriptions)
        {
            return Exit::Lost(error);
        }
        loop {
            self.acknowledge(link);
            link.fill(self.now());
            dispatch::events(link);
            let alarm = link.connection.poll_timeout();
            let alarm = alarm.map(|time| self.origin + Duration::from_micros(time.as_micros()));
            let has_room = link.connection.session().has_room();
            let step = tokio::select! {
                progress = link.progress() => self.progressed(link, progress),
                message = self.publishes.recv(), if has_room => match message {
                    Some(message) => {
                        self.take_publishes(link, message);
                        Ok(())
                    }
                    None => return Exit::Asked(DisconnectOptions::new()),
                },
                control = self.control.recv() => match control {
                    Some(Control::Disconnect(options)) => return Exit::Asked(options),
                    Some(control) => {
                        self.request(link, control);
                        Ok(())
                    }
                    None => return Exit::Asked(DisconnectOptions::new()),
                },
                token = self.inbox.acknowledgements.recv(), if !self.inbox.acknowledgements.is_closed() => {
                    if let Some(token) = token {
                        let _ = link.connection.accept(token, Durability::Now);
                    }
                    Ok(())
                }
                () = alarmed(alarm) => match link.connection.handle_timeout(self.now()) {
                    Timeout::KeepAlive => Err(Error::TimedOut),
                    _ => Ok(()),
                },
            };
            if let Err(error) = step {
                return Exit::Lost(error);
            }
        }
    }

    fn progressed(
        &mut self,
        link: &mut Link,
        progress: std::io::Result<Progress>,
    ) -> Result<(), Error> {
        match progress? {
            Progress::Read(0) => Err(Error::ConnectionLost),
            Progress::Read(_) => {
                dispatch::packets(link, self.now(), &self.inbox, &mut self.subscriptions)
            }
            Progress::Written => Ok(()),
        }
    }

    /// Accepts what the application acknowledged.
    fn acknowledge(&mut self, link: &mut Link) {
        while let Ok(token) = self.inbox.acknowledgements.try_recv() {
            let _ = link.connection.accept(token, Durability::Now);
        }
    }

    fn take_publishes(&mut self, link: &mut Link, first: Outbound) {
        let mut next = Some(first);
        while let Some(message) = next {
            link.connection.push(message);
            next = match link.connection.session().has_room() {
                true => self.publishes.try_recv().ok(),
                false => None,
            };
        }
    }

    /// Writes SUBSCRIBE or UNSUBSCRIBE, or tells why not.
    fn request(&mut self, link: &mut Link, control: Control) {
        let now = self.now();
        match control {
            Control::Subscribe {
                filters,
                options,
                reply,
            } => request::subscribe(link, now, filters, options, Some(reply)),
            Control::Unsubscribe {
                filters,
                user_properties,
                reply,
            } => {
                request::unsubscribe(link, now, filters, &user_properties, reply);
            }
            Control::Disconnect(_) => {}
        }
    }

    /// Sends what can be sent, DISCONNECT, and closes.
    async fn say_goodbye(&mut self, link: &mut Link, options: &DisconnectOptions) -> Ended {
        self.acknowledge(link);
        while let Ok(message) = self.publishes.try_recv() {
            link.connection.push(message);
        }
        let now = self.now();
        // Without a limit: all that the server's Receive Maximum lets through.
        let _ = link
            .connection
            .poll_transmit(now, link.output.buffer(), usize::MAX);
        dispatch::events(link);
        let reason = match options.with_will {
            true if link.version.has_reason_codes() => ReasonCode::DISCONNECT_WITH_WILL,
            _ => ReasonCode::NORMAL_DISCONNECTION,
        };
        let packet = Packet::Disconnect(Disconnect {
            reason_code: reason,
            properties: DisconnectProperties {
                session_expiry_interval: options.session_expiry_interval,
                user_properties: message::user_properties(&options.user_properties),
                ..DisconnectProperties::default()
            },
        });
        tracing::debug!("sending DISCONNECT");
        link.append(&packet, now)?;
        match timeout(FAREWELL, link.close()).await {
            Ok(closed) => Ok(closed?),
            // The server was told and does not close.
            Err(_) if link.output.is_empty() => Ok(()),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Tells the server what it did wrong.
    async fn refuse(&mut self, link: &mut Link, reason: ReasonCode) {
        let packet = Packet::Disconnect(Disconnect::new(reason));
        if link.append(&packet, self.now()).is_ok() {
            // Whether it arrives makes no difference.
            let _ = timeout(FAREWELL, link.close()).await;
        }
    }

    /// Connects again if that is wanted and of use, else tells how it ended.
    async fn reconnect(
        &mut self,
        session: Session<Outbound>,
        error: Error,
    ) -> Result<Link, (Ended, Box<Session<Outbound>>)> {
        let mut session = Box::new(session);
        let Some(backoff) = self.backoff.filter(|_| is_passing(&error)) else {
            return Err((Err(error), session));
        };
        // Nobody may be listening.
        let _ = self.events.send(Event::Disconnected(error));
        let clean_start = self.options.clean_start && !self.options.outlives_connection();
        let mut wait = backoff.first;
        loop {
            let attempt = Instant::now() + wait;
            wait = (wait * 2).min(backoff.longest);
            if let Some(ended) = self.wait_until(attempt).await {
                return Err((ended, session));
            }
            match connect(&self.options, *session, clean_start, self.origin).await {
                Ok(mut link) => {
                    self.reconnected(&mut link);
                    return Ok(link);
                }
                Err((given_back, error)) => {
                    tracing::debug!("cannot connect: {error}");
                    session = given_back;
                    if !is_passing(&error) {
                        return Err((Err(error), session));
                    }
                }
            }
        }
    }

    /// Waits without a connection. `Some`: there is to be no other.
    async fn wait_until(&mut self, time: Instant) -> Option<Ended> {
        loop {
            tokio::select! {
                () = sleep_until(time) => return None,
                control = self.control.recv() => match control {
                    None | Some(Control::Disconnect(_)) => return Some(Ok(())),
                    Some(Control::Subscribe { reply, .. } | Control::Unsubscribe { reply, .. }) => {
                        let _ = reply.send(Err(Error::ConnectionLost));
                    }
                },
            }
        }
    }

    fn reconnected(&mut self, link: &mut Link) {
        self.state
            .send_replace(State::Connected(Arc::clone(&link.server)));
        let _ = self.events.send(Event::Connected(Arc::clone(&link.server)));
        if link.server.session_present {
            self.inbox.resumed();
            return;
        }
        let _ = self.events.send(Event::SessionLost);
        let now = self.now();
        for (filter, options) in std::mem::take(&mut self.subscriptions) {
            request::subscribe(link, now, vec![filter], options, None);
        }
    }
}

/// Waits for the time, for ever if there is none.
async fn alarmed(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Whether trying again may help without anybody changing anything.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Refused { reason, .. } | Error::Disconnected { reason, .. } => matches!(
            *reason,
            ReasonCode::NORMAL_DISCONNECTION
                | ReasonCode::UNSPECIFIED_ERROR
                | ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
                | ReasonCode::SERVER_UNAVAILABLE
                | ReasonCode::SERVER_BUSY
                | ReasonCode::SERVER_SHUTTING_DOWN
                | ReasonCode::KEEP_ALIVE_TIMEOUT
                | ReasonCode::MESSAGE_RATE_TOO_HIGH
                | ReasonCode::QUOTA_EXCEEDED
                | ReasonCode::ADMINISTRATIVE_ACTION
                | ReasonCode::CONNECTION_RATE_EXCEEDED
                | ReasonCode::MAXIMUM_CONNECT_TIME
        ),
        error => error.blame() == Blame::Network,
    }
}
