//! The local time of a message's arrival, in the formats of `-F`.

use jiff::Zoned;
use jiff::fmt::strtime;

/// What both the C library and jiff convert, in the same way.
const CONVERSIONS: &str = "aAbBCdeFgGhHIjklmMpPRSuUVwWyYzZ%";

/// One reading of the wall clock in the local time zone.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Zoned);

impl Clock {
    /// Reads the clock; the zone is `TZ` or the system's.
    pub(crate) fn now() -> Self {
        Self(Zoned::now())
    }

    /// `2016-08-10T09:47:38+0100`.
    pub(crate) fn iso8601(&self) -> String {
        self.format("%Y-%m-%dT%H:%M:%S%z")
    }

    /// `2020-05-06T22:12:00.000000Z+0100`, the `tst` member of `%j`.
    pub(crate) fn json(&self) -> String {
        let micros = self.nanoseconds() / 1000;
        format!(
            "{}.{micros:06}Z{}",
            self.format("%Y-%m-%dT%H:%M:%S"),
            self.format("%z")
        )
    }

    /// Seconds since 1970, a point and nine digits.
    pub(crate) fn unix(&self) -> String {
        format!(
            "{}.{:09}",
            self.0.timestamp().as_second(),
            self.nanoseconds()
        )
    }

    /// Nanoseconds within the current second.
    pub(crate) fn nanoseconds(&self) -> i32 {
        self.0.timestamp().subsec_nanosecond().max(0)
    }

    /// What strftime(3) prints for `%` and this character in the C locale: the two themselves if
    /// there is no such conversion.
    pub(crate) fn conversion(&self, letter: char) -> String {
        match letter {
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            'x' | 'D' => self.format("%m/%d/%y"),
            'X' | 'T' => self.format("%H:%M:%S"),
            'r' => self.format("%I:%M:%S %p"),
            's' => self.0.timestamp().as_second().to_string(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            letter if CONVERSIONS.contains(letter) => self.format(&format!("%{letter}")),
            letter => format!("%{letter}"),
        }
    }

    /// As jiff formats it.
    fn format(&self, format: &str) -> String {
        strtime::format(format, &self.0).unwrap_or_else(|_| format.to_owned())
    }
}

#[cfg(test)]
impl Clock {
    /// A fixed instant: 2026-11-22 23:53:09.624187004 in a zone one hour ahead of UTC.
    pub(crate) fn fixed() -> Self {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(1));
        let time = jiff::civil::date(2026, 11, 22).at(23, 53, 9, 624_187_004);
        Self(time.to_zoned(zone).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_strftime_in_the_c_locale() {
        let clock = Clock::fixed();
        assert_eq!(clock.iso8601(), "2026-11-22T23:53:09+0100");
        assert_eq!(clock.json(), "2026-11-22T23:53:09.624187Z+0100");
        assert_eq!(clock.unix(), "1795387989.624187004");
        for (letter, text) in [
            ('Y', "2026"),
            ('m', "11"),
            ('d', "22"),
            ('e', "22"),
            ('H', "23"),
            ('I', "11"),
            ('p', "PM"),
            ('M', "53"),
            ('S', "09"),
            ('z', "+0100"),
            ('s', "1795387989"),
            ('j', "326"),
            ('a', "Sun"),
            ('A', "Sunday"),
            ('b', "Nov"),
            ('c', "Sun Nov 22 23:53:09 2026"),
            ('x', "11/22/26"),
            ('X', "23:53:09"),
            ('r', "11:53:09 PM"),
            ('F', "2026-11-22"),
            ('T', "23:53:09"),
            ('u', "7"),
            ('w', "0"),
            ('n', "\n"),
            ('%', "%"),
            ('Q', "%Q"),
            ('é', "%é"),
        ] {
            assert_eq!(clock.conversion(letter), text, "%{letter}");
        }
    }
}
