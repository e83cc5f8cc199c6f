//! Messages on their way to the server, and the handles that tell how it went.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_codec::{
    PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, TopicName,
};
use mqtt_session::{Buffer, Outgoing, Time, Transmission};
use tokio::sync::oneshot;

use crate::output::Output;
use crate::{Error, Message, message};

/// Tells what becomes of a published message; wait for it with `.await`.
///
/// It resolves to the reason code when a message of QoS 0 is written, when one of QoS 1 is
/// acknowledged (PUBACK) and when one of QoS 2 is complete (PUBCOMP) or refused (PUBREC). A code
/// of 0x80 and above ([`ReasonCode::is_error`]) means that the server refused the message.
///
/// It resolves to an error when the message is given up: [`Error::Uncertain`] if it was sent and may have
/// arrived, any other if the server has surely not got it. A connection that is lost and made again is
/// no reason: the message goes on. If the server has lost the session, a message of QoS 1 is published
/// anew; one of QoS 2 is complete if the server had taken it over (PUBREC), else
/// [uncertain](crate::Uncertain). A message in an outbox (feature `outbox`) is not given up when the
/// client ends: [`Error::Kept`].
///
/// Dropping the receipt does not withdraw the message.
#[derive(Debug)]
#[must_use = "without the receipt nothing tells whether the message arrived"]
pub struct Receipt {
    outcome: oneshot::Receiver<Result<ReasonCode, Error>>,
    #[cfg(feature = "outbox")]
    storage: Storage,
}

/// Whether a message is in an outbox.
#[cfg(feature = "outbox")]
#[derive(Debug)]
enum Storage {
    /// It does not go there.
    None,
    /// It will be told.
    Waiting(oneshot::Receiver<Result<(), Error>>),
    Stored,
}

#[cfg(feature = "outbox")]
impl Receipt {
    /// The receipt of a message that an earlier run left.
    pub(crate) fn of_stored(outcome: oneshot::Receiver<Result<ReasonCode, Error>>) -> Self {
        Self {
            outcome,
            storage: Storage::Stored,
        }
    }

    /// The receipt of a message that is being stored.
    pub(crate) fn with_storage(mut self, stored: oneshot::Receiver<Result<(), Error>>) -> Self {
        self.storage = Storage::Waiting(stored);
        self
    }

    /// Waits until the message is on the disk of the [outbox](crate::Outbox); without one, and at QoS 0, there
    /// is nothing to wait for. Cancel safe.
    ///
    /// # Errors
    ///
    /// If it cannot be stored. The receipt itself resolves to the same error.
    pub async fn stored(&mut self) -> Result<(), Error> {
        let Storage::Waiting(stored) = &mut self.storage else {
            return Ok(());
        };
        stored.await.unwrap_or(Err(Error::Closed))?;
        self.storage = Storage::Stored;
        Ok(())
    }

    /// Nobody can tell any more what becomes of the message.
    fn abandoned(&mut self) -> Error {
        let is_stored = match &mut self.storage {
            Storage::None => false,
            Storage::Waiting(stored) => matches!(stored.try_recv(), Ok(Ok(()))),
            Storage::Stored => true,
        };
        if is_stored {
            Error::Closed.kept()
        } else {
            Error::Closed
        }
    }
}

#[cfg(not(feature = "outbox"))]
impl Receipt {
    fn abandoned(&mut self) -> Error {
        Error::Closed
    }
}

impl Future for Receipt {
    type Output = Result<ReasonCode, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.outcome).poll(context);
        outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(self.abandoned())))
    }
}

/// Why [`try_publish`](crate::Client::try_publish) gives a message back.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryPublishError {
    /// The queue is full.
    Full(Box<Message>),
    /// The client has disconnected.
    Closed(Box<Message>),
}

impl fmt::Display for TryPublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue of messages to publish is full",
            Self::Closed(_) => "the client is disconnected",
        })
    }
}

impl std::error::Error for TryPublishError {}

