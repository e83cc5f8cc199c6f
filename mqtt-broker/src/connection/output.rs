//! What is on its way to the client: answers first, deliveries as fast as it reads them.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice};
use std::sync::Arc;

use mqtt_codec::{Disconnect, QoS, ReasonCode, TopicName};
use mqtt_session::{Connection, DropReason as SessionDrop, Event, Outgoing, Time};

use crate::amount::Amount;
use crate::client::Kick;
use crate::connection::driver::Driver;
use crate::counters::DropReason;
use crate::delivery::{Content, Delivery};
use crate::frames::Frames;
use crate::hub::{cost, packet_limit, queued};
use crate::message::{Envelope, Layout};
use crate::store::{Op, Span};
use crate::transport::Stream;
use crate::window::Taken;

/// Unsent bytes of deliveries beyond which no more are taken from the session and the outbox.
const DELIVERY_BYTES: usize = 64 * 1024;
/// Bytes of buffer that are reserved at once for messages, so that it need not grow by each of them.
const FIRST_BUFFER: usize = 4 * 1024;
/// Buffers handed to the system in one write.
const SLICES: usize = 16;
/// Bytes of buffer that an idle connection may keep.
const KEEP: usize = 0;
/// Bytes of an acknowledgement without properties, the usual one.
const ACK_BYTES: usize = 4;
/// Retained messages above QoS 0 that wait in the session's queue at a time.
const RETAINED_WINDOW: usize = 64;
/// Retained topics that are looked at before other connections have their turn.
const RETAINED_BUDGET: usize = 2_000;

/// Bytes to write, and whether more are to come.
#[derive(Debug, Default)]
pub(crate) struct Output {
    control: Vec<u8>,
    /// Bytes of `control` that were written already.
    control_written: u32,
    deliveries: Frames,
    /// While `stalled`: since when a write has made no progress.
    stalled_since: Time,
    /// A write has to wait, as of the last look.
    stalled: bool,
    progress: bool,
    /// The session has more to say than fitted.
    more: bool,
}

impl Output {
    /// Lets `write` append an answer.
    pub(crate) fn control_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let written = self.control_written as usize;
        if written > self.control.len() / 2 {
            self.control.drain(..written);
            self.control_written = 0;
        }
        write(&mut self.control)
    }

    fn control_len(&self) -> usize {
        self.control.len() - self.control_written as usize
    }

    /// Takes note whether the socket is full; returns since when nothing could be written.
    pub(crate) fn watch(&mut self, now: Time, write_pending: bool) -> Option<Time> {
        let progress = core::mem::take(&mut self.progress);
        if write_pending && (progress || !self.stalled) {
            self.stalled_since = now;
        }
        self.stalled = write_pending;
        write_pending.then_some(self.stalled_since)
    }

    /// Whether anything is unsent.
    pub(crate) fn has_bytes(&self) -> bool {
        self.control_len() > 0 || !self.deliveries.is_empty()
    }

    /// Whether messages, or answers that stand among them, are unsent.
    pub(crate) fn has_deliveries(&self) -> bool {
        !self.deliveries.is_empty()
    }

    /// Drops the messages of which no byte was written; returns how many of them were of QoS 0. Those above
    /// are with the session.
    pub(crate) fn cut(&mut self) -> u64 {
        self.deliveries.cut()
    }

    fn advance(&mut self, count: usize) {
        self.progress |= count > 0;
        let control = self.deliveries.advance(count, self.control_len());
        // Answers are no more than what was read in between.
        self.control_written += control as u32;
        if self.control_len() == 0 {
            self.control.clear();
            self.control_written = 0;
        }
    }

    fn release(&mut self) {
        if self.control.is_empty() && self.control.capacity() > KEEP {
            self.control = Vec::new();
        }
        self.deliveries.release(KEEP);
    }
}

impl Driver {
    /// Whether another round of writing would find something now.
    pub(crate) fn has_more_to_write(&self) -> bool {
        self.output.more
    }

    /// Whether the answers that wait are few enough to provoke more.
    pub(crate) fn may_read(&mut self, cx: &Context<'_>, now: Time) -> bool {
        let acks = ACK_BYTES * self.connection.unsent_acks();
        let unsent = self.output.control_len() + self.waits.len() + acks;
        let is_due = unsent <= self.control_bytes as usize && !self.is_throttled(now);
        let may = is_due && !self.holds_publish(now) && !self.is_congested(cx);
        if may {
            self.connection.resume_reading(now);
        } else {
            self.connection.pause_reading(now);
        }
        if is_due && !may {
            self.lets_wait(now);
        } else {
            self.goes_on(now);
        }
        may
    }

