//! The loop of one connection: take what others left, write, look at the clock, read.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::sync::Arc;

use mqtt_codec::{FixedHeader, ProtocolVersion, ReasonCode};
use mqtt_session::{Connection, Time, Timeout};
use tokio::io::ReadBuf;
use tokio::time::Sleep;

use crate::client::{Client, Link};
use crate::connection::Stream;
use crate::connection::end::End;
use crate::connection::handshake::{self, Handshake};
use crate::connection::output::Output;
use crate::delivery::Delivery;
use crate::hub::{Batch, Farewell, Hub, SessionState, packet_limit, with_worker};
use crate::message::Layout;
use crate::will::StoredWill;

/// Step by which the buffer of a packet larger than a worker's buffer grows, at least.
const LARGE_STEP: usize = 64 * 1024;

/// A connection whose CONNECT was accepted.
pub(crate) struct Driver {
    pub(crate) hub: Arc<Hub>,
    pub(crate) client: Arc<Client>,
    pub(crate) connection: Connection<Delivery>,
    /// Taken on release.
    pub(crate) state: Option<Box<SessionState>>,
    pub(crate) will: Option<StoredWill>,
    /// How long the session outlives the connection; DISCONNECT may change it.
    pub(crate) expiry_interval: u32,
    pub(crate) output: Output,
    /// Bytes of messages that the session held when they were last counted.
    pub(crate) held: usize,
    pub(crate) version: ProtocolVersion,
    session_present: bool,
    /// Bytes read of a packet that is not whole yet.
    partial: Vec<u8>,
    timer: Option<Pin<Box<Sleep>>>,
    /// When `timer` fires.
    armed: Time,
}

impl Driver {
    /// Takes the session, accepts the client and opens its link.
    pub(crate) async fn attach(hub: Arc<Hub>, handshake: Handshake) -> Self {
        let Handshake {
            client_id,
            assigned,
            clean_start,
            will,
            packet,
        } = handshake;
        let (mut state, session_present) = hub.attach(&client_id, clean_start).await;
        let session = state
            .session
            .take()
            .unwrap_or_else(SessionState::new_session);
        let held = session.held_size();
        let limits = handshake::limits(&hub);
        let mut output = Output::default();
        let now = hub.now();
        let connection = packet.with_connect(|connect| {
            let connection = Connection::server(session, &limits, connect, now);
            let assigned = assigned.then_some(&*client_id);
            let mut connack = handshake::accepting(connection.negotiated(), connect, assigned);
            connack.session_present = session_present;
            if let Err(error) = output.control_with(|out| connack.encode(connect.version, out)) {
                tracing::error!(%error, "CONNACK cannot be encoded");
            }
            connection
        });

        let negotiated = *connection.negotiated();
        let version = negotiated.version;
        let max_packet_size = packet_limit(negotiated.outbound.maximum_packet_size);
        let client = Arc::clone(&state.client);
        hub.open_link(
            &client,
            Link::Online {
                layout: Layout::of(version),
                max_packet_size,
            },
        );
        Self {
            hub,
            client,
            connection,
            state: Some(state),
            will,
            expiry_interval: negotiated.session_expiry_interval,
            output,
            held,
            version,
            session_present,
            partial: packet.into_rest(),
            timer: None,
            armed: Time::ZERO,
        }
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client.id
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        self.version
    }

    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Gives the session back. Everything that was not written is dropped with the connection.
    pub(crate) fn release(self, end: &End) {
        let Self {
            hub,
            client,
            connection,
            state,
            will,
            expiry_interval,
            held,
            ..
        } = self;
        let Some(mut state) = state else { return };
        let session = connection.into_session();
        // The last packets may have changed what the session holds after it was counted.
        client.queue_changes(held, session.held_size());
        state.session = Some(session);
        let will = will.filter(|_| end.publishes_will());
        hub.detach(
            state,
            Farewell {
                expiry_interval,
                will,
            },
        );
    }

