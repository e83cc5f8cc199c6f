//! Writing of messages: which may leave, in which order, and how.

use alloc::{boxed::Box, collections::VecDeque};
use core::num::NonZeroU32;

use mqtt_codec::{PacketId, PacketType, ProtocolVersion, QoS, ReasonCode};

use crate::{
    Alias, Buffer, DropReason, Event, Negotiated, Outgoing, Persistence, Role, Time, Transmission,
    acks::write_ack, alias::OutboundAliases, change::Journal, outbound::Outbound, queue::Queue,
};

/// What sending needs of a connection.
#[derive(Debug)]
pub(crate) struct Link<H> {
    pub(crate) version: ProtocolVersion,
    /// The send quota (section 4.9).
    pub(crate) send_maximum: u32,
    maximum_packet_size: Option<NonZeroU32>,
    alias_maximum: u16,
    /// The highest quality of service that the peer takes.
    maximum_qos: QoS,
    /// Whether messages are kept until their acknowledgement.
    keep_sent: bool,
    report_sent: bool,
    aliases: Option<Box<OutboundAliases>>,
    #[allow(
        clippy::box_collection,
        reason = "most connections have none: a pointer is smaller"
    )]
    events: Option<Box<VecDeque<Event<H>>>>,
}

/// What holds while one buffer is filled.
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    pub(crate) now: Time,
    /// No packet is begun at or beyond this length.
    pub(crate) limit: usize,
}

impl Fill {
    pub(crate) fn is_full(self, out: &impl Buffer) -> bool {
        out.size() >= self.limit
    }
}

/// Why writing stops.
#[derive(PartialEq, Eq)]
enum Stop {
    /// The limit is reached.
    Full,
    /// What comes next has to wait for an acknowledgement or for the store, or there is nothing.
    Waiting,
}

impl<H> Link<H> {
    pub(crate) fn new(negotiated: &Negotiated, report_sent: bool) -> Self {
        let outbound = &negotiated.outbound;
        let is_client = negotiated.role == Role::Client;
        Self {
            version: negotiated.version,
            send_maximum: u32::from(outbound.receive_maximum.get()),
            maximum_packet_size: outbound.maximum_packet_size,
            alias_maximum: outbound.topic_alias_maximum,
            maximum_qos: if is_client {
                negotiated.maximum_qos
            } else {
                QoS::ExactlyOnce
            },
            keep_sent: is_client || negotiated.session_expiry_interval > 0,
            report_sent,
            aliases: None,
            events: None,
        }
    }

    pub(crate) fn report(&mut self, event: Event<H>) {
        self.events.get_or_insert_default().push_back(event);
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event<H>> {
        self.events.as_mut()?.pop_front()
    }

    pub(crate) fn has_events(&self) -> bool {
        self.events.as_ref().is_some_and(|it| !it.is_empty())
    }

    /// Gives spare memory back.
    pub(crate) fn shrink(&mut self) {
        if let Some(events) = &mut self.events {
            events.shrink_to_fit();
        }
    }
}

fn is_expired(handle: &impl Outgoing, now: Time) -> bool {
    handle.expires_at().is_some_and(|at| at <= now)
}

impl<H: Outgoing> Link<H> {
    /// How to send a message, or why not.
    fn prepare(
        &self,
        handle: &H,
        packet_id: Option<PacketId>,
        dup: bool,
        now: Time,
    ) -> Result<Transmission, DropReason> {
        let mut how = Transmission {
            packet_id,
            dup,
            ..Transmission::new(self.version)
        };
        if handle.qos() > self.maximum_qos {
            return Err(DropReason::QosNotSupported);
        }
        if self.version.has_properties()
            && let Some(at) = handle.expires_at()
        {
            let micros = u64::try_from(at.saturating_since(now).as_micros()).unwrap_or(u64::MAX);
            how.expiry = Some(u32::try_from(micros.div_ceil(1_000_000)).unwrap_or(u32::MAX));
        }
        let fits = |how: &Transmission| {
            self.maximum_packet_size
                .is_none_or(|maximum| handle.encoded_len(how) <= maximum.get() as usize)
        };
        if !fits(&how) {
            return Err(DropReason::TooLarge);
        }
        if self.alias_maximum > 0 {
            how.alias = self.choose_alias(handle.topic());
            if matches!(how.alias, Alias::Set(_)) && !fits(&how) {
                how.alias = Alias::None;
            }
        }
        Ok(how)
    }

