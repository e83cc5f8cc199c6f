//! What waits to be written to the server.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use mqtt_codec::{QoS, ReasonCode};
use mqtt_session::Buffer;
use tokio::io::AsyncWrite;

use crate::outbound::Outbound;

/// Bytes handed to the stream at once, a packet more at most.
pub(crate) const WRITE_SIZE: usize = 64 * 1024;
/// Bytes of a payload that is written from where it lies, if the stream writes from several places at once.
const LARGE_PAYLOAD: usize = 4 * 1024;
/// Places to write from at once.
const PIECES: usize = 64;

/// What waits to be written, and the messages of QoS 0 in it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// All but the payloads that are lent.
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// Payloads that are not copied, each behind so many of `bytes`.
    lent: VecDeque<(usize, Bytes)>,
    /// How many bytes of them are to be written.
    lent_size: usize,
    /// Whether the stream writes from several places at once.
    is_vectored: bool,
    /// How many bytes were written before what waits.
    place: u64,
    /// Whether what was there before the last write was written in part.
    begun: bool,
    unflushed: bool,
    /// Where the messages of QoS 0 end in the stream.
    ends: VecDeque<u64>,
    /// These messages, as far as the session has handed them back.
    sent: VecDeque<Outbound>,
}

impl Output {
    /// For a stream that writes from several places at once, or not.
    pub(crate) fn new(is_vectored: bool) -> Self {
        Self {
            is_vectored,
            ..Self::default()
        }
    }

    /// Whether a payload is not to be copied with its packet.
    pub(crate) fn lends(&self, payload: &Bytes) -> bool {
        self.is_vectored && payload.len() >= LARGE_PAYLOAD
    }

    /// The packet of a message was appended, without its payload if that is [lent](Self::lends).
    pub(crate) fn end_publish(&mut self, qos: QoS, payload: &Bytes) {
        if self.lends(payload) {
            self.lent_size += payload.len();
            self.lent.push_back((self.bytes.len(), payload.clone()));
        }
        if qos == QoS::AtMostOnce {
            self.ends.push_back(self.place + self.size() as u64);
        }
    }

    /// The session hands back a message of QoS 0: the next of those whose packets were appended.
    pub(crate) fn sent(&mut self, message: Outbound) {
        self.sent.push_back(message);
        self.resolve();
    }

    /// Writes what the stream takes at once.
    pub(crate) fn poll_write(
        &mut self,
        stream: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let written = if self.lent.is_empty() {
            stream.poll_write(context, self.bytes.get(self.written..).unwrap_or_default())
        } else {
            let mut slices = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(self.pieces()) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            stream.poll_write_vectored(context, slices.get(..count).unwrap_or_default())
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => {
                self.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }

    /// What is to be written, in order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = self.written;
        let lent = self.lent.iter();
        let lent = lent.map(|(place, payload)| (*place, payload.as_ref()));
        let last = (self.bytes.len(), [].as_slice());
        lent.chain([last])
            .flat_map(move |(place, payload)| {
                let bytes = self.bytes.get(from..place).unwrap_or_default();
                from = place;
                [bytes, payload]
            })
            .filter(|piece| !piece.is_empty())
    }

    /// So many bytes were written.
    fn advance(&mut self, count: usize) {
        let mut left = count;
        while let Some((place, payload)) = self.lent.front_mut() {
            let bytes = left.min(*place - self.written);
            self.written += bytes;
            left -= bytes;
            let of_payload = left.min(payload.len());
            payload.advance(of_payload);
            self.lent_size -= of_payload;
            left -= of_payload;
            if !payload.is_empty() {
                break;
            }
            self.lent.pop_front();
        }
        self.written += left;
        self.place += count as u64;
        self.unflushed = true;
        self.resolve();
        self.begun = !self.is_empty();
        if !self.begun {
            self.written = 0;
            self.bytes.clear();
            // A large message does not keep its memory.
            self.bytes.shrink_to(2 * WRITE_SIZE);
        }
    }

    /// Tells the receipts of messages that are written whole.
    fn resolve(&mut self) {
        while !self.sent.is_empty() && self.ends.front().is_some_and(|end| *end <= self.place) {
            self.ends.pop_front();
            if let Some(message) = self.sent.pop_front() {
                message.resolve(Ok(ReasonCode::SUCCESS));
            }
        }
    }

    /// Whether what waits is the rest of something: more is to be appended when that is written, or the memory grows
    /// as long as something is left.
    pub(crate) fn is_begun(&self) -> bool {
        self.begun
    }

    /// A copy of what waits, but for so many bytes of it.
    pub(crate) fn copy_behind(&self, count: usize) -> Vec<u8> {
        let pieces: Vec<_> = self.pieces().collect();
        pieces.concat().split_off(count)
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
        self.size() == 0
    }

    /// Messages of QoS 0 that were not written whole, so that the server cannot have them.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Outbound> {
        self.ends.clear();
        self.sent.drain(..).collect()
    }
}

impl Buffer for Output {
    fn size(&self) -> usize {
        self.bytes.len() - self.written + self.lent_size
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests;
