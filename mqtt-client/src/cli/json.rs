//! JSON as mosquitto_sub writes it: the order of keys is kept, a key may repeat, and numbers are
//! doubles printed with the fewest digits of 15 or 17 that give them back.

/// Deepest nesting of arrays and objects that is parsed.
const NESTING_LIMIT: usize = 1000;

/// A JSON value. Strings are bytes because an MQTT payload need not be UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// `null`; also what an infinite number is written as.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Every number, whole ones included.
    Number(f64),
    /// Unescaped text.
    String(Vec<u8>),
    /// An array.
    Array(Vec<Self>),
    /// Members in order of appearance; keys may repeat.
    Object(Vec<(Vec<u8>, Self)>),
}

impl Value {
    /// A string value.
    pub(crate) fn string(text: impl AsRef<[u8]>) -> Self {
        Self::String(text.as_ref().to_vec())
    }

    /// Parses one whole document; `None` if it is not JSON or something follows it.
    ///
    /// Laxer than RFC 8259 where cJSON is: control characters may stand in strings, every byte
    /// up to the space is white space, and `01`, `1.` and `-.5` are numbers.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut parser = Parser {
            rest: text,
            depth: 0,
        };
        let value = parser.value()?;
        parser.skip_space();
        parser.rest.is_empty().then_some(value)
    }

    /// Appends the value; `pretty` breaks lines and indents with tabs.
    pub(crate) fn write(&self, pretty: bool, out: &mut Vec<u8>) {
        self.write_at(pretty, 0, out);
    }

    fn write_at(&self, pretty: bool, depth: usize, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Self::Number(value) => write_number(*value, out),
            Self::String(text) => write_string(text, out),
            Self::Array(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.extend_from_slice(if pretty { b", " } else { b"," });
                    }
                    item.write_at(pretty, depth + 1, out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                if pretty {
                    out.push(b'\n');
                }
                for (index, (key, value)) in members.iter().enumerate() {
                    if pretty {
                        indent(depth + 1, out);
                    }
                    write_string(key, out);
                    out.extend_from_slice(if pretty { b":\t" } else { b":" });
                    value.write_at(pretty, depth + 1, out);
                    if index + 1 < members.len() {
                        out.push(b',');
                    }
                    if pretty {
                        out.push(b'\n');
                    }
                }
                if pretty {
                    indent(depth, out);
                }
                out.push(b'}');
            }
        }
    }
}

fn indent(depth: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + depth, b'\t');
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

fn write_number(value: f64, out: &mut Vec<u8>) {
    if !value.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    let short = general(value, 15);
    let back: f64 = short.parse().unwrap_or(f64::NAN);
    let tolerance = value.abs().max(back.abs()) * f64::EPSILON;
    if (back - value).abs() <= tolerance {
        out.extend_from_slice(short.as_bytes());
    } else {
        out.extend_from_slice(general(value, 17).as_bytes());
    }
}

