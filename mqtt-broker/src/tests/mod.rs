//! The rules of storage, each with a test of its name: what must be on the disk before which packet leaves, what is
//! one unit, and what clocks, takeovers and wills do with it. The disk of these tests does what it is told.

mod acknowledgements;
mod backlog;
mod gate;
#[path = "../../tests/broker/harness.rs"]
#[allow(
    dead_code,
    reason = "shared with the integration tests, which use all of it"
)]
mod harness;
mod levels;
mod restarts;
mod retained;
mod scene;
mod units;
