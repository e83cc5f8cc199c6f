//! How connections and sessions end in 5.0: DISCONNECT, expiry, takeover, and wills with a delay.

use mqtt_codec::{Connect, Disconnect, Packet, PacketType, QoS, ReasonCode, Will};
use tokio::time::Instant;

use crate::harness::{
    ALL, Peer, V3_1_1, V5, advance, broker, hello, hex, lasting, message, name, settle,
};

/// CONNECT with an expiry interval in seconds, resuming.
fn expiring(id: &str, interval: Option<u32>) -> Connect<'_> {
    let mut connect = hello(V5, id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval = interval;
    connect
}

fn with_will(mut connect: Connect<'_>, delay: u32) -> Connect<'_> {
    let mut will = Will::new(name("will"), b"dead");
    will.qos = QoS::AtLeastOnce;
    will.properties.delay_interval = Some(delay);
    connect.will = Some(will);
    connect
}

async fn watcher(broker: &mqtt_broker::Broker) -> Peer {
    let mut watcher = Peer::new(broker, V5, "watcher").await;
    watcher.subscribe("will", QoS::ExactlyOnce).await;
    watcher
}

fn bye(reason: ReasonCode, interval: Option<u32>) -> Packet<'static> {
    let mut disconnect = Disconnect::new(reason);
    disconnect.properties.session_expiry_interval = interval;
    Packet::Disconnect(disconnect)
}

/// [MQTT-3.1.2-23] [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT-3.1.2-5] [MQTT-3.1.2-6]: a session lasts as long as its
/// connection and its expiry interval after it, to the second, however the connection ends.
#[tokio::test(start_paused = true)]
async fn sessions_last_as_long_as_they_were_asked_to() {
    for (interval, wait, present) in [
        (None, 0, false),
        (Some(0), 0, false),
        (Some(1), 0, true),
        (Some(10), 9, true),
        (Some(10), 11, false),
        (Some(u32::MAX - 1), 40_000, true),
        (Some(u32::MAX), 40_000, true),
    ] {
        for farewell in [true, false] {
            let broker = broker();
            let connect = expiring("client", interval);
            let mut peer = Peer::accepted(&broker, &connect).await;
            peer.subscribe("topic", QoS::AtLeastOnce).await;
            // The interval does not run while the connection is open.
            if wait < 1_000 {
                advance(1_000).await;
                peer.expect_nothing().await;
            }
            if farewell {
                peer.disconnect().await;
            } else {
                peer.abort().await;
            }
            advance(wait).await;
            let (mut peer, found) = Peer::resumed(&broker, &connect).await;
            assert_eq!(found, present, "{interval:?} after {wait} s");
            peer.send_publish(&message("topic", "text", QoS::AtMostOnce))
                .await;
            if present {
                peer.expect_message("topic", "text", QoS::AtMostOnce).await;
            }
            peer.expect_nothing().await;
        }
    }
}

/// Section 3.14.2.2.2: DISCONNECT changes the interval to more, less, none and for ever; with it absent the one of
/// CONNECT holds; from 0 it cannot be raised, and 0 stays allowed.
#[tokio::test(start_paused = true)]
async fn disconnect_changes_the_expiry() {
    for (connect, disconnect, wait, present) in [
        (10, None, 9, true),
        (10, None, 11, false),
        (10, Some(100), 99, true),
        (10, Some(100), 101, false),
        (100, Some(10), 9, true),
        (100, Some(10), 11, false),
        (100, Some(0), 0, false),
        (u32::MAX, Some(0), 0, false),
        (10, Some(u32::MAX), 40_000, true),
        (0, Some(0), 0, false),
    ] {
        let broker = broker();
        let connect = expiring("client", Some(connect));
        let mut peer = Peer::accepted(&broker, &connect).await;
        peer.send(&bye(ReasonCode::NORMAL_DISCONNECTION, disconnect))
            .await;
        peer.expect_closed().await;
        settle().await;
        advance(wait).await;
        assert_eq!(
            Peer::resumed(&broker, &connect).await.1,
            present,
            "{connect:?} {disconnect:?}"
        );
    }
    for interval in [None, Some(0)] {
        let broker = broker();
        let mut watcher = watcher(&broker).await;
        let connect = with_will(expiring("client", interval), 0);
        let mut peer = Peer::accepted(&broker, &connect).await;
        peer.send(&bye(ReasonCode::NORMAL_DISCONNECTION, Some(1)))
            .await;
        peer.expect_disconnect(ReasonCode::PROTOCOL_ERROR).await;
        // A Protocol Error is no farewell.
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;
        assert!(!Peer::resumed(&broker, &connect).await.1);
    }
}

