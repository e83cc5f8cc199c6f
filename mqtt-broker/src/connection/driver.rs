//! The loop of one connection: take what others left, write, look at the clock, read.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::BufMut;
use mqtt_codec::{FixedHeader, ProtocolVersion, ReasonCode};
use mqtt_session::{Connection, Negotiated, Time, Timeout};
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::task::unconstrained;
use tokio::time::{Sleep, sleep_until};

use crate::amount::Amount;
use crate::auth::{Guard, LogLimit};
use crate::client::{Client, Kick, Link};
use crate::connection::asking::Asking;
use crate::connection::durable::Waits;
use crate::connection::end::End;
use crate::connection::enhanced::Enhanced;
use crate::connection::handshake::{self, Handshake, Refusal};
use crate::connection::login;
use crate::connection::output::Output;
use crate::connection::resuming::check_subscriptions;
use crate::connection::throttle::Throttle;
use crate::delivery::Delivery;
use crate::gate::{Asks, Entrant, Place};
use crate::hub::{Batch, Hub, NotYours, SessionState, Stay, is_busy, packet_limit, with_worker};
use crate::message::Layout;
use crate::mount;
use crate::policy::{ListenerOptions, Peer};
use crate::transport::Stream;
use crate::will::StoredWill;

/// Step by which the buffer of a packet that is gathered grows, at least.
const GATHER_STEP: usize = 64 * 1024;
/// A packet is gathered when a read brings less than this part of what is there of it already.
const TRICKLE: usize = 8;
/// Bytes of a packet that count for the keep alive before the packet is whole: who sends a large one over a
/// slow network cannot send PINGREQ in between.
const SIGN_OF_LIFE: usize = 1_024;
/// Reads and writes of one connection before others have their turn.
const ROUNDS: usize = 32;

/// Later than any clock gets.
const NEVER: Time = Time::from_micros(u64::MAX);

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
    pub(crate) waits: Waits,
    /// The messages that the session held when they were last counted.
    pub(crate) held: Amount,
    pub(crate) version: ProtocolVersion,
    session_present: bool,
    /// Bytes that were read and not handled: of a packet that is not whole yet, or, where `unhandled`, of
    /// whole ones as well.
    partial: Vec<u8>,
    unhandled: bool,
    /// Where in `partial` they begin, while some are `unhandled`; else 0.
    handled: u32,
    /// What is to be written waits for its second turn.
    deferred: bool,
    /// The bytes of the packet in `partial` come in such small portions that they are gathered there.
    trickles: bool,
    /// Where the client is, and where it counts among others.
    place: Place,
    /// Levels that its topics and filters may have.
    pub(crate) topic_levels: u32,
    /// Bytes of answers beyond which it is not read.
    pub(crate) control_bytes: u32,
    /// How fast it may send; most may as fast as they can.
    pub(crate) throttle: Option<Box<Throttle>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// When `timer` fires.
    armed: Time,
    /// What was allowed lately, where not everything is.
    pub(crate) guard: Option<Box<Guard>>,
    /// What a service is asked about, where one is, and what it said lately.
    pub(crate) asking: Option<Box<Asking>>,
    pub(crate) denials: LogLimit,
    /// The state of the permissions in which the messages that wait were looked at.
    pub(crate) permissions: u64,
    /// The state of the bans in which the client was looked at; 0: it was not yet.
    pub(crate) bans: u64,
    /// The user name in CONNECT; another one may own the session.
    pub(crate) claimed_user: Option<Box<str>>,
    /// When what it was let in by is worth nothing any more; [`NEVER`]: it stays good.
    ends: Time,
    /// How the client has shown who it is, if by an exchange, and may do so again.
    pub(crate) enhanced: Option<Box<Enhanced>>,
}

