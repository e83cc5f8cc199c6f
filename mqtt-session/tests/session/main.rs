//! The machine through its public interface: named statements of the standard on single ends, and
//! pairs over a link that cuts.

mod acks;
mod durability;
mod end;
mod flow;
mod handshake;
mod keep_alive;
mod late;
mod limits;
mod message;
mod model;
mod pair;
mod plain;
mod properties;
mod receiver;
mod resume;
mod runs;
mod schedule;
mod sender;
