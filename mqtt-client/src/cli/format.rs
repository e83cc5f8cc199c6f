//! The output language of `sub -F`: `%` fields with flags, width and precision, `@` time
//! conversions and `\` escapes, byte for byte as mosquitto_sub prints them.

use std::io::Write;

use mqtt_client::{MessageProperties, Received};

use super::clock::Clock;
use super::json::Value;

/// Widest field that is accepted, in bytes.
const MAX_WIDTH: usize = 1 << 20;

/// A parsed format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pieces: Vec<Piece>,
    pretty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Field(u8, Layout),
    Time(char),
    Nanoseconds,
}

/// Flags, width and precision of a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Layout {
    left: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    separator: Option<u8>,
}

/// What a format is refused for; the wording is mosquitto_sub's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// The text ends within a `%` or `@` sequence.
    #[error("Incomplete format specifier.")]
    IncompleteField,
    /// The text ends after `\`.
    #[error("Incomplete escape specifier.")]
    IncompleteEscape,
    /// No such `%` field.
    #[error("Invalid format specifier '{0}'.")]
    Field(char),
    /// No such `\` escape.
    #[error("Invalid escape specifier '{0}'.")]
    Escape(char),
    /// The width is beyond any use.
    #[error("Format field is too wide.")]
    Width,
}

impl Format {
    /// Parses a format; `pretty` is for the JSON fields.
    pub(crate) fn parse(text: &[u8], pretty: bool) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(byte) = take(&mut rest) {
            let piece = match byte {
                b'%' => match field(&mut rest)? {
                    Piece::Field(b'%', _) => {
                        literal.push(b'%');
                        continue;
                    }
                    piece => piece,
                },
                b'@' => match character(&mut rest).ok_or(FormatError::IncompleteField)? {
                    '@' => {
                        literal.push(b'@');
                        continue;
                    }
                    'N' => Piece::Nanoseconds,
                    letter => Piece::Time(letter),
                },
                b'\\' => {
                    literal.push(escape(&mut rest)?);
                    continue;
                }
                byte => {
                    literal.push(byte);
                    continue;
                }
            };
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces, pretty })
    }

    /// Appends one message. What cannot be printed is left out and named in `problems`.
    pub(crate) fn render(
        &self,
        message: &Received,
        clock: &Clock,
        out: &mut Vec<u8>,
        problems: &mut Vec<String>,
    ) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Time(letter) => out.extend_from_slice(clock.conversion(*letter).as_bytes()),
                Piece::Nanoseconds => {
                    out.extend_from_slice(format!("{:09}", clock.nanoseconds()).as_bytes())
                }
                Piece::Field(letter, layout) => {
                    self.render_field(*letter, *layout, message, clock, out, problems);
                }
            }
        }
    }

    fn render_field(
        &self,
        letter: u8,
        layout: Layout,
        message: &Received,
        clock: &Clock,
        out: &mut Vec<u8>,
        problems: &mut Vec<String>,
    ) {
        let payload: &[u8] = message.payload();
        let properties = message.property();
        match letter {
            // An alias is used up by the connection: an application never sees one.
            b'A' => layout.blank(out),
            b'C' => match &properties.content_type {
                Some(text) => layout.text(text, out),
                None => Layout {
                    zero: false,
                    ..layout
                }
                .blank(out),
            },
            b'D' => {
                out.extend_from_slice(properties.correlation_data.as_deref().unwrap_or_default())
            }
            b'E' => layout.optional(properties.message_expiry_interval, out),
            b'F' => layout.optional(properties.payload_format_utf8.map(u32::from), out),
            b'I' => layout.text(&clock.iso8601(), out),
            b'j' => json(message, clock, text_value(payload)).write(self.pretty, out),
            b'J' => {
                let value = if payload.is_empty() {
                    Some(Value::Null)
                } else {
                    Value::parse(payload)
                };
                match value {
                    Some(value) => json(message, clock, value).write(self.pretty, out),
                    None => problems.push(format!(
                        "Error: Message payload is not valid JSON on topic {}.",
                        message.topic()
                    )),
                }
            }
            b'l' => layout.integer(payload.len() as i64, out),
            b'm' => layout.integer(message.packet_id().map_or(0, |id| i64::from(id.get())), out),
            b'P' => {
                for (index, (name, value)) in properties.user_properties.iter().enumerate() {
                    let space = if index > 0 { " " } else { "" };
                    out.extend_from_slice(format!("{space}{name}:{value}").as_bytes());
                }
            }
            b'p' => layout.payload(payload, out),
            b'q' => out.push(b'0' + message.quality() as u8),
            b'R' => {
                if let Some(topic) = &properties.response_topic {
                    layout.text(topic, out);
                }
            }
            b'r' => out.push(b'0' + u8::from(message.is_retained())),
            b'S' => layout.optional(
                properties
                    .subscription_identifiers
                    .first()
                    .map(|id| id.get()),
                out,
            ),
            b't' => layout.text(message.topic(), out),
            b'U' => out.extend_from_slice(clock.unix().as_bytes()),
            b'x' | b'X' => layout.hex(payload, letter == b'X', out),
            b'f' => match <[u8; 4]>::try_from(payload) {
                Ok(bytes) => layout.float(f64::from(f32::from_ne_bytes(bytes)), out),
                Err(_) => problems
                    .push("requested float printing, but non-float data received".to_owned()),
            },
            b'd' => match <[u8; 8]>::try_from(payload) {
                Ok(bytes) => layout.float(f64::from_ne_bytes(bytes), out),
                Err(_) => problems
                    .push("requested double printing, but non-double data received".to_owned()),
            },
            _ => {}
        }
    }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

