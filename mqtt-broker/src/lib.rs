#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

// So that tests within the crate can share what those beside it use.
#[cfg(test)]
extern crate self as mqtt_broker;

// What is included by `tests/concurrency` finds other locks by this name there.
use std::sync;

mod amount;
pub mod auth;
mod bans;
mod bundle;
mod client;
mod config;
mod connection;
mod counters;
mod delivery;
mod doorbell;
mod doorkeeper;
mod expiring;
mod frames;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod hub;
mod message;
mod mount;
mod policy;
mod runtime;
mod seldom;
mod server;
pub mod settings;
mod shown;
#[cfg(test)]
mod simulation;
mod store;
#[cfg(test)]
mod tests;
pub mod tools;
mod transport;
mod versioned;
mod will;
mod window;

pub use bans::BanRules;
pub use config::{Config, Durability};
pub use counters::{Counters, DropReason, EndReason, RefusalReason};
pub use hub::MemoryGauge;
pub use policy::{ListenerOptions, Peer, PeerAddress};
pub use runtime::runtime;
pub use server::{Broker, OpenError, run};
pub use store::MemoryStore;
pub use transport::{
    Address, AddressError, Listener, ListenerControl, Network, NetworkError, ProxyOptions, Tls,
    TlsError, TlsOptions, TlsVersion, Transport, WebSocketOptions,
};