/// The interval of the last CONNECT counts, not that of the one before.
#[tokio::test(start_paused = true)]
async fn each_connect_sets_the_expiry_anew() {
    let broker = broker();
    Peer::accepted(&broker, &expiring("client", Some(1_000)))
        .await
        .abort()
        .await;
    let (peer, present) = Peer::resumed(&broker, &expiring("client", Some(10))).await;
    assert!(present);
    peer.abort().await;
    advance(5).await;
    // Back in time: the deadline of before does not end the session later.
    let (mut peer, present) = Peer::resumed(&broker, &expiring("client", Some(10))).await;
    assert!(present);
    advance(50).await;
    peer.expect_nothing().await;
    peer.abort().await;
    advance(9).await;
    let (peer, present) = Peer::resumed(&broker, &expiring("client", None)).await;
    assert!(present);
    peer.abort().await;
    assert!(!Peer::resumed(&broker, &expiring("client", None)).await.1);
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-7] [MQTT-3.1.3-9]: a will is published when its delay has passed or its session ends,
/// whichever is first.
#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_delay_or_the_session() {
    for (expiry, delay, published_after) in [
        (Some(0), 0, 0),
        (None, 10, 0),
        (Some(0), 10, 0),
        (Some(100), 0, 0),
        (Some(100), 10, 10),
        (Some(10), 100, 10),
        (Some(10), 10, 10),
        (Some(u32::MAX), 10, 10),
        (Some(u32::MAX), 30_000, 30_000),
        (Some(30), u32::MAX, 30),
    ] {
        let broker = broker();
        let mut watcher = watcher(&broker).await;
        let peer = Peer::accepted(&broker, &with_will(expiring("client", expiry), delay)).await;
        let ended = Instant::now();
        peer.abort().await;
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;
        assert_eq!(
            ended.elapsed().as_secs(),
            published_after,
            "expiry {expiry:?}, delay {delay}"
        );
        advance(40_000).await;
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.1.3-9] [MQTT-3.1.2-8] [MQTT-3.1.2-10]: a client that comes back in time cancels the will of its former
/// connection, with whatever will it has now; one that starts clean ends the session and so publishes it at once.
#[tokio::test(start_paused = true)]
async fn coming_back_cancels_a_delayed_will() {
    for clean_start in [false, true] {
        let broker = broker();
        let mut watcher = watcher(&broker).await;
        let mut connect = with_will(lasting(V5, "client"), 10);
        Peer::accepted(&broker, &connect).await.abort().await;
        advance(9).await;
        watcher.expect_nothing().await;
        connect.clean_start = clean_start;
        let (peer, present) = Peer::resumed(&broker, &connect).await;
        assert_eq!(present, !clean_start);
        if clean_start {
            watcher
                .expect_message("will", "dead", QoS::AtLeastOnce)
                .await;
        }
        advance(100).await;
        watcher.expect_nothing().await;
        // The will of the second connection is its own, and its delay is counted anew.
        peer.abort().await;
        advance(9).await;
        watcher.expect_nothing().await;
        advance(2).await;
        watcher
            .expect_message("will", "dead", QoS::AtLeastOnce)
            .await;
        // Published once, and then removed from the session.
        connect.clean_start = false;
        connect.will = None;
        Peer::accepted(&broker, &connect).await.abort().await;
        advance(100).await;
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.1.4-3] [MQTT-3.1.2-8] [MQTT-3.1.3-9] [MQTT-3.1.2-4] and section 3.1.4: a takeover ends the old connection with 0x8E;
/// its will is published unless it has a delay and the session goes on.
#[tokio::test(start_paused = true)]
async fn a_takeover_and_the_will() {
    for (expiry, delay, clean_start, published) in [
        (Some(100), 0, false, true),
        (Some(100), 10, false, false),
        (Some(100), 10, true, true),
        (Some(100), 0, true, true),
        (Some(0), 0, false, true),
        (Some(0), 10, false, true),
        (Some(0), 10, true, true),
    ] {
        let broker = broker();
        let mut watcher = watcher(&broker).await;
        let mut connect = with_will(expiring("client", expiry), delay);
        let mut old = Peer::accepted(&broker, &connect).await;
        connect.will = None;
        connect.clean_start = clean_start;
        let (mut new, present) = Peer::resumed(&broker, &connect).await;
        assert_eq!(present, expiry == Some(100) && !clean_start);
        old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER).await;
        if published {
            watcher
                .expect_message("will", "dead", QoS::AtLeastOnce)
                .await;
        }
        advance(1_000).await;
        watcher.expect_nothing().await;
        new.expect_nothing().await;
    }
}