    /// Runs until everything waits: for the socket, for others, for the clock.
    pub(crate) fn poll<S: Stream>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<End> {
        // What came together with CONNECT is handled before the socket is read.
        let mut first = !self.partial.is_empty();
        loop {
            let now = self.hub.now();
            if let Some(kick) = self.collect(cx, now) {
                return Poll::Ready(End::Kicked(kick));
            }
            let written = self.poll_write(cx, stream);
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(End::Failed(error));
            }
            if written.is_ready() && self.has_more_to_write() {
                continue;
            }
            if let Poll::Ready(end) = self.poll_timer(cx, now, written.is_pending()) {
                return Poll::Ready(end);
            }
            if !self.may_read(now) {
                return Poll::Pending;
            }
            let outcome = if core::mem::take(&mut first) {
                self.handle_first(now)
            } else {
                ready!(self.poll_read(cx, stream, now))
            };
            if let Err(end) = outcome {
                return Poll::Ready(end);
            }
        }
    }

    /// Reads once and handles every whole packet.
    fn poll_read<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
    ) -> Poll<Result<(), End>> {
        with_worker(|buffer, batch| {
            let kept = self.partial.len();
            let large = self.large_packet(buffer.len());
            if let Some(len) = large {
                return self
                    .poll_read_large(cx, stream, len)
                    .map(|read| match read {
                        Ok(true) => {
                            let packet = core::mem::take(&mut self.partial);
                            self.handle_bytes(now, &packet, batch).map(|_| ())
                        }
                        Ok(false) => Ok(()),
                        Err(end) => Err(end),
                    });
            }
            let Some((head, room)) = buffer.split_at_mut_checked(kept) else {
                return Poll::Ready(Err(End::violation(
                    ReasonCode::PACKET_TOO_LARGE,
                    "packet too large",
                )));
            };
            head.copy_from_slice(&self.partial);
            let mut read = ReadBuf::new(room);
            if let Err(error) = ready!(Pin::new(stream).poll_read(cx, &mut read)) {
                return Poll::Ready(Err(End::Failed(error)));
            }
            let count = read.filled().len();
            if count == 0 {
                return Poll::Ready(Err(End::Closed));
            }
            let bytes = buffer.get(..kept + count).unwrap_or_default();
            Poll::Ready(self.handle_and_keep(now, bytes, batch))
        })
    }

    fn handle_first(&mut self, now: Time) -> Result<(), End> {
        let bytes = core::mem::take(&mut self.partial);
        with_worker(|_, batch| self.handle_and_keep(now, &bytes, batch))
    }

    /// Handles the whole packets of `bytes` and keeps the rest for the next read.
    fn handle_and_keep(&mut self, now: Time, bytes: &[u8], batch: &mut Batch) -> Result<(), End> {
        let handled = self.handle_bytes(now, bytes, batch)?;
        let rest = bytes.get(handled..).unwrap_or_default();
        self.partial.clear();
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Length of the packet that `partial` begins, if it does not fit into a worker's buffer.
    fn large_packet(&self, buffer: usize) -> Option<usize> {
        let header = FixedHeader::parse(&self.partial).ok()??;
        Some(header.frame_len()).filter(|len| *len > buffer)
    }

    /// Reads more of a large packet of `len` bytes, into a buffer that grows with what arrives; true when
    /// it is whole.
    fn poll_read_large<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        len: usize,
    ) -> Poll<Result<bool, End>> {
        let have = self.partial.len();
        let room = (len - have).min(have.max(LARGE_STEP));
        self.partial.resize(have + room, 0);
        let mut read = ReadBuf::new(self.partial.get_mut(have..).unwrap_or_default());
        let outcome = Pin::new(stream).poll_read(cx, &mut read);
        let count = read.filled().len();
        self.partial.truncate(have + count);
        match ready!(outcome) {
            Err(error) => Poll::Ready(Err(End::Failed(error))),
            Ok(()) if count == 0 => Poll::Ready(Err(End::Closed)),
            Ok(()) => Poll::Ready(Ok(self.partial.len() == len)),
        }
    }

    /// Acts on timers that are due and sets the next one.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Time, write_pending: bool) -> Poll<End> {
        let stalled = self
            .output
            .watch(now, write_pending)
            .map(|since| since + self.hub.config.write_timeout);
        if stalled.is_some_and(|deadline| deadline <= now) {
            return Poll::Ready(End::WriteStalled);
        }
        if self
            .connection
            .poll_timeout()
            .is_some_and(|deadline| deadline <= now)
            && self.connection.handle_timeout(now) == Timeout::KeepAlive
        {
            return Poll::Ready(End::KeepAlive);
        }
        let next = [stalled, self.connection.poll_timeout()]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next else {
            return Poll::Pending;
        };
        // A timer that fires too early looks again; one that would fire too late is set anew.
        if self.timer.is_none() || next < self.armed || self.armed <= now {
            let instant = self.hub.instant(next);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(instant),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(instant))),
            }
            self.armed = next;
            if let Some(timer) = &mut self.timer
                && timer.as_mut().poll(cx).is_ready()
            {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}
