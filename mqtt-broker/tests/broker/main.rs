//! The broker over in-memory streams and virtual time: what a client can see of it.

mod connack;
mod connect;
mod connect_rules;
mod flow;
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
mod sizes;
mod subscribe;
mod v3_bytes;
mod v3_connect;
mod v3_flow;
mod v3_session;
mod v3_subscribe;
mod v3_topics;
mod v3_will;
mod v3_wire;
mod will;
