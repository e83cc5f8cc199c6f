//! The task behind a [`Client`](crate::Client): it drives one connection after the other.

mod departure;
mod requests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mqtt_session::{Durability, Session, Time, Timeout, Token};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::control::{Control, HandleId};
use crate::dispatch::{self, Dispatch};
use crate::link::{Link, Progress};
use crate::mailbox::Post;
use crate::outbound::Outbound;
use crate::outbox::Keeper;
use crate::reconnect::new_session;
use crate::registry::Registry;
use crate::transport::{Connect, Target};
use crate::{DisconnectOptions, Ended, Error, Event, Options, ServerInfo};

/// Bytes read at once after which the readers go first.
const MUCH: usize = 32 * 1024;
/// Microseconds since the origin of a client's time.
pub(crate) fn time_since(origin: Instant) -> Time {
    Time::default() + origin.elapsed()
}

/// What the handles see.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// What the server of the last connection said, or else what was asked for.
    pub(crate) server: Arc<ServerInfo>,
    pub(crate) phase: Phase,
}

#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Offline,
    Connected,
    Ended(Ended),
}

impl State {
    /// How it ended, or [`Error::Closed`] if it has not.
    pub(crate) fn end(&self) -> Ended {
        match &self.phase {
            Phase::Ended(ended) => ended.clone(),
            Phase::Offline | Phase::Connected => Err(Error::Closed),
        }
    }
}

/// Why a connection is left.
enum Exit {
    /// `disconnect`, or no handle is left, and nothing is to be waited for any more.
    Left(DisconnectOptions),
    /// It broke, or the server did something wrong.
    Lost(Error),
}

/// The client is to end.
pub(crate) struct Leaving {
    pub(crate) options: DisconnectOptions,
    /// When not to wait for messages any more.
    pub(crate) deadline: Instant,
}

/// What the task begins with.
pub(crate) enum Start {
    /// A connection.
    Connected(Box<Link>),
    /// None yet.
    Offline,
}

/// The task's ends of the channels from the handles.
pub(crate) struct Inputs {
    pub(crate) publishes: mpsc::Receiver<Outbound>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) dropped: mpsc::UnboundedReceiver<HandleId>,
    pub(crate) post: Arc<Post>,
}

/// The task's ends of the channels to the handles.
pub(crate) struct Outputs {
    pub(crate) registry: Registry,
    pub(crate) state: watch::Sender<State>,
    pub(crate) events: broadcast::Sender<Event>,
}

/// The state of the task.
pub(crate) struct EventLoop {
    pub(crate) options: Options,
    pub(crate) origin: Instant,
    pub(crate) connector: Arc<dyn Connect>,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
    /// Requests that wait for a connection, or for another one.
    pub(crate) waiting: VecDeque<Control>,
    pub(crate) leaving: Option<Leaving>,
    /// No handle can ask for anything any more.
    pub(crate) is_abandoned: bool,
    /// Messages of QoS 0 that the last connection did not write.
    pub(crate) unwritten: Vec<Outbound>,
    /// The server to use, and the one to use next.
    pub(crate) home: Target,
    pub(crate) target: Target,
    pub(crate) redirections: u32,
    /// Before the next attempt to connect.
    pub(crate) wait: Duration,
    pub(crate) has_connected: bool,
    pub(crate) keeper: Keeper,
    tokens: Vec<Token>,
    /// Messages on their way from the channel to the session.
    batch: Vec<Outbound>,
}

impl EventLoop {
    /// A task that has not begun.
    pub(crate) fn new(
        options: Options,
        origin: Instant,
        connector: Arc<dyn Connect>,
        inputs: Inputs,
        outputs: Outputs,
        keeper: Keeper,
    ) -> Self {
        let home = Target {
            host: options.host.clone(),
            port: options.port,
        };
        Self {
            origin,
            connector,
            inputs,
            outputs,
            waiting: VecDeque::new(),
            leaving: None,
            is_abandoned: false,
            unwritten: Vec::new(),
            target: home.clone(),
            home,
            redirections: 0,
            wait: options.reconnect.unwrap_or_default().first,
            has_connected: false,
            keeper,
            tokens: Vec::new(),
            batch: Vec::new(),
            options,
        }
    }

    pub(crate) fn now(&self) -> Time {
        time_since(self.origin)
    }

    /// Drives connection after connection to the end of the last.
    pub(crate) async fn run(mut self, start: Start) {
        let mut next = match start {
            Start::Connected(link) => Ok(link),
            Start::Offline => match self.keeper.restore(&self.options, self.now()).await {
                Ok(session) => self.reconnect(Box::new(session), None).await,
                Err(error) => Err((Err(error), Box::new(new_session()))),
            },
        };
        let (ended, session) = loop {
            let mut link = match next {
                Ok(link) => link,
                Err(end) => break end,
            };
            let since = Instant::now();
            let error = match self.drive(&mut link).await {
                Exit::Left(options) => {
                    let ended = self.say_goodbye(&mut link, &options).await;
                    let session = self.part(*link, false);
                    break (ended, session);
                }
                Exit::Lost(error) => error,
            };
            tracing::debug!("connection lost: {error}");
            let farewell = error.farewell();
            if let Some(reason) = farewell.filter(|_| link.version.has_reason_codes()) {
                self.refuse(&mut link, reason).await;
            }
            let session = self.part(*link, true);
            if since.elapsed() > self.wait {
                self.redirections = 0;
                self.wait = self.options.reconnect.unwrap_or_default().first;
            }
            next = self.reconnect(session, Some(error)).await;
        };
        self.finish(*session, ended).await;
    }

