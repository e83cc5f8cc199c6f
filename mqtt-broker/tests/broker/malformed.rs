//! Bytes that break a rule of 5.0: each must be answered with the reason of that rule, and end the
//! connection. Rows are: what, the packet as hex, the reason.

use core::time::Duration;

use mqtt_codec::{Packet, ReasonCode};
use tokio::time::timeout;

use crate::harness::{Peer, V5, broker, hex};

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;
const TOPIC_NAME: ReasonCode = ReasonCode::TOPIC_NAME_INVALID;
const TOPIC_FILTER: ReasonCode = ReasonCode::TOPIC_FILTER_INVALID;
const ALIAS: ReasonCode = ReasonCode::TOPIC_ALIAS_INVALID;
const TOO_LARGE: ReasonCode = ReasonCode::PACKET_TOO_LARGE;

type Row<'a> = (&'a str, &'a str, ReasonCode);

/// Sends each row to a broker of its own and reports all that are answered wrongly.
async fn check(rows: &[Row<'_>]) {
    let mut wrong = Vec::new();
    for (what, text, expected) in rows {
        let broker = broker();
        let mut bystander = Peer::new(&broker, V5, "bystander").await;
        let mut peer = Peer::new(&broker, V5, "client").await;
        peer.send_raw(&hex(text)).await;
        let mut answers = Vec::new();
        loop {
            match timeout(Duration::from_secs(60), peer.next()).await {
                Ok(Some(received)) => answers.push(format!("{:?}", received.packet())),
                Ok(None) => break,
                Err(_) => {
                    answers.push("no end".into());
                    break;
                }
            }
        }
        let disconnect = mqtt_codec::Disconnect::new(*expected);
        if answers != [format!("{:?}", Packet::Disconnect(disconnect))] {
            wrong.push(format!("{what} ({text}): {answers:?}, not {expected:?}"));
        }
        // There are no consequences for other sessions.
        bystander.expect_nothing().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
/// [MQTT-4.13.1-1]: the reserved flags of every packet type that a client may send, and reserved types.
#[tokio::test(start_paused = true)]
async fn reserved_flags_are_checked() {
    // Packet type, its proper flags, and a body that is valid with them.
    let packets = [
        (1, 0, "10 0004 4D515454 05 02 0000 00 0003 616263"),
        (4, 0, "02 0001"),
        (5, 0, "02 0001"),
        (6, 2, "02 0001"),
        (7, 0, "02 0001"),
        (8, 2, "07 0001 00 0001 61 00"),
        (10, 2, "06 0001 00 0001 61"),
        (12, 0, "00"),
        (14, 0, "00"),
        (15, 0, "00"),
    ];
    let mut rows = Vec::new();
    for (packet_type, proper, body) in packets {
        for flags in (0..16).filter(|flags| *flags != proper) {
            rows.push(format!("{packet_type:x}{flags:x} {body}"));
        }
    }
    rows.push("00 00".into());
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|text| ("flags", text.as_str(), MALFORMED))
        .collect();
    check(&rows).await;
}

/// [MQTT-1.5.5-1]: lengths that are too long or not in their shortest form.
#[tokio::test(start_paused = true)]
async fn variable_byte_integers_are_checked() {
    check(&[
        ("five bytes", "C0 80 80 80 80 00", MALFORMED),
        ("five bytes announced", "C0 FF FF FF FF", MALFORMED),
        ("PINGREQ of 0 in two bytes", "C0 80 00", MALFORMED),
        ("PINGREQ of 0 in four bytes", "C0 80 80 80 00", MALFORMED),
        (
            "PUBLISH of 4 in two bytes",
            "30 84 00 0001 61 00",
            MALFORMED,
        ),
        (
            "property length in two bytes",
            "30 05 0001 61 80 00",
            MALFORMED,
        ),
        (
            "property length of five bytes",
            "30 08 0001 61 80 80 80 80 01",
            MALFORMED,
        ),
        (
            "subscription identifier of 1 in two bytes",
            "82 0A 0001 03 0B 81 00 0001 61 00",
            MALFORMED,
        ),
        (
            "subscription identifier of five bytes",
            "82 0D 0001 06 0B 80 80 80 80 01 0001 61 00",
            MALFORMED,
        ),
    ])
    .await;
}

/// [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-2.2.1-2] [MQTT-3.3.2-8]: the flags, identifier and alias of a PUBLISH.
#[tokio::test(start_paused = true)]
async fn publish_headers_are_checked() {
    check(&[
        ("QoS 3", "36 06 0001 61 0001 00", MALFORMED),
        (
            "QoS 3 with DUP and RETAIN",
            "3F 06 0001 61 0001 00",
            MALFORMED,
        ),
        ("DUP at QoS 0", "38 04 0001 61 00", MALFORMED),
        ("identifier 0 at QoS 1", "32 06 0001 61 0000 00", MALFORMED),
        ("identifier 0 at QoS 2", "34 06 0001 61 0000 00", MALFORMED),
        ("no identifier at QoS 1", "32 03 0001 61", MALFORMED),
        ("half an identifier", "32 04 0001 61 00", MALFORMED),
        ("no topic", "30 00", MALFORMED),
        ("no property length", "30 03 0001 61", MALFORMED),
        // An identifier that does not belong here is read as properties: one byte of them.
        ("identifier at QoS 0", "30 05 0001 61 0101", MALFORMED),
        (
            "topic longer than the packet",
            "30 04 0005 61 00",
            MALFORMED,
        ),
        (
            "properties longer than the packet",
            "30 04 0001 61 03",
            MALFORMED,
        ),
        ("alias 0", "30 07 0001 61 03 23 0000", ALIAS),
        ("alias above the maximum", "30 07 0001 61 03 23 0011", ALIAS),
        ("neither topic nor alias", "30 03 0000 00", PROTOCOL),
        ("alias that was not set", "30 06 0000 03 23 0001", PROTOCOL),
        (
            "subscription identifier",
            "30 06 0001 61 02 0B 01",
            PROTOCOL,
        ),
        ("larger than the maximum", "30 81 89 7A", TOO_LARGE),
        ("the largest", "30 FF FF FF 7F", TOO_LARGE),
    ])
    .await;
}

/// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
/// [MQTT-4.7.3-2]: every string of every packet is UTF-8 without surrogates and U+0000.
#[tokio::test(start_paused = true)]
async fn strings_are_checked() {
    // Length and bytes of strings that are none.
    let strings = [
        ("U+0000", "0001 00"),
        ("U+0000 inside", "0003 61 00 62"),
        ("first surrogate", "0003 ED A0 80"),
        ("last surrogate", "0003 ED BF BF"),
        ("surrogate pair", "0006 ED A0 BD ED B8 80"),
        ("overlong U+0000", "0002 C0 80"),
        ("overlong /", "0002 C0 AF"),
        ("above U+10FFFF", "0004 F4 90 80 80"),
        ("continuation alone", "0001 80"),
        ("cut character", "0002 E2 82"),
        ("no UTF-8 at all", "0001 FF"),
    ];
    let place = |before: &str, string: &str, after: &str, head: &str| {
        let body = format!("{before} {string} {after}");
        format!("{head} {:02X} {body}", hex(&body).len())
    };
    let property = |identifier: &str, string: &str, second: &str| {
        let body = format!("{identifier} {string} {second}");
        format!("{:02X} {body}", hex(&body).len())
    };
    let mut rows = Vec::new();
    for (what, string) in strings {
        rows.push((what, place("", string, "00", "30")));
        for (identifier, second) in [("03", ""), ("08", ""), ("26", "0001 61")] {
            let properties = property(identifier, string, second);
            rows.push((what, place("0001 61", &properties, "", "30")));
        }
        let value = property("26 0001 61", string, "");
        rows.push((what, place("0001 61", &value, "", "30")));
        rows.push((what, place("0001 00", string, "00", "82")));
        rows.push((what, place("0001 00", string, "", "A2")));
        // In a User Property of SUBSCRIBE and UNSUBSCRIBE, in the Reason String of acknowledgements and DISCONNECT.
        rows.push((what, place("0001", &value, "0001 61 00", "82")));
        rows.push((what, place("0001", &value, "0001 61", "A2")));
        let reason = property("1F", string, "");
        rows.push((what, place("0001 00", &reason, "", "40")));
        rows.push((what, place("00", &reason, "", "E0")));
    }
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|(what, text)| (*what, text.as_str(), MALFORMED))
        .collect();
    check(&rows).await;
}

/// [MQTT-3.3.2-2] [MQTT-3.3.2-14] [MQTT-4.7.0-1] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1] [MQTT-4.8.2-1]
/// [MQTT-4.8.2-2]: topic names and filters that are none.
#[tokio::test(start_paused = true)]
async fn topics_are_checked() {
    let string = |text: &str| {
        let bytes: String = text.bytes().map(|byte| format!("{byte:02X}")).collect();
        format!("{:04X} {bytes}", text.len())
    };
    let packet = |head: &str, before: &str, text: &str, after: &str| {
        let body = format!("{before} {} {after}", string(text));
        format!("{head} {:02X} {body}", hex(&body).len())
    };
    let mut rows = Vec::new();
    for topic in ["#", "+", "a/#", "a/+/b", "a+", "a#b"] {
        rows.push((topic, packet("30", "", topic, "00"), TOPIC_NAME));
        let response = format!("{:02X} 08", 3 + topic.len());
        rows.push((
            topic,
            packet("30", &format!("0001 61 {response}"), topic, ""),
            PROTOCOL,
        ));
    }
    for filter in [
        "",
        "#/a",
        "a/#/b",
        "a#",
        "a/b#",
        "##",
        "+a",
        "a+",
        "a/+b/c",
        "++",
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/#/a",
        "$share/g+/a",
        "$share/g/a#",
    ] {
        rows.push((filter, packet("82", "0001 00", filter, "00"), TOPIC_FILTER));
        rows.push((filter, packet("A2", "0001 00", filter, ""), TOPIC_FILTER));
        // Behind a good one as well: nothing of the packet is carried out.
        rows.push((
            filter,
            packet("82", "0001 00 0001 61 00", filter, "00"),
            TOPIC_FILTER,
        ));
    }
    let rows: Vec<Row<'_>> = rows
        .iter()
        .map(|(what, text, reason)| (*what, text.as_str(), *reason))
        .collect();
    check(&rows).await;
}

/// [MQTT-3.8.3-5] [MQTT-3.8.4-1] [MQTT-4.13.1-1]: the body of SUBSCRIBE and UNSUBSCRIBE.
#[tokio::test(start_paused = true)]
async fn subscribe_and_unsubscribe_are_checked() {
    let mut options = Vec::new();
    for bits in 0..=255_u8 {
        let reason = match bits {
            _ if bits & 0xc0 != 0 => MALFORMED,
            // Section 3.8.3.1: QoS 3 and Retain Handling 3 are Protocol Errors.
            _ if bits & 3 == 3 || bits & 0x30 == 0x30 => PROTOCOL,
            _ => continue,
        };
        options.push((format!("82 07 0001 00 0001 61 {bits:02X}"), reason));
    }
    let mut rows: Vec<Row<'_>> = options
        .iter()
        .map(|(text, reason)| ("options", text.as_str(), *reason))
        .collect();
    rows.extend([
        // $share/g/a with No Local.
        (
            "no local, shared",
            "82 10 0001 00 000A 2473686172652F672F61 04",
            PROTOCOL,
        ),
        ("no filter", "82 03 0001 00", PROTOCOL),
        ("no filter", "A2 03 0001 00", PROTOCOL),
        ("no options", "82 06 0001 00 0001 61", MALFORMED),
        ("filter cut", "82 06 0001 00 0002 61", MALFORMED),
        ("filter cut", "A2 06 0001 00 0002 61", MALFORMED),
        ("identifier 0", "82 07 0000 00 0001 61 00", MALFORMED),
        ("identifier 0", "A2 06 0000 00 0001 61", MALFORMED),
        ("identifier only", "82 02 0001", MALFORMED),
        ("nothing", "82 00", MALFORMED),
        ("nothing", "A2 00", MALFORMED),
        (
            "subscription identifier 0",
            "82 09 0001 02 0B 00 0001 61 00",
            PROTOCOL,
        ),
        (
            "subscription identifier twice",
            "82 0B 0001 04 0B 01 0B 02 0001 61 00",
            PROTOCOL,
        ),
        (
            "subscription identifier in UNSUBSCRIBE",
            "A2 08 0001 02 0B 01 0001 61",
            MALFORMED,
        ),
    ]);
    check(&rows).await;
}

/// Section 2.2.2.2: unknown, misplaced and repeated properties, and values that their definitions exclude.
#[tokio::test(start_paused = true)]
async fn properties_are_checked() {
    check(&[
        ("unknown 0x00", "30 06 0001 61 02 00 00", MALFORMED),
        ("unknown 0x7F", "30 06 0001 61 02 7F 00", MALFORMED),
        ("unknown 0x2B", "30 06 0001 61 02 2B 00", MALFORMED),
        ("identifier cut", "30 05 0001 61 01 80", MALFORMED),
        (
            "session expiry in PUBLISH",
            "30 09 0001 61 05 11 0000 0001",
            MALFORMED,
        ),
        (
            "reason string in PUBLISH",
            "30 08 0001 61 04 1F 0001 61",
            MALFORMED,
        ),
        (
            "alias maximum in PUBLISH",
            "30 07 0001 61 03 22 0001",
            MALFORMED,
        ),
        (
            "message expiry in SUBSCRIBE",
            "82 0C 0001 05 02 0000 0001 0001 61 00",
            MALFORMED,
        ),
        (
            "content type in PUBACK",
            "40 08 0001 00 04 03 0001 61",
            MALFORMED,
        ),
        ("alias in DISCONNECT", "E0 05 00 03 23 0001", MALFORMED),
        (
            "payload format twice",
            "30 08 0001 61 04 0100 0100",
            PROTOCOL,
        ),
        ("payload format 2", "30 06 0001 61 02 01 02", PROTOCOL),
        (
            "message expiry twice",
            "30 0E 0001 61 0A 02 00000001 02 00000001",
            PROTOCOL,
        ),
        ("alias twice", "30 0A 0001 61 06 23 0001 23 0001", PROTOCOL),
        (
            "content type twice",
            "30 0C 0001 61 08 03 0001 61 03 0001 61",
            PROTOCOL,
        ),
        (
            "response topic twice",
            "30 0C 0001 61 08 08 0001 61 08 0001 61",
            PROTOCOL,
        ),
        (
            "correlation data twice",
            "30 0C 0001 61 08 09 0001 61 09 0001 61",
            PROTOCOL,
        ),
        (
            "reason string twice",
            "E0 0A 00 08 1F 0001 61 1F 0001 61",
            PROTOCOL,
        ),
        (
            "session expiry twice",
            "E0 0C 00 0A 11 00000000 11 00000000",
            PROTOCOL,
        ),
        (
            "message expiry cut",
            "30 08 0001 61 04 02 000001",
            MALFORMED,
        ),
        ("content type cut", "30 08 0001 61 04 03 0002 61", MALFORMED),
        (
            "user property without value",
            "30 08 0001 61 04 26 0001 61",
            MALFORMED,
        ),
        (
            "correlation data cut",
            "30 07 0001 61 03 09 0001",
            MALFORMED,
        ),
    ])
    .await;
}

/// [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.14.2-1] [MQTT-3.15.2-1]: reason codes
/// that the packet does not have, and acknowledgements with too few or too many bytes.
#[tokio::test(start_paused = true)]
async fn reason_codes_and_acknowledgements_are_checked() {
    check(&[
        ("PUBACK 0x01", "40 03 0001 01", PROTOCOL),
        ("PUBACK 0x92", "40 03 0001 92", PROTOCOL),
        ("PUBREC 0x8E", "50 03 0001 8E", PROTOCOL),
        ("PUBREL 0x10", "62 03 0001 10", PROTOCOL),
        ("PUBREL 0x80", "62 04 0001 80 00", PROTOCOL),
        ("PUBCOMP 0x91", "70 03 0001 91", PROTOCOL),
        ("DISCONNECT 0x01", "E0 01 01", PROTOCOL),
        ("DISCONNECT 0x84", "E0 01 84", PROTOCOL),
        ("DISCONNECT 0xFF", "E0 02 FF 00", PROTOCOL),
        ("AUTH 0x80", "F0 06 80 04 15 0001 61", PROTOCOL),
        ("PUBACK without identifier", "40 00", MALFORMED),
        ("PUBREC with half of one", "50 01 00", MALFORMED),
        ("PUBREL with identifier 0", "62 02 0000", MALFORMED),
        ("PUBACK with identifier 0", "40 02 0000", MALFORMED),
        ("PUBCOMP with more", "70 05 0001 00 00 00", MALFORMED),
        ("PUBACK with properties cut", "40 04 0001 00 05", MALFORMED),
        ("DISCONNECT with more", "E0 03 00 00 00", MALFORMED),
        ("DISCONNECT with properties cut", "E0 02 00 05", MALFORMED),
        ("PINGREQ with a body", "C0 01 00", MALFORMED),
    ])
    .await;
}

/// [MQTT-3.15.2-1] [MQTT-4.12.1-2] and section 4.12: AUTH of a client that named no method in CONNECT ends the
/// connection, whatever it asks for; so do the packets of a server and a second CONNECT.
#[tokio::test(start_paused = true)]
async fn packets_out_of_place_are_protocol_errors() {
    check(&[
        ("AUTH, success", "F0 00", PROTOCOL),
        ("AUTH, continue", "F0 06 18 04 15 0001 61", PROTOCOL),
        ("AUTH, re-authenticate", "F0 06 19 04 15 0001 61", PROTOCOL),
        ("AUTH without method", "F0 02 19 00", PROTOCOL),
        ("CONNACK", "20 03 00 00 00", PROTOCOL),
        ("SUBACK", "90 04 0001 00 00", PROTOCOL),
        ("UNSUBACK", "B0 04 0001 00 00", PROTOCOL),
        ("PINGRESP", "D0 00", PROTOCOL),
        (
            "a second CONNECT",
            "10 10 0004 4D515454 05 02 0000 00 0003 616263",
            PROTOCOL,
        ),
        (
            "a second CONNECT of 3.1.1",
            "10 0F 0004 4D515454 04 02 0000 0003 616263",
            PROTOCOL,
        ),
    ])
    .await;
}

/// Every split of a malformed packet is answered as the whole: the rule is not lost between two reads.
#[tokio::test(start_paused = true)]
async fn malformed_packets_in_pieces() {
    for (text, reason) in [
        ("30 08 0001 61 04 03 0002 61", MALFORMED),
        ("82 09 0001 02 0B 00 0001 61 00", PROTOCOL),
        ("30 07 0001 61 03 23 0000", ALIAS),
    ] {
        let bytes = hex(text);
        for cut in 1..bytes.len() {
            let broker = broker();
            let mut peer = Peer::new(&broker, V5, "client").await;
            let (head, tail) = bytes.split_at(cut);
            peer.send_raw(head).await;
            crate::harness::settle().await;
            peer.send_raw(tail).await;
            peer.expect_disconnect(reason).await;
        }
    }
}
