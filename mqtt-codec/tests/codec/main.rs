//! Tests of the whole codec through its public names.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod allocation;
mod chunking;
mod client;
mod generate;
mod hex;
mod roundtrip;
mod strict;
mod v3_client;
mod values;
mod vectors;