/// [MQTT-3.1.4-3] [MQTT3-3.1.4-2]: a takeover between any two versions; messages in flight move to the new
/// connection, and the old one gets nothing more.
#[tokio::test(start_paused = true)]
async fn a_takeover_moves_what_is_in_flight() {
    for old_version in ALL {
        for new_version in ALL {
            let broker = broker();
            let (mut old, _) = Peer::lasting(&broker, old_version, "client").await;
            old.subscribe("topic", QoS::AtLeastOnce).await;
            let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
            sender
                .publish(&message("topic", "1", QoS::AtLeastOnce))
                .await;
            old.expect_publish("topic", "1", QoS::AtLeastOnce).await;
            let (mut new, _) = Peer::lasting(&broker, new_version, "client").await;
            sender
                .publish(&message("topic", "2", QoS::AtLeastOnce))
                .await;
            old.expect_disconnect(ReasonCode::SESSION_TAKEN_OVER).await;
            let again = new.expect_message("topic", "1", QoS::AtLeastOnce).await;
            assert!(again.publish().dup);
            new.expect_message("topic", "2", QoS::AtLeastOnce).await;
            new.expect_nothing().await;
        }
    }
}

/// [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.2-8] [MQTT-3.14.2-1]: DISCONNECT 0x00 discards the will, also with a
/// delay; every other listed reason publishes it.
#[tokio::test(start_paused = true)]
async fn the_reason_of_disconnect_decides_about_the_will() {
    for reason in 0..=255 {
        let reason = ReasonCode(reason);
        if !reason.is_allowed_in(PacketType::Disconnect) {
            continue;
        }
        for delay in [0, 5] {
            let broker = broker();
            let mut watcher = watcher(&broker).await;
            let connect = with_will(lasting(V5, "client"), delay);
            let mut peer = Peer::accepted(&broker, &connect).await;
            peer.send(&bye(reason, None)).await;
            peer.expect_closed().await;
            advance(10).await;
            if reason != ReasonCode::NORMAL_DISCONNECTION {
                watcher
                    .expect_message("will", "dead", QoS::AtLeastOnce)
                    .await;
            }
            watcher.expect_nothing().await;
            // The session is there whatever the reason.
            assert!(Peer::lasting(&broker, V5, "client").await.1);
        }
    }
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT3-3.14.4-1] [MQTT3-3.14.4-2]: after a client's DISCONNECT nothing is sent to
/// it, nothing of it is processed, and the broker closes.
#[tokio::test(start_paused = true)]
async fn nothing_comes_after_a_disconnect() {
    for version in ALL {
        let broker = broker();
        let mut receiver = Peer::new(&broker, version, "receiver").await;
        receiver.subscribe("#", QoS::AtMostOnce).await;
        let mut peer = Peer::new(&broker, version, "client").await;
        peer.subscribe("#", QoS::AtMostOnce).await;
        let mut bytes = Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION))
            .to_vec(version)
            .unwrap();
        for packet in [
            Packet::PingReq,
            Packet::Publish(message("topic", "late", QoS::AtMostOnce)),
        ] {
            bytes.extend(packet.to_vec(version).unwrap());
        }
        peer.send_raw(&bytes).await;
        settle().await;
        receiver.expect_nothing().await;
        peer.expect_closed().await;
    }
}