impl Driver {
    /// Takes the session, accepts the client and opens its link.
    pub(crate) async fn attach<S: Stream>(
        hub: Arc<Hub>,
        options: Arc<ListenerOptions>,
        handshake: Handshake,
        entrant: &Entrant,
        stream: &mut S,
    ) -> Result<Self, Refusal> {
        let Handshake {
            client_id,
            assigned,
            clean_start,
            will,
            access,
            enhanced,
            packet,
            mut rest,
            place,
            claimed_user,
        } = handshake;
        let limits = handshake::limits(&hub.limits.load(), &options);
        let stay = Stay {
            expiry_interval: packet.with_connect(|connect| {
                Negotiated::server(&limits, connect).session_expiry_interval
            }),
            will,
        };
        let ends = access.as_ref().and_then(|access| access.ends);
        let durability = options.durability(&hub.config);
        let attached = hub
            .attach(&client_id, clean_start, &stay, access, durability)
            .await;
        let (mut state, session_present) = match attached {
            Ok(attached) => attached,
            Err(NotYours) => return Err(packet.with_connect(|it| login::not_yours(&hub, it))),
        };
        if session_present {
            let checked = check_subscriptions(&hub, state, &packet, entrant, stream, &mut rest);
            state = Box::pin(checked).await?;
            hub.resume(&mut state, &stay);
        }
        let session = state.take_session();
        let held = Amount::held(&session);
        let unfinished = state.unfinished.take();
        let mut output = Output::default();
        let now = hub.now();
        let connection = packet.with_connect(|connect| {
            let connection = Connection::server(session, &limits, connect, now);
            let assigned = assigned.then_some(mount::split(&client_id).1);
            let mut connack = handshake::accepting(connection.negotiated(), connect, assigned);
            connack.session_present = session_present;
            if let Some(enhanced) = &enhanced {
                connack.properties.authentication_method = Some(&enhanced.method);
                connack.properties.authentication_data = Some(&enhanced.last_words);
            }
            if let Err(error) = output.control_with(|out| connack.encode(connect.version, out)) {
                tracing::error!(%error, "CONNACK cannot be encoded");
            }
            connection
        });

        let negotiated = *connection.negotiated();
        let version = negotiated.version;
        let max_packet_size = packet_limit(negotiated.outbound.maximum_packet_size);
        let client = Arc::clone(&state.client);
        let config = hub.limits.load_full();
        let throttle = Throttle::new(&config).map(Box::new);
        let capped = |limit| u32::try_from(limit).unwrap_or(u32::MAX);
        let topic_levels = capped(config.topic_levels);
        let control_bytes = capped(config.control_bytes);
        client.set_passing(negotiated.session_expiry_interval == 0);
        hub.open_link(
            &client,
            Link::Online {
                layout: Layout::of(version),
                max_packet_size,
                bundles: client.stored().is_none()
                    && negotiated.session_expiry_interval == 0
                    && negotiated.outbound.topic_alias_maximum == 0,
            },
        );
        Ok(Self {
            hub,
            client,
            connection,
            state: Some(state),
            will: stay.will,
            waits: Waits::resume(unfinished),
            expiry_interval: negotiated.session_expiry_interval,
            output,
            held,
            version,
            session_present,
            unhandled: !rest.is_empty(),
            partial: rest,
            handled: 0,
            deferred: false,
            trickles: false,
            place,
            topic_levels,
            control_bytes,
            throttle,
            timer: None,
            armed: Time::ZERO,
            guard: None,
            asking: None,
            enhanced: enhanced.map(Box::new),
            denials: LogLimit::default(),
            permissions: 0,
            bans: 0,
            claimed_user,
            ends: ends.map_or(NEVER, |ends| now + time_until(ends)),
        })
    }

    pub(crate) fn peer(&self) -> &Peer {
        self.place.peer()
    }

    /// What its listener asks now.
    pub(crate) fn asks(&self) -> Arc<Asks> {
        self.place.asks()
    }

