//! What passing messages on takes from the allocator, counted: the figures of PERFORMANCE.md, held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mqtt_codec::{Packet, PacketType, PlainAck, Publish, QoS, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::harness::{V3_1_1, broker, filter, hello, id, name};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting touches a
// thread-local cell that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages that are sent at once.
const BATCH: u16 = 50;

/// One end of a connection, which itself allocates nothing while packets pass.
struct Wire {
    stream: DuplexStream,
    buffer: Vec<u8>,
}

impl Wire {
    async fn new(broker: &mqtt_broker::Broker, client_id: &str) -> Self {
        let (stream, other) = tokio::io::duplex(1 << 16);
        broker.serve(other, "test");
        let mut wire = Self {
            stream,
            buffer: Vec::with_capacity(1 << 16),
        };
        let hello = Packet::Connect(Box::new(hello(V3_1_1, client_id)));
        wire.send(&hello.to_vec(V3_1_1).unwrap()).await;
        wire.receive(1, |_| {}).await;
        wire
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads so many packets.
    async fn receive(&mut self, packets: u16, mut each: impl FnMut(&Packet<'_>)) {
        let mut left = packets;
        while left > 0 {
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0);
            let mut at = 0;
            while let Some((packet, len)) = decode(&self.buffer[at..], V3_1_1, u32::MAX).unwrap() {
                each(&packet);
                at += len;
                left -= 1;
            }
            self.buffer.drain(..at);
        }
    }

    /// Answers so many packets of a type, which come one after the other, in the shortest form.
    async fn acknowledge(&mut self, expected: PacketType, answer: PacketType, acks: &mut Vec<u8>) {
        acks.clear();
        self.receive(BATCH, |packet| {
            assert_eq!(packet.packet_type(), expected);
            let packet_id = match packet {
                Packet::Publish(publish) => publish.packet_id.unwrap(),
                Packet::PubRec(ack) | Packet::PubRel(ack) => ack.packet_id,
                other => panic!("{other:?}"),
            };
            acks.extend(PlainAck::new(answer, packet_id).unwrap().to_bytes());
        })
        .await;
        self.send(acks).await;
    }
}

/// Passes one batch on and acknowledges it to its end.
async fn pass(from: &mut Wire, to: &mut Wire, qos: QoS, bytes: &[u8], acks: &mut Vec<u8>) {
    from.send(bytes).await;
    match qos {
        QoS::AtMostOnce => to.receive(BATCH, |_| {}).await,
        QoS::AtLeastOnce => {
            to.acknowledge(PacketType::Publish, PacketType::PubAck, acks)
                .await;
            from.receive(BATCH, |packet| {
                assert_eq!(packet.packet_type(), PacketType::PubAck)
            })
            .await;
        }
        QoS::ExactlyOnce => {
            to.acknowledge(PacketType::Publish, PacketType::PubRec, acks)
                .await;
            to.acknowledge(PacketType::PubRel, PacketType::PubComp, acks)
                .await;
            from.acknowledge(PacketType::PubRec, PacketType::PubRel, acks)
                .await;
            from.receive(BATCH, |packet| {
                assert_eq!(packet.packet_type(), PacketType::PubComp)
            })
            .await;
        }
    }
}

/// A batch of messages between two clients takes a few allocations, and not some for each message.
#[tokio::test(start_paused = true)]
async fn batches_take_few_allocations() {
    for (qos, most) in [
        (QoS::AtMostOnce, 4),
        (QoS::AtLeastOnce, 16),
        (QoS::ExactlyOnce, 30),
    ] {
        let broker = broker();
        let mut to = Wire::new(&broker, "to").await;
        let subscribe = mqtt_codec::Subscribe::new(id(1), vec![filter("a/topic", qos)]);
        to.send(&Packet::Subscribe(subscribe).to_vec(V3_1_1).unwrap())
            .await;
        to.receive(1, |_| {}).await;
        let mut from = Wire::new(&broker, "from").await;
        let mut bytes = Vec::new();
        for number in 1..=BATCH {
            let mut publish = Publish::new(name("a/topic"), &[b'x'; 64]);
            publish.qos = qos;
            publish.packet_id = (qos != QoS::AtMostOnce).then(|| id(number));
            Packet::Publish(publish).encode(V3_1_1, &mut bytes).unwrap();
        }
        let mut acks = Vec::with_capacity(1 << 12);
        // The first batches fill what is kept for reuse.
        for _ in 0..3 {
            pass(&mut from, &mut to, qos, &bytes, &mut acks).await;
        }
        let before = ALLOCATIONS.get();
        pass(&mut from, &mut to, qos, &bytes, &mut acks).await;
        let count = ALLOCATIONS.get() - before;
        assert!(count <= most, "{qos:?}: {count} for {BATCH} messages");
    }
}
