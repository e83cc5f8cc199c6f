//! What is on its way to the client: answers first, deliveries as fast as it reads them.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

use mqtt_codec::{Disconnect, QoS, SubscriptionIdentifier};
use mqtt_session::{Connection, DropReason as SessionDrop, Event, Outgoing, Time};

use crate::client::Kick;
use crate::connection::Stream;
use crate::connection::driver::Driver;
use crate::counters::DropReason;
use crate::delivery::Delivery;
use crate::frames::Frames;
use crate::hub::RetainedCursor;
use crate::message::{Envelope, Layout};

/// Unsent bytes of deliveries beyond which no more are taken from the session and the outbox.
const DELIVERY_BYTES: usize = 64 * 1024;
/// Buffers handed to the system in one write.
const SLICES: usize = 16;
/// Bytes of buffer that an idle connection may keep.
const KEEP: usize = 0;
/// Bytes of an acknowledgement without properties, the usual one.
const ACK_BYTES: usize = 4;
/// Retained messages above QoS 0 that wait in the session's queue at a time.
const RETAINED_WINDOW: usize = 64;

/// Retained messages still to be sent for one subscription.
#[derive(Debug)]
pub(crate) struct RetainedPull {
    pub(crate) cursor: RetainedCursor,
    /// The granted QoS.
    pub(crate) qos: QoS,
    pub(crate) identifier: Option<SubscriptionIdentifier>,
}

/// Bytes to write, and where more of them come from.
#[derive(Debug, Default)]
pub(crate) struct Output {
    control: Vec<u8>,
    /// Bytes of `control` that were written already.
    control_written: usize,
    deliveries: Frames,
    pub(crate) retained: VecDeque<RetainedPull>,
    /// Since when a write has made no progress.
    stalled_since: Option<Time>,
    progress: bool,
    /// The session has more to say than fitted.
    more: bool,
}

