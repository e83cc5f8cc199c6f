//! What must be on the disk before something is told or sent: each waits while a sync is held up, and not longer.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::yield_now;

use super::{Memory, message};
use crate::outbox::OutboxOptions;
use crate::{Client, Message, Options, QoS};

/// Turns that whoever does not wait would need few of.
const TURNS: usize = 100;

/// Syncs are held up as long as this is there.
struct Held(Memory);

impl Held {
    fn new(disk: &Memory) -> Self {
        disk.0.gate.close();
        Self(disk.clone())
    }

    /// Lets one sync through, without which the future does not end.
    async fn pass<T: std::fmt::Debug>(&self, what: &str, waiting: impl Future<Output = T>) -> T {
        let mut waiting = pin!(waiting);
        tokio::select! {
            biased;
            early = &mut waiting => panic!("{what} did not wait: {early:?}"),
            () = self.0.0.gate.reached() => {}
        }
        for _ in 0..TURNS {
            let early = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await;
            assert!(early.is_pending(), "{what} did not wait: {early:?}");
            yield_now().await;
        }
        self.0.0.gate.pass();
        waiting.await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A test that failed must not leave a thread that waits.
        self.0.0.gate.open();
    }
}

/// The server's end of the link.
struct Server(DuplexStream);

impl Server {
    /// The next packet; all of these are shorter than 128 bytes.
    async fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet).await.unwrap();
        let length = usize::from(packet[1]);
        packet.resize(2 + length, 0);
        self.0.read_exact(&mut packet[2..]).await.unwrap();
        packet
    }

    async fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).await.unwrap();
    }
}

/// A client with an outbox over this disk, whose CONNECT was answered, and which has written what there was to write
/// of that: no sync of its own is under way.
async fn connected(disk: &Memory) -> (Client, Server) {
    let outbox = OutboxOptions::new().over(disk.log(), None);
    let writer = Arc::clone(&outbox.0.writer);
    let options = Options::new("", 0)
        .client_id("c")
        .session_expiry_interval(60)
        .outbox(outbox);
    let (near, far) = duplex(1 << 16);
    let mut server = Server(far);
    let answer = async {
        assert_eq!(server.packet().await[0], 0x10);
        // CONNACK: no session, success, no properties.
        server.send(&[0x20, 3, 0, 0, 0]).await;
    };
    let (client, ()) = tokio::join!(Client::connect_with(near, options), answer);
    for _ in 0..TURNS {
        yield_now().await;
    }
    while !writer.is_idle() {
        yield_now().await;
    }
    (client.unwrap(), server)
}

fn with(qos: QoS) -> Message {
    message("text").qos(qos)
}

#[tokio::test]
async fn publish_and_the_packet_wait_for_the_message() {
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let disk = Memory::new();
        let (client, mut server) = connected(&disk).await;
        let held = Held::new(&disk);
        let mut told = pin!(client.publish(with(qos)));
        let mut sent = pin!(server.packet());
        let mut receipt = None;
        let mut packet = None;
        // Whichever is first once it is stored.
        let either = async {
            tokio::select! {
                told = &mut told => receipt = Some(told),
                sent = &mut sent => packet = Some(sent),
            }
        };
        held.pass("publish or the packet", either).await;
        let _receipt = match receipt {
            Some(told) => told.unwrap(),
            None => told.await.unwrap(),
        };
        let packet = match (packet, qos) {
            // Its identifier is on the disk before it is used: else a restart would not know what PUBREC is for.
            (early, QoS::ExactlyOnce) => {
                assert_eq!(early, None);
                held.pass("PUBLISH", sent).await
            }
            (Some(packet), _) => packet,
            (None, _) => sent.await,
        };
        assert_eq!(packet[0], 0x30 | (qos as u8) << 1);
    }
}

#[tokio::test]
async fn a_receipt_of_a_message_that_was_tried_waits() {
    let disk = Memory::new();
    let (client, _server) = connected(&disk).await;
    let held = Held::new(&disk);
    let mut receipt = client.try_publish(with(QoS::AtLeastOnce)).unwrap();
    held.pass("stored", receipt.stored()).await.unwrap();
}

#[tokio::test]
async fn pubrel_waits_for_the_receipt_of_pubrec() {
    let disk = Memory::new();
    let (client, mut server) = connected(&disk).await;
    let receipt = client.publish(with(QoS::ExactlyOnce)).await.unwrap();
    assert_eq!(server.packet().await[0], 0x34);
    let held = Held::new(&disk);
    // PUBREC and PUBCOMP of packet identifier 1.
    server.send(&[0x50, 2, 0, 1]).await;
    let pubrel = held.pass("PUBREL", server.packet()).await;
    assert_eq!(pubrel[..4], [0x62, pubrel[1], 0, 1]);
    // Nothing waits for this one.
    server.send(&[0x70, 2, 0, 1]).await;
    receipt.await.unwrap();
}

#[tokio::test]
async fn answers_wait_for_what_is_known_of_a_received_message() {
    let disk = Memory::new();
    let (client, mut server) = connected(&disk).await;
    let mut unclaimed = client.unclaimed();
    let held = Held::new(&disk);
    // PUBLISH at QoS 2: topic "t", packet identifier 9, no properties, no payload.
    server.send(&[0x34, 6, 0, 1, b't', 0, 9, 0]).await;
    let pubrec = async {
        drop(unclaimed.recv().await);
        server.packet().await
    };
    let pubrec = held.pass("PUBREC", pubrec).await;
    assert_eq!((pubrec[0], &pubrec[2..4]), (0x50, &[0, 9][..]));
    server.send(&[0x62, 2, 0, 9]).await;
    let pubcomp = held.pass("PUBCOMP", server.packet()).await;
    assert_eq!((pubcomp[0], &pubcomp[2..4]), (0x70, &[0, 9][..]));
}

/// A sync under way holds up neither messages of QoS 0 nor what is received.
#[tokio::test]
async fn the_connection_does_not_wait() {
    let disk = Memory::new();
    let (client, mut server) = connected(&disk).await;
    let mut unclaimed = client.unclaimed();
    let held = Held::new(&disk);
    let mut was_served = false;
    let told = async {
        let told = client.publish(with(QoS::AtLeastOnce));
        let meanwhile = async {
            let _receipt = client.publish(with(QoS::AtMostOnce)).await.unwrap();
            assert_eq!(server.packet().await[0], 0x30);
            server.send(&[0x30, 4, 0, 1, b't', 0]).await;
            assert_eq!(unclaimed.recv().await.unwrap().topic(), "t");
            was_served = true;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            told = told => told.is_ok(),
            () = meanwhile => false,
        }
    };
    assert!(held.pass("publish", told).await);
    assert!(was_served, "neither was served");
}
