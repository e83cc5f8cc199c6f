//! The expectations are what mosquitto_sub 2.0.11 prints for the same messages.

use mqtt_client::{Message, PacketId, QoS};
use proptest::prelude::*;

use super::*;

fn render_bytes(format: &str, message: &Received) -> (Vec<u8>, Vec<String>) {
    let format = Format::parse(format.as_bytes(), false).unwrap();
    let (mut out, mut problems) = (Vec::new(), Vec::new());
    format.render(message, &Clock::fixed(), &mut out, &mut problems);
    (out, problems)
}

#[track_caller]
fn check(format: &str, message: &Received, expected: &str) {
    let (out, problems) = render_bytes(format, message);
    assert_eq!(
        out.escape_ascii().to_string(),
        expected.as_bytes().escape_ascii().to_string()
    );
    assert_eq!(problems, [""; 0]);
}

fn plain(payload: &[u8]) -> Received {
    let message = Message::new("a/b", payload.to_vec()).unwrap();
    Received::new(message, None)
}

fn full() -> Received {
    let message = Message::new("a/b", "x")
        .unwrap()
        .qos(QoS::AtLeastOnce)
        .properties(MessageProperties {
            payload_format_utf8: Some(true),
            message_expiry_interval: Some(100),
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("r/t".to_owned()),
            correlation_data: Some(b"co\"r".to_vec().into()),
            subscription_identifiers: Vec::new(),
            user_properties: [("k", "v"), ("k2", "v2"), ("k", "v3")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec(),
        });
    Received::new(message, PacketId::new(7))
}

#[test]
fn topic_and_length() {
    let message = plain(b"hello \"q\" \\ / x");
    check(
        "%t|%10t|%-10t|%.2t|%10.2t",
        &message,
        "a/b|       a/b|a/b       |a/|        a/",
    );
    check(
        "%l|%010l|%-010l|%5l|%-5l",
        &message,
        "15|0000000015|15        |   15|15   ",
    );
    check("%m|%q|%r", &message, "0|0|0");
    check("%m|%3m|%03m|%q", &full(), "7|  7|007|1");
}

#[test]
fn payload_is_cut_and_filled_to_the_width() {
    let message = plain(b"hello \"q\" \\ / x");
    check(
        "%p|%10p|%-10p|%010p",
        &message,
        "hello \"q\" \\ / x|hello \"q\" |hello \"q\" |hello \"q\" ",
    );
    check(
        "%x|%4x|%-20x",
        &message,
        "68656c6c6f20227122205c202f2078|6865|68656c6c6f2022      ",
    );
    check("%020X", &message, "00000068656C6C6F2022");
    check(
        "%10p|%-10p|%010p|%4x",
        &plain(b""),
        "          |          |0000000000|    ",
    );
    check(
        "%4x|%020X",
        &plain(b"\xff\x00\x01"),
        "  ff|000000000000000000FF",
    );
    check("[%-p][%-x]", &plain(b"abc"), "[abc   ][616263   ]");
}

#[test]
fn hexadecimal_groups() {
    let message = plain(b"\x01\xab\x10\xff");
    check(
        "%.2:x|%.4-X|%.0:x|%.2x",
        &message,
        "01:ab:10:ff|01AB-10FF|01ab10ff|01ab10ff",
    );
}

#[test]
fn properties_that_are_there() {
    check(
        "%A|%C|%5C|%.1C|%D|%E|%4E|%F|%04F",
        &full(),
        "|text/plain|text/plain|t|co\"r|100| 100|1|0001",
    );
    check("%P|%R|%3R|%S", &full(), "k:v k2:v2 k:v3|r/t|r/t|");
}

#[test]
fn properties_that_are_not() {
    check(
        "%A|%5A|%C|%5C|%05C|%.1C|%D|%E|%4E|%F|%04F",
        &plain(b""),
        "|     ||     |     |||||    ||0000"
            .replace("|||||", "||||")
            .as_str(),
    );
    check("%P|%R|%3R|%S|%3S", &plain(b""), "||||   ");
}

#[test]
fn large_intervals_print_as_a_c_int() {
    let properties = MessageProperties {
        message_expiry_interval: Some(4_000_000_000),
        ..Default::default()
    };
    let message = Received::new(Message::new("t", "").unwrap().properties(properties), None);
    check("%E|%012E", &message, "-294967296|-00294967296");
}

#[test]
fn floats() {
    let (single, double) = (
        plain(&1.5_f32.to_ne_bytes()),
        plain(&(-2.25_f64).to_ne_bytes()),
    );
    check(
        "%f|%.1f|%8.2f|%-8.2f|%08.2f",
        &single,
        "1.500000|1.5|    1.50|1.50    |00001.50",
    );
    check("%d|%09.1d", &double, "-2.250000|-000002.2");
    let (out, problems) = render_bytes("[%f]", &double);
    assert_eq!((out.as_slice(), problems.len()), (&b"[]"[..], 1));
}

#[test]
fn times_and_escapes() {
    check(
        "%I|%30I|@Y-@m|@@|@N|%%",
        &plain(b""),
        "2026-11-22T23:53:09+0100|      2026-11-22T23:53:09+0100|2026-11|@|624187004|%",
    );
    check("%U", &plain(b""), "1795387989.624187004");
    check(
        "\\0\\a\\e\\n\\r\\t\\v\\\\",
        &plain(b""),
        "\0\x07\x1b\n\r\t\x0b\\",
    );
}

#[test]
fn json() {
    let head = r#"{"tst":"2026-11-22T23:53:09.624187Z+0100","topic":"a/b","qos":0,"retain":0,"payloadlen":"#;
    check(
        "%j",
        &plain(b"nl\ntab\t\x01bin\x7f"),
        &format!("{head}12,\"payload\":\"nl\\ntab\\t\\u0001bin\x7f\"}}"),
    );
    check(
        "%j",
        &plain("été".as_bytes()),
        &format!("{head}5,\"payload\":\"été\"}}"),
    );
    check("%j", &plain(b""), &format!("{head}0,\"payload\":null}}"));
    check(
        "%J",
        &plain(b"{\"a\": [1, 2.50]}"),
        &format!("{head}16,\"payload\":{{\"a\":[1,2.5]}}}}"),
    );
    check("%J", &plain(b""), &format!("{head}0,\"payload\":null}}"));
    let (out, problems) = render_bytes("<%J>", &plain(b"nul"));
    assert_eq!(out, b"<>");
    assert_eq!(
        problems,
        ["Error: Message payload is not valid JSON on topic a/b."]
    );
}

#[test]
fn json_of_what_is_no_text() {
    let (out, _) = render_bytes("%j", &plain(b"\xff\0"));
    assert!(out.ends_with(br#""payload":[255,0]}"#));
    let (out, _) = render_bytes("%j", &plain(b"a\0b"));
    assert!(out.ends_with(br#""payload":"a\u0000b"}"#));
}

#[test]
fn json_properties() {
    let (out, _) = render_bytes("%j", &full());
    let text = String::from_utf8(out).unwrap();
    let expected = concat!(
        r#""mid":7,"properties":{"payload-format-indicator":1,"message-expiry-interval":100,"#,
        r#""content-type":"text/plain","response-topic":"r/t","correlation-data":"co\"r","#,
        r#""user-properties":{"k":"v","k2":"v2","k":"v3"}},"payload":"x"}"#,
    );
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn mistakes() {
    for (format, error) in [
        ("%", FormatError::IncompleteField),
        ("%-", FormatError::IncompleteField),
        ("%10", FormatError::IncompleteField),
        ("%5.", FormatError::IncompleteField),
        ("@", FormatError::IncompleteField),
        ("\\", FormatError::IncompleteEscape),
        ("%z", FormatError::Field('z')),
        ("%0-5l", FormatError::Field('-')),
        ("%.2:p", FormatError::Field(':')),
        ("\\q", FormatError::Escape('q')),
        ("%99999999999999999999p", FormatError::Width),
    ] {
        assert_eq!(
            Format::parse(format.as_bytes(), false),
            Err(error),
            "{format}"
        );
    }
}

proptest! {
    #[test]
    fn no_format_panics(text in proptest::collection::vec(any::<u8>(), 0..24)) {
        let _ = Format::parse(&text, false);
    }

    #[test]
    fn no_rendering_panics(
        text in "([a-z ]|%-?0?[0-9]{0,3}(\\.[0-9]{0,3})?[ACDEFIJPRSUXdfjlmpqrtx%]|@[a-zA-Z@]|%\\.[0-9]:[xX]){0,8}",
        payload in proptest::collection::vec(any::<u8>(), 0..16),
    ) {
        let format = Format::parse(text.as_bytes(), true).unwrap();
        let (mut out, mut problems) = (Vec::new(), Vec::new());
        format.render(&plain(&payload), &Clock::fixed(), &mut out, &mut problems);
        format.render(&full(), &Clock::fixed(), &mut out, &mut problems);
    }
}
