//! The received messages, in order, with the acknowledgements that wait for them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use mqtt_codec::QoS;
use mqtt_session::Token;
use tokio::sync::mpsc;

use crate::{Acknowledge, Received};

/// The messages that arrive, also as a [`Stream`].
///
/// It holds a bounded number: a message of QoS 1 or 2 that is not taken is not acknowledged, and
/// the server sends no more of them than the Receive Maximum; one of QoS 0 for which there is no
/// room is dropped and [counted](Self::dropped). The connection goes on being read meanwhile.
#[derive(Debug)]
pub struct Incoming {
    messages: mpsc::UnboundedReceiver<Received>,
    acknowledgements: mpsc::UnboundedSender<Token>,
    acknowledge: Acknowledge,
    backlog: Arc<Backlog>,
}

/// Messages of QoS 0 that wait, and that were dropped.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: AtomicUsize,
    dropped: AtomicU64,
    /// How often the session was resumed: what was not acknowledged before comes again.
    resumptions: AtomicU32,
}

/// The event loop's end of [`Incoming`].
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: mpsc::UnboundedSender<Received>,
    pub(crate) acknowledgements: mpsc::UnboundedReceiver<Token>,
    backlog: Arc<Backlog>,
    capacity: usize,
}

/// Connects the two ends; `capacity` bounds messages of QoS 0, the Receive Maximum the others.
pub(crate) fn channel(acknowledge: Acknowledge, capacity: usize) -> (Inbox, Incoming) {
    let (message_sender, message_receiver) = mpsc::unbounded_channel();
    let (token_sender, token_receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog::default());
    let incoming = Incoming {
        messages: message_receiver,
        acknowledgements: token_sender,
        acknowledge,
        backlog: Arc::clone(&backlog),
    };
    let inbox = Inbox {
        messages: message_sender,
        acknowledgements: token_receiver,
        backlog,
        capacity,
    };
    (inbox, incoming)
}

impl Inbox {
    /// Whether there is room for another message of QoS 0; if not, it is counted as dropped.
    pub(crate) fn has_room(&self) -> bool {
        let room = self.backlog.waiting.load(Ordering::Relaxed) < self.capacity;
        if !room {
            self.backlog.dropped.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// The server goes on with the session and sends what is unacknowledged again.
    pub(crate) fn resumed(&self) {
        self.backlog.resumptions.fetch_add(1, Ordering::Relaxed);
    }

    /// Hands a message over. If nobody takes messages any more it stays unacknowledged.
    pub(crate) fn deliver(&self, mut message: Received) {
        message.resumptions = self.backlog.resumptions.load(Ordering::Relaxed);
        if message.quality() == QoS::AtMostOnce {
            self.backlog.waiting.fetch_add(1, Ordering::Relaxed);
        }
        let _ = self.messages.send(message);
    }
}

impl Incoming {
    /// The next message; `None` when the connection has ended and everything is taken.
    ///
    /// Cancel safe: a message is returned or still there.
    pub async fn recv(&mut self) -> Option<Received> {
        loop {
            let message = self.messages.recv().await?;
            if let Some(message) = self.take(message) {
                return Some(message);
            }
        }
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Received> {
        loop {
            let message = self.messages.try_recv().ok()?;
            if let Some(message) = self.take(message) {
                return Some(message);
            }
        }
    }

    /// Acknowledges a message, with [`Acknowledge::Manually`]. A message that was received on an
    /// earlier connection comes again; to acknowledge it twice, or at QoS 0, does nothing.
    pub fn acknowledge(&self, message: &Received) {
        if let Some(token) = message.token.filter(|token| token.qos() > QoS::AtMostOnce) {
            // No receiver: the connection has ended, and the message will come again.
            let _ = self.acknowledgements.send(token);
        }
    }

    /// How many messages of QoS 0 were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.backlog.dropped.load(Ordering::Relaxed)
    }

    /// Takes a message, unless it was left over from before the session was resumed.
    fn take(&self, message: Received) -> Option<Received> {
        if message.quality() == QoS::AtMostOnce {
            self.backlog.waiting.fetch_sub(1, Ordering::Relaxed);
            return Some(message);
        }
        if message.resumptions != self.backlog.resumptions.load(Ordering::Relaxed) {
            return None;
        }
        if self.acknowledge == Acknowledge::WhenTaken {
            self.acknowledge(&message);
        }
        Some(message)
    }
}

impl Stream for Incoming {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        loop {
            let Some(message) = ready!(self.messages.poll_recv(context)) else {
                return Poll::Ready(None);
            };
            if let Some(message) = self.take(message) {
                return Poll::Ready(Some(message));
            }
        }
    }
}
