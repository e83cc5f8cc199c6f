//! MQTT 3.1 and 3.1.1 byte by byte: strings, fixed headers, packet identifiers, and what is malformed.

use mqtt_broker::Config;
use mqtt_codec::{Packet, ProtocolVersion, QoS};

use crate::harness::{Peer, V3, V3_1, V3_1_1, broker, broker_with, message};
use crate::v3_wire::{
    CLEAN, ILL_FORMED, USER, WILL, connect, packet, publish, subscribe, unsubscribe,
};

/// The connection must end without another byte, and nobody else may notice.
async fn assert_closes(version: ProtocolVersion, bytes: &[u8]) {
    let broker = broker();
    let mut bystander = Peer::new(&broker, version, "bystander").await;
    bystander.subscribe("#", QoS::ExactlyOnce).await;
    let mut peer = Peer::new(&broker, version, "client").await;
    peer.send_raw(bytes).await;
    let shown = &bytes[..bytes.len().min(40)];
    assert_eq!(peer.rest().await, b"", "{version} {shown:02x?}");
    bystander.expect_nothing().await;
}

/// The connection must end without CONNACK.
async fn assert_not_connected(version: ProtocolVersion, bytes: &[u8]) {
    let broker = broker();
    let mut peer = Peer::open(&broker, version);
    peer.send_raw(bytes).await;
    assert_eq!(peer.rest().await, b"", "{version} {bytes:02x?}");
}

/// Each packet of a client that has a string, around that string.
fn packets_with(text: &[u8]) -> [Vec<u8>; 4] {
    [
        publish(0x30, text, b"", b"x"),
        publish(0x32, text, b"\0\x07", b"x"),
        subscribe(7, text, 0),
        unsubscribe(7, text),
    ]
}

/// Each string of CONNECT.
fn connects_with(version: ProtocolVersion, text: &[u8]) -> [Vec<u8>; 3] {
    [
        connect(version, CLEAN, &[text]),
        connect(version, CLEAN | WILL, &[b"c", text, b"will"]),
        connect(version, CLEAN | USER, &[b"c", text]),
    ]
}

/// [MQTT3-1.5.3-1] [MQTT3-3.3.2-1] [MQTT3-3.1.4-1]: strings that are not UTF-8 end the connection, in
/// CONNECT without an answer.
#[tokio::test(start_paused = true)]
async fn ill_formed_strings_close() {
    for version in V3 {
        for text in ILL_FORMED {
            for bytes in packets_with(text) {
                assert_closes(version, &bytes).await;
            }
            for bytes in connects_with(version, text) {
                assert_not_connected(version, &bytes).await;
            }
        }
    }
}

/// [MQTT3-1.5.3-2] [MQTT3-4.7.3-2]: so does U+0000.
#[tokio::test(start_paused = true)]
async fn null_characters_close() {
    for version in V3 {
        for text in [&b"\0"[..], b"a\0b", b"a/\0", b"\0a"] {
            for bytes in packets_with(text) {
                assert_closes(version, &bytes).await;
            }
            for bytes in connects_with(version, text) {
                assert_not_connected(version, &bytes).await;
            }
        }
    }
}

/// [MQTT3-1.5.3-3]: EF BB BF is a character like others, not a mark to be stripped.
#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_is_kept() {
    for version in V3 {
        let broker = broker();
        let mut without = Peer::new(&broker, version, "client").await;
        without.subscribe("a", QoS::AtMostOnce).await;
        // The identifier with the mark is another one.
        let mut with = Peer::new(&broker, version, "\u{feff}client").await;
        with.subscribe("\u{feff}a", QoS::AtMostOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message("\u{feff}a", "x", QoS::AtMostOnce))
            .await;
        assert_eq!(
            with.receive().await.bytes(),
            publish(0x30, b"\xef\xbb\xbfa", b"", b"x")
        );
        without.expect_nothing().await;
        sender.publish(&message("a", "y", QoS::AtMostOnce)).await;
        without.expect_message("a", "y", QoS::AtMostOnce).await;
        with.expect_nothing().await;
    }
}

