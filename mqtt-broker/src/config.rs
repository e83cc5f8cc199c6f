//! What a broker is told before it starts: limits, with the defaults of the documentation.

use core::num::NonZeroU16;
use core::time::Duration;

/// Limits of a broker. Every field has a default; see [`Config::default`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Largest packet accepted from a client once its CONNECT was accepted, in bytes, fixed header
    /// included. Default 2,000,000.
    pub max_packet_size: u32,
    /// Largest packet accepted before CONNECT was accepted, in bytes. Default 65,536.
    pub max_connect_size: u32,
    /// QoS 1 and 2 PUBLISH packets that a client may have unacknowledged (MQTT 5, section 3.2.2.3.3).
    /// Default 1,024.
    pub receive_maximum: NonZeroU16,
    /// QoS 1 and 2 PUBLISH packets that the broker has unacknowledged towards a client whose version of
    /// the protocol cannot announce a Receive Maximum. Default 256.
    pub receive_maximum_v3: NonZeroU16,
    /// Highest Topic Alias that a client may use. Default 16.
    pub topic_alias_maximum: u16,
    /// Unsent bytes of one connection beyond which QoS 0 messages to it are dropped. Default 1 MiB.
    pub outbox_bytes: usize,
    /// Bytes of QoS 1 and 2 messages that one session may hold, in flight ones included. Default 16 MiB.
    pub queue_bytes: usize,
    /// Unsent answers to one client (acknowledgements, PINGRESP...), in bytes, beyond which its connection
    /// is no longer read. Default 64 KiB.
    pub control_bytes: usize,
    /// Time from the accepted socket to the end of CONNECT. Default 10 s.
    pub connect_timeout: Duration,
    /// Time that a write may make no progress before the connection is closed. Default 60 s.
    pub write_timeout: Duration,
    /// Time that a shutdown waits for connections to end. Default 5 s.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const fn non_zero(value: u16) -> NonZeroU16 {
            match NonZeroU16::new(value) {
                Some(value) => value,
                None => NonZeroU16::MIN,
            }
        }
        Self {
            max_packet_size: 2_000_000,
            max_connect_size: 64 * 1024,
            receive_maximum: non_zero(1_024),
            receive_maximum_v3: non_zero(256),
            topic_alias_maximum: 16,
            outbox_bytes: 1024 * 1024,
            queue_bytes: 16 * 1024 * 1024,
            control_bytes: 64 * 1024,
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}