    /// Whether the store is so far behind that nothing more should be asked of it; the task is woken when it
    /// has caught up.
    fn is_congested(&self, cx: &Context<'_>) -> bool {
        self.hub.store.as_ref().is_some_and(|store| {
            store
                .congestion()
                .is_some_and(|ticket| store.wake_when_durable(ticket, cx.waker()))
        })
    }

    /// Takes what others left in the outbox and turns what the session has into bytes.
    pub(crate) fn collect(&mut self, cx: &Context<'_>, now: Time) -> Option<Kick> {
        let roomy = self.output.deliveries.len() < DELIVERY_BYTES;
        let mut taken = Vec::new();
        let mut from_disk = Taken::default();
        let mut outbox_left = false;
        {
            let mut outbox = self.client.outbox();
            outbox.doorbell.answer(cx.waker());
            if outbox.kick.is_some() {
                return outbox.kick;
            }
            if roomy && !outbox.frames.is_empty() {
                let mut frames = outbox.frames.take_front(DELIVERY_BYTES);
                let expired = outbox.expiring.take(&mut frames, now);
                self.hub
                    .count_drop(Some(&self.client), DropReason::Expired, expired);
                outbox_left = !outbox.frames.is_empty();
                self.client.set_backlog(&outbox);
                self.output.deliveries.append(&mut frames);
            }
            if !outbox.deliveries.is_empty() {
                taken = core::mem::take(&mut outbox.deliveries);
            }
            if let Some(window) = &mut outbox.window {
                from_disk = window.take(cost);
            }
        }
        self.output.more = !roomy || outbox_left;
        if !taken.is_empty() || !from_disk.is_nothing() || !self.is_settled() {
            self.collect_from_session(cx, now, taken, from_disk, roomy);
        }
        None
    }

    /// Whether the session has nothing to send, to store or to count, and nothing waits for the store or for messages.
    fn is_settled(&self) -> bool {
        let owes_nothing = self
            .state
            .as_ref()
            .is_none_or(|state| state.pulls.is_empty() && state.withdrawn.is_empty());
        owes_nothing
            && self.waits.is_idle()
            && !self.connection.has_output()
            && self.held == Amount::held(self.connection.session())
    }

    /// Gives the session what was taken from the outbox and from the disk, and turns what may leave into bytes, where
    /// these are not too many already.
    fn collect_from_session(
        &mut self,
        cx: &Context<'_>,
        now: Time,
        taken: Vec<Delivery>,
        from_disk: Taken,
        roomy: bool,
    ) {
        self.release_durable();
        let mut waiting = self.held;
        let mut ops = Vec::new();
        for delivery in taken {
            self.push(delivery, &mut waiting);
        }
        let is_on_disk = from_disk.is_on_disk;
        self.push_from_disk(from_disk, &mut waiting, &mut ops);
        if !is_on_disk
            && let Some(state) = &mut self.state
            && !state.withdrawn.is_empty()
        {
            self.hub.forget_withdrawn(state, &mut ops);
        }
        self.drop_denied(&mut ops);
        // In the order in which they came, a portion of each kind: no kind waits for all of another.
        if roomy {
            let answers_left = self.collect_answers(now);
            let messages_left = self.collect_messages(now, is_on_disk, &mut ops);
            self.output.more |= answers_left || messages_left;
        }
        self.store_changes(ops);
        self.output.more |= !self.await_durable(cx);
        self.count_drops();
        let session = self.connection.session();
        self.held = Amount::held(session);
        self.client.queue_changes(waiting, self.held);
        self.client.set_waiting(session.queue_size());
        self.client.set_busy(is_on_disk || session.queue_len() > 0);
        if is_on_disk {
            self.read_on();
        }
    }

    /// Gives a message to the session; `waiting` is what was counted until now.
    fn push(&mut self, delivery: Delivery, waiting: &mut Amount) {
        *waiting += Amount::of(&delivery);
        if let Some(stored) = self.state.as_mut().and_then(|state| state.stored.as_mut()) {
            stored.note(&delivery);
        }
        self.connection.push(delivery);
    }

    /// Gives the session what was read of its queue, but for what its owner may not receive any more.
    fn push_from_disk(&mut self, taken: Taken, waiting: &mut Amount, ops: &mut Vec<Op>) {
        let Taken {
            portion, missing, ..
        } = taken;
        if missing.messages > 0 {
            *waiting += missing;
            let messages = missing.messages as u64;
            self.hub
                .count_drop(Some(&self.client), DropReason::Unsendable, messages);
        }
        let restricted = self.hub.permissions() != 0;
        // What was taken away before this connection came.
        let withdrawn = self
            .state
            .as_mut()
            .map(|state| core::mem::take(&mut state.withdrawn));
        let withdrawn = withdrawn.unwrap_or_default();
        for (key, entry) in portion.into_iter().flat_map(|portion| portion.entries) {
            let topic = entry.message.topic();
            let group = entry.group.as_deref();
            let is_denied = (restricted && self.client.is_denied(topic))
                || withdrawn
                    .iter()
                    .any(|it| it.covers_stored(key, topic, group));
            let delivery = self.hub.delivery(&self.client, key, entry);
            if is_denied {
                *waiting += Amount::of_one(delivery.size());
                self.hub
                    .discard_denied(&self.client, vec![delivery], None, ops);
                continue;
            }
            self.push(delivery, waiting);
        }
        if let Some(state) = &mut self.state {
            state.withdrawn = withdrawn;
        }
    }