/// [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1] [MQTT3-4.8.0-1]: reserved flags that are
/// not as listed; 3.1 has a DUP flag where 3.1.1 has reserved ones.
#[tokio::test(start_paused = true)]
async fn reserved_flags_close() {
    let packets: [(u8, u8, &[u8]); 8] = [
        (0x4, 0, b"\0\x01"),
        (0x5, 0, b"\0\x01"),
        (0x6, 2, b"\0\x01"),
        (0x7, 0, b"\0\x01"),
        (0x8, 2, b"\0\x01\0\x01a\0"),
        (0xa, 2, b"\0\x01\0\x01a"),
        (0xc, 0, b""),
        (0xe, 0, b""),
    ];
    for version in V3 {
        for (packet_type, right, body) in packets {
            for flags in 0..16 {
                let dup = version == V3_1 && right == 2 && flags == 0b1010;
                if flags != right && !dup {
                    assert_closes(version, &packet(packet_type << 4 | flags, &[body])).await;
                }
            }
        }
        for flags in 1..16 {
            let mut bytes = connect(version, CLEAN, &[b"c"]);
            bytes[0] |= flags;
            assert_not_connected(version, &bytes).await;
        }
    }
}

/// The DUP flag of requests, which only 3.1 has, changes nothing.
#[tokio::test(start_paused = true)]
async fn requests_of_3_1_may_have_the_dup_flag() {
    let broker = broker();
    let mut peer = Peer::new(&broker, V3_1, "client").await;
    for (request, answer) in [
        (
            &b"\x8a\x06\0\x01\0\x01a\x01"[..],
            &b"\x90\x03\0\x01\x01"[..],
        ),
        (b"\xaa\x05\0\x02\0\x01a", b"\xb0\x02\0\x02"),
        (b"\x6a\x02\0\x03", b"\x70\x02\0\x03"),
    ] {
        peer.send_raw(request).await;
        assert_eq!(peer.receive().await.bytes(), answer);
    }
}

/// [MQTT3-2.2.2-1] [MQTT3-2.3.1-6] [MQTT3-2.3.1-7] [MQTT3-3.12.4-1] [MQTT3-3.8.4-1] [MQTT3-3.8.4-2]
/// [MQTT3-3.10.4-4] [MQTT3-7.0.0-2]: every answer of the broker, byte by byte, with the identifier of its
/// request. Nothing that the standard does not have is needed.
#[tokio::test(start_paused = true)]
async fn answers_are_as_printed() {
    for version in V3 {
        for number in [1, 2, 0x1234, 0xff00, 0xffff_u16] {
            let broker = broker();
            let mut peer = Peer::open(&broker, version);
            let id = &number.to_be_bytes();
            let dialogue = [
                (connect(version, CLEAN, &[b"c"]), packet(0x20, &[&[0, 0]])),
                (subscribe(number, b"b", 1), packet(0x90, &[id, &[1]])),
                (unsubscribe(number, b"b"), packet(0xb0, &[id])),
                (publish(0x32, b"a", id, b"x"), packet(0x40, &[id])),
                (publish(0x34, b"a", id, b"x"), packet(0x50, &[id])),
                (packet(0x62, &[id]), packet(0x70, &[id])),
                (packet(0xc0, &[]), packet(0xd0, &[])),
            ];
            for (request, answer) in dialogue {
                peer.send_raw(&request).await;
                assert_eq!(peer.receive().await.bytes(), answer, "{request:02x?}");
            }
            peer.send_raw(&packet(0xe0, &[])).await;
            assert_eq!(peer.rest().await, b"");
        }
    }
}

