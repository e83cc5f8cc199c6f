//! What waits to be written to the server.

use std::collections::VecDeque;

use mqtt_codec::ReasonCode;

use crate::outbound::Outbound;

/// Bytes handed to the stream at once, a packet more at most.
pub(crate) const WRITE_SIZE: usize = 64 * 1024;

/// What waits to be written, and the messages of QoS 0 in it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// How many bytes were written before `bytes`.
    before: u64,
    unflushed: bool,
    /// Messages of QoS 0 with the place in the stream where they end.
    sent: VecDeque<(u64, Outbound)>,
}

impl Output {
    /// What is to be written.
    pub(crate) fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Appends to what is to be written.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// A message of QoS 0 is in the buffer.
    pub(crate) fn sent(&mut self, message: Outbound) {
        self.sent
            .push_back((self.before + self.bytes.len() as u64, message));
    }

    /// So many bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        self.unflushed = true;
        let place = self.before + self.written as u64;
        while self.sent.front().is_some_and(|(end, _)| *end <= place) {
            if let Some((_, message)) = self.sent.pop_front() {
                message.resolve(Ok(ReasonCode::SUCCESS));
            }
        }
        if self.pending().is_empty() {
            self.before = place;
            self.written = 0;
            self.bytes.clear();
            // A large message does not keep its memory.
            self.bytes.shrink_to(2 * WRITE_SIZE);
        }
    }

    /// The stream has passed on what it was given.
    pub(crate) fn flushed(&mut self) {
        self.unflushed = false;
    }

    /// Whether the stream may hold back what it was given.
    pub(crate) fn is_unflushed(&self) -> bool {
        self.unflushed
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    /// Messages of QoS 0 that were not written whole, so that the server cannot have them.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Outbound> {
        self.sent.drain(..).map(|(_, message)| message).collect()
    }
}
