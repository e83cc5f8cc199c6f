//! How one message is written: the handle of a message and the parts of a PUBLISH that differ from
//! receiver to receiver.

use alloc::vec::Vec;
use core::num::NonZeroU16;

use mqtt_codec::{EncodeError, PacketId, ProtocolVersion, Publish, QoS};

use crate::{Buffer, Time};

/// The handle of a message: an `Arc`, an index, or the message itself. The caller implements it.
///
/// A handle may stand for several messages that follow each other, so that much that is the same for all of
/// them is done once: see [`count`](Self::count).
pub trait Outgoing {
    /// What it is written to: `Vec<u8>`, unless the caller writes from more than one place.
    type Buffer: Buffer;

    /// The quality of service to send it with.
    fn qos(&self) -> QoS;

    /// Its topic, for topic aliases.
    fn topic(&self) -> &str;

    /// The length of the whole PUBLISH in bytes, sent like this. Asked only where the peer limits
    /// the size of packets.
    fn encoded_len(&self, how: &Transmission) -> usize;

    /// Appends the whole PUBLISH, sent like this. A handle that cannot be encoded appends nothing.
    fn encode(&self, how: &Transmission, out: &mut Self::Buffer);

    /// When it is not worth sending any more.
    fn expires_at(&self) -> Option<Time> {
        None
    }

    /// What it costs the queue, in bytes.
    fn size(&self) -> usize {
        0
    }

    /// Whether the caller wants it back from [`Session::into_undelivered`](crate::Session::into_undelivered)
    /// if the session ends before its acknowledgement. Otherwise a session that ends with its connection
    /// keeps nothing of what it sent.
    fn returns(&self) -> bool {
        false
    }

    /// What the store calls it in [`Change`](crate::Change)s; unique among the messages of a session.
    fn key(&self) -> u64 {
        0
    }

    /// How many messages it stands for. They have one quality of service above 0 and one topic, and none
    /// expires. Where there are several, all other methods but [`size`](Self::size) speak of the first.
    fn count(&self) -> usize {
        1
    }

    /// Takes the first message out of several, as a handle of its own. Asked only where
    /// [`count`](Self::count) is above 1.
    fn split_first(&mut self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Appends the PUBLISH of the first message, as [`encode`](Self::encode) does, for which the handle stands
    /// no longer: its count is one less. Asked only where that was above 1 when the session began with the
    /// handle, and where the session keeps nothing of what it sends. False: it cannot be encoded, and
    /// nothing has changed.
    fn encode_first(&mut self, how: &Transmission, out: &mut Self::Buffer) -> bool {
        let _ = (how, out);
        false
    }
}

/// The topic alias of one transmission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Alias {
    /// The topic without an alias.
    #[default]
    None,
    /// The topic and the alias that stands for it from now on.
    Set(NonZeroU16),
    /// The alias alone.
    Use(NonZeroU16),
}

/// How one message is sent to one receiver, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmission {
    /// The version of the connection.
    pub version: ProtocolVersion,
    /// Present exactly when the quality of service is above 0.
    pub packet_id: Option<PacketId>,
    /// It may have been sent before.
    pub dup: bool,
    /// The topic alias.
    pub alias: Alias,
    /// The Message Expiry Interval to send, in seconds: what remains, rounded up.
    pub expiry: Option<u32>,
}

impl Transmission {
    /// A first transmission without packet identifier, alias and expiry.
    #[must_use]
    pub const fn new(version: ProtocolVersion) -> Self {
        Self {
            version,
            packet_id: None,
            dup: false,
            alias: Alias::None,
            expiry: None,
        }
    }

    /// The view of a message as it is sent like this: identifier, DUP, topic or alias, and expiry.
    ///
    /// The quality of service is the view's own. What the version lacks is dropped on encoding.
    #[must_use]
    pub fn apply<'a>(&self, mut view: Publish<'a>) -> Publish<'a> {
        view.packet_id = self.packet_id;
        view.dup = self.dup;
        view.properties.message_expiry_interval = self.expiry;
        view.properties.topic_alias = match self.alias {
            Alias::None => None,
            Alias::Set(alias) => Some(alias),
            Alias::Use(alias) => {
                view.topic = None;
                Some(alias)
            }
        };
        view
    }

    /// Appends the whole PUBLISH of `view`, sent like this.
    ///
    /// # Errors
    /// What the codec cannot encode; nothing is written then.
    pub fn write_publish(&self, view: Publish<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.apply(view).encode(self.version, out)
    }

    /// The length of what [`write_publish`](Self::write_publish) writes.
    ///
    /// # Errors
    /// What the codec cannot encode.
    pub fn publish_len(&self, view: Publish<'_>) -> Result<usize, EncodeError> {
        self.apply(view).encoded_len(self.version)
    }
}
