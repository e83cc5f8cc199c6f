#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing, clippy::unwrap_used)]

extern crate alloc;

mod acks;
mod alias;
mod buffer;
mod change;
mod config;
mod connection;
mod error;
mod event;
mod handshake;
mod in_flight;
mod inbound;
mod negotiated;
mod outbound;
mod output;
mod packet_ids;
mod queue;
mod ring;
mod role;
mod session;
mod time;
mod timer;
mod transmission;
mod transmit;

pub use buffer::Buffer;
pub use change::{Change, ChangeNumber, Durability, Persistence};
pub use config::{ClientConfig, ServerLimits};
pub use connection::Connection;
pub use error::{Blame, Error};
pub use event::{Completed, DropReason, Event, Inbound, Timeout, Token, Verdict};
pub use in_flight::{InFlight, InFlightState};
pub use negotiated::{Limits, Negotiated};
pub use role::Role;
pub use session::Session;
pub use time::Time;
pub use transmission::{Alias, Outgoing, Transmission};
