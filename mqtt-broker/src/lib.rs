#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod amount;
mod client;
mod config;
mod connection;
mod counters;
mod delivery;
mod expiring;
mod frames;
mod hub;
mod listener;
mod message;
mod policy;
mod server;
mod shown;
mod store;
pub mod tools;
mod will;
mod window;

pub use config::{Config, Durability};
pub use counters::{Counters, DropReason};
pub use listener::Listener;
pub use policy::{ListenerOptions, Peer, PeerAddress};
pub use server::{Broker, OpenError, run};