    /// Takes out of the queue what the client may not receive any more since the permissions changed.
    fn drop_denied(&mut self, ops: &mut Vec<Op>) {
        let permissions = self.hub.permissions();
        if self.permissions == permissions {
            return;
        }
        self.permissions = permissions;
        let client = &self.client;
        let session = self.connection.session_mut();
        let denied = session.take_queued(|delivery| client.is_denied(delivery.whole_topic()));
        let state = self.state.as_mut();
        let stored = state.and_then(|state| state.stored.as_deref_mut());
        self.hub.discard_denied(client, denied, stored, ops);
    }

    /// Has more of the queue read when half of what may wait in memory has left.
    fn read_on(&self) {
        let window = self.hub.config.stored_window_bytes;
        let waiting = self.connection.session().queue_size();
        let (Some(store), Some(session)) = (&self.hub.store, self.client.stored()) else {
            return;
        };
        if waiting > window / 2 {
            return;
        }
        let keys = {
            let mut outbox = self.client.outbox();
            outbox.window.as_mut().and_then(|window| window.read_on())
        };
        if let Some((from, until)) = keys {
            let client = Arc::clone(&self.client);
            let span = Span {
                session,
                from,
                until,
                bytes: window - waiting,
            };
            store.read(span, Box::new(move |portion| client.arrive(portion)));
        }
    }

    /// Submits what sending has changed.
    fn store_changes(&mut self, mut ops: Vec<Op>) {
        self.drain_changes(&mut ops);
        if let Some(store) = &self.hub.store
            && !ops.is_empty()
        {
            let ticket = store.submit(&mut ops);
            self.submitted(Some(ticket));
        }
    }

    /// Writes acknowledgements and the like behind what waits to be sent: their order holds. Returns whether
    /// some are left.
    fn collect_answers(&mut self, now: Time) -> bool {
        let connection = &mut self.connection;
        self.output.deliveries.extend_with(|out| {
            let limit = out.len() + DELIVERY_BYTES;
            connection.poll_answers(now, out, limit)
        })
    }

    /// Writes acknowledgements and the like where no message is in their way.
    pub(crate) fn collect_last_answers(&mut self) {
        let now = self.hub.now();
        let connection = &mut self.connection;
        self.output.control_with(|out| {
            // As many as there are: reading has paused before they became many.
            let _ = connection.poll_answers(now, out, usize::MAX);
        });
    }

    /// Turns messages of the session and retained ones into bytes; returns whether some are left that
    /// could leave.
    fn collect_messages(&mut self, now: Time, is_on_disk: bool, ops: &mut Vec<Op>) -> bool {
        // While messages wait on the disk, more retained ones would only wait as well.
        if !is_on_disk {
            self.pull_retained(now, ops);
        }
        let connection = &mut self.connection;
        let full = self.output.deliveries.extend_with(|out| {
            // What messages cost while they wait is more than what their packets take.
            out.reserve(connection.session().queue_size().min(FIRST_BUFFER));
            let limit = out.len() + DELIVERY_BYTES;
            connection.poll_transmit(now, out, limit)
        });
        let pulls = self
            .state
            .as_ref()
            .is_some_and(|state| !state.pulls.is_empty());
        // The same while they wait for acknowledgements, or for the store, which wakes the task: without a pause this
        // would be asked again and again as long as its disk fails.
        let waits = is_on_disk || self.waits.len() > 0 || self.connection.session().queue_len() > 0;
        full || (pulls && !waits)
    }

