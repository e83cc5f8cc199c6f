//! How fast one client may send: beyond it, its socket is not read for a while, and nothing is lost.

use core::num::NonZeroU32;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use mqtt_codec::{Ack, FixedHeader, PacketType};
use mqtt_session::Time;
use tokio::io::ReadBuf;

use crate::config::Config;
use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::hub::packet_limit;
use crate::transport::Stream;

/// What may come at once.
const BURST: Duration = Duration::from_secs(1);

/// How long the next message of a client waits that has published while memory is short.
const HELD: Duration = Duration::from_secs(1);

/// Bytes that are read behind a message that waits, for the acknowledgements among them.
const READ_BEHIND: usize = 16 * 1_024;
/// Those of them that are read at once.
const READ_STEP: usize = 2 * 1_024;

/// The rates of one client.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    messages: Option<Meter>,
    bytes: Option<Meter>,
    /// Its messages are not handled until then since memory is short.
    held_until: Time,
    /// Whether the client is held back now, so that each time is counted once.
    paused: bool,
}

#[derive(Debug)]
struct Meter {
    rate: NonZeroU32,
    /// When what was sent will be paid for.
    paid_at: Time,
}

impl Meter {
    fn new(rate: NonZeroU32) -> Self {
        Self {
            rate,
            paid_at: Time::ZERO,
        }
    }

    fn count(&mut self, now: Time, units: usize) {
        let micros = units as u64 * 1_000_000 / u64::from(self.rate.get());
        self.paid_at = self.paid_at.max(now) + Duration::from_micros(micros);
    }

    /// When the client may go on, if that is not now.
    fn blocked_until(&self, now: Time) -> Option<Time> {
        let ahead = self.paid_at.saturating_since(now);
        (ahead >= BURST).then(|| now + (ahead - BURST) + Duration::from_micros(1))
    }
}

impl Throttle {
    /// What the configuration asks for; `None` where a client may send as fast as it can.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let throttle = Self {
            messages: config.message_rate.map(Meter::new),
            bytes: config.byte_rate.map(Meter::new),
            ..Self::default()
        };
        (throttle.messages.is_some() || throttle.bytes.is_some()).then_some(throttle)
    }

    /// Takes note of a packet of so many bytes.
    pub(crate) fn count(&mut self, now: Time, len: usize, packet_type: PacketType) {
        if let Some(bytes) = &mut self.bytes {
            bytes.count(now, len);
        }
        if let Some(messages) = &mut self.messages
            && packet_type == PacketType::Publish
        {
            messages.count(now, 1);
        }
    }

    /// When the client may go on, if that is not now.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        let held = Some(self.held_until).filter(|until| *until > now);
        self.metered_until(now).max(held)
    }

    /// The same, as far as it has sent too fast.
    pub(crate) fn metered_until(&self, now: Time) -> Option<Time> {
        let meters = [&self.messages, &self.bytes].into_iter().flatten();
        meters.filter_map(|meter| meter.blocked_until(now)).max()
    }
}

impl Driver {
    /// Whether the client has sent so fast that it is not read now.
    pub(crate) fn is_throttled(&mut self, now: Time) -> bool {
        let Some(throttle) = &mut self.throttle else {
            return false;
        };
        let blocked = throttle.metered_until(now).is_some();
        if blocked && !throttle.paused {
            self.hub.counters.count_throttled();
            tracing::debug!(client_id = %self.client.name(), "not read for a while: sends too fast");
        }
        throttle.paused = blocked;
        blocked
    }

    /// Whether memory is short and the client has published lately: its next message waits.
    pub(crate) fn is_held(&self, now: Time) -> bool {
        let throttle = self.throttle.as_ref();
        throttle.is_some_and(|throttle| throttle.held_until > now)
    }

    /// Whether what was read begins with a message that memory is too short for.
    pub(crate) fn holds_publish(&self, now: Time) -> bool {
        const PUBLISH: u8 = PacketType::Publish as u8;
        self.is_held(now)
            && self
                .first_unhandled()
                .is_some_and(|byte| byte >> 4 == PUBLISH)
    }

