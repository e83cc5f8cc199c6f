//! The time at the begin of a line.

use core::fmt;
use std::time::SystemTime;

use time::OffsetDateTime;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// UTC with microseconds, as in RFC 3339: `2026-11-28T09:05:00.000250Z`.
///
pub(super) struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&text(SystemTime::now().into()))
    }
}

/// Of a year from 0 to 9999.
fn text(time: OffsetDateTime) -> String {
    let mut text = String::with_capacity(27);
    let mut put = |number: u32, digits: u32, end: char| {
        for place in (0..digits).rev() {
            let digit = number / 10_u32.pow(place) % 10;
            text.push(char::from_digit(digit, 10).unwrap_or('?'));
        }
        text.push(end);
    };
    put(time.year().unsigned_abs(), 4, '-');
    put(u8::from(time.month()).into(), 2, '-');
    put(time.day().into(), 2, 'T');
    put(time.hour().into(), 2, ':');
    put(time.minute().into(), 2, ':');
    put(time.second().into(), 2, '.');
    put(time.microsecond(), 6, 'Z');
    text
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn times_have_all_their_digits() {
        let begin = text(OffsetDateTime::UNIX_EPOCH);
        assert_eq!(begin, "1970-01-01T00:00:00.000000Z");
        let later = OffsetDateTime::UNIX_EPOCH + Duration::from_micros(1_709_251_199_000_250);
        assert_eq!(text(later), "2024-02-29T23:59:59.000250Z");
    }
}
