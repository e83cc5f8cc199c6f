//! The messages that no subscription claims.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

use crate::mailbox::{Mailbox, Post};
use crate::{Acknowledge, Received};

/// The messages that no [`Subscription`](crate::Subscription) claims, also as a [`Stream`]: what a
/// resumed session delivers before the program has subscribed, and what
/// [`subscribe_unclaimed`](crate::Client::subscribe_unclaimed) asks for.
///
/// It holds a bounded number: a message of QoS 1 or 2 that is not taken is not acknowledged, and
/// the server sends no more of them than the Receive Maximum; one of QoS 0 for which there is no
/// room is dropped and [counted](Self::dropped). The connection goes on being read meanwhile.
///
/// All that [`Client::unclaimed`](crate::Client::unclaimed) returns take from the same queue.
#[derive(Debug)]
pub struct Incoming {
    mailbox: Arc<Mailbox>,
    post: Arc<Post>,
    acknowledge: Acknowledge,
}

impl Incoming {
    pub(crate) fn new(mailbox: Arc<Mailbox>, post: Arc<Post>, acknowledge: Acknowledge) -> Self {
        Self {
            mailbox,
            post,
            acknowledge,
        }
    }

    /// The next message; `None` when the connection has ended and everything is taken.
    ///
    /// Cancel safe: a message is returned or still there.
    pub async fn recv(&mut self) -> Option<Received> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Received> {
        loop {
            let message = self.mailbox.try_pop()?;
            if let Some(message) = message.taken(&self.post, self.acknowledge) {
                return Some(message);
            }
        }
    }

    /// Acknowledges a message: the same as [`Received::acknowledge`].
    pub fn acknowledge(&self, message: &Received) {
        message.acknowledge();
    }

    /// How many messages of QoS 0 were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.mailbox.dropped()
    }

    fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Option<Received>> {
        loop {
            let Some(message) = ready!(self.mailbox.poll_pop(context)) else {
                return Poll::Ready(None);
            };
            if let Some(message) = message.taken(&self.post, self.acknowledge) {
                return Poll::Ready(Some(message));
            }
        }
    }
}

impl Stream for Incoming {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.poll_recv(context)
    }
}
