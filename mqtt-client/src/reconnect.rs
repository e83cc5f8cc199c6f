//! Connecting: the first time, and again after a loss.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;

use mqtt_session::{Persistence, Session};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::establish::{self, Failed};
use crate::event_loop::{EventLoop, LONGEST, Phase, alarmed, is_drained};
use crate::link::Link;
use crate::outbound::Outbound;
use crate::transport::Target;
use crate::{DisconnectOptions, Ended, Error, Event, dispatch, request};

/// How many messages the session holds before the rest waits in the channel.
pub(crate) const WINDOW: u32 = 1024;

/// A session that no server knows yet.
pub(crate) fn new_session() -> Session<Outbound> {
    let mut session = Session::new(Persistence::Ephemeral);
    session.set_window(WINDOW);
    session
}

impl EventLoop {
    /// Makes the first connection, before the task begins.
    pub(crate) async fn first(&mut self) -> Result<Link, Error> {
        let session = self.keeper.restore(&self.options, self.now()).await?;
        let mut session = Box::new(session);
        loop {
            let clean_start = self.is_to_begin_anew();
            match self.attempt(session, clean_start, &Notify::new()).await {
                Ok(mut link) => {
                    self.connected(&mut link);
                    return Ok(link);
                }
                Err(failed) if self.is_redirected(&failed.error) => session = failed.session,
                Err(failed) => return Err(failed.error),
            }
        }
    }

