//! The section `[limits]`: every bound of [`Config`] under its own name.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use mqtt_codec::QoS;

use crate::config::Config;
use crate::settings::describe::section;
use crate::settings::value::{Quality, Size, Span};

/// Least bound for the memory of the process.
pub(super) const LEAST_MEMORY: u64 = 32 << 20;

const fn sixteen(value: u16) -> NonZeroU16 {
    match NonZeroU16::new(value) {
        Some(value) => value,
        None => NonZeroU16::MIN,
    }
}

section! {
    /// What clients may make the broker do and keep.
    struct LimitSettings {
        /// Largest packet accepted from a client once its CONNECT was accepted, fixed header included.
        max_packet_size: Size = Size(2_000_000), "\"2 MB\"";
        /// Largest packet accepted before CONNECT was accepted.
        max_connect_size: Size = Size(65_536), "\"64 KiB\"";
        /// QoS 1 and 2 PUBLISH packets that a client may have unacknowledged.
        receive_maximum: NonZeroU16 = sixteen(1_024), "1024";
        /// QoS 1 and 2 PUBLISH packets that the broker has unacknowledged towards a client of 3.1 or 3.1.1.
        receive_maximum_v3: NonZeroU16 = sixteen(256), "256";
        /// Highest topic alias that a client may use.
        topic_alias_maximum: u16 = 16, "16";
        /// Unsent bytes of one connection beyond which QoS 0 messages to it are dropped.
        outbox_bytes: Size = Size(1 << 20), "\"1 MiB\"";
        /// Bytes of QoS 1 and 2 messages that one session in memory may hold.
        queue_bytes: Size = Size(16 << 20), "\"16 MiB\"";
        /// The same of a session that is stored on disk.
        stored_queue_bytes: Size = Size(1 << 30), "\"1 GiB\"";
        /// Messages of QoS 1 and 2 that one session may hold. Without it: as many as fit.
        queue_messages: Option<usize> = None, "1000";
        /// Bytes of messages that wait in memory for a stored session while it is connected; those behind
        /// them are read from the disk when it is their turn.
        stored_window_bytes: Size = Size(1 << 20), "\"1 MiB\"" at_start;
        /// Bytes of the data directory beyond which no new message is stored. Without it: as many as fit.
        data_directory_bytes: Option<Size> = None, "\"10 GiB\"";
        /// Bytes of a file in the data directory that is removed when the disk is full, so that
        /// acknowledgements and deletions still fit. 0: there is none.
        disk_reserve_bytes: Size = Size(32 << 20), "\"32 MiB\"";
        /// Bytes that the subscriptions of one session may take, by a rough count.
        subscription_bytes: Size = Size(96 << 20), "\"96 MiB\"";
        /// Subscriptions that one session may have; one beyond it is refused with 0x97. Without it: as many as fit.
        subscriptions: Option<usize> = None, "1000";
        /// Levels that a topic or a filter may have; one with more is refused with 0x90 or 0x8F. Without it: as
        /// many as fit.
        topic_levels: Option<usize> = None, "32";
        /// Topics that may have a retained message. Without it: as many as fit.
        retained_messages: Option<usize> = None, "100000";
        /// Bytes of all retained messages.
        retained_bytes: Size = Size(256 << 20), "\"256 MiB\"";
        /// Bytes of one retained message. Without it: as large as a packet.
        retained_message_bytes: Option<Size> = None, "\"64 KiB\"";
        /// Longest time that a message is retained, also of one that expires later, or not at all by itself. Without it:
        /// as its publisher says.
        retained_expiry_maximum: Option<Span> = None, "\"30d\"";
        /// How often expired retained messages are looked for, so that they hold no memory.
        retained_sweep_interval: Span = Span(Duration::from_secs(60)), "\"60s\"";
        /// Longest time that a session outlives its connection. Without it: for ever.
        session_expiry_maximum: Option<Span> = None, "\"30d\"";
        /// Longest keep alive, in seconds; a client of 5.0 that asks for more is told to use this one.
        keep_alive_maximum: Option<NonZeroU16> = None, "3600";
        /// Highest QoS that clients may use.
        maximum_qos: Quality = Quality(QoS::ExactlyOnce), "2";
        /// Whether clients may send retained messages.
        retain_available: bool = true, "true";
        /// Whether filters may contain wildcards.
        wildcard_subscription_available: bool = true, "true";
        /// Whether subscriptions may have identifiers.
        subscription_identifiers_available: bool = true, "true";
        /// Whether subscriptions may be shared.
        shared_subscription_available: bool = true, "true";
        /// Whether clients of 5.0 are told in words why they are disconnected.
        reason_strings: bool = false, "false";
        /// Unsent answers to one client beyond which it is not read.
        control_bytes: Size = Size(65_536), "\"64 KiB\"";
        /// Clients that may be connected. Without it: as many as the system lets open sockets. Beyond it
        /// they are refused with 0x89, server busy (3.1.1: 3).
        max_connections: Option<usize> = None, "10000";
        /// Clients that may be connected from one IP address. Beyond it they are refused with 0x97.
        max_connections_per_address: Option<usize> = None, "100";
        /// Connections that one IP address may open per second, a second's worth at once. Beyond it they
        /// are refused with 0x9F.
        connect_rate_per_address: Option<NonZeroU32> = None, "20";
        /// Connections that may be on their way in, without an accepted CONNECT; beyond it the oldest goes.
        max_entering: usize = 2_000, "2000";
        /// Messages that a client may publish per second on average, a second's worth at once. Beyond it
        /// the client is not read for a while.
        message_rate: Option<NonZeroU32> = None, "1000";
        /// The same of bytes of packets of any kind.
        byte_rate: Option<NonZeroU32> = None, "1000000";
        /// Memory that the whole process may take, as the system counts it (resident). The nearer it comes, the more is
        /// given up, each step with those before it: from 80 % on new connections are refused (0x97), but for those that
        /// resume a session; from 85 % on QoS 0 messages are dropped for receivers of which 64 KiB are unsent; from 90 %
        /// on one message a second is taken of each client, and its acknowledgements as before; from 95 % on nobody
        /// comes in, and those are disconnected (0x97) who hold most, if that is 64 KiB or more, packets that have not
        /// arrived whole included: first those who hold several times as much as the others, and among equals those of
        /// whom nothing above QoS 0 is lost before those whose sessions end with their connections. Without it: as much
        /// as there is.
        memory: Option<Size> = None, "\"512 MiB\"";
        /// Time from the accepted socket to the end of CONNECT, handshakes of TLS and WebSocket included.
        connect_timeout: Span = Span(Duration::from_secs(10)), "\"10s\"";
        /// Time that a write may make no progress before the connection is closed.
        write_timeout: Span = Span(Duration::from_secs(60)), "\"60s\"";
        /// Time that a shutdown waits for connections to end.
        shutdown_timeout: Span = Span(Duration::from_secs(5)), "\"5s\"";
    }
}