/// One character, or the replacement character for a byte that starts none.
fn character(rest: &mut &[u8]) -> Option<char> {
    let chunk = rest.utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(letter) => {
            *rest = rest.get(letter.len_utf8()..).unwrap_or_default();
            Some(letter)
        }
        None => take(rest).map(|_| char::REPLACEMENT_CHARACTER),
    }
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut value = None;
    while let [digit @ b'0'..=b'9', tail @ ..] = rest {
        let so_far = value.unwrap_or(0_usize);
        value = Some(
            so_far
                .saturating_mul(10)
                .saturating_add(usize::from(digit - b'0')),
        );
        *rest = tail;
    }
    value
}

fn eat(rest: &mut &[u8], byte: u8) -> bool {
    let found = rest.first() == Some(&byte);
    if found {
        take(rest);
    }
    found
}

fn field(rest: &mut &[u8]) -> Result<Piece, FormatError> {
    let mut layout = Layout {
        left: eat(rest, b'-'),
        zero: eat(rest, b'0'),
        ..Layout::default()
    };
    layout.width = number(rest).unwrap_or(0);
    if layout.width > MAX_WIDTH {
        return Err(FormatError::Width);
    }
    if eat(rest, b'.') {
        layout.precision = Some(number(rest).unwrap_or(0));
    }
    if let [
        separator @ (b':' | b'-' | b' ' | b'_' | b',' | b';' | b'/'),
        b'x' | b'X',
        ..,
    ] = *rest
    {
        layout.separator = Some(*separator);
        take(rest);
    }
    match take(rest).ok_or(FormatError::IncompleteField)? {
        letter @ (b'%' | b'A' | b'C' | b'D' | b'E' | b'F' | b'I' | b'J' | b'P' | b'R' | b'S'
        | b'U' | b'X') => Ok(Piece::Field(letter, layout)),
        letter @ (b'd' | b'f' | b'j' | b'l' | b'm' | b'p' | b'q' | b'r' | b't' | b'x') => {
            Ok(Piece::Field(letter, layout))
        }
        letter => Err(FormatError::Field(char::from(letter))),
    }
}

fn escape(rest: &mut &[u8]) -> Result<u8, FormatError> {
    Ok(
        match character(rest).ok_or(FormatError::IncompleteEscape)? {
            '\\' => b'\\',
            '0' => 0,
            'a' => 0x07,
            'e' => 0x1b,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            letter => return Err(FormatError::Escape(letter)),
        },
    )
}

impl Layout {
    fn fill(count: usize, byte: u8, out: &mut Vec<u8>) {
        out.resize(out.len() + count, byte);
    }

    fn pad(self) -> u8 {
        if self.zero { b'0' } else { b' ' }
    }

    /// What stands for a property that the message does not have.
    fn blank(self, out: &mut Vec<u8>) {
        Self::fill(self.width, self.pad(), out);
    }

    fn text(self, text: &str, out: &mut Vec<u8>) {
        let bytes = text.as_bytes();
        let bytes = bytes
            .get(..self.precision.unwrap_or(usize::MAX))
            .unwrap_or(bytes);
        self.aligned(bytes, out);
    }

    fn aligned(self, bytes: &[u8], out: &mut Vec<u8>) {
        let padding = self.width.saturating_sub(bytes.len());
        if !self.left {
            Self::fill(padding, b' ', out);
        }
        out.extend_from_slice(bytes);
        if self.left {
            Self::fill(padding, b' ', out);
        }
    }

    /// Printed as a signed 32-bit number: the C program passes it as an int.
    fn optional(self, value: Option<u32>, out: &mut Vec<u8>) {
        match value {
            Some(value) => self.integer(i64::from(value.cast_signed()), out),
            None => self.blank(out),
        }
    }

    fn integer(self, value: i64, out: &mut Vec<u8>) {
        let text = match self.zero && !self.left {
            true => format!("{value:0width$}", width = self.width),
            false => value.to_string(),
        };
        self.aligned(text.as_bytes(), out);
    }

