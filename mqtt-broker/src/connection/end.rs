//! How connections end, what the peer is told, and whether its will is published.

use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;

use mqtt_codec::{FixedHeader, Packet, PacketType, ReasonCode};
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::client::Kick;
use crate::connection::driver::Driver;
use crate::counters::EndReason;
use crate::hub::packet_limit;
use crate::transport::Stream;

/// Reads of what a client sent before its connection ended, at most.
const LAST_READS: usize = 32;

/// Bytes of one of them.
const LAST_READ: usize = 8 * 1024;

/// How long the end of a stream is awaited that cannot be written to any more.
const LAST_WAIT: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client sent DISCONNECT.
    Disconnected(ReasonCode),
    /// The peer closed the stream without a farewell.
    Closed,
    /// The stream failed.
    Failed(io::Error),
    /// The client broke the standard.
    Violation {
        /// What the client is told.
        reason: ReasonCode,
        /// What the log is told.
        detail: String,
    },
    /// Nothing came within one and a half times the keep alive.
    KeepAlive,
    /// A write made no progress for the write timeout.
    WriteStalled,
    /// The broker ends it.
    Kicked(Kick),
}

impl End {
    pub(crate) fn violation(reason: ReasonCode, detail: impl fmt::Display) -> Self {
        Self::Violation {
            reason,
            detail: detail.to_string(),
        }
    }

    /// What DISCONNECT says, where the version of the connection has one for servers.
    fn reason(&self) -> Option<ReasonCode> {
        match self {
            Self::Disconnected(_) | Self::Closed | Self::Failed(_) | Self::WriteStalled => None,
            Self::Violation { reason, .. } => Some(*reason),
            Self::KeepAlive => Some(ReasonCode::KEEP_ALIVE_TIMEOUT),
            Self::Kicked(Kick::TakenOver) => Some(ReasonCode::SESSION_TAKEN_OVER),
            Self::Kicked(Kick::ShuttingDown) => Some(ReasonCode::SERVER_SHUTTING_DOWN),
            Self::Kicked(Kick::NoLongerAdmitted | Kick::Expired) => {
                Some(ReasonCode::NOT_AUTHORIZED)
            }
            Self::Kicked(Kick::OutOfMemory) => Some(ReasonCode::QUOTA_EXCEEDED),
            // 0x8A stands in CONNACK only (section 2.4).
            Self::Kicked(Kick::Banned) => Some(ReasonCode::ADMINISTRATIVE_ACTION),
        }
    }

    /// Under what it is counted, if it was the broker's decision.
    pub(crate) fn counted_as(&self) -> Option<EndReason> {
        match self {
            Self::Disconnected(_) | Self::Closed | Self::Kicked(Kick::ShuttingDown) => None,
            Self::Failed(error) => {
                (error.kind() == io::ErrorKind::InvalidData).then_some(EndReason::BrokenFrames)
            }
            Self::Violation { reason, .. } => Some(EndReason::of(*reason)),
            Self::KeepAlive => Some(EndReason::KeepAlive),
            Self::WriteStalled => Some(EndReason::WriteStalled),
            // Counted when it was chosen.
            Self::Kicked(Kick::OutOfMemory) => None,
            Self::Kicked(Kick::TakenOver) => Some(EndReason::TakenOver),
            Self::Kicked(Kick::NoLongerAdmitted | Kick::Expired) => {
                Some(EndReason::NoLongerAdmitted)
            }
            Self::Kicked(Kick::Banned) => Some(EndReason::Banned),
        }
    }

    /// Whether the will is published: unless the client took it back with DISCONNECT 0x00
    /// ([MQTT-3.14.4-3]).
    pub(crate) fn publishes_will(&self) -> bool {
        !matches!(self, Self::Disconnected(ReasonCode::NORMAL_DISCONNECTION))
    }

    /// What the peer may be told in words.
    fn detail(&self) -> Option<&str> {
        match self {
            Self::Violation { detail, .. } => Some(detail),
            _ => None,
        }
    }

    /// Whether the peer may still be reading.
    fn has_reader(&self) -> bool {
        !matches!(self, Self::Closed | Self::Failed(_) | Self::WriteStalled)
    }

    /// Whether the client may have sent something that was not read yet.
    fn has_unread(&self) -> bool {
        match self {
            Self::Disconnected(_) | Self::Closed | Self::Violation { .. } => false,
            Self::Failed(_) | Self::KeepAlive | Self::WriteStalled | Self::Kicked(_) => true,
        }
    }
}

impl Driver {
    /// The last steps on the stream, none of which waits for the client: reads what it had sent before the
    /// connection ended for another reason, and says farewell. Returns why it ended, and whether something may
    /// be on its way to the client.
    pub(crate) async fn part<S: Stream>(&mut self, stream: &mut S, end: End) -> (End, bool) {
        let mut skips = false;
        let end = if matches!(end, End::Failed(_)) {
            // A stream that cannot be written to is soon known to have ended: until then it is read.
            let heard = poll_fn(|cx| self.poll_last_words(cx, stream, &mut skips));
            let heard = timeout(LAST_WAIT, heard).await;
            heard.ok().flatten().unwrap_or(end)
        } else if end.has_unread() {
            // The runtime asks the system in between what there is to read.
            yield_now().await;
            let heard = poll_fn(|cx| match self.poll_last_words(cx, stream, &mut skips) {
                Poll::Pending => Poll::Ready(None),
                heard => heard,
            });
            heard.await.unwrap_or(end)
        } else {
            end
        };
        let said = poll_fn(|cx| Poll::Ready(self.say_farewell(cx, stream, &end))).await;
        (end, said)
    }

