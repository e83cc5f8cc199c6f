//! The client against a scripted server on streams in memory, in virtual time, and its program
//! against one on a port that the system chooses. Nothing sleeps.

mod echo;
mod handshake;
mod incoming;
mod lifetime;
mod peer;
#[cfg(feature = "cli")]
mod program;
mod publish;
mod reconnect;
mod subscribe;
#[cfg(all(unix, feature = "tls", feature = "websocket", feature = "proxy"))]
mod transports;
