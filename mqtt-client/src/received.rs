//! A message that arrived, and its acknowledgement.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use mqtt_codec::{PacketId, TopicError};
use mqtt_session::Token;

use crate::mailbox::Post;
use crate::sharing::Share;
use crate::{Acknowledge, Message, MessageProperties};

/// A message that arrived, with what only its delivery has. It dereferences to [`Message`].
#[derive(Debug, Clone)]
pub struct Received {
    message: Message,
    duplicate: bool,
    packet_id: Option<PacketId>,
    acknowledgement: Option<Acknowledgement>,
    /// Under which resumption of the session it came.
    pub(crate) resumption: u32,
    /// Its place in the order of arrival.
    pub(crate) number: u64,
}

impl Received {
    /// A message as if it had arrived, for the test of a handler; to acknowledge it does nothing.
    pub fn new(message: Message, packet_id: Option<PacketId>) -> Self {
        Self {
            message,
            duplicate: false,
            packet_id,
            acknowledgement: None,
            resumption: 0,
            number: 0,
        }
    }

    /// A message of the connection; one of QoS 0 has no acknowledgement.
    pub(crate) fn arrived(
        message: Message,
        duplicate: bool,
        packet_id: Option<PacketId>,
        acknowledgement: Option<Acknowledgement>,
        (resumption, number): (u32, u64),
    ) -> Self {
        Self {
            message,
            duplicate,
            packet_id,
            acknowledgement,
            resumption,
            number,
        }
    }

    /// The same message for several readers, of whom each has to acknowledge it.
    pub(crate) fn shared(self, readers: usize) -> Vec<Self> {
        let mut copies: Vec<Self> = Vec::with_capacity(readers);
        copies.resize_with(readers.saturating_sub(1), || self.clone());
        copies.push(self);
        for (copy, share) in copies.iter_mut().zip(Share::of_each(readers)) {
            if let Some(acknowledgement) = &mut copy.acknowledgement {
                acknowledgement.state = State::Shared(share);
            }
        }
        copies
    }

    /// The part of its reader in a message that is shared.
    pub(crate) fn share(&self) -> Option<&Arc<Share>> {
        match &self.acknowledgement.as_ref()?.state {
            State::Alone(_) => None,
            State::Shared(share) => Some(share),
        }
    }

    /// Acknowledges the message to the server, with
    /// [`Acknowledge::Manually`](crate::Acknowledge::Manually), from any task. Acknowledgements leave in
    /// the order the messages came [MQTT-4.6.0-2]: one that is missing holds back the later ones of its
    /// quality of service. A message that several [`Subscription`](crate::Subscription)s got is
    /// acknowledged when all of them have. At QoS 0, a second time, or for a message that was received
    /// before the session was resumed (it comes again) this does nothing. Without a connection it holds for QoS 2:
    /// the server hears of it on the next one, and the message does not come again.
    pub fn acknowledge(&self) {
        self.give();
    }

    /// The same; whether the message does not come again, as far as it is up to this reader.
    fn give(&self) -> bool {
        let acknowledgement = self.acknowledgement.as_ref();
        acknowledgement.is_none_or(Acknowledgement::give)
    }

    /// A reader takes it, which acknowledges it unless that is left to the application. `None`: it was left over from
    /// before the session was resumed, and comes again.
    pub(crate) fn taken(self, post: &Post, acknowledge: Acknowledge) -> Option<Self> {
        if post.is_stale(&self) {
            return None;
        }
        if let Some(share) = self.share() {
            // Before it counts as acknowledged.
            share.took();
        }
        // In between the session may have been resumed.
        let comes_again =
            acknowledge == Acknowledge::WhenTaken && !self.give() && post.is_stale(&self);
        (!comes_again).then_some(self)
    }

    /// Whether a reader that goes without having taken it was the last hope for it: no other has taken it, or may yet.
    pub(crate) fn is_unread(&self) -> bool {
        match self.acknowledgement.as_ref().map(|it| &it.state) {
            // Of QoS 0.
            None => false,
            Some(State::Alone(_)) => true,
            Some(State::Shared(share)) => share.is_last_hope(),
        }
    }

    /// The DUP flag: the server may have sent this PUBLISH packet before [MQTT-3.3.1-1].
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// The Packet Identifier; `None` at QoS 0.
    pub fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }

    /// The answer to a request: a message to its Response Topic, with its Correlation Data. `None` if
    /// the message asks for no answer.
    ///
    /// # Errors
    ///
    /// If the Response Topic is not a Topic Name, which no server lets through.
    pub fn response(&self, payload: impl Into<Bytes>) -> Result<Option<Message>, TopicError> {
        let Some(topic) = &self.property().response_topic else {
            return Ok(None);
        };
        let properties = MessageProperties {
            correlation_data: self.property().correlation_data.clone(),
            ..MessageProperties::default()
        };
        let message = Message::new(topic.as_str(), payload)?;
        Ok(Some(message.qos(self.quality()).properties(properties)))
    }

    /// The message alone.
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl Deref for Received {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// Equal are messages that were delivered alike.
impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
            && self.duplicate == other.duplicate
            && self.packet_id == other.packet_id
    }
}

impl Eq for Received {}

/// The right to acknowledge a message, once.
pub(crate) struct Acknowledgement {
    token: Token,
    /// [`Post::connection`] of the message.
    connection: u32,
    post: Arc<Post>,
    state: State,
}

/// Whether it was used.
enum State {
    /// By the only reader, or a clone of its message: the session takes no token twice.
    Alone(AtomicBool),
    /// By one of several readers.
    Shared(Arc<Share>),
}

impl Acknowledgement {
    pub(crate) fn new(token: Token, post: &Arc<Post>) -> Self {
        Self {
            token,
            connection: post.connection(),
            post: Arc::clone(post),
            state: State::Alone(AtomicBool::new(false)),
        }
    }

    /// Returns whether the message does not come again, as far as it is up to this reader.
    fn give(&self) -> bool {
        let (token, connection) = (self.token, self.connection);
        match &self.state {
            State::Alone(done) => {
                done.swap(true, Ordering::Relaxed)
                    || self.post.acknowledge(token, connection, || true)
            }
            State::Shared(share) => self.post.acknowledge(token, connection, || share.give()),
        }
    }
}

impl Clone for Acknowledgement {
    fn clone(&self) -> Self {
        Self {
            token: self.token,
            connection: self.connection,
            post: Arc::clone(&self.post),
            state: match &self.state {
                State::Alone(done) => State::Alone(AtomicBool::new(done.load(Ordering::Relaxed))),
                State::Shared(share) => State::Shared(Arc::clone(share)),
            },
        }
    }
}

impl fmt::Debug for Acknowledgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledgement").finish_non_exhaustive()
    }
}