    /// Counts the messages that the session dropped.
    fn count_drops(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            if let Event::Dropped(delivery, why) = event {
                let reason = match why {
                    SessionDrop::Expired => DropReason::Expired,
                    SessionDrop::TooLarge => DropReason::TooLarge,
                    _ => DropReason::Unsendable,
                };
                let messages = delivery.count() as u64;
                self.hub.count_drop(Some(&self.client), reason, messages);
            }
        }
    }

    /// Reads on in the retained messages of new subscriptions, as far as there is room.
    fn pull_retained(&mut self, now: Time, ops: &mut Vec<Op>) {
        // Not before the SUBACK that waits for the store.
        if self.waits.len() > 0 {
            return;
        }
        let Some(state) = &mut self.state else { return };
        let layout = Layout::of(self.version);
        let (hub, client) = (&self.hub, &self.client);
        let connection = &mut self.connection;
        let deliveries = &mut self.output.deliveries;
        let max_packet_size = packet_limit(connection.negotiated().outbound.maximum_packet_size);
        let has_room = |connection: &Connection<Delivery>, deliveries: &Frames| {
            deliveries.len() < DELIVERY_BYTES && connection.session().queue_len() < RETAINED_WINDOW
        };
        let restricted = hub.permissions() != 0;
        let mut budget = RETAINED_BUDGET;
        while budget > 0
            && has_room(connection, deliveries)
            && let Some(pull) = state.pulls.first()
        {
            let identifiers = pull.identifier.as_slice();
            let (granted, no_local) = (pull.qos, pull.no_local);
            let more = hub
                .retained
                .read(&mut pull.cursor, &mut budget, |retained| {
                    let message = &retained.message;
                    if no_local && retained.publisher.as_ref() == Some(&client.id) {
                        hub.count_drop(Some(client), DropReason::NoLocal, 1);
                        return true;
                    }
                    if message.is_expired(now) {
                        hub.count_drop(Some(client), DropReason::Expired, 1);
                        return true;
                    }
                    let mut qos = message.qos.min(granted);
                    if restricted {
                        let topic = TopicName::assume_valid(message.topic());
                        let Some(highest) = client.may_receive(topic) else {
                            hub.count_drop(Some(client), DropReason::NotAuthorized, 1);
                            return true;
                        };
                        qos = qos.min(highest);
                    }
                    if qos == QoS::AtMostOnce {
                        let expiry = message.remaining(now);
                        let envelope = Envelope::at_most_once(layout, true, expiry)
                            .with_identifiers(identifiers)
                            .behind(client.mount_len());
                        let parts = message.parts();
                        if parts.encoded_len(&envelope) > max_packet_size as usize {
                            hub.count_drop(Some(client), DropReason::TooLarge, 1);
                        } else {
                            deliveries.extend_with(|out| parts.encode(&envelope, out));
                        }
                    } else {
                        let mut delivery = Delivery {
                            content: Content::One(Arc::clone(message)),
                            qos,
                            retain: true,
                            mount: client.mount_len(),
                            identifiers: (!identifiers.is_empty()).then(|| identifiers.into()),
                            group: None,
                            key: 0,
                            body: None,
                        };
                        if let (Some(store), Some(number)) = (&hub.store, client.stored()) {
                            delivery.key = client.new_key();
                            ops.push(queued(store, number, message, &delivery));
                            if !client.holds(&delivery) {
                                // Others came first, and some of them are on the disk alone.
                                return false;
                            }
                        }
                        connection.push(delivery);
                    }
                    has_room(connection, deliveries)
                });
            // In one unit with the last of them.
            if !more
                && let Some(filter) = state.pulls.finish_first()
                && let Some(number) = client.stored()
            {
                ops.push(Op::Owes(number, (&*filter).into(), false));
            }
        }
    }

    /// Writes until everything is written or the socket is full.
    pub(crate) fn poll_write<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let output = &mut self.output;
        while output.has_bytes() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let control = output
                .control
                .get(output.control_written as usize..)
                .unwrap_or_default();
            let filled = output.deliveries.gather(control, &mut slices);
            let count = match slices.get(..filled).unwrap_or_default() {
                [one] => ready!(Pin::new(&mut *stream).poll_write(cx, one))?,
                several => ready!(Pin::new(&mut *stream).poll_write_vectored(cx, several))?,
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            output.advance(count);
        }
        output.release();
        // Records of TLS and answers to PINGs of WebSocket wait in the stream; a socket has nothing.
        Pin::new(stream).poll_flush(cx)
    }

    /// Drops the messages of which no byte was written.
    pub(crate) fn drop_unsent(&mut self) {
        let lost = self.output.cut();
        self.hub
            .count_drop(Some(&self.client), DropReason::Offline, lost);
    }

    /// Queues the last packet, where the version has one for servers.
    pub(crate) fn say_disconnect(&mut self, reason: ReasonCode, detail: Option<&str>) {
        if !self.version.has_server_disconnect() {
            return;
        }
        let mut disconnect = Disconnect::new(reason);
        disconnect.properties.reason_string =
            detail.filter(|_| self.hub.limits.load().reason_strings);
        let limit = packet_limit(self.connection.negotiated().outbound.maximum_packet_size);
        // [MQTT-3.14.2-3]: not beyond what the client reads.
        if disconnect
            .encoded_len(self.version)
            .is_ok_and(|len| len > limit as usize)
        {
            disconnect.properties.reason_string = None;
        }
        // A DISCONNECT without properties always fits.
        let _ = disconnect.encode(self.version, &mut self.output.control);
    }
}
