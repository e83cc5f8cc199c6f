//! How many writes an exchange takes: what belongs together leaves together.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use mqtt_client::{Client, ProtocolVersion, QoS, ReasonCode};
use mqtt_codec::{ConnAck, Packet, PacketId, Publish, TopicName};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use crate::peer::{Peer, ack, message, options};

/// A stream that counts its writes.
struct Counted {
    stream: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A program that answers each message of QoS 2 with another: the acknowledgements of both leave with the answer.
#[tokio::test(start_paused = true)]
async fn an_answer_leaves_with_the_acknowledgements() {
    let (near, far) = duplex(1 << 16);
    let writes = Arc::new(AtomicUsize::new(0));
    let near = Counted {
        stream: near,
        writes: Arc::clone(&writes),
    };
    let mut peer = Peer::new(far, ProtocolVersion::V5);
    let welcome = async {
        peer.expect(|packet| assert!(matches!(packet, Packet::Connect(_))))
            .await;
        let connack = ConnAck::new(ReasonCode::SUCCESS);
        peer.send(Packet::ConnAck(Box::new(connack))).await;
    };
    let connected = Client::connect_with(near, options(ProtocolVersion::V5));
    let (client, ()) = tokio::join!(connected, welcome);
    let client = client.unwrap();
    let mut incoming = client.unclaimed();
    tokio::spawn(async move {
        while incoming.recv().await.is_some() {
            drop(client.publish(message(QoS::ExactlyOnce, "answer")).await);
        }
    });
    peer.publish(QoS::ExactlyOnce, 1, "question").await;
    peer.expect_packet(Packet::PubRec(ack(1))).await;
    let (mut answer, _) = peer.expect_publish("answer").await;
    peer.silent().await;
    for number in 1..10 {
        writes.store(0, Ordering::Relaxed);
        let id = answer.unwrap().get();
        let mut question = Publish::new(TopicName::new("t").unwrap(), b"question");
        question.qos = QoS::ExactlyOnce;
        question.packet_id = PacketId::new(number + 1);
        let packets = [
            Packet::PubRel(ack(number)),
            Packet::PubRec(ack(id)),
            Packet::Publish(question),
        ];
        let bytes = packets.map(|packet| packet.to_vec(ProtocolVersion::V5).unwrap());
        peer.send_bytes(&bytes.concat()).await;
        peer.expect_packet(Packet::PubComp(ack(number))).await;
        peer.expect_packet(Packet::PubRel(ack(id))).await;
        peer.expect_packet(Packet::PubRec(ack(number + 1))).await;
        (answer, _) = peer.expect_publish("answer").await;
        peer.send(Packet::PubComp(ack(id))).await;
        peer.silent().await;
        assert_eq!(writes.load(Ordering::Relaxed), 1, "question {number}");
    }
}