/// [MQTT3-2.3.1-5] [MQTT3-4.3.1-1] [MQTT3-3.3.1-2] [MQTT3-2.2.2-1]: PUBLISH from the broker, byte by byte: no
/// identifier and no flags at QoS 0, one that is not 0 above, and PUBREL with its flags.
#[tokio::test(start_paused = true)]
async fn messages_are_as_printed() {
    for version in V3 {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("a", QoS::ExactlyOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        // What follows the topic at QoS 0 is all payload.
        sender
            .send_raw(&publish(0x30, b"a", b"", b"\0\x07payload"))
            .await;
        assert_eq!(
            receiver.receive().await.bytes(),
            publish(0x30, b"a", b"", b"\0\x07payload")
        );
        sender.publish(&message("a", "1", QoS::AtLeastOnce)).await;
        let received = receiver.receive().await;
        let number = received.publish().packet_id.unwrap().get().to_be_bytes();
        assert_eq!(received.bytes(), publish(0x32, b"a", &number, b"1"));
        receiver.send_raw(&packet(0x40, &[&number])).await;

        sender.publish(&message("a", "2", QoS::ExactlyOnce)).await;
        let received = receiver.receive().await;
        let number = received.publish().packet_id.unwrap().get().to_be_bytes();
        assert_eq!(received.bytes(), publish(0x34, b"a", &number, b"2"));
        receiver.send_raw(&packet(0x50, &[&number])).await;
        assert_eq!(receiver.receive().await.bytes(), packet(0x62, &[&number]));
        receiver.send_raw(&packet(0x70, &[&number])).await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-3.3.1-4] [MQTT3-3.3.1-2] [MQTT3-4.8.0-1]: PUBLISH with both QoS bits, and DUP at QoS 0.
#[tokio::test(start_paused = true)]
async fn invalid_publish_flags_close() {
    for version in V3 {
        for first in [0x36, 0x37, 0x3e, 0x3f, 0x38, 0x39] {
            assert_closes(version, &publish(first, b"a", b"\0\x01", b"x")).await;
        }
    }
}

/// [MQTT3-3.3.2-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1] [MQTT3-4.7.3-1]: topic names that are none.
#[tokio::test(start_paused = true)]
async fn invalid_topic_names_close() {
    for version in V3 {
        for name in [
            &b""[..],
            b"#",
            b"+",
            b"a/#",
            b"a/+/b",
            b"+/b",
            b"a+",
            b"#a",
            b"a/b#",
        ] {
            for (first, id) in [(0x30, &b""[..]), (0x32, b"\0\x01"), (0x34, b"\0\x01")] {
                assert_closes(version, &publish(first, name, id, b"x")).await;
            }
            let fields = [&b"c"[..], name, b"gone"];
            assert_not_connected(version, &connect(version, CLEAN | WILL, &fields)).await;
        }
        // The topic is cut off, or not there at all.
        assert_closes(version, b"\x30\x04\0\x05ab").await;
        assert_closes(version, b"\x30\x00").await;
    }
}

/// [MQTT3-4.7.1-2] [MQTT3-4.7.1-3] [MQTT3-4.7.3-1]: filters that are none, in SUBSCRIBE and UNSUBSCRIBE.
#[tokio::test(start_paused = true)]
async fn invalid_filters_close() {
    for version in V3 {
        for filter in [
            &b""[..],
            b"#/a",
            b"a/#/b",
            b"a#",
            b"#a",
            b"##",
            b"a/b#",
            b"/#/",
            b"a+",
            b"+a",
            b"++",
            b"a/+b",
            b"a/b+/c",
            b"+#",
            b"a/+#",
        ] {
            assert_closes(version, &subscribe(1, filter, 0)).await;
            assert_closes(version, &unsubscribe(1, filter)).await;
        }
    }
}

/// [MQTT3-3.8.3-4]: bits of the requested QoS that are reserved, and QoS 3. Subscription options of 5.0
/// are reserved bits here.
#[tokio::test(start_paused = true)]
async fn reserved_subscribe_bits_close() {
    for version in V3 {
        for options in 3..=u8::MAX {
            assert_closes(version, &subscribe(1, b"a", options)).await;
        }
        // Also in the second pair, after a good one.
        assert_closes(version, b"\x82\x0a\0\x01\0\x01a\0\0\x01b\x03").await;
    }
}

/// [MQTT3-4.8.0-1]: packets that are cut short, too long, empty, of a reserved type, with identifier 0, or
/// that only a server sends.
#[tokio::test(start_paused = true)]
async fn violations_close() {
    for version in V3 {
        for bytes in [
            // Reserved types.
            &b"\x00\x00"[..],
            b"\xf0\x00",
            b"\xf0\x02\x18\x00",
            // Packets of a server.
            b"\x20\x02\0\0",
            b"\x90\x03\0\x01\0",
            b"\xb0\x02\0\x01",
            b"\xd0\x00",
            // Identifier 0.
            b"\x32\x06\0\x01a\0\0x",
            b"\x34\x06\0\x01a\0\0x",
            b"\x82\x06\0\0\0\x01a\0",
            b"\xa2\x05\0\0\0\x01a",
            b"\x40\x02\0\0",
            b"\x62\x02\0\0",
            // No identifier.
            b"\x32\x03\0\x01a",
            b"\x82\x00",
            b"\xa2\x00",
            b"\x40\x00",
            b"\x62\x01\0",
            // No filter, a filter that is cut, no QoS.
            b"\x82\x02\0\x01",
            b"\xa2\x02\0\x01",
            b"\x82\x05\0\x01\0\x03a",
            b"\x82\x05\0\x01\0\x01a",
            b"\xa2\x05\0\x01\0\x03a",
            // Bytes after the end; reason codes and properties of 5.0 are such.
            b"\x40\x03\0\x01\0",
            b"\x62\x03\0\x01\0",
            b"\x62\x04\0\x01\0\0",
            b"\xc0\x01\0",
            b"\xe0\x01\0",
            b"\xe0\x02\0\0",
            // A length of five bytes.
            b"\xc0\x80\x80\x80\x80\x00",
            b"\x30\xff\xff\xff\xff\x01",
        ] {
            assert_closes(version, bytes).await;
        }
    }
}

/// [MQTT3-4.7.3-3]: names and filters of 65,535 bytes are whole.
#[tokio::test(start_paused = true)]
async fn the_longest_topic_passes() {
    for version in V3 {
        let broker = broker();
        let longest = "é".repeat(32_767) + "x";
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe(&longest, QoS::AtLeastOnce).await;
        let mut sender = Peer::new(&broker, version, "sender").await;
        sender
            .publish(&message(&longest, "x", QoS::AtLeastOnce))
            .await;
        receiver
            .expect_message(&longest, "x", QoS::AtLeastOnce)
            .await;
        // One byte less is another topic.
        sender
            .publish(&message(&longest[..65_534], "x", QoS::AtLeastOnce))
            .await;
        receiver.expect_nothing().await;
    }
}

/// [MQTT3-4.8.0-2]: a packet for which there is no room ends its own connection, and no other.
#[tokio::test(start_paused = true)]
async fn what_does_not_fit_closes() {
    for version in V3 {
        let mut config = Config::default();
        config.max_packet_size = 1_000;
        let broker = broker_with(config);
        let mut bystander = Peer::new(&broker, version, "bystander").await;
        bystander.subscribe("#", QoS::AtLeastOnce).await;
        let mut peer = Peer::new(&broker, version, "client").await;
        let fits = publish(0x32, b"a", b"\0\x01", &[b'x'; 992]);
        assert_eq!(fits.len(), 1_000);
        peer.send_raw(&fits).await;
        assert_eq!(peer.receive().await.bytes(), b"\x40\x02\0\x01");
        bystander
            .expect_message("a", &"x".repeat(992), QoS::AtLeastOnce)
            .await;
        peer.send_raw(&publish(0x32, b"a", b"\0\x02", &[b'x'; 993]))
            .await;
        assert_eq!(peer.rest().await, b"");
        bystander.expect_nothing().await;
    }
}

/// [MQTT3-3.14.1-1]: DISCONNECT with reserved bits is no farewell: the will is published.
#[tokio::test(start_paused = true)]
async fn a_malformed_disconnect_is_no_farewell() {
    for version in V3 {
        for (bytes, is_farewell) in [
            (&b"\xe0\x00"[..], true),
            (b"\xe1\x00", false),
            (b"\xe8\x00", false),
            (b"\xe0\x01\0", false),
        ] {
            let broker = broker();
            let mut watcher = Peer::new(&broker, version, "watcher").await;
            watcher.subscribe("will", QoS::AtMostOnce).await;
            let mut peer = Peer::open(&broker, version);
            let fields = [&b"c"[..], b"will", b"gone"];
            peer.send_raw(&connect(version, CLEAN | WILL, &fields))
                .await;
            assert!(matches!(peer.receive().await.packet(), Packet::ConnAck(_)));
            peer.send_raw(bytes).await;
            assert_eq!(peer.rest().await, b"");
            if !is_farewell {
                watcher
                    .expect_message("will", "gone", QoS::AtMostOnce)
                    .await;
            }
            watcher.expect_nothing().await;
        }
    }
}

/// Packets arrive whole wherever the stream cuts them.
#[tokio::test(start_paused = true)]
async fn packets_may_come_byte_by_byte() {
    let broker = broker();
    let mut peer = Peer::open(&broker, V3_1_1);
    let mut bytes = connect(V3_1_1, CLEAN, &[b"c"]);
    bytes.extend(subscribe(1, b"a", 0));
    bytes.extend(publish(0x30, b"a", b"", b"text"));
    for byte in bytes {
        peer.send_raw(&[byte]).await;
        crate::harness::settle().await;
    }
    assert!(matches!(peer.receive().await.packet(), Packet::ConnAck(_)));
    assert!(matches!(peer.receive().await.packet(), Packet::SubAck(_)));
    peer.expect_message("a", "text", QoS::AtMostOnce).await;
}