/// A message in the hands of the session, with its receipt's other end.
pub(crate) struct Outbound {
    pub(crate) message: Box<Message>,
    /// What the outbox calls it; 0: it is not there.
    pub(crate) key: u64,
    expires_at: Option<Time>,
    receipt: oneshot::Sender<Result<ReasonCode, Error>>,
}

impl Outbound {
    /// A message handed over now, which is asked for only if it expires.
    pub(crate) fn new(message: Message, now: impl FnOnce() -> Time) -> (Self, Receipt) {
        let (sender, receiver) = oneshot::channel();
        let interval = message.property().message_expiry_interval;
        let expires_at = interval.map(|seconds| now() + Duration::from_secs(u64::from(seconds)));
        (
            Self {
                message: Box::new(message),
                key: 0,
                expires_at,
                receipt: sender,
            },
            Receipt {
                outcome: receiver,
                #[cfg(feature = "outbox")]
                storage: Storage::None,
            },
        )
    }

    /// A message that the outbox has.
    #[cfg(feature = "outbox")]
    pub(crate) fn stored(
        message: Message,
        expires_at: Option<Time>,
        key: u64,
        receipt: oneshot::Sender<Result<ReasonCode, Error>>,
    ) -> Self {
        Self {
            message: Box::new(message),
            key,
            expires_at,
            receipt,
        }
    }

    /// Whether the outbox has it.
    pub(crate) fn is_stored(&self) -> bool {
        self.key != 0
    }

    /// Tells the receipt; nobody may be listening.
    pub(crate) fn resolve(self, outcome: Result<ReasonCode, Error>) {
        let _ = self.receipt.send(outcome);
    }
}

/// The packet, but for what each transmission adds.
pub(crate) fn view(message: &Message) -> Publish<'_> {
    let properties = message.property();
    Publish {
        dup: false,
        qos: message.quality(),
        retain: message.is_retained(),
        topic: Some(TopicName::assume_valid(message.topic())),
        packet_id: None,
        payload: message.payload(),
        properties: PublishProperties {
            payload_format_utf8: properties.payload_format_utf8,
            message_expiry_interval: None,
            topic_alias: None,
            // `check` refuses an invalid one.
            response_topic: properties
                .response_topic
                .as_deref()
                .map(TopicName::assume_valid),
            correlation_data: properties.correlation_data.as_deref(),
            subscription_identifiers: Vec::new(),
            content_type: properties.content_type.as_deref(),
            user_properties: message::user_properties(&properties.user_properties),
        },
    }
}

/// Whether the message can be written as a packet of this version at all.
pub(crate) fn check(message: &Message, version: ProtocolVersion) -> Result<(), Error> {
    if let Some(topic) = &message.property().response_topic {
        TopicName::new(topic)?;
    }
    let mut how = Transmission::new(version);
    how.packet_id = (message.quality() > QoS::AtMostOnce).then_some(PacketId::MAX);
    how.publish_len(view(message))?;
    Ok(())
}

impl Outgoing for Outbound {
    type Buffer = Output;

    fn qos(&self) -> QoS {
        self.message.quality()
    }

    fn topic(&self) -> &str {
        self.message.topic()
    }

    fn encoded_len(&self, how: &Transmission) -> usize {
        how.publish_len(view(&self.message)).unwrap_or(usize::MAX)
    }

    fn encode(&self, how: &Transmission, out: &mut Output) {
        let view = view(&self.message);
        let payload = self.message.payload();
        let written = if out.lends(payload) {
            how.apply(view).encode_head(how.version, out.bytes())
        } else {
            how.write_publish(view, out.bytes())
        };
        // Checked when it was handed over: nothing can fail, and a failure writes nothing.
        if written.is_ok() {
            out.end_publish(self.qos(), payload);
        }
    }

    fn expires_at(&self) -> Option<Time> {
        self.expires_at
    }

    fn size(&self) -> usize {
        self.message.payload().len() + self.message.topic().len()
    }

    fn key(&self) -> u64 {
        self.key
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Outbound").field(&self.message).finish()
    }
}