    fn float(self, value: f64, out: &mut Vec<u8>) {
        let precision = self.precision.unwrap_or(6).min(MAX_WIDTH);
        let text = if !value.is_finite() {
            let sign = if value.is_sign_negative() { "-" } else { "" };
            format!("{sign}{}", if value.is_nan() { "nan" } else { "inf" })
        } else if self.zero && !self.left {
            format!("{value:0width$.precision$}", width = self.width)
        } else {
            format!("{value:.precision$}")
        };
        self.aligned(text.as_bytes(), out);
    }

    /// A width cuts as well as fills here. Left alignment without a width appends as many
    /// blanks as the payload is long, as mosquitto_sub does.
    fn payload(self, payload: &[u8], out: &mut Vec<u8>) {
        let shown = match self.width {
            0 => payload,
            width => payload.get(..width).unwrap_or(payload),
        };
        let padding = self.width.abs_diff(shown.len());
        if !self.left && self.width > 0 {
            Self::fill(padding, self.pad(), out);
        }
        out.extend_from_slice(shown);
        if self.left {
            Self::fill(padding, b' ', out);
        }
    }

    fn hex(self, payload: &[u8], upper: bool, out: &mut Vec<u8>) {
        let count = match self.width {
            0 => payload.len(),
            width => payload.len().min(width) / 2,
        };
        let shown = payload.get(..count).unwrap_or(payload);
        let padding = match self.width {
            0 => shown.len(),
            width => width.saturating_sub(shown.len() * 2),
        };
        if !self.left && self.width > 0 {
            Self::fill(padding, self.pad(), out);
        }
        let group = self
            .separator
            .and(self.precision)
            .filter(|group| *group > 0);
        let digits = if upper {
            b"0123456789ABCDEF"
        } else {
            b"0123456789abcdef"
        };
        let nibbles = shown.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]);
        for (index, nibble) in nibbles.enumerate() {
            if let (Some(group), Some(separator)) = (group, self.separator)
                && index > 0
                && index % group == 0
            {
                out.push(separator);
            }
            out.extend(digits.get(usize::from(nibble)));
        }
        if self.left {
            Self::fill(padding, b' ', out);
        }
    }
}

/// The payload as a JSON string; bytes that are not UTF-8 become an array of numbers.
fn text_value(payload: &[u8]) -> Value {
    if payload.is_empty() {
        Value::Null
    } else if std::str::from_utf8(payload).is_ok() {
        Value::string(payload)
    } else {
        Value::Array(
            payload
                .iter()
                .map(|byte| Value::Number(f64::from(*byte)))
                .collect(),
        )
    }
}

fn member(name: &str, value: Value) -> (Vec<u8>, Value) {
    (name.as_bytes().to_vec(), value)
}

fn json(message: &Received, clock: &Clock, payload: Value) -> Value {
    let count = |number: usize| Value::Number(number as f64);
    let mut members = vec![
        member("tst", Value::string(clock.json())),
        member("topic", Value::string(message.topic())),
        member("qos", count(message.quality() as usize)),
        member("retain", count(usize::from(message.is_retained()))),
        member("payloadlen", count(message.payload().len())),
    ];
    if let Some(id) = message.packet_id() {
        members.push(member("mid", count(usize::from(id.get()))));
    }
    if !message.property().is_empty() {
        members.push(member("properties", properties(message.property())));
    }
    members.push(member("payload", payload));
    Value::Object(members)
}

/// Properties in the order of their identifiers.
fn properties(from: &MessageProperties) -> Value {
    let number = |value: u32| Value::Number(f64::from(value));
    let mut members = Vec::new();
    if let Some(utf8) = from.payload_format_utf8 {
        members.push(member("payload-format-indicator", number(u32::from(utf8))));
    }
    if let Some(seconds) = from.message_expiry_interval {
        members.push(member("message-expiry-interval", number(seconds)));
    }
    if let Some(text) = &from.content_type {
        members.push(member("content-type", Value::string(text)));
    }
    if let Some(topic) = &from.response_topic {
        members.push(member("response-topic", Value::string(topic)));
    }
    if let Some(data) = &from.correlation_data {
        members.push(member("correlation-data", Value::string(data)));
    }
    for identifier in &from.subscription_identifiers {
        members.push(member("subscription-identifier", number(identifier.get())));
    }
    if !from.user_properties.is_empty() {
        let pairs = from.user_properties.iter();
        let pairs = pairs
            .map(|(name, value)| member(name, Value::string(value)))
            .collect();
        members.push(member("user-properties", Value::Object(pairs)));
    }
    Value::Object(members)
}

/// Prints problems to standard error, one a line.
pub(crate) fn report(problems: &mut Vec<String>) {
    for problem in problems.drain(..) {
        // Nothing is left to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "{problem}");
    }
}

#[cfg(test)]
mod tests;
