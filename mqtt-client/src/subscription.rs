//! A subscription: the messages of its filters, as a stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use mqtt_codec::ReasonCode;
use tokio::sync::{mpsc, oneshot};

use crate::control::{Control, Handle, HandleId};
use crate::mailbox::{Mailbox, Post};
use crate::{Acknowledge, Error, Received};

/// The messages of one or several filters, also as a [`Stream`]. It ends when the client ends, when it
/// is [unsubscribed](Self::unsubscribe), or when the server refuses to subscribe again after it lost
/// the session.
///
/// With MQTT 5 a message comes only if the server sent it for a filter of this `Subscription`, which it says by
/// Subscription Identifiers, and as often as the server sends it for them: once, however many of the filters it
/// matches, from a server that sends one PUBLISH for all of them (`mqtt-broker` does), and once for each filter that
/// it matches from one that sends a PUBLISH for each (Mosquitto 2.0 does): two copies cannot be told from two
/// messages. With MQTT 3, where a server cannot say what it sends a message for, each copy that it sends goes to
/// every `Subscription` that matches the topic: if filters overlap, a message may come once for each of them.
///
/// It holds a bounded number: a message of QoS 1 or 2 that is not taken is not acknowledged, and
/// the server sends no more of them than the Receive Maximum; one of QoS 0 for which there is no
/// room is dropped and [counted](Self::dropped). The connection goes on being read meanwhile.
///
/// Two `Subscription`s with a filter in common share the server's one subscription for it, with the
/// options of the later and the higher quality of service of both; retained messages that come for the
/// later one also go to the first.
///
/// Dropping the last `Subscription` of a filter unsubscribes it if the session ends with the connection.
/// A session that outlives the connection keeps its subscriptions until [`unsubscribe`](Self::unsubscribe):
/// messages that come meanwhile, and those that were not taken, wait for the next `Subscription` of
/// the filter or are read from [`Client::unclaimed`](crate::Client::unclaimed).
/// Another `Subscription` that the messages match gets them before those that arrived later and that it has not read.
///
/// If the connection is lost and the session goes on, the server sends again what not all `Subscription`s of a message
/// had acknowledged: at QoS 2 those that had get it no second time.
#[derive(Debug)]
pub struct Subscription {
    id: HandleId,
    mailbox: Arc<Mailbox>,
    /// Taken out of the mailbox in one go.
    taken: VecDeque<Received>,
    post: Arc<Post>,
    acknowledge: Acknowledge,
    codes: Vec<ReasonCode>,
    control: mpsc::WeakSender<Control>,
    dropped: mpsc::UnboundedSender<HandleId>,
}

impl Subscription {
    /// One that the event loop does not know yet.
    pub(crate) fn new(
        handle: &Handle,
        post: Arc<Post>,
        acknowledge: Acknowledge,
        control: mpsc::WeakSender<Control>,
        dropped: mpsc::UnboundedSender<HandleId>,
    ) -> Self {
        Self {
            id: handle.id,
            mailbox: Arc::clone(&handle.mailbox),
            taken: VecDeque::new(),
            post,
            acknowledge,
            codes: Vec::new(),
            control,
            dropped,
        }
    }

    /// The server answered.
    pub(crate) fn answered(&mut self, codes: Vec<ReasonCode>) {
        self.codes = codes;
    }

    /// The next message; `None` when none will come any more.
    ///
    /// Cancel safe: a message is returned or still there.
    pub async fn recv(&mut self) -> Option<Received> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<Received> {
        loop {
            self.sort();
            if self.taken.is_empty() {
                self.mailbox.try_swap(&mut self.taken);
            }
            let message = self.taken.pop_front()?;
            if let Some(message) = message.taken(&self.post, self.acknowledge) {
                return Some(message);
            }
        }
    }

    /// What the server granted, one code a filter: 0 to 2 are qualities of service, 0x80 and above
    /// refusals.
    pub fn reason_codes(&self) -> &[ReasonCode] {
        &self.codes
    }

    /// How many messages of QoS 0 were dropped because they were not taken.
    pub fn dropped(&self) -> u64 {
        self.mailbox.dropped()
    }

    /// Ends it, and unsubscribes the filters that no other `Subscription` has. Messages that have arrived
    /// can still be taken.
    ///
    /// # Errors
    ///
    /// If the server refuses, or the client ends before it answers.
    pub async fn unsubscribe(&self) -> Result<(), Error> {
        let control = self.control.upgrade().ok_or(Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let request = Control::Leave { id: self.id, reply };
        control.send(request).await.map_err(|_| Error::Closed)?;
        drop(control);
        let codes = answer.await.unwrap_or(Err(Error::Closed))?;
        match codes.into_iter().find(|code| code.is_error()) {
            Some(reason) => Err(Error::SubscriptionRefused { reason }),
            None => Ok(()),
        }
    }

    /// Lets older messages, which another reader has left, go first.
    fn sort(&mut self) {
        if self.mailbox.has_late() {
            self.mailbox.put_back(std::mem::take(&mut self.taken));
        }
    }

    fn poll_recv(&mut self, context: &Context<'_>) -> Poll<Option<Received>> {
        loop {
            self.sort();
            if self.taken.is_empty() && !ready!(self.mailbox.poll_swap(context, &mut self.taken)) {
                return Poll::Ready(None);
            }
            if let Some(message) = self.taken.pop_front()
                && let Some(message) = message.taken(&self.post, self.acknowledge)
            {
                return Poll::Ready(Some(message));
            }
        }
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.poll_recv(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.mailbox.put_back(std::mem::take(&mut self.taken));
        self.mailbox.close();
        // No receiver: the client has ended, and nothing is left to do.
        let _ = self.dropped.send(self.id);
    }
}
