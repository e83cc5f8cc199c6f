//! The protocols of locks and wake-ups of the broker, run with every order of their steps that loom finds.
//!
//! The files are those of the broker, with the locks and atomics of loom. Mistakes are planted in the
//! callers as well, and must be found.

mod doorbell_orders;
mod executor;
mod sync;
mod ticket_orders;
mod version_orders;

#[path = "../../src/store/batches.rs"]
#[expect(dead_code, reason = "the broker uses more of it")]
mod batches;
#[path = "../../src/doorbell.rs"]
#[expect(dead_code, reason = "the broker uses more of it")]
mod doorbell;
#[path = "../../src/versioned.rs"]
mod versioned;