    fn dispatch<'a>(&'a mut self, link: &'a mut Link) -> Dispatch<'a> {
        let now = self.now();
        Dispatch {
            link,
            registry: &mut self.outputs.registry,
            events: &self.outputs.events,
            now,
        }
    }

    async fn drive(&mut self, link: &mut Link) -> Exit {
        // CONNACK may have come with packets behind it.
        if let Err(error) = self.dispatch(link).packets() {
            return Exit::Lost(error);
        }
        let mut arrived = self.outputs.registry.arrived();
        let mut has_much = false;
        loop {
            self.acknowledge(link);
            self.take_publishes(link);
            self.take_requests(link);
            if let Err(error) = self.keeper.release(link.connection.session_mut()) {
                return Exit::Lost(error);
            }
            let now = self.now();
            if let Err(error) = self.look_at_the_clock(link, now) {
                return Exit::Lost(error);
            }
            link.fill(now);
            self.keeper.keep(link.connection.session_mut());
            dispatch::events(link, self.options.when_uncertain);
            if let Some(options) = self.is_done(link) {
                return Exit::Left(options);
            }
            let has_messages = self.outputs.registry.arrived() != arrived;
            arrived = self.outputs.registry.arrived();
            if has_messages && (has_much || !link.output.is_empty()) {
                // Who reads the messages goes first: what they are answered with leaves in one write with what is
                // there, and their memory is used again before more come, which is cheaper than to have more of it.
                yield_now().await;
                continue;
            }
            has_much = false;
            let alarm = link.connection.poll_timeout();
            let alarm = alarm.map(|time| self.origin + Duration::from_micros(time.as_micros()));
            let room = link.connection.session().wanted();
            let deadline = self.leaving.as_ref().map(|leaving| leaving.deadline);
            let retry = self.keeper.retry_at();
            let step = tokio::select! {
                biased;
                progress = link.progress() => {
                    has_much = matches!(progress, Ok(Progress::Read(count)) if count >= MUCH);
                    self.progressed(link, progress)
                }
                count = self.inputs.publishes.recv_many(&mut self.batch, room),
                    if room > 0 && self.leaving.is_none() =>
                {
                    if count == 0 {
                        // No handle is left.
                        self.leave(DisconnectOptions::new());
                    }
                    self.push_batch(link);
                    Ok(())
                }
                control = self.inputs.control.recv(), if !self.is_abandoned => {
                    match control {
                        Some(control) => self.request(link, control),
                        None => self.leave(DisconnectOptions::new()),
                    }
                    Ok(())
                }
                Some(id) = self.inputs.dropped.recv() => {
                    self.reader_dropped(Some(link), id);
                    Ok(())
                }
                () = self.inputs.post.bell.notified() => Ok(()),
                // What is due is done at the next turn.
                () = alarmed(alarm) => Ok(()),
                () = alarmed(deadline) => Ok(()),
                () = alarmed(retry) => Ok(()),
            };
            if let Err(error) = step {
                return Exit::Lost(error);
            }
        }
    }

    /// Does what is due, once a turn: a server that never stops sending does not put it off.
    fn look_at_the_clock(&mut self, link: &mut Link, now: Time) -> Result<(), Error> {
        let alarm = link.connection.poll_timeout();
        if alarm.is_some_and(|time| time <= now)
            && link.connection.handle_timeout(now) == Timeout::KeepAlive
        {
            return Err(Error::TimedOut);
        }
        let retry = self.keeper.retry_at();
        if retry.is_some_and(|time| time <= Instant::now()) {
            self.keeper.retry();
        }
        Ok(())
    }

    fn progressed(
        &mut self,
        link: &mut Link,
        progress: std::io::Result<Progress>,
    ) -> Result<(), Error> {
        match progress? {
            Progress::Read(0) => Err(Error::ConnectionLost),
            Progress::Read(_) => self.dispatch(link).packets(),
            Progress::Written => Ok(()),
        }
    }

    /// Accepts what the application acknowledged.
    fn acknowledge(&mut self, link: &mut Link) {
        self.inputs.post.take_acknowledged(&mut self.tokens);
        for token in self.tokens.drain(..) {
            self.outputs.registry.acknowledged(token);
            let _ = link.connection.accept(token, Durability::Now);
        }
    }

    /// Takes the messages that wait, as far as there is room.
    fn take_publishes(&mut self, link: &mut Link) {
        let room = link.connection.session().wanted();
        if room > 0 && !self.inputs.publishes.is_empty() {
            // All at once: the room in the channel is given back once for all of them.
            let messages = self.inputs.publishes.recv_many(&mut self.batch, room);
            let _ = messages.now_or_never();
            self.push_batch(link);
        }
    }

    fn push_batch(&mut self, link: &mut Link) {
        for message in self.batch.drain(..) {
            link.connection.push(message);
        }
    }
}

/// Whether a session has nothing that waits to be sent or acknowledged.
pub(crate) fn is_drained(session: &Session<Outbound>) -> bool {
    session.queue_len() == 0 && session.in_flight_len() == 0
}

/// The longest time that a clock is set to: 30 years.
pub(crate) const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// When so much time will have passed.
pub(crate) fn deadline(time: Duration) -> Instant {
    Instant::now() + time.min(LONGEST)
}

/// Waits for the time, for ever if there is none.
pub(crate) async fn alarmed(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
