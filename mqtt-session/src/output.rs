//! The polls of a connection: bytes, changes, events and the next deadline.

use crate::{
    Buffer, Change, ChangeNumber, Connection, Event, Outgoing, Session, Time, acks::AckWriter,
    transmit::Fill,
};

impl<H: Outgoing> Connection<H> {
    /// Appends packets to the buffer until it holds at least `limit` bytes; the last one may reach
    /// beyond. True: more may leave, once this is written.
    ///
    /// Acknowledgements go first, then PINGREQ and PINGRESP, PUBRELs, messages that are sent again, new ones.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Time, out: &mut H::Buffer, limit: usize) -> bool {
        self.poll(now, out, limit, Self::transmit)
    }

    /// The same without the messages: for a caller that keeps a buffer for short packets, which go past
    /// messages that wait to be written. What is left comes with the next [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn poll_answers(&mut self, now: Time, out: &mut H::Buffer, limit: usize) -> bool {
        self.poll(now, out, limit, Self::transmit_answers)
    }

    fn poll(
        &mut self,
        now: Time,
        out: &mut H::Buffer,
        limit: usize,
        transmit: impl FnOnce(&mut Self, Fill, &mut H::Buffer) -> bool,
    ) -> bool {
        if self.connecting.is_some() {
            return false;
        }
        let before = out.size();
        let more = transmit(self, Fill { now, limit }, out);
        if out.size() > before {
            self.keep_alive.sent(now);
        }
        more
    }

    fn transmit_answers(&mut self, fill: Fill, out: &mut H::Buffer) -> bool {
        let version = self.negotiated.version;
        let Session {
            inbound,
            outbound,
            journal,
            ..
        } = &mut self.session;
        let maximum = i32::from(self.negotiated.inbound.receive_maximum.get());
        let writer = AckWriter {
            version,
            journal,
            limit: fill.limit,
            maximum,
        };
        if self.acks.transmit(inbound, writer, out) {
            return true;
        }
        while self.pings > 0 {
            if fill.is_full(out) {
                return true;
            }
            // The packet has no fields: nothing can fail.
            let _ = mqtt_codec::Packet::PingResp.encode(version, out.bytes());
            self.pings -= 1;
        }
        if self.keep_alive.is_ping_due() {
            if fill.is_full(out) {
                return true;
            }
            let _ = mqtt_codec::Packet::PingReq.encode(version, out.bytes());
            self.keep_alive.pinged(fill.now);
        }
        self.link.transmit_releases(outbound, journal, fill, out)
    }

    fn transmit(&mut self, fill: Fill, out: &mut H::Buffer) -> bool {
        if self.transmit_answers(fill, out) {
            return true;
        }
        let Session {
            outbound, journal, ..
        } = &mut self.session;
        self.link.transmit(outbound, journal, fill, out)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit), [`poll_change`](Self::poll_change) or
    /// [`poll_event`](Self::poll_event) may have something. If not, there is no need to ask them before something
    /// is pushed, received or due.
    #[must_use]
    pub fn has_output(&self) -> bool {
        let session = &self.session;
        self.unsent_acks() > 0
            || self.keep_alive.is_ping_due()
            || session.outbound.has_output()
            || session.journal.has_changes()
            || self.link.has_events()
    }

    /// How many acknowledgements and PINGRESPs are not written yet, be it that the buffer was full, that
    /// they wait for the store, or that the caller has not accepted: where to stop reading.
    #[must_use]
    pub fn unsent_acks(&self) -> usize {
        self.acks.len() + self.pings as usize
    }

    /// The next change for the store, in order.
    #[must_use]
    pub fn poll_change(&mut self) -> Option<(ChangeNumber, Change)> {
        self.session.poll_change()
    }

    /// What happened to messages without a packet of the peer.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event<H>> {
        self.link.poll_event()
    }

    /// When to call `handle_timeout`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.connecting {
            Some(_) => None,
            None => self.keep_alive.next(),
        }
    }
}