/// C's `%.{digits}g`.
fn general(value: f64, digits: usize) -> String {
    let scientific = format!("{value:.*e}", digits - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match usize::try_from(digits as i64 - 1 - i64::from(exponent)) {
        Ok(decimals) if exponent >= -4 => strip(&format!("{value:.decimals$}")),
        _ => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{}e{sign}{:02}", strip(mantissa), exponent.unsigned_abs())
        }
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        while let [0..=b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn word(&mut self, word: &[u8], value: Value) -> Option<Value> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(value)
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        match self.rest.first()? {
            b'n' => self.word(b"null", Value::Null),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            b'"' => self.string().map(Value::String),
            b'[' => self.nested(Self::array),
            b'{' => self.nested(Self::object),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Option<Value>) -> Option<Value> {
        self.next()?;
        self.depth += 1;
        if self.depth > NESTING_LIMIT {
            return None;
        }
        let value = inner(self);
        self.depth -= 1;
        value
    }

    fn array(&mut self) -> Option<Value> {
        let mut items = Vec::new();
        self.skip_space();
        if self.eat(b']') {
            return Some(Value::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.next()? {
                b',' => {}
                b']' => return Some(Value::Array(items)),
                _ => return None,
            }
        }
    }

    fn object(&mut self) -> Option<Value> {
        let mut members = Vec::new();
        self.skip_space();
        if self.eat(b'}') {
            return Some(Value::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.skip_space();
            if !self.eat(b':') {
                return None;
            }
            members.push((key, self.value()?));
            self.skip_space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(Value::Object(members)),
                _ => return None,
            }
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        if !self.eat(b'"') {
            return None;
        }
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => match self.next()? {
                    b'b' => text.push(0x08),
                    b'f' => text.push(0x0c),
                    b'n' => text.push(b'\n'),
                    b'r' => text.push(b'\r'),
                    b't' => text.push(b'\t'),
                    byte @ (b'"' | b'\\' | b'/') => text.push(byte),
                    b'u' => {
                        let mut utf8 = [0; 4];
                        text.extend_from_slice(self.unicode()?.encode_utf8(&mut utf8).as_bytes());
                    }
                    _ => return None,
                },
                byte => text.push(byte),
            }
        }
    }

    /// What follows `\u`: one code unit, or two that are a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest = self.rest.strip_prefix(b"\\u")?;
        let second = self
            .hex4()?
            .checked_sub(0xdc00)
            .filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
    }

    fn hex4(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        let unit = digits.iter().try_fold(0, |unit, digit| {
            Some(unit * 16 + char::from(*digit).to_digit(16)?)
        })?;
        self.rest = rest;
        Some(unit)
    }

    fn digits(&self, from: usize) -> usize {
        let text = self.rest.get(from..).unwrap_or_default();
        text.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    fn number(&mut self) -> Option<Value> {
        let at = |index: usize| self.rest.get(index).copied();
        let mut end = usize::from(at(0) == Some(b'-'));
        let whole = self.digits(end);
        end += whole;
        let mut fraction = 0;
        if at(end) == Some(b'.') {
            fraction = self.digits(end + 1);
            if whole + fraction > 0 {
                end += 1 + fraction;
            }
        }
        if whole + fraction == 0 {
            return None;
        }
        if matches!(at(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(at(end + 1), Some(b'+' | b'-')));
            let exponent = self.digits(end + 1 + sign);
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        let (number, rest) = self.rest.split_at_checked(end)?;
        self.rest = rest;
        let number: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
        Some(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The second column is what mosquitto_sub 2.0.11 printed for `%J`.
    #[test]
    fn documents_are_rewritten_as_mosquitto_does() {
        for (text, expected) in [
            (
                r#"{"a":1.0,"b":-0,"c":-0.0,"d":1e20,"e":0.1}"#,
                r#"{"a":1,"b":-0,"c":-0,"d":1e+20,"e":0.1}"#,
            ),
            (
                "[10000000000,2147483648,1e-7]",
                "[10000000000,2147483648,1e-07]",
            ),
            ("1.23456789012345678", "1.2345678901234567"),
            ("123456789012345678", "1.2345678901234568e+17"),
            ("0.30000000000000004", "0.3"),
            ("1E400", "null"),
            (" true ", "true"),
            (
                r#""a\u00e9\u0001\/\"\n\ud83d\ude00""#,
                "\"aé\\u0001/\\\"\\n😀\"",
            ),
            ("01", "1"),
            ("[1.]", "[1]"),
            ("-.5", "-0.5"),
            (r#"{"a":1,"a":2}"#, r#"{"a":1,"a":2}"#),
            ("{\"k\" : \"tab\traw\"}", r#"{"k":"tab\traw"}"#),
            (r#"{"x":[],"y":{}}"#, r#"{"x":[],"y":{}}"#),
        ] {
            let mut out = Vec::new();
            let value = Value::parse(text.as_bytes());
            assert!(value.is_some(), "{text}");
            value.unwrap().write(false, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "[1,]",
            "3 x",
            "[+1]",
            r#"["\x"]"#,
            "\"",
            "{",
            "-",
            r#""\ud800""#,
        ] {
            assert_eq!(Value::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Value::parse("[".repeat(5000).as_bytes()), None);
    }

    #[test]
    fn pretty_output_is_indented_with_tabs() {
        let value = Value::parse(br#"[1,{"x":[],"y":{}}]"#).unwrap();
        let mut out = Vec::new();
        value.write(true, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "[1, {\n\t\t\"x\":\t[],\n\t\t\"y\":\t{\n\t\t}\n\t}]"
        );
    }

    proptest! {
        #[test]
        fn parser_never_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Value::parse(&text);
        }

        #[test]
        fn numbers_survive(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
            let mut out = Vec::new();
            Value::Number(number).write(false, &mut out);
            let Some(Value::Number(back)) = Value::parse(&out) else {
                panic!("{out:?}");
            };
            prop_assert!((back - number).abs() <= number.abs() * f64::EPSILON * 2.0);
        }
    }
}