    fn attempt<'a>(
        &self,
        session: Box<Session<Outbound>>,
        clean_start: bool,
        stop: &'a Notify,
    ) -> impl Future<Output = Result<Link, Failed>> + use<'a> {
        let connector = Arc::clone(&self.connector);
        let target = self.target.clone();
        let options = self.options.clone();
        let origin = self.origin;
        async move {
            establish::connect(
                &*connector,
                &target,
                &options,
                *session,
                (clean_start, origin),
                stop,
            )
            .await
        }
    }

    /// Connects (again) if that is wanted and of use, else tells how it ended.
    pub(crate) async fn reconnect(
        &mut self,
        mut session: Box<Session<Outbound>>,
        mut lost: Option<Error>,
    ) -> Result<Box<Link>, (Ended, Box<Session<Outbound>>)> {
        self.set_offline();
        loop {
            let mut at_once = lost.is_none();
            if let Some(error) = &lost {
                if self.is_redirected(error) {
                    at_once = true;
                } else if self.options.reconnect.is_none() || !error.is_passing() {
                    return Err((Err(error.clone()), session));
                } else {
                    self.target = self.home.clone();
                }
                // Nobody may be listening.
                let _ = self.outputs.events.send(Event::Disconnected(error.clone()));
            }
            if !at_once {
                self.pause(&session).await;
                self.redirections = 0;
            }
            if let Some(leaving) = &self.leaving {
                if self.has_nothing_to_send(&session) {
                    return Err((Ok(()), session));
                }
                if leaving.deadline <= Instant::now() {
                    return Err((Err(lost.unwrap_or(Error::ConnectionLost)), session));
                }
            }
            let clean_start = self.is_to_begin_anew();
            let stop = Notify::new();
            let attempt = self.attempt(session, clean_start, &stop);
            match self.meanwhile(attempt, &stop).await {
                Ok(mut link) => {
                    self.connected(&mut link);
                    return Ok(Box::new(link));
                }
                Err(failed) => {
                    tracing::debug!("cannot connect: {}", failed.error);
                    session = failed.session;
                    lost = Some(failed.error);
                }
            }
        }
    }

    /// Whether the next connection is not to go on with the session of an earlier one, be it of an earlier
    /// run of the program.
    fn is_to_begin_anew(&self) -> bool {
        let has_session = self.has_connected || self.keeper.is_continued();
        self.options.clean_start && !(has_session && self.options.outlives_connection())
    }

    /// Whether a connection would be of no use to a client that is to end.
    fn has_nothing_to_send(&self, session: &Session<Outbound>) -> bool {
        is_drained(session) && self.unwritten.is_empty() && self.inputs.publishes.is_empty()
    }

    fn set_offline(&self) {
        self.outputs
            .state
            .send_modify(|state| state.phase = Phase::Offline);
    }

    /// Waits before the next attempt, between half and all of what the backoff says, so that the clients
    /// of a server that was restarted do not come back all at once.
    async fn pause(&mut self, session: &Session<Outbound>) {
        let backoff = self.options.reconnect.unwrap_or_default();
        let longest = backoff.longest.min(LONGEST);
        let wait = self.wait.min(longest);
        self.wait = (wait * 2).min(longest);
        let random = RandomState::new().hash_one(0_u8) % 1024;
        let part = wait / 2 * u32::try_from(random).unwrap_or(0) / 1024;
        let stop = Notify::new();
        if self.leaving.is_some() && self.has_nothing_to_send(session) {
            return;
        }
        let waiting = async {
            tokio::select! {
                () = sleep(wait - wait / 2 + part) => {}
                () = stop.notified() => {}
            }
        };
        self.meanwhile(waiting, &stop).await;
    }

    /// Answers the handles while the future runs; tells it to stop when the client is to end.
    async fn meanwhile<F: Future>(&mut self, future: F, stop: &Notify) -> F::Output {
        let mut future = pin!(future);
        let mut was_stopped = false;
        loop {
            let deadline = self.leaving.as_ref().map(|leaving| leaving.deadline);
            tokio::select! {
                biased;
                output = &mut future => return output,
                control = self.inputs.control.recv(), if !self.is_abandoned => match control {
                    Some(control) => {
                        self.postpone(control);
                        // With nothing to wait for there is no need for a connection.
                        if self.leaving.is_some() && self.inputs.publishes.is_empty() {
                            stop.notify_one();
                        }
                    }
                    None => {
                        self.leave(DisconnectOptions::new());
                        stop.notify_one();
                    }
                },
                Some(id) = self.inputs.dropped.recv() => self.reader_dropped(None, id),
                () = alarmed(deadline), if !was_stopped => {
                    was_stopped = true;
                    stop.notify_one();
                }
            }
        }
    }

    /// Whether the server pointed to another one, which is then the next target.
    fn is_redirected(&mut self, error: &Error) -> bool {
        let Some((reference, permanently)) = error.redirection() else {
            return false;
        };
        if self.redirections >= self.options.redirections {
            return false;
        }
        let Some(target) = Target::referenced(reference, self.home.port) else {
            return false;
        };
        tracing::debug!("redirected to {target}");
        self.redirections += 1;
        if permanently {
            self.home = target.clone();
        }
        self.target = target.clone();
        let event = Event::Redirected {
            target,
            permanently,
        };
        let _ = self.outputs.events.send(event);
        true
    }

    /// Messages of QoS 2 that the application took when the last connection had ended, or was about to, come again:
    /// from now on that is known to the session.
    fn accept_late(&mut self, link: &mut Link) {
        let mut unheard = Vec::new();
        let is_resumed = link.server.session_present;
        self.inputs.post.connected(is_resumed, &mut unheard);
        for token in unheard {
            self.outputs.registry.acknowledged(token);
            link.connection.session_mut().accept_late(token);
        }
    }

    /// A connection was made: what waited for it goes out.
    fn connected(&mut self, link: &mut Link) {
        let is_first = !std::mem::replace(&mut self.has_connected, true);
        let server = Arc::clone(&link.server);
        self.outputs.state.send_modify(|state| {
            state.server = Arc::clone(&server);
            state.phase = Phase::Connected;
        });
        let _ = self.outputs.events.send(Event::Connected(server));
        let ended = dispatch::events(link, self.options.when_uncertain);
        if !link.server.session_present {
            self.keeper.lost(link.connection.session_mut(), &ended);
        }
        dispatch::queue_first(link, std::mem::take(&mut self.unwritten));
        self.accept_late(link);
        if !link.server.session_present && !is_first {
            let _ = self.outputs.events.send(Event::SessionLost);
        }
        let now = self.now();
        let registry = &mut self.outputs.registry;
        for (filters, options) in registry.renew(link.server.session_present) {
            request::renew(link, registry, now, filters, options);
        }
        for control in std::mem::take(&mut self.waiting) {
            self.request(link, control);
        }
    }
}