    /// Handles what the client has sent already, within bounds: a DISCONNECT among it takes its will back
    /// ([MQTT-3.14.4-3]), whether its connection is taken over or fails meanwhile. `skips`: nothing but that is looked
    /// for any more.
    fn poll_last_words<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
        skips: &mut bool,
    ) -> Poll<Option<End>> {
        for _ in 0..LAST_READS {
            let now = self.hub.now();
            if self.is_asking() {
                match self.poll_asking(cx, now) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(said)) => return Poll::Ready(Some(said)),
                    Poll::Pending => *skips = true,
                }
            }
            if *skips {
                return self.poll_disconnect(cx, stream);
            }
            match ready!(self.poll_read_on(cx, stream, now)) {
                Ok(()) => {}
                Err(said @ (End::Disconnected(_) | End::Violation { .. })) => {
                    return Poll::Ready(Some(said));
                }
                Err(_) => break,
            }
        }
        Poll::Ready(None)
    }

    /// Looks for a DISCONNECT behind a packet that waits for the service. Neither that packet nor what follows it is
    /// handled any more: what is to be acknowledged will come again.
    fn poll_disconnect<S: Stream>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Option<End>> {
        self.drop_parked();
        let mut bytes = self.take_unhandled();
        for _ in 0..LAST_READS {
            if let Some(end) = self.skip_to_disconnect(&mut bytes) {
                return Poll::Ready(end);
            }
            bytes.reserve(LAST_READ);
            match pin!(stream.read_buf(&mut bytes)).poll(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => {
                    self.keep_unhandled(bytes, false);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(None)
    }

    /// Takes whole packets off the front, up to a DISCONNECT; returns that there is one, or that there will be none.
    fn skip_to_disconnect(&mut self, bytes: &mut Vec<u8>) -> Option<Option<End>> {
        let limit = packet_limit(self.connection.negotiated().inbound.maximum_packet_size);
        let mut at = 0;
        let mut rest = &bytes[..];
        while let Ok(Some(header)) = FixedHeader::parse(rest) {
            if header.check_size(limit).is_err() {
                return Some(None);
            }
            let Some(body) = rest.get(usize::from(header.header_len)..header.frame_len()) else {
                break;
            };
            if header.packet_type == PacketType::Disconnect {
                return Some(match Packet::decode(header, body, self.version) {
                    Ok(Packet::Disconnect(disconnect)) => Some(self.handle_disconnect(&disconnect)),
                    _ => None,
                });
            }
            at += header.frame_len();
            rest = bytes.get(at..).unwrap_or_default();
        }
        bytes.drain(..at);
        None
    }

    /// Answers what was handled and tells the peer why, as far as its socket takes it at once; returns whether
    /// something may be on its way. Messages that were not begun are not sent any more.
    fn say_farewell<S: Stream>(&mut self, cx: &mut Context<'_>, stream: &mut S, end: &End) -> bool {
        // Answers that follow those that are dropped here would come out of order.
        let answers = !self.output.has_deliveries();
        self.drop_unsent();
        if !end.has_reader() {
            return false;
        }
        if answers {
            self.collect_last_answers();
        }
        if let Some(reason) = end.reason() {
            self.say_disconnect(reason, end.detail());
        }
        if !self.output.has_bytes() {
            return false;
        }
        let written = self.poll_write(cx, stream);
        let _ = Pin::new(stream).poll_flush(cx);
        !matches!(written, Poll::Ready(Err(_)))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(reason) if *reason == ReasonCode::NORMAL_DISCONNECTION => {
                f.write_str("by the client")
            }
            Self::Disconnected(reason) => write!(f, "by the client: {}", reason.name()),
            Self::Closed => f.write_str("connection closed by the client without DISCONNECT"),
            Self::Failed(error) => write!(f, "connection failed: {error}"),
            Self::Violation { detail, .. } => f.write_str(detail),
            Self::KeepAlive => {
                f.write_str("nothing received for one and a half times the keep alive")
            }
            Self::WriteStalled => f.write_str("the client reads nothing: write timed out"),
            Self::Kicked(Kick::TakenOver) => f.write_str("taken over by another connection"),
            Self::Kicked(Kick::ShuttingDown) => f.write_str("the broker shuts down"),
            Self::Kicked(Kick::NoLongerAdmitted) => {
                f.write_str("the configuration does not let it in any more")
            }
            Self::Kicked(Kick::Expired) => f.write_str("what it was let in by has expired"),
            Self::Kicked(Kick::Banned) => f.write_str("banned"),
            Self::Kicked(Kick::OutOfMemory) => f.write_str("memory is short, and it holds much"),
        }
    }
}
