//! What the machine tells its caller: verdicts, completions and events.

use mqtt_codec::{PacketId, Publish, QoS, ReasonCode, TopicName};

use crate::InFlightState;

/// What to do with an inbound PUBLISH.
#[derive(Debug)]
pub enum Verdict<'p> {
    /// It is a new message: deliver it, then accept or reject its token.
    Deliver(Inbound<'p>),
    /// It is a QoS 2 message that was delivered before. The machine answers it by itself.
    Duplicate,
}

/// An inbound message to deliver.
#[derive(Debug)]
pub struct Inbound<'p> {
    /// Its topic, the alias resolved.
    pub topic: TopicName<'p>,
    /// The packet as it came: its `topic` may be absent, its `topic_alias` means nothing any more.
    pub publish: &'p Publish<'p>,
    /// To end it with `accept` or `reject`. At QoS 0 both are without effect.
    pub token: Token,
}

/// Names an inbound message until it is accepted or rejected, once. It ends with its connection;
/// a token used late or twice is without effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a message that is neither accepted nor rejected holds back all later acknowledgements"]
pub struct Token {
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) qos: QoS,
    /// Which connection of the session it belongs to.
    pub(crate) connection: u32,
    /// Its place in the order of messages of this quality of service.
    pub(crate) place: u32,
}

impl Token {
    /// The quality of service of the message.
    #[must_use]
    pub const fn qos(&self) -> QoS {
        self.qos
    }

    /// The packet identifier of the message, unless it is of QoS 0.
    #[must_use]
    pub const fn packet_id(&self) -> Option<PacketId> {
        self.packet_id
    }
}

/// An outbound message came to its end: the peer acknowledged or refused it.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed<H> {
    /// The message. None if it was not kept: the session ends with the connection and the
    /// configuration says not to keep sent messages, it was restored after its PUBREC, or it was
    /// handed back by [`Event::Dropped`].
    pub handle: Option<H>,
    /// The identifier it had, which is free again.
    pub packet_id: PacketId,
    /// The reason code of the last acknowledgement; 0x80 and above: the peer refused it.
    pub reason: ReasonCode,
}

/// Something that happened to an outbound message without a packet of the peer.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<H> {
    /// A message will not be sent, or not again. It counts as delivered.
    Dropped(H, DropReason),
    /// A message of QoS 0 was written. Reported only if asked for with
    /// [`ClientConfig::report_sent`](crate::ClientConfig::report_sent).
    Sent(H),
}

/// Why a message was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// It expired before it was sent.
    Expired,
    /// It is larger than the Maximum Packet Size of the peer.
    TooLarge,
    /// Its quality of service is above the Maximum QoS of the server.
    QosNotSupported,
    /// [`Outgoing::encode`](crate::Outgoing::encode) wrote nothing.
    NotEncoded,
    /// The server no longer has the session that the message was in flight in. How far it was tells
    /// whether the server has it: not if [`Assigned`](InFlightState::Assigned), perhaps if
    /// [`Published`](InFlightState::Published), and surely if [`Released`](InFlightState::Released).
    SessionLost(InFlightState),
}

/// What `handle_timeout` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Timeout {
    /// Nothing was due.
    Nothing,
    /// A PINGREQ waits to be written.
    Transmit,
    /// The peer was silent for too long: close the connection as if the network had failed. A
    /// server says DISCONNECT with 0x8D first where the version has it.
    KeepAlive,
}