    fn choose_alias(&self, topic: &str) -> Alias {
        match &self.aliases {
            Some(aliases) => aliases.choose(topic, self.alias_maximum),
            None => OutboundAliases::default().choose(topic, self.alias_maximum),
        }
    }

    /// Writes a message, or says why it cannot be.
    fn write(
        &mut self,
        handle: &H,
        packet_id: Option<PacketId>,
        dup: bool,
        now: Time,
        out: &mut H::Buffer,
    ) -> Result<(), DropReason> {
        let how = self.prepare(handle, packet_id, dup, now)?;
        let before = out.size();
        handle.encode(&how, out);
        if out.size() == before {
            return Err(DropReason::NotEncoded);
        }
        if matches!(how.alias, Alias::Set(_)) {
            self.aliases.get_or_insert_default().set(handle.topic());
        }
        Ok(())
    }

    fn dropped(&mut self, handle: Option<H>, reason: DropReason) {
        if let Some(handle) = handle {
            self.report(Event::Dropped(handle, reason));
        }
    }

    /// Fills the buffer with PUBRELs, repeated messages and new ones. True: more may leave, but the
    /// limit is reached.
    pub(crate) fn transmit(
        &mut self,
        outbound: &mut Outbound<H>,
        journal: &mut Journal,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> bool {
        loop {
            // Twice: a message that cannot be sent again is released.
            if self.send_releases(outbound, journal, fill, out) == Stop::Full
                || self.send_published(outbound, journal, fill, out) == Stop::Full
                || self.send_releases(outbound, journal, fill, out) == Stop::Full
            {
                return true;
            }
            match self.take_next(outbound, journal, fill, out) {
                Ok(()) => {}
                Err(Stop::Full) => return true,
                Err(Stop::Waiting) => return false,
            }
        }
    }

    /// The PUBRELs alone. True: more may leave, but the limit is reached.
    pub(crate) fn transmit_releases(
        &self,
        outbound: &mut Outbound<H>,
        journal: &Journal,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> bool {
        self.send_releases(outbound, journal, fill, out) == Stop::Full
    }

    /// PUBRELs, in the order of their PUBRECs ([MQTT-4.6.0-4]). The send quota does not hold them back.
    fn send_releases(
        &self,
        outbound: &mut Outbound<H>,
        journal: &Journal,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> Stop {
        while outbound.next_release != outbound.released.end() {
            if let Some(message) = outbound.released.get(outbound.next_release) {
                if !journal.is_durable(message.after) {
                    return Stop::Waiting;
                }
                if fill.is_full(out) {
                    return Stop::Full;
                }
                write_ack(
                    PacketType::PubRel,
                    message.packet_id,
                    ReasonCode::SUCCESS,
                    self.version,
                    out.bytes(),
                );
            }
            outbound.next_release = outbound.next_release.wrapping_add(1);
        }
        Stop::Waiting
    }

    /// Messages that have an identifier, in the order they got it, as far as the send quota goes.
    fn send_published(
        &mut self,
        outbound: &mut Outbound<H>,
        journal: &mut Journal,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> Stop {
        while outbound.next_publish != outbound.published.end() {
            let number = outbound.next_publish;
            let quota_used = outbound.unacknowledged as usize + outbound.released.len();
            if let Some(message) = outbound.published.get_mut(number) {
                if quota_used >= self.send_maximum as usize || !journal.is_durable(message.after) {
                    return Stop::Waiting;
                }
                if fill.is_full(out) {
                    return Stop::Full;
                }
                let Some(handle) = message.handle.take() else {
                    // Sent and not kept, on a connection that the session was not to outlive.
                    outbound.abandon(number, journal);
                    continue;
                };
                outbound.in_flight_size = outbound.in_flight_size.saturating_sub(handle.size());
                // Once it was sent, its interval plays no part any more ([MQTT-4.3.3-7]).
                let is_expired = !message.sent && is_expired(&handle, fill.now);
                let written = match is_expired {
                    true => Err(DropReason::Expired),
                    false => self.write(
                        &handle,
                        Some(message.packet_id),
                        message.sent,
                        fill.now,
                        out,
                    ),
                };
                if let Err(reason) = written {
                    outbound.abandon(number, journal);
                    self.dropped(Some(handle), reason);
                    continue;
                }
                message.sent = true;
                if self.keep_sent || handle.returns() {
                    outbound.in_flight_size = outbound.in_flight_size.saturating_add(handle.size());
                    message.handle = Some(handle);
                }
                outbound.unacknowledged += 1;
            }
            outbound.next_publish = number.wrapping_add(1);
        }
        Stop::Waiting
    }

    /// Takes one message from the queue: writes it at QoS 0 or where it is not kept, else gives it an identifier.
    fn take_next(
        &mut self,
        outbound: &mut Outbound<H>,
        journal: &mut Journal,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> Result<(), Stop> {
        let handle = outbound.queue.front().ok_or(Stop::Waiting)?;
        let qos = handle.qos();
        let is_kept = self.keep_sent
            || handle.returns()
            || journal.persistence() == Persistence::Durable
            || !outbound.is_caught_up();
        if handle.count() > 1 {
            if !is_kept && self.alias_maximum == 0 && qos <= self.maximum_qos {
                return self.send_run(outbound, qos, fill, out);
            }
            outbound.queue.split_front();
            return Ok(());
        }
        let unsendable = if is_expired(handle, fill.now) {
            Some(DropReason::Expired)
        } else if qos == QoS::AtMostOnce {
            if !outbound.is_caught_up() {
                return Err(Stop::Waiting);
            }
            None
        } else {
            if outbound.in_flight_len() >= self.send_maximum as usize || !outbound.has_identifier()
            {
                return Err(Stop::Waiting);
            }
            // The size does not depend on which identifier it gets.
            self.maximum_packet_size.filter(|_| is_kept).and_then(|_| {
                self.prepare(handle, PacketId::new(1), false, fill.now)
                    .err()
            })
        };
        if outbound.is_caught_up() && fill.is_full(out) {
            return Err(Stop::Full);
        }
        let handle = outbound.queue.pop().ok_or(Stop::Waiting)?;
        if let Some(reason) = unsendable {
            if qos > QoS::AtMostOnce {
                journal.record(crate::Change::Dropped { key: handle.key() });
            }
            self.dropped(Some(handle), reason);
        } else if qos == QoS::AtMostOnce {
            match self.write(&handle, None, false, fill.now, out) {
                Ok(()) if self.report_sent => self.report(Event::Sent(handle)),
                Ok(()) => {}
                Err(reason) => self.dropped(Some(handle), reason),
            }
        } else if is_kept {
            outbound.assign(handle, journal);
        } else {
            self.send_unkept(outbound, handle, fill, out);
        }
        Ok(())
    }

    /// Writes a message that the session does not keep. The caller has seen that an identifier is free.
    fn send_unkept(
        &mut self,
        outbound: &mut Outbound<H>,
        handle: H,
        fill: Fill,
        out: &mut H::Buffer,
    ) {
        let id = outbound.next_id(self.send_maximum);
        match self.write(&handle, id, false, fill.now, out) {
            Ok(()) => {
                if let Some(id) = id {
                    outbound.sent(id, handle.qos());
                }
            }
            Err(reason) => self.dropped(Some(handle), reason),
        }
    }

    /// Writes messages of the first handle, which stands for several that the session does not keep.
    fn send_run(
        &self,
        outbound: &mut Outbound<H>,
        qos: QoS,
        fill: Fill,
        out: &mut H::Buffer,
    ) -> Result<(), Stop> {
        let mut how = Transmission::new(self.version);
        let mut end = Ok(());
        let mut is_odd = false;
        // Out of its place while messages are taken from it and take their places in flight.
        let mut queue = core::mem::replace(&mut outbound.queue, Queue::new());
        queue.take_from_front(|handle| {
            while handle.count() > 0 {
                how.packet_id = outbound.next_id(self.send_maximum);
                let Some(id) = how.packet_id else {
                    end = Err(Stop::Waiting);
                    return;
                };
                if fill.is_full(out) {
                    end = Err(Stop::Full);
                    return;
                }
                let fits = self
                    .maximum_packet_size
                    .is_none_or(|maximum| handle.encoded_len(&how) <= maximum.get() as usize);
                if !fits || !handle.encode_first(&how, out) {
                    is_odd = true;
                    return;
                }
                outbound.sent(id, qos);
            }
        });
        if is_odd {
            // It goes the way of those that come alone, which says what is wrong with it.
            queue.split_front();
        }
        outbound.queue = queue;
        end
    }
}
