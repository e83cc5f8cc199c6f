//! The broker over in-memory streams and virtual time: what a client can see of it.

mod connack;
mod connect;
mod connect_rules;
mod harness;
mod hostile;
mod limits;
mod malformed;
mod publish;
mod qos;
mod retained;
mod session;
mod shared;
mod shutdown;
mod subscribe;
mod will;
