//! A server that never stops sending: the clocks of the client go on.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mqtt_client::{Client, Error, ProtocolVersion, ReasonCode};
use mqtt_codec::{ConnAck, Packet, Publish, TopicName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::peer::options;

/// PINGREQ on the wire.
const PINGREQ: [u8; 2] = [0xC0, 0];

/// A stream that always has something to read until it ends; each read takes a second of virtual time.
struct Flood {
    reads: usize,
    is_accepted: bool,
    /// PINGREQ that wait for an answer.
    unanswered: usize,
    pings: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == 0 {
            return Poll::Ready(Ok(()));
        }
        self.reads -= 1;
        // The clock moves at once, what is waited for is only the turn of others.
        let _ = pin!(tokio::time::advance(Duration::from_secs(1))).poll(context);
        let packet = if !std::mem::replace(&mut self.is_accepted, true) {
            Packet::ConnAck(Box::new(ConnAck::new(ReasonCode::SUCCESS)))
        } else if self.unanswered > 0 {
            self.unanswered -= 1;
            Packet::PingResp
        } else {
            Packet::Publish(Publish::new(TopicName::new("t").unwrap(), b"x"))
        };
        buffer.put_slice(&packet.to_vec(ProtocolVersion::V5).unwrap());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes == PINGREQ {
            self.unanswered += 1;
            self.pings.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The Keep Alive is about what the client sends: what it gets does not stand for it.
#[tokio::test(start_paused = true)]
async fn a_flood_does_not_hold_up_pingreq() {
    let pings = Arc::new(AtomicUsize::new(0));
    let flood = Flood {
        reads: 32,
        is_accepted: false,
        unanswered: 0,
        pings: Arc::clone(&pings),
    };
    let options = options(ProtocolVersion::V5).keep_alive(5);
    let client = Client::connect_with(flood, options).await.unwrap();
    let ended = client.closed().await;
    assert!(matches!(ended, Err(Error::ConnectionLost)), "{ended:?}");
    assert!(pings.load(Ordering::Relaxed) >= 5, "{pings:?}");
}