/// [MQTT-3.14.2-2] [MQTT-3.14.2-1] [MQTT-4.13.2-1] [MQTT-3.14.4-2]: every DISCONNECT that the broker sends is the bare
/// reason, without a Session Expiry Interval, and the end of the stream follows.
#[tokio::test(start_paused = true)]
async fn the_disconnects_of_the_broker() {
    let broker = broker();
    let mut keep_alive = hello(V5, "silent");
    keep_alive.keep_alive = 1;
    let mut silent = Peer::accepted(&broker, &keep_alive).await;
    assert_eq!(silent.receive().await.bytes(), hex("E0 01 8D"));
    silent.expect_closed().await;
    let mut old = Peer::new(&broker, V5, "client").await;
    let mut new = Peer::new(&broker, V5, "client").await;
    assert_eq!(old.receive().await.bytes(), hex("E0 01 8E"));
    old.expect_closed().await;
    new.send_raw(&hex("00 00")).await;
    assert_eq!(new.receive().await.bytes(), hex("E0 01 81"));
    new.expect_closed().await;
}

/// [MQTT-3.14.0-1]: a connection that was not accepted gets no DISCONNECT: not when it is silent, not when its first
/// packet is no CONNECT, not with a malformed CONNECT.
#[tokio::test(start_paused = true)]
async fn no_disconnect_before_connack() {
    let broker = broker();
    for first in [
        &b""[..],
        b"\x10",
        b"\xc0\0",
        b"\xe0\0",
        b"\0\0",
        b"\x82\x07\0\x01\0\0\x01a\0",
        b"\x10\x02\0\x04",
        b"\x10\xff\xff\xff\x7f",
        b"\xf0\x06\x18\x04\x15\0\x01a",
    ] {
        let answer = Peer::answer_to(&broker, first).await;
        assert!(
            answer.first().is_none_or(|byte| *byte == 0x20),
            "{first:02x?}: {answer:02x?}"
        );
    }
}

/// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-9] [MQTT-3.1.2-7]: will QoS and retain in all combinations, also after a delay.
#[tokio::test(start_paused = true)]
async fn will_qos_and_retain_are_kept() {
    for qos in crate::harness::EVERY_QOS {
        for retain in [false, true] {
            for delay in [0, 7] {
                let broker = broker();
                let mut early = Peer::new(&broker, V5, "early").await;
                let mut wanted = crate::harness::filter("will", QoS::ExactlyOnce);
                wanted.options.retain_as_published = true;
                early.subscribe_with(vec![wanted], None).await;
                let mut connect = with_will(lasting(V5, "client"), delay);
                let will = connect.will.as_mut().unwrap();
                will.qos = qos;
                will.retain = retain;
                Peer::accepted(&broker, &connect).await.abort().await;
                advance(8).await;
                let received = early.expect_message("will", "dead", qos).await;
                assert_eq!(received.publish().retain, retain);
                let mut late = Peer::new(&broker, V5, "late").await;
                late.subscribe("will", QoS::ExactlyOnce).await;
                if retain {
                    let received = late.expect_message("will", "dead", qos).await;
                    assert!(received.publish().retain);
                }
                late.expect_nothing().await;
            }
        }
    }
}

/// A will's Message Expiry Interval begins when it is published, not with its delay; and an empty retained will
/// clears its topic.
#[tokio::test(start_paused = true)]
async fn a_delayed_will_expires_after_its_publication() {
    let broker = broker();
    let mut connect = with_will(lasting(V5, "client"), 50);
    let will = connect.will.as_mut().unwrap();
    will.retain = true;
    will.properties.message_expiry_interval = Some(60);
    Peer::accepted(&broker, &connect).await.abort().await;
    advance(70).await;
    let mut late = watcher(&broker).await;
    let received = late.expect_message("will", "dead", QoS::AtLeastOnce).await;
    assert_eq!(
        received.publish().properties.message_expiry_interval,
        Some(40)
    );
    let will = connect.will.as_mut().unwrap();
    will.payload = b"";
    will.properties.delay_interval = None;
    will.properties.message_expiry_interval = None;
    Peer::accepted(&broker, &connect).await.abort().await;
    late.expect_message("will", "", QoS::AtLeastOnce).await;
    late.unsubscribe("will").await;
    late.subscribe("will", QoS::AtMostOnce).await;
    late.expect_nothing().await;
}

