//! What a broker is told before it starts: limits, with the defaults of the documentation.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use mqtt_codec::QoS;

use crate::auth::Authority;
use crate::bans::BanRules;
use crate::hub::MemoryGauge;

/// When what was acknowledged is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// It is on the disk: a loss of power does not lose it.
    Disk,
    /// It is with the operating system: a crash of the broker does not lose it.
    Os,
    /// It is in memory: what takes it ends with the broker, and is not stored.
    Memory,
}

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
    /// Bytes of QoS 1 and 2 messages that one session in memory may hold, in flight ones included. Default
    /// 16 MiB.
    pub queue_bytes: usize,
    /// The same of a session that is stored on disk. Default 1 GiB.
    pub stored_queue_bytes: usize,
    /// QoS 1 and 2 messages that one session may hold, on disk or in memory, in flight ones included. Default: no
    /// bound of its own.
    pub queue_messages: usize,
    /// Bytes of messages that wait in memory for a stored session while it is connected; those behind them are on
    /// the disk alone, and are read when it is their turn. Small messages count with about 250 bytes each. Messages
    /// in flight come on top of it. A session that is not connected holds a 64th of it. Default 1 MiB.
    pub stored_window_bytes: usize,
    /// Bytes of the data directory beyond which no new message is stored: it is dropped for stored sessions and not
    /// retained, and where nobody else takes it a publisher of 5.0 is told Quota exceeded. Acknowledgements and
    /// deletions go on. The engine takes up to 200 MiB beside the messages, and gives space back when it compacts:
    /// less than 256 MiB is of little use. Looked at every 4 MiB or second. Default: no bound.
    pub data_directory_bytes: u64,
    /// Bytes of a file in the data directory that is removed when the disk is full, so that acknowledgements and
    /// deletions still fit. No new message is stored, as above, while it is not there, or while less than half as
    /// much is free beside it; it is made again when twice as much is free. 0: there is none. Default 32 MiB.
    pub disk_reserve_bytes: u64,
    /// Bytes that the subscriptions of one session may take, by a rough count: 128 for each, its filter twice,
    /// and 128 for each level of the filter. Default 96 MiB, which is about 180,000 of three
    /// levels.
    pub subscription_bytes: usize,
    /// Subscriptions that one session may have; one beyond it is refused with 0x97. Default: no bound of its own.
    pub subscriptions: usize,
    /// Levels that a topic or a filter may have; one with more is refused with 0x90 or 0x8F. Default: no bound.
    pub topic_levels: usize,
    /// Topics that may have a retained message. Default: no bound of its own.
    pub retained_messages: usize,
    /// Bytes of all retained messages. Default 256 MiB.
    pub retained_bytes: usize,
    /// Bytes of one retained message, topic and properties included. Default: no bound of its own.
    pub retained_message_bytes: usize,
    /// Longest time that a message is retained, also of one that expires later, or not at all by itself. Who gets it
    /// within that time is told when it ends, as of a Message Expiry Interval. Default: as its publisher says.
    pub retained_expiry_maximum: Option<Duration>,
    /// How often expired retained messages are looked for, so that they do not hold memory. They are
    /// never sent, whether they were found or not. Default 60 s.
    pub retained_sweep_interval: Duration,
    /// Longest time, in seconds, that a session outlives its connection. Default `u32::MAX`: for ever.
    pub session_expiry_maximum: u32,
    /// Longest keep alive in seconds; a client of 5.0 that asks for more, or for none, is told to use this
    /// one. Default: none.
    pub keep_alive_maximum: Option<NonZeroU16>,
    /// Highest QoS of a PUBLISH that clients may send, announced to those of 5.0. Default 2.
    pub maximum_qos: QoS,
    /// Whether clients may send retained messages, announced to those of 5.0. Default yes.
    pub retain_available: bool,
    /// Whether filters may contain wildcards. Default yes.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers. Default yes.
    pub subscription_identifiers_available: bool,
    /// Whether subscriptions may be shared. Default yes.
    pub shared_subscription_available: bool,
    /// What the acknowledgement of a message waits for that a session takes whose listener does not say otherwise,
    /// and where retained messages are kept. Of no meaning for a broker without a data directory. Default disk.
    ///
    /// A session keeps what held when it was made, also in connections through other listeners and after a
    /// restart. A message waits for the strictest of those that take it.
    pub durability: Durability,
    /// Whether clients of 5.0 are told in words why they are disconnected (Reason String). The log says it in
    /// any case. Default no.
    pub reason_strings: bool,
    /// Unsent answers to one client (acknowledgements, PINGRESP...), in bytes, beyond which its connection
    /// is no longer read. Default 64 KiB.
    pub control_bytes: usize,
    /// Clients that may be connected. Default: no bound of its own.
    pub max_connections: usize,
    /// Clients that may be connected from one IP address. Default: no bound of its own.
    pub max_connections_per_address: usize,
    /// Connections that one IP address may open per second, a second's worth at once. Default: no bound.
    pub connect_rate_per_address: Option<NonZeroU32>,
    /// Connections that may be on their way in, without an accepted CONNECT; beyond it the oldest is closed.
    /// Default 2,000.
    pub max_entering: usize,
    /// Who is not let in.
    pub bans: BanRules,
    /// Messages that one client may publish per second on average, a second's worth at once; beyond it the
    /// client is not read for a while. Default: no bound.
    pub message_rate: Option<NonZeroU32>,
    /// The same of bytes of packets of any kind. Default: no bound.
    pub byte_rate: Option<NonZeroU32>,
    /// Who is let in, and what they may do. Default: everybody, and everything.
    pub auth: Authority,
    /// Bytes of memory that the whole process may take: the nearer it comes, the more is given up, each step with
    /// those before it, looked at ten times a second. From 80 % on new connections are refused with 0x97; from 85 % on
    /// QoS 0 messages are dropped for receivers of which 64 KiB are unsent; from 90 % on who publishes is not read for
    /// a second after each message; from 95 % on those are disconnected (0x97) who hold most, if that is 64 KiB or
    /// more, each second as many as it takes: first those of whom nothing above QoS 0 is lost, then those whose
    /// sessions end with their connections. A step is left 3 % below where it was taken. No acknowledged message above
    /// QoS 0 is lost whose session goes on. Default `u64::MAX`: no bound.
    pub memory: u64,
    /// How much memory is taken. Default: what of the process is resident.
    pub memory_gauge: MemoryGauge,
    /// Time from the accepted socket to the end of CONNECT. Default 10 s.
    pub connect_timeout: Duration,
    /// Time that a write may make no progress before the connection is closed. Default 60 s.
    pub write_timeout: Duration,
    /// Time that a shutdown waits for connections to end. Default 5 s.
    pub shutdown_timeout: Duration,
}