/// As many as the platform counts.
fn bytes(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

/// Sizes of packets: more than the protocol can say is as much as it can say.
fn packet(size: Size) -> u32 {
    u32::try_from(size.0).unwrap_or(u32::MAX)
}

impl LimitSettings {
    /// What is wrong with a value, by its key.
    pub(crate) fn problem(&self) -> Option<(&'static str, &'static str)> {
        const LEAST: u64 = 64;
        if self.max_packet_size.0 < LEAST {
            return Some((
                "max_packet_size",
                "less than 64 bytes leaves no room for MQTT",
            ));
        }
        if self.max_connect_size.0 < LEAST {
            return Some((
                "max_connect_size",
                "less than 64 bytes leaves no room for CONNECT",
            ));
        }
        if self.memory.is_some_and(|size| size.0 < LEAST_MEMORY) {
            return Some(("memory", "less than 32 MiB leaves no room for clients"));
        }
        for (name, span) in [
            ("connect_timeout", self.connect_timeout),
            ("write_timeout", self.write_timeout),
            ("retained_sweep_interval", self.retained_sweep_interval),
        ] {
            if span.0.is_zero() {
                return Some((name, "no time at all"));
            }
        }
        None
    }

    /// The configuration with these limits.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            max_packet_size: packet(self.max_packet_size),
            max_connect_size: packet(self.max_connect_size),
            receive_maximum: self.receive_maximum,
            receive_maximum_v3: self.receive_maximum_v3,
            topic_alias_maximum: self.topic_alias_maximum,
            outbox_bytes: bytes(self.outbox_bytes),
            queue_bytes: bytes(self.queue_bytes),
            stored_queue_bytes: bytes(self.stored_queue_bytes),
            queue_messages: self.queue_messages.unwrap_or(usize::MAX),
            stored_window_bytes: bytes(self.stored_window_bytes),
            data_directory_bytes: self.data_directory_bytes.map_or(u64::MAX, |size| size.0),
            disk_reserve_bytes: self.disk_reserve_bytes.0,
            subscription_bytes: bytes(self.subscription_bytes),
            subscriptions: self.subscriptions.unwrap_or(usize::MAX),
            topic_levels: self.topic_levels.unwrap_or(usize::MAX),
            retained_messages: self.retained_messages.unwrap_or(usize::MAX),
            retained_bytes: bytes(self.retained_bytes),
            retained_message_bytes: self.retained_message_bytes.map_or(usize::MAX, bytes),
            retained_expiry_maximum: self.retained_expiry_maximum.map(|span| span.0),
            retained_sweep_interval: self.retained_sweep_interval.0,
            session_expiry_maximum: self.session_expiry_maximum.map_or(u32::MAX, |span| {
                u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX)
            }),
            keep_alive_maximum: self.keep_alive_maximum,
            maximum_qos: self.maximum_qos.0,
            retain_available: self.retain_available,
            wildcard_subscription_available: self.wildcard_subscription_available,
            subscription_identifiers_available: self.subscription_identifiers_available,
            shared_subscription_available: self.shared_subscription_available,
            reason_strings: self.reason_strings,
            control_bytes: bytes(self.control_bytes),
            max_connections: self.max_connections.unwrap_or(usize::MAX),
            max_connections_per_address: self.max_connections_per_address.unwrap_or(usize::MAX),
            connect_rate_per_address: self.connect_rate_per_address,
            max_entering: self.max_entering,
            message_rate: self.message_rate,
            byte_rate: self.byte_rate,
            memory: self.memory.map_or(u64::MAX, |size| size.0),
            connect_timeout: self.connect_timeout.0,
            write_timeout: self.write_timeout.0,
            shutdown_timeout: self.shutdown_timeout.0,
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing said is the same here and in the library.
    #[test]
    fn the_defaults_are_those_of_the_library() {
        let ours = format!("{:?}", LimitSettings::default().config());
        assert_eq!(ours, format!("{:?}", Config::default()));
    }
}
