//! The polls of a connection: bytes, changes, events and the next deadline.

use alloc::vec::Vec;

use crate::{
    Change, ChangeNumber, Connection, Event, Outgoing, Session, Time, acks::AckWriter,
    transmit::Fill,
};

impl<H: Outgoing> Connection<H> {
    /// Appends packets to the buffer until it holds at least `limit` bytes; the last one may reach
    /// beyond. True: more may leave, once this is written.
    ///
    /// Acknowledgements go first, then PINGREQ and PINGRESP, PUBRELs, messages that are sent again, new ones.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>, limit: usize) -> bool {
        if self.connecting.is_some() {
            return false;
        }
        let before = out.len();
        let more = self.transmit(Fill { now, limit }, out);
        if out.len() > before {
            self.keep_alive.sent(now);
        }
        more
    }

    fn transmit(&mut self, fill: Fill, out: &mut Vec<u8>) -> bool {
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
            if out.len() >= fill.limit {
                return true;
            }
            // The packet has no fields: nothing can fail.
            let _ = mqtt_codec::Packet::PingResp.encode(version, out);
            self.pings -= 1;
        }
        if self.keep_alive.is_ping_due() {
            if out.len() >= fill.limit {
                return true;
            }
            let _ = mqtt_codec::Packet::PingReq.encode(version, out);
            self.keep_alive.pinged(fill.now);
        }
        self.link.transmit(outbound, journal, fill, out)
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
