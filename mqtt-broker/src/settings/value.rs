//! Values of the configuration file that read better than bare numbers.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use mqtt_codec::{ProtocolVersion, QoS};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::transport::{Address, Network};

/// A length of time: `"10s"`, `"500ms"`, `"5m"`, `"2h"`, `"7d"`, or a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: `"64 KiB"`, `"2 MB"`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// A version of the protocol: `"3.1"`, `"3.1.1"` or `"5.0"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub ProtocolVersion);

/// A quality of service: 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quality(pub QoS);

const TIMES: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZES: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number and its unit.
fn measured(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let millis = measured(text, &TIMES).ok_or("expected a time such as \"10s\" or \"5m\"")?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let bytes =
            measured(text, &SIZES).ok_or("expected a size such as \"64 KiB\" or \"2 MB\"")?;
        Ok(Self(bytes))
    }
}

/// Reads a number or a text.
struct NumberOrText<T> {
    expected: &'static str,
    number: fn(u64) -> Option<T>,
}

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let value = u64::try_from(number).ok().and_then(self.number);
        value.ok_or_else(|| E::custom(format_args!("{number}: expected {}", self.expected)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "a time such as \"10s\", or a number of seconds",
            number: |seconds| Some(Self(Duration::from_secs(seconds))),
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText {
            expected: "a size such as \"64 KiB\", or a number of bytes",
            number: |bytes| Some(Self(bytes)),
        })
    }
}

impl FromStr for Version {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let [v3_1, v3_1_1, v5] = ProtocolVersion::ALL;
        match text {
            "3.1" => Ok(Self(v3_1)),
            "3.1.1" => Ok(Self(v3_1_1)),
            "5" | "5.0" => Ok(Self(v5)),
            _ => Err("expected \"3.1\", \"3.1.1\" or \"5.0\""),
        }
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Quality {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            0 => Ok(Self(QoS::AtMostOnce)),
            1 => Ok(Self(QoS::AtLeastOnce)),
            2 => Ok(Self(QoS::ExactlyOnce)),
            other => Err(D::Error::custom(format_args!(
                "{other} is no quality of service: expected 0, 1 or 2"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        let millis = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("10s"), Ok(10_000));
        assert_eq!(millis("2 h"), Ok(7_200_000));
        assert_eq!(millis("7d"), Ok(604_800_000));
        let bytes = |text: &str| text.parse::<Size>().map(|size| size.0);
        assert_eq!(bytes("64 KiB"), Ok(65_536));
        assert_eq!(bytes("2MB"), Ok(2_000_000));
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 parsecs",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