impl Config {
    /// Bytes of messages that wait in memory for a stored session that is not connected.
    pub(crate) fn offline_window_bytes(&self) -> usize {
        self.stored_window_bytes / 64
    }
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
            stored_queue_bytes: 1024 * 1024 * 1024,
            queue_messages: usize::MAX,
            stored_window_bytes: 1024 * 1024,
            data_directory_bytes: u64::MAX,
            disk_reserve_bytes: 32 * 1024 * 1024,
            subscription_bytes: 96 * 1024 * 1024,
            subscriptions: usize::MAX,
            topic_levels: usize::MAX,
            retained_messages: usize::MAX,
            retained_bytes: 256 * 1024 * 1024,
            retained_message_bytes: usize::MAX,
            retained_expiry_maximum: None,
            retained_sweep_interval: Duration::from_secs(60),
            session_expiry_maximum: u32::MAX,
            keep_alive_maximum: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            durability: Durability::Disk,
            reason_strings: false,
            control_bytes: 64 * 1024,
            max_connections: usize::MAX,
            max_connections_per_address: usize::MAX,
            connect_rate_per_address: None,
            max_entering: 2_000,
            bans: BanRules::default(),
            message_rate: None,
            byte_rate: None,
            auth: Authority::default(),
            memory: u64::MAX,
            memory_gauge: MemoryGauge::default(),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}
