//! A model checker: every interleaving of two ends over a link that breaks, with stores that lose
//! their tails.
//!
//! Both ends are real: connections, sessions and the bytes between them. What can happen next to a
//! state (a message to send, one packet written or read, a message accepted, a unit written, the
//! connection lost, a crash that leaves any prefix of what was written, a reconnect) is tried in
//! each, breadth first, until there is no new state. Each end notices a lost connection for itself,
//! after any part of what was under way to it, and goes on writing until it does.
//!
//! In each state: no end errs, the watch of each end has nothing to say (`watch`), and what is
//! acknowledged is in the durable state of the receiver. Faults used up, every run comes to rest, with
//! every message taken, once at QoS 2, in order, and nothing left in either session or store.

mod bounds;
mod endpoint;
mod ends;
mod fingerprint;
mod intern;
mod mutants;
mod rest;
mod search;
mod setup;
mod store;
mod watch;
