#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod authentication;
#[cfg(feature = "blocking")]
pub mod blocking;
mod client;
mod control;
mod dispatch;
mod error;
mod establish;
mod event_loop;
mod filter;
mod incoming;
mod link;
mod mailbox;
mod message;
mod options;
mod outbound;
#[cfg(feature = "outbox")]
mod outbox;
#[cfg(not(feature = "outbox"))]
#[path = "no_outbox.rs"]
mod outbox;
mod output;
mod received;
mod reconnect;
mod registry;
mod request;
mod requester;
mod server;
mod sharing;
mod subscription;
mod trace;
mod transport;
mod url;

pub use authentication::{AuthenticationError, Authenticator};
pub use client::{Client, Ended, Events};
pub use error::{Blame, Error};
pub use filter::{Filter, SubscribeOptions};
pub use incoming::Incoming;
pub use message::{Message, MessageProperties};
pub use mqtt_codec::{
    PacketId, ProtocolVersion, QoS, ReasonCode, RetainHandling, SubscriptionIdentifier, TopicError,
    TopicFilter, TopicName,
};
pub use options::{Acknowledge, Backoff, DisconnectOptions, Options, Uncertain};
pub use outbound::{Receipt, TryPublishError};
#[cfg(feature = "outbox")]
pub use outbox::{Damage, Outbox, OutboxError, OutboxOptions, Unfinished};
pub use received::Received;
pub use server::{Event, ServerInfo};
pub use subscription::Subscription;
pub use transport::Target;
#[cfg(feature = "proxy")]
pub use transport::proxy::Proxy;
#[cfg(feature = "tls")]
pub use transport::tls::Tls;
#[cfg(feature = "websocket")]
pub use transport::websocket::WebSocket;
