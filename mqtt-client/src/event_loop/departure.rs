//! The end of a connection, and of the client: what is waited for, what is said, and what is given up.

use std::time::Duration;

use mqtt_codec::{Disconnect, DisconnectProperties, Packet, ReasonCode};
use mqtt_session::{InFlightState, Session};
use tokio::time::{Instant, timeout};

use super::{EventLoop, Leaving, Phase, deadline, is_drained};
use crate::link::{Link, Remains};
use crate::outbound::Outbound;
use crate::{DisconnectOptions, Ended, Error, dispatch, message};

/// How long a last packet may take to leave, and the server to close.
const FAREWELL: Duration = Duration::from_secs(2);

impl EventLoop {
    /// Takes what is left of a connection.
    pub(super) fn part(&mut self, mut link: Link, comes_again: bool) -> Box<Session<Outbound>> {
        self.acknowledge(&mut link);
        let Remains {
            mut session,
            unwritten,
            requests,
        } = link.leave();
        self.keeper.keep(&mut session);
        self.unwritten = unwritten;
        if comes_again {
            let requests: Vec<_> = requests
                .into_iter()
                .filter_map(|request| request.again())
                .collect();
            for request in requests.into_iter().rev() {
                self.waiting.push_front(request);
            }
        }
        Box::new(session)
    }

    /// Gives up what was not completed.
    pub(super) async fn finish(mut self, mut session: Session<Outbound>, ended: Ended) {
        // For the outbox: another run of the program goes on with the session.
        self.inputs.post.take_acknowledged(&mut self.tokens);
        for token in self.tokens.drain(..) {
            session.accept_late(token);
        }
        self.keeper.keep(&mut session);
        let error = ended.clone().err().unwrap_or(Error::Closed);
        // What this says of the session is not for the outbox, which keeps it.
        let given_up = |message: &Outbound, error: Error| {
            if message.is_stored() {
                error.kept()
            } else {
                error
            }
        };
        for (message, state) in session.discard() {
            let outcome = match state {
                InFlightState::Assigned => Err(given_up(&message, error.clone())),
                InFlightState::Published => Err(given_up(&message, error.clone()).uncertain()),
                // The server has taken it over.
                InFlightState::Released => Ok(ReasonCode::SUCCESS),
            };
            message.resolve(outcome);
        }
        let mut rest = std::mem::take(&mut self.unwritten);
        rest.extend(session.take_queued(|_| true));
        self.inputs.publishes.close();
        while let Ok(message) = self.inputs.publishes.try_recv() {
            rest.push(message);
        }
        for message in rest {
            let outcome = Err(given_up(&message, error.clone()));
            message.resolve(outcome);
        }
        for request in self.waiting.drain(..) {
            request.refuse(error.clone());
        }
        self.keeper.close().await;
        self.options.release_outbox();
        self.outputs.state.send_modify(|state| {
            state.phase = Phase::Ended(ended);
        });
        self.outputs.registry.end();
    }

    /// Begins to end the client: no messages are taken any more, those that wait are sent.
    pub(crate) fn leave(&mut self, options: DisconnectOptions) {
        self.is_abandoned |= self.inputs.control.is_closed();
        self.inputs.publishes.close();
        let deadline = deadline(options.drain);
        match &mut self.leaving {
            Some(leaving) => leaving.deadline = leaving.deadline.min(deadline),
            None => self.leaving = Some(Leaving { options, deadline }),
        }
    }

    /// What to say in DISCONNECT, if nothing is to be waited for.
    pub(super) fn is_done(&self, link: &Link) -> Option<DisconnectOptions> {
        let leaving = self.leaving.as_ref()?;
        let is_idle = link.output.is_empty()
            && self.inputs.publishes.is_empty()
            && is_drained(link.connection.session())
            && self.keeper.is_settled();
        let is_done = is_idle || leaving.deadline <= Instant::now();
        is_done.then(|| leaving.options.clone())
    }

    /// Sends what can be sent, DISCONNECT, and closes.
    pub(super) async fn say_goodbye(
        &mut self,
        link: &mut Link,
        options: &DisconnectOptions,
    ) -> Ended {
        self.acknowledge(link);
        while let Ok(message) = self.inputs.publishes.try_recv() {
            link.connection.push(message);
        }
        let now = self.now();
        // Without a limit: all that the server's Receive Maximum lets through.
        link.fill_up_to(now, usize::MAX);
        dispatch::events(link, self.options.when_uncertain);
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
        link.append(&packet, now)?;
        match timeout(FAREWELL, link.close()).await {
            Ok(closed) => Ok(closed?),
            // The server was told and does not close.
            Err(_) if link.output.is_empty() => Ok(()),
            Err(_) => Err(Error::TimedOut),
        }
    }

    /// Tells the server what it did wrong.
    pub(super) async fn refuse(&mut self, link: &mut Link, reason: ReasonCode) {
        let packet = Packet::Disconnect(Disconnect::new(reason));
        if link.append(&packet, self.now()).is_ok() {
            // Whether it arrives makes no difference.
            let _ = timeout(FAREWELL, link.close()).await;
        }
    }
}
