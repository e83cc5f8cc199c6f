#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

extern crate alloc;

mod error;
mod frame;
mod packet;
mod packet_id;
mod parse;
mod property;
mod qos;
mod reason;
mod topic;
mod varint;
mod version;
mod write;

pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use frame::{FixedHeader, Frame, decode};
pub use packet::{
    Ack, AckProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Packet, PacketType, PlainAck,
    PlainPublish, Publish, PublishProperties, RetainHandling, SubAck, Subscribe, SubscribeFilter,
    SubscribeProperties, SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeProperties, Will,
    WillProperties,
};
pub use packet_id::PacketId;
pub use property::{SubscriptionIdentifier, UserProperty};
pub use qos::{InvalidQoS, QoS};
pub use reason::ReasonCode;
pub use topic::{SharedFilter, TopicError, TopicFilter, TopicName};
pub use varint::MAX_REMAINING_LENGTH;
pub use version::ProtocolVersion;