    /// Handles acknowledgements behind a message that waits, and reads on, within bounds, until there are some: what
    /// the broker holds for the client is to become less, above all while memory is short.
    pub(crate) fn poll_acks<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        now: Time,
    ) -> Poll<Result<(), End>> {
        loop {
            let bytes = self.take_unhandled();
            let (bytes, handled) = self.take_acks(now, bytes)?;
            let len = bytes.len();
            self.keep_unhandled(bytes, true);
            if handled {
                return Poll::Ready(Ok(()));
            }
            if len >= READ_BEHIND {
                return Poll::Pending;
            }
            let mut more = [0; READ_STEP];
            let mut read = ReadBuf::new(&mut more);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)).map_err(End::Failed)?;
            if read.filled().is_empty() {
                // The end of the stream is not looked at before what came before it.
                return Poll::Pending;
            }
            let mut bytes = self.take_unhandled();
            bytes.extend_from_slice(read.filled());
            self.keep_unhandled(bytes, true);
        }
    }

    /// Handles the acknowledgements of messages among whole packets; returns the rest, and whether there were any.
    fn take_acks(&mut self, now: Time, bytes: Vec<u8>) -> Result<(Vec<u8>, bool), End> {
        let limit = packet_limit(self.connection.negotiated().inbound.maximum_packet_size);
        let mut left = Vec::new();
        let mut handled = false;
        // Where the next packet begins, and what is neither an acknowledgement nor in `left` yet.
        let (mut at, mut from) = (0, 0);
        while let Some(rest) = bytes.get(at..)
            && let Ok(Some(header)) = FixedHeader::parse(rest)
            && let Some(body) = rest.get(usize::from(header.header_len)..header.frame_len())
        {
            let end = at + header.frame_len();
            match header.packet_type {
                // Nothing may follow it.
                PacketType::Disconnect => break,
                PacketType::PubAck | PacketType::PubRec | PacketType::PubComp => {
                    header.check_version(self.version)?;
                    header.check_size(limit)?;
                    let ack = Ack::decode(header.packet_type, body, self.version)?;
                    self.connection.handle_ack(now, header.packet_type, &ack)?;
                    left.extend_from_slice(bytes.get(from..at).unwrap_or_default());
                    from = end;
                    handled = true;
                }
                _ => {}
            }
            at = end;
        }
        if !handled {
            return Ok((bytes, false));
        }
        left.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Ok((left, true))
    }

    /// Memory is short, and the client has published: its next message waits for a while.
    pub(crate) fn hold(&mut self, now: Time) {
        self.hub.counters.count_held();
        self.throttle.get_or_insert_default().held_until = now + HELD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_may_come_at_once_and_the_average_holds() {
        let mut config = Config::default();
        assert!(Throttle::new(&config).is_none());
        config.message_rate = NonZeroU32::new(10);
        let mut throttle = Throttle::new(&config).unwrap();
        let mut now = Time::ZERO + Duration::from_secs(5);
        let mut sent = 0;
        while throttle.blocked_until(now).is_none() {
            throttle.count(now, 100, PacketType::Publish);
            throttle.count(now, 2, PacketType::PingReq);
            sent += 1;
        }
        assert_eq!(sent, 10);
        let start = now;
        for _ in 0..100 {
            now = throttle.blocked_until(now).unwrap();
            assert!(throttle.blocked_until(now).is_none());
            throttle.count(now, 100, PacketType::Publish);
        }
        let took = now.saturating_since(start).as_millis();
        assert!((9_900..=10_100).contains(&took), "{took}");
    }

    #[test]
    fn bytes_are_counted_of_every_packet() {
        let config = Config {
            byte_rate: NonZeroU32::new(1_000),
            ..Config::default()
        };
        let mut throttle = Throttle::new(&config).unwrap();
        throttle.count(Time::ZERO, 2_500, PacketType::PingReq);
        let until = throttle.blocked_until(Time::ZERO).unwrap();
        assert_eq!(until.saturating_since(Time::ZERO).as_millis(), 1_500);
    }
}
