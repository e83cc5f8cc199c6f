#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod client;
mod dispatch;
mod error;
mod event_loop;
mod incoming;
mod link;
mod message;
mod options;
mod outbound;
mod request;
mod server;
mod subscription;
mod transport;

pub use client::{Client, Ended, Events};
pub use error::{Blame, Error};
pub use incoming::Incoming;
pub use message::{Message, MessageProperties, Received};
pub use mqtt_codec::{
    PacketId, ProtocolVersion, QoS, ReasonCode, RetainHandling, SubscriptionIdentifier, TopicError,
    TopicFilter, TopicName,
};
pub use options::{Acknowledge, Backoff, DisconnectOptions, Options};
pub use outbound::{Receipt, TryPublishError};
pub use server::{Event, ServerInfo};
pub use subscription::{Filter, SubscribeOptions};
