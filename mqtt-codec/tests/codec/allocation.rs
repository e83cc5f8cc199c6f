//! What decoding and encoding take from the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mqtt_codec::ProtocolVersion::{V3_1_1, V5};
use mqtt_codec::{Packet, PacketId, Publish, QoS, TopicName, UserProperty, decode};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count for each thread.
struct Counting;

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract; counting
// touches a thread-local cell that needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(action: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let value = action();
    (ALLOCATIONS.get() - before, value)
}

fn publish() -> Publish<'static> {
    let mut publish = Publish::new(TopicName::new("a/b").unwrap(), &[7; 64]);
    publish.qos = QoS::AtLeastOnce;
    publish.packet_id = PacketId::new(1);
    publish.properties.message_expiry_interval = Some(1);
    publish.properties.content_type = Some("text");
    publish
}

#[test]
fn a_publish_without_lists_takes_nothing() {
    for version in [V3_1_1, V5] {
        let packet = Packet::Publish(publish());
        let mut out = Vec::with_capacity(200);
        let (count, result) = allocations(|| packet.encode(version, &mut out));
        assert_eq!((count, result), (0, Ok(())));
        let (count, decoded) = allocations(|| decode(&out, version, 200));
        assert_eq!(count, 0);
        assert!(decoded.unwrap().is_some());
    }
}

#[test]
fn lists_are_what_takes_memory() {
    let mut publish = publish();
    publish.properties.user_properties = vec![UserProperty {
        name: "",
        value: "",
    }];
    let bytes = Packet::Publish(publish).to_vec(V5).unwrap();
    let (count, _decoded) = allocations(|| decode(&bytes, V5, 200));
    assert_eq!(count, 1);
}

#[test]
fn an_announced_length_takes_nothing() {
    // A PUBLISH of 268,435,455 bytes of which the header is there.
    let (count, result) = allocations(|| decode(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], V5, u32::MAX));
    assert_eq!((count, result), (0, Ok(None)));
}