    /// Whether it came through TLS.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.place.is_encrypted
    }

    pub(crate) fn client_id(&self) -> &str {
        self.client.name()
    }

    /// What the client's topics begin with, unknown to it.
    pub(crate) fn mount(&self) -> Option<&str> {
        self.client.mount()
    }

    /// The user that the session belongs to.
    pub(crate) fn user(&self) -> Option<Arc<str>> {
        let access = self.client.access.load();
        access.as_ref()?.owner.user().cloned()
    }

    pub(crate) fn version(&self) -> ProtocolVersion {
        self.version
    }

    pub(crate) fn session_present(&self) -> bool {
        self.session_present
    }

    /// Gives the session back, once. Everything that was not written is dropped with the connection.
    pub(crate) fn release(&mut self, end: &End) {
        let Some(mut state) = self.state.take() else {
            return;
        };
        let empty = SessionState::no_session();
        let mut session = core::mem::replace(self.connection.session_mut(), empty);
        session.shrink();
        // The last packets may have changed what the session holds after it was counted.
        self.client.queue_changes(self.held, Amount::held(&session));
        self.client.set_unhandled(0);
        state.session = Some(Box::new(session));
        state.unfinished = self.waits.unfinished();
        let will = self.will.take().filter(|_| end.publishes_will());
        self.hub.detach(
            state,
            Stay {
                expiry_interval: self.expiry_interval,
                will,
            },
        );
    }

    /// Runs until everything waits: for the socket, for others, for the clock.
    ///
    /// Where many connections of a thread have something to do, each reads first, and writes in a second turn
    /// when all have read. A receiver then gets in one write what several of them sent it, and a peer that
    /// serves several connections, as gateways and bridges do, is woken once and not once for each: waking it
    /// is most of what a short write costs.
    pub(crate) fn poll<S: Stream>(&mut self, cx: &mut Context<'_>, stream: &mut S) -> Poll<End> {
        if !core::mem::take(&mut self.deferred) && is_busy() {
            let now = self.hub.now();
            if let Poll::Ready(Err(end)) = self.poll_input(cx, stream, now) {
                return Poll::Ready(end);
            }
            self.deferred = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Many rounds take a millisecond or two: nothing here needs a finer clock.
        let now = self.hub.now();
        for _ in 0..ROUNDS {
            if self.ends <= now {
                return Poll::Ready(End::Kicked(Kick::Expired));
            }
            if self
                .shown_again_by()
                .is_some_and(|deadline| deadline <= now)
                && let Err(end) = self.deny_again(now)
            {
                return Poll::Ready(end);
            }
            if let Some(kick) = self.collect(cx, now) {
                return Poll::Ready(End::Kicked(kick));
            }
            if let Some(kick) = self.may_not_stay() {
                return Poll::Ready(End::Kicked(kick));
            }
            let written = self.poll_write(cx, stream);
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(End::Failed(error));
            }
            let blocked = written.is_pending();
            let stalled = self.stalled_at(now, blocked);
            if stalled.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(End::WriteStalled);
            }
            // Reading has its turn after each round of writing, however much there is to write.
            match self.poll_input(cx, stream, now) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            if blocked || !self.has_more_to_write() {
                return self.poll_timer(cx, stream, now, stalled);
            }
        }
        // Other connections have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Handles what is there of packets, unless too many answers wait to be written.
    fn poll_input<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
    ) -> Poll<Result<(), End>> {
        let handled = self.poll_some_input(cx, stream, now);
        let unhandled = self.partial.capacity() + self.parked_bytes();
        self.client.set_unhandled(unhandled);
        handled
    }

    fn poll_some_input<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
    ) -> Poll<Result<(), End>> {
        if self.is_asking() {
            // Nothing more is read until it is known what becomes of what was read.
            let answered = self.poll_asking(cx, now);
            if answered.is_pending() {
                self.connection.pause_reading(now);
                self.lets_wait(now);
            }
            return answered;
        }
        if self.may_read(cx, now) {
            return self.poll_read_on(cx, stream, now);
        }
        if self.holds_publish(now) {
            return self.poll_acks(cx, stream, now);
        }
        Poll::Pending
    }

    /// Handles what was read and not handled, or else reads.
    pub(crate) fn poll_read_on<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
    ) -> Poll<Result<(), End>> {
        if self.is_asking() {
            return self.poll_asking(cx, now);
        }
        if self.unhandled {
            return Poll::Ready(self.handle_unhandled(now));
        }
        self.poll_read(cx, stream, now)
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
            if let Some(len) = self.gathered_packet(buffer.len()) {
                return match ready!(self.poll_gather(cx, stream, now, len)) {
                    Ok(true) => {
                        let packet = core::mem::take(&mut self.partial);
                        self.trickles = false;
                        Poll::Ready(self.handle_and_keep(now, &packet, batch))
                    }
                    Ok(false) => Poll::Ready(Ok(())),
                    Err(end) => Poll::Ready(Err(end)),
                };
            }
            let Some((head, room)) = buffer.split_at_mut_checked(kept) else {
                return Poll::Ready(Err(End::violation(
                    ReasonCode::PACKET_TOO_LARGE,
                    "packet too large",
                )));
            };
            let mut read = ReadBuf::new(room);
            if let Err(error) = ready!(Pin::new(stream).poll_read(cx, &mut read)) {
                return Poll::Ready(Err(End::Failed(error)));
            }
            let count = read.filled().len();
            if count == 0 {
                return Poll::Ready(Err(End::Closed));
            }
            self.note_progress(now, count);
            head.copy_from_slice(&self.partial);
            self.trickles = kept > count * TRICKLE;
            let bytes = buffer.get(..kept + count).unwrap_or_default();
            Poll::Ready(self.handle_and_keep(now, bytes, batch))
        })
    }

    /// A part of a packet that takes long to arrive counts as a sign of life, if it is not just a few bytes.
    fn note_progress(&mut self, now: Time, count: usize) {
        if count >= SIGN_OF_LIFE {
            self.connection.received(now);
        }
    }

    /// Takes what was read and not handled.
    pub(crate) fn take_unhandled(&mut self) -> Vec<u8> {
        let mut bytes = core::mem::take(&mut self.partial);
        let from = core::mem::take(&mut self.handled) as usize;
        self.unhandled = false;
        bytes.drain(..from.min(bytes.len()));
        bytes
    }

    /// Gives back what is still not handled.
    pub(crate) fn keep_unhandled(&mut self, bytes: Vec<u8>, unhandled: bool) {
        self.partial = bytes;
        self.unhandled = unhandled;
    }

    /// The first byte of packets that were read and wait.
    pub(crate) fn first_unhandled(&self) -> Option<u8> {
        let first = self.partial.get(self.handled as usize);
        first.copied().filter(|_| self.unhandled)
    }

    fn handle_unhandled(&mut self, now: Time) -> Result<(), End> {
        let bytes = core::mem::take(&mut self.partial);
        let from = core::mem::take(&mut self.handled) as usize;
        with_worker(|_, batch| {
            let left = bytes.get(from..).unwrap_or_default();
            let handled = from + self.handle_bytes(now, left, batch)?;
            self.unhandled = batch.is_spent() && handled < bytes.len();
            if self.unhandled {
                self.partial = bytes;
                // Less than a read and a packet, which is at most 256 MiB.
                self.handled = handled as u32;
            } else {
                self.partial = bytes.get(handled..).unwrap_or_default().to_vec();
            }
            Ok(())
        })
    }

    /// Handles whole packets of `bytes` and keeps the rest.
    fn handle_and_keep(&mut self, now: Time, bytes: &[u8], batch: &mut Batch) -> Result<(), End> {
        let handled = self.handle_bytes(now, bytes, batch)?;
        let rest = bytes.get(handled..).unwrap_or_default();
        self.unhandled = batch.is_spent() && !rest.is_empty();
        self.partial.clear();
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Length of the packet that `partial` begins, if it is to be gathered there: it does not fit into a
    /// worker's buffer, or comes so slowly that copying it there each time would cost more than reading it.
    fn gathered_packet(&self, buffer: usize) -> Option<usize> {
        let header = FixedHeader::parse(&self.partial).ok()??;
        Some(header.frame_len()).filter(|len| self.trickles || *len > buffer)
    }

    /// Reads more of a packet of `len` bytes, into a buffer that grows with what arrives; true when it is
    /// whole.
    fn poll_gather<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
        len: usize,
    ) -> Poll<Result<bool, End>> {
        let have = self.partial.len();
        let left = len.saturating_sub(have);
        if self.partial.capacity() == have {
            self.partial.reserve_exact(left.min(have.max(GATHER_STEP)));
        }
        let room = left.min(self.partial.capacity() - have);
        let mut room = BufMut::limit(&mut self.partial, room);
        match ready!(pin!(stream.read_buf(&mut room)).poll(cx)) {
            Err(error) => Poll::Ready(Err(End::Failed(error))),
            Ok(0) => Poll::Ready(Err(End::Closed)),
            Ok(count) => {
                self.note_progress(now, count);
                Poll::Ready(Ok(count == left))
            }
        }
    }

    /// When writing has made no progress for so long that the connection ends.
    fn stalled_at(&mut self, now: Time, blocked: bool) -> Option<Time> {
        let since = self.output.watch(now, blocked)?;
        Some(since + self.hub.limits.load().write_timeout)
    }

    /// Acts on timers that are due and sets the next one.
    fn poll_timer<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
        stalled: Option<Time>,
    ) -> Poll<End> {
        if self.is_overdue(now) {
            // Only what is not there counts as missing: the runtime may have held the last read back.
            let mut input = pin!(unconstrained(
                poll_fn(|cx| self.poll_input(cx, stream, now))
            ));
            match input.as_mut().poll(cx) {
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Ready(Ok(())) if !self.is_overdue(now) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                _ => {}
            }
            if self.connection.handle_timeout(now) == Timeout::KeepAlive {
                return Poll::Ready(End::KeepAlive);
            }
        }
        let throttled = self.throttle.as_ref();
        let throttled = throttled.and_then(|throttle| throttle.blocked_until(now));
        let next = self
            .ends
            .min(stalled.unwrap_or(NEVER))
            .min(throttled.unwrap_or(NEVER))
            .min(self.shown_again_by().unwrap_or(NEVER))
            .min(self.connection.poll_timeout().unwrap_or(NEVER));
        if next != NEVER {
            self.arm(cx, next, now);
        }
        Poll::Pending
    }

    /// Whether the client should have been heard by now.
    fn is_overdue(&self, now: Time) -> bool {
        let deadline = self.connection.poll_timeout();
        deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Sets the timer, unless it fires early enough: then it looks again.
    fn arm(&mut self, cx: &mut Context<'_>, next: Time, now: Time) {
        if self.timer.is_some() && next >= self.armed && self.armed > now {
            return;
        }
        let instant = self.hub.instant(next);
        let timer = match &mut self.timer {
            Some(timer) => {
                timer.as_mut().reset(instant);
                timer
            }
            None => self.timer.insert(Box::pin(sleep_until(instant))),
        };
        self.armed = next;
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// The time from now to a second since 1970; what is further than ten years is as if it were there.
fn time_until(second: u64) -> Duration {
    const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = Duration::from_secs(second).saturating_sub(now.unwrap_or_default());
    left.min(FAR)
}

impl Drop for Driver {
    /// A connection whose task ends before its time, by a panic, still gives its session back.
    fn drop(&mut self) {
        self.release(&End::Closed);
    }
}