impl Output {
    /// Lets `write` append an answer.
    pub(crate) fn control_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        write(&mut self.control)
    }

    fn control_len(&self) -> usize {
        self.control.len() - self.control_written
    }

    /// Takes note whether the socket is full; returns since when nothing could be written.
    pub(crate) fn watch(&mut self, now: Time, write_pending: bool) -> Option<Time> {
        let progress = core::mem::take(&mut self.progress);
        if !write_pending {
            self.stalled_since = None;
        } else if progress || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.stalled_since
    }

    fn advance(&mut self, count: usize) {
        self.progress |= count > 0;
        self.control_written += self.deliveries.advance(count, self.control_len());
        if self.control_written == self.control.len() {
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
    pub(crate) fn may_read(&mut self, now: Time) -> bool {
        let unsent = self.output.control_len() + ACK_BYTES * self.connection.unsent_acks();
        let may = unsent <= self.hub.config.control_bytes;
        if may {
            self.connection.resume_reading(now);
        } else {
            self.connection.pause_reading(now);
        }
        may
    }

    /// Takes what others left in the outbox and turns what the session has into bytes.
    pub(crate) fn collect(&mut self, cx: &mut Context<'_>, now: Time) -> Option<Kick> {
        let roomy = self.output.deliveries.len() < DELIVERY_BYTES;
        let mut taken = Vec::new();
        {
            let mut outbox = self.client.outbox();
            outbox.register(cx.waker());
            outbox.dirty = false;
            if outbox.kick.is_some() {
                return outbox.kick;
            }
            if roomy && !outbox.frames.is_empty() {
                self.output.deliveries.append(&mut outbox.frames);
                outbox.frames.release(KEEP);
            }
            if !outbox.deliveries.is_empty() {
                taken = core::mem::take(&mut outbox.deliveries);
            }
        }
        let mut waiting = self.held;
        for delivery in taken {
            waiting += delivery.size();
            self.connection.push(delivery);
        }
        // Without room nothing was taken: there may be more once what is here is written.
        self.output.more = !roomy || {
            self.pull_retained(now);
            let transmit =
                |out: &mut Vec<u8>| self.connection.poll_transmit(now, out, DELIVERY_BYTES);
            let full = self.output.deliveries.extend_with(transmit);
            // While messages wait for acknowledgements, more retained ones would only wait as well.
            let retained =
                !self.output.retained.is_empty() && self.connection.session().queue_len() == 0;
            full || retained
        };
        self.count_drops();
        self.held = self.connection.session().held_size();
        self.client.queue_changes(waiting, self.held);
        self.client
            .set_busy(self.connection.session().queue_len() > 0);
        None
    }

    /// Counts the messages that the session dropped.
    fn count_drops(&mut self) {
        while let Some(event) = self.connection.poll_event() {
            if let Event::Dropped(_, why) = event {
                let reason = match why {
                    SessionDrop::Expired => DropReason::Expired,
                    SessionDrop::TooLarge => DropReason::TooLarge,
                    _ => DropReason::Unsendable,
                };
                self.hub.count_drop(Some(&self.client), reason, 1);
            }
        }
    }

    /// Reads on in the retained messages of new subscriptions, as far as there is room.
    fn pull_retained(&mut self, now: Time) {
        let layout = Layout::of(self.version);
        while let Some(pull) = self.output.retained.front_mut() {
            let identifiers = pull.identifier.as_slice();
            let connection = &mut self.connection;
            let deliveries = &mut self.output.deliveries;
            let (hub, client) = (&self.hub, &self.client);
            let max_packet_size = connection.negotiated().outbound.maximum_packet_size;
            let room = |connection: &Connection<Delivery>, deliveries: &Frames| {
                deliveries.len() < DELIVERY_BYTES
                    && connection.session().queue_len() < RETAINED_WINDOW
            };
            let more = self.hub.retained.read(&mut pull.cursor, |message| {
                let expiry = match message.expires_at {
                    Some(end) if end <= now => {
                        hub.count_drop(Some(client), DropReason::Expired, 1);
                        return true;
                    }
                    Some(end) => Some(seconds_until(end, now)),
                    None => None,
                };
                let qos = message.qos.min(pull.qos);
                if qos == QoS::AtMostOnce {
                    let envelope =
                        Envelope::at_most_once(layout, true, expiry).with_identifiers(identifiers);
                    let parts = message.parts();
                    let limit = max_packet_size.map_or(u32::MAX, core::num::NonZeroU32::get);
                    if parts.encoded_len(&envelope) > limit as usize {
                        hub.count_drop(Some(client), DropReason::TooLarge, 1);
                    } else {
                        deliveries.extend_with(|out| parts.encode(&envelope, out));
                    }
                } else {
                    connection.push(Delivery {
                        message: message.clone(),
                        qos,
                        retain: true,
                        identifiers: pull
                            .identifier
                            .map(|identifier| [identifier].as_slice().into()),
                        group: None,
                    });
                }
                room(connection, deliveries)
            });
            if more {
                return;
            }
            self.output.retained.pop_front();
        }
    }

    /// Writes until everything is written or the socket is full.
    pub(crate) fn poll_write<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        let output = &mut self.output;
        while output.control_len() > 0 || !output.deliveries.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let control = output
                .control
                .get(output.control_written..)
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
        Poll::Ready(Ok(()))
    }

    /// Queues a farewell; whatever was not begun is not sent any more.
    pub(crate) fn say_disconnect(&mut self, disconnect: &Disconnect<'_>) {
        if self.version.has_server_disconnect() {
            // A DISCONNECT without properties always fits.
            let _ = disconnect.encode(self.version, &mut self.output.control);
        }
    }
}

/// Whole seconds until `end`, rounded up, so that a message does not expire early by rounding.
fn seconds_until(end: Time, now: Time) -> u32 {
    let left = end.saturating_since(now);
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
