//! A task that panics takes nothing with it but its connection.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;

use mqtt_codec::{Packet, QoS, TopicName, Will};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::harness::{ALL, EVERY_QOS, Peer, broker, lasting, message, settle};

/// A stream that panics once it has read so many bytes.
struct Trap {
    stream: DuplexStream,
    left: usize,
}

impl AsyncRead for Trap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        self.left = self.left.checked_sub(count).expect("the trap snaps");
        outcome
    }
}

impl AsyncWrite for Trap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The client identifier can be used again, the session is there, the will is published, and others go on.
#[tokio::test(start_paused = true)]
async fn a_panic_gives_the_session_back() {
    for version in ALL {
        for qos in EVERY_QOS {
            let broker = broker();
            let mut watcher = Peer::new(&broker, version, "watcher").await;
            watcher.subscribe("#", qos).await;

            let mut connect = lasting(version, "client");
            let mut will = Will::new(TopicName::new("will").unwrap(), b"gone");
            will.qos = qos;
            connect.will = Some(will);
            let connect = Packet::Connect(Box::new(connect)).to_vec(version).unwrap();
            let publish = message("t", "before", QoS::AtMostOnce);
            let publish = Packet::Publish(publish).to_vec(version).unwrap();
            let (mut stream, other) = tokio::io::duplex(1_000);
            let left = connect.len() + publish.len();
            broker.serve(
                Trap {
                    stream: other,
                    left,
                },
                "test",
            );
            for bytes in [connect, publish, vec![0xc0, 0]] {
                tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
                    .await
                    .unwrap();
                settle().await;
            }
            watcher.expect_message("t", "before", QoS::AtMostOnce).await;
            watcher.expect_message("will", "gone", qos).await;

            let (mut again, present) = Peer::resumed(&broker, &lasting(version, "client")).await;
            assert_eq!(present, version.has_session_present());
            again.subscribe("t", qos).await;
            watcher
                .publish(&message("t", "after", QoS::AtMostOnce))
                .await;
            again.expect_message("t", "after", QoS::AtMostOnce).await;
        }
    }
}