/// Answers to what came in one read with DISCONNECT, or with a packet that ends the connection, are sent; on 5.0
/// before the broker's DISCONNECT.
#[tokio::test(start_paused = true)]
async fn what_came_before_the_end_is_answered() {
    // SUBSCRIBE to b, PUBLISH at QoS 1, PINGREQ.
    let requests = b"\x82\x06\0\x01\0\x01b\0\x32\x06\0\x01a\0\x02x\xc0\0";
    let answers = b"\x90\x03\0\x01\0\x40\x02\0\x02\xd0\0";
    let broker = broker();
    for last in [&b"\xe0\0"[..], b"\0\0"] {
        let mut peer = Peer::new(&broker, V3_1_1, "client").await;
        peer.send_raw(&[requests, last].concat()).await;
        assert_eq!(peer.rest().await, answers);
    }
    // The same of 5.0, where nobody subscribed to a.
    let requests = b"\x82\x07\0\x01\0\0\x01b\0\x32\x07\0\x01a\0\x02\0x\xc0\0";
    let answers = b"\x90\x04\0\x01\0\0\x40\x03\0\x02\x10\xd0\0";
    for (last, farewell) in [(&b"\xe0\0"[..], &b""[..]), (b"\0\0", b"\xe0\x01\x81")] {
        let mut peer = Peer::new(&broker, V5, "client").await;
        peer.send_raw(&[requests, last].concat()).await;
        assert_eq!(peer.rest().await, [answers, farewell].concat());
    }
}

/// [MQTT-3.14.4-3] [MQTT3-3.1.2-10]: what a client had sent counts when another connection takes its identifier over:
/// its message is passed on, and after its DISCONNECT its will is not published.
#[tokio::test(start_paused = true)]
async fn a_takeover_hears_the_old_connection_out() {
    for version in ALL {
        let broker = broker();
        let mut watcher = Peer::new(&broker, version, "watcher").await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        let mut connect = hello(version, "client");
        connect.clean_start = true;
        connect.will = Some(Will::new(name("will"), b"gone"));
        let mut old = Peer::accepted(&broker, &connect).await;
        let mut bytes = Packet::Publish(message("t", "last", QoS::AtMostOnce))
            .to_vec(version)
            .unwrap();
        Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION))
            .encode(version, &mut bytes)
            .unwrap();
        connect.will = None;
        let hello = Packet::Connect(Box::new(connect.clone()))
            .to_vec(version)
            .unwrap();
        // On one thread the new connection comes first where its task is woken first.
        let mut new = Peer::open(&broker, version);
        new.send_raw(&hello).await;
        old.send_raw(&bytes).await;
        assert_eq!(
            new.receive().await.connack().reason_code,
            ReasonCode::SUCCESS
        );
        old.expect_closed().await;
        watcher.expect_message("t", "last", QoS::AtMostOnce).await;
        watcher.expect_nothing().await;
    }
}

/// [MQTT-3.14.4-3]: a client that sends DISCONNECT and closes without reading what is on its way to it has taken its
/// will back, though the broker cannot write to it any more.
#[tokio::test]
async fn a_disconnect_counts_though_writing_fails() {
    let listener = mqtt_broker::Listener::tcp(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let broker = broker();
    let running = tokio::spawn(broker.clone().run(vec![listener], core::future::pending()));
    let mut watcher = Peer::new(&broker, V3_1_1, "watcher").await;
    watcher.subscribe("will", QoS::AtMostOnce).await;
    let mut sender = Peer::new(&broker, V3_1_1, "sender").await;
    let payload = "x".repeat(1_000);
    for round in 0..20 {
        let mut connect = hello(V3_1_1, "client");
        connect.clean_start = true;
        connect.will = Some(Will::new(name("will"), b"gone"));
        let mut bytes = Packet::Connect(Box::new(connect)).to_vec(V3_1_1).unwrap();
        bytes.extend(b"\x82\x09\0\x01\0\x04busy\0");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes)
            .await
            .unwrap();
        let mut answers = [0; 9];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answers)
            .await
            .unwrap();
        for _ in 0..20 {
            sender
                .send_publish(&message("busy", &payload, QoS::AtMostOnce))
                .await;
        }
        sender.expect_nothing().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"\xe0\0")
            .await
            .unwrap();
        // What was not read makes this a reset.
        drop(stream);
        sender
            .send_publish(&message("busy", &payload, QoS::AtMostOnce))
            .await;
        // The session is gone when another connection has it.
        let mut connect = hello(V3_1_1, "client");
        connect.clean_start = true;
        Peer::accepted(&broker, &connect).await.disconnect().await;
        watcher.expect_nothing().await;
        assert!(round < 20);
    }
    running.abort();
}
