//! The client against a scripted server on streams in memory, in virtual time, and its program
//! against one on a port that the system chooses. Nothing sleeps.

#[cfg(feature = "blocking")]
mod blocking;
mod cancel;
#[cfg(all(unix, feature = "cli"))]
mod commands;
#[cfg(feature = "cli")]
mod debug;
#[cfg(all(unix, feature = "cli"))]
mod doctor;
mod echo;
mod examples;
mod flood;
mod handshake;
mod handshakes;
mod incoming;
#[cfg(feature = "outbox")]
mod kept;
#[cfg(all(unix, feature = "outbox"))]
mod killed;
mod lifetime;
#[cfg(all(unix, feature = "cli"))]
mod loads;
#[cfg(feature = "outbox")]
mod outbox;
mod peer;
#[cfg(feature = "cli")]
mod program;
mod publish;
mod readers;
mod reconnect;
#[cfg(feature = "outbox")]
mod restarts;
mod scram;
mod simulation;
#[cfg(feature = "outbox")]
mod storm;
mod subscribe;
mod subscriptions;
#[cfg(all(unix, feature = "tls", feature = "websocket", feature = "proxy"))]
mod transports;
#[cfg(feature = "outbox")]
mod wall;
mod writes;
