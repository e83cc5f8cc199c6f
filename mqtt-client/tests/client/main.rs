//! The client against a scripted server on streams in memory. Time is virtual: nothing sleeps.

mod echo;
mod handshake;
mod incoming;
mod lifetime;
mod peer;
mod publish;
mod reconnect;
mod subscribe;
