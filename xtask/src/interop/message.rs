//! A message as a subscriber has received it, and as it should have.

use std::fmt;

use anyhow::{Result, bail};

/// The flag `-F` of a subscriber: QoS, retain, payload in hexadecimal, topic.
pub(super) const FORMAT: &str = "MSG|%q|%r|%x|%t";

/// A message as a subscriber has received it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
}

impl Message {
    pub(super) fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> Self {
        Self {
            topic: topic.to_owned(),
            payload: payload.into(),
            qos,
            retain: false,
        }
    }

    pub(super) fn retained(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The message that a line of output describes, if it does.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix("MSG|")?.splitn(4, '|');
        let qos = fields.next()?.parse().ok()?;
        let retain = fields.next()? == "1";
        let payload = from_hex(fields.next()?)?;
        Some(Self {
            topic: fields.next()?.to_owned(),
            payload,
            qos,
            retain,
        })
    }
}

/// Short, for a person to compare.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, qos, .. } = self;
        let retained = if self.retain { ", retained" } else { "" };
        if self.payload.len() <= 60 {
            let payload = String::from_utf8_lossy(&self.payload);
            write!(f, "{topic:?}: {payload:?} at QoS {qos}{retained}")
        } else {
            let length = self.payload.len();
            write!(f, "{topic:?}: {length} bytes at QoS {qos}{retained}")
        }
    }
}

/// Says where two lists of messages differ.
pub(super) fn compare(received: &[Message], expected: &[Message]) -> Result<()> {
    if received == expected {
        return Ok(());
    }
    let differing = received
        .iter()
        .zip(expected)
        .position(|(one, other)| one != other)
        .unwrap_or(received.len().min(expected.len()));
    bail!(
        "message {} of {}: received {}, expected {}",
        differing + 1,
        expected.len(),
        shown(received.get(differing)),
        shown(expected.get(differing)),
    )
}

fn shown(message: Option<&Message>) -> String {
    message.map_or_else(|| "nothing".to_owned(), |message| format!("{message:?}"))
}

/// Two digits a byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // A plain loop: payloads are large and this is not built with optimisation.
    let mut digits = Vec::with_capacity(2 * bytes.len());
    for &byte in bytes {
        digits.push(DIGITS[usize::from(byte >> 4)]);
        digits.push(DIGITS[usize::from(byte & 15)]);
    }
    String::from_utf8(digits).unwrap_or_default()
}

/// The bytes of an even number of digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for &digit in text.as_bytes() {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        match high.take() {
            None => high = Some(value << 4),
            Some(high) => bytes.push(high | value),
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_message() {
        let message = Message::parse("MSG|1|1|c3a9|a|b").unwrap();
        assert_eq!(message, Message::new("a|b", "é", 1).retained());
        assert_eq!(Message::parse("MSG|0|0||a"), Some(Message::new("a", "", 0)));
        assert_eq!(Message::parse("Client x received PUBLISH"), None);
        assert_eq!(Message::parse("MSG|0|0|abc|a"), None);
        assert_eq!(to_hex("é".as_bytes()), "c3a9");
    }

    #[test]
    fn the_first_difference_is_named() {
        let [one, two] = ["one", "two"].map(|text| Message::new("t", text, 0));
        let list = [one, two];
        assert!(compare(&list, &list).is_ok());
        let error = compare(&list[..1], &list).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message 2 of 2: received nothing, expected \"t\": \"two\" at QoS 0"
        );
    }
}
