//! Topic names and topic filters: validation, levels and matching.

use core::fmt;

use thiserror::Error;

/// The longest topic name or filter, in bytes of UTF-8 [MQTT-4.7.3-3].
const MAX_LEN: usize = 65_535;
const SHARE_PREFIX: &str = "$share/";

/// Why a text is not a topic name, or not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// No character at all [MQTT-4.7.3-1].
    #[error("empty")]
    Empty,
    /// More than 65,535 bytes [MQTT-4.7.3-3].
    #[error("longer than 65535 bytes")]
    TooLong,
    /// U+0000 [MQTT-4.7.3-2].
    #[error("contains U+0000")]
    NulCharacter,
    /// A wildcard in a topic name [MQTT-4.7.0-1].
    #[error("wildcard in a topic name")]
    Wildcard,
    /// `#` is not a level of its own, or not the last one [MQTT-4.7.1-1].
    #[error("misplaced #")]
    MultiLevelWildcard,
    /// `+` is not a level of its own [MQTT-4.7.1-2].
    #[error("misplaced +")]
    SingleLevelWildcard,
    /// `$share/` without a share name of at least one character [MQTT-4.8.2-1].
    #[error("empty share name")]
    EmptyShareName,
    /// The share name contains a wildcard, or no filter follows it [MQTT-4.8.2-2].
    #[error("malformed shared subscription")]
    SharedFilter,
}

impl TopicError {
    /// The statement of the standard.
    #[must_use]
    pub const fn clause(self) -> &'static str {
        match self {
            Self::Empty => "MQTT-4.7.3-1",
            Self::TooLong => "MQTT-4.7.3-3",
            Self::NulCharacter => "MQTT-4.7.3-2",
            Self::Wildcard => "MQTT-4.7.0-1",
            Self::MultiLevelWildcard => "MQTT-4.7.1-1",
            Self::SingleLevelWildcard => "MQTT-4.7.1-2",
            Self::EmptyShareName => "MQTT-4.8.2-1",
            Self::SharedFilter => "MQTT-4.8.2-2",
        }
    }
}

/// The name a message is published to: 1 to 65,535 bytes without U+0000, `+` and `#`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Checks a text and wraps it.
    ///
    /// # Errors
    ///
    /// [`TopicError`] when the text is empty, too long, or contains U+0000 or a wildcard.
    #[inline]
    pub fn new(text: &'a str) -> Result<Self, TopicError> {
        // Without an early exit, so that the loop can use wide registers.
        let suspicious = text.bytes().fold(false, |found, b| {
            found | (b == 0) | (b == b'+') | (b == b'#')
        });
        if suspicious || text.is_empty() || text.len() > MAX_LEN {
            return Err(Self::fault(text));
        }
        Ok(Self(text))
    }

    /// Wraps a text that is known to be a topic name, such as one kept from an earlier
    /// [`TopicName`]. A debug build checks it.
    #[inline]
    #[must_use]
    pub fn assume_valid(text: &'a str) -> Self {
        debug_assert!(Self::new(text).is_ok(), "not a topic name: {text:?}");
        Self(text)
    }

    #[cold]
    fn fault(text: &str) -> TopicError {
        if text.is_empty() {
            TopicError::Empty
        } else if text.len() > MAX_LEN {
            TopicError::TooLong
        } else if text.contains('\0') {
            TopicError::NulCharacter
        } else {
            TopicError::Wildcard
        }
    }

    /// The text.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels, which a `/` separates; a level may be empty.
    #[inline]
    pub fn levels(self) -> impl DoubleEndedIterator<Item = &'a str> + Clone + use<'a> {
        self.0.split('/')
    }

    /// The first character is `$`: wildcards in the first level of a filter do not match
    /// [MQTT-4.7.2-1].
    #[inline]
    #[must_use]
    pub fn is_dollar(self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AsRef<str> for TopicName<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl<'a> TryFrom<&'a str> for TopicName<'a> {
    type Error = TopicError;

    fn try_from(text: &'a str) -> Result<Self, TopicError> {
        Self::new(text)
    }
}

/// A subscription's filter: 1 to 65,535 bytes without U+0000, with wildcards where they may be.
///
/// A filter that begins with `$share/` is a shared subscription in every version; one that begins
/// so and is not well formed is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

/// The parts of a shared subscription's filter, `$share/group/filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// The share name: at least one character, no `/`, `+` or `#`.
    pub group: &'a str,
    /// What the group subscribes to.
    pub filter: TopicFilter<'a>,
}

impl<'a> TopicFilter<'a> {
    /// Checks a text and wraps it.
    ///
    /// # Errors
    ///
    /// [`TopicError`] when the text is empty, too long, contains U+0000, or has a wildcard or a
    /// share name where none may be.
    pub fn new(text: &'a str) -> Result<Self, TopicError> {
        if text.is_empty() {
            return Err(TopicError::Empty);
        }
        if text.len() > MAX_LEN {
            return Err(TopicError::TooLong);
        }
        if text.contains('\0') {
            return Err(TopicError::NulCharacter);
        }
        let filter = match text.strip_prefix(SHARE_PREFIX) {
            None => text,
            Some(shared) => {
                let (group, filter) = shared.split_once('/').unwrap_or((shared, ""));
                if group.is_empty() {
                    return Err(TopicError::EmptyShareName);
                }
                if group.contains(['+', '#']) || filter.is_empty() {
                    return Err(TopicError::SharedFilter);
                }
                filter
            }
        };
        let mut levels = filter.split('/');
        while let Some(level) = levels.next() {
            if level.len() == 1 {
                if level == "#" && levels.next().is_some() {
                    return Err(TopicError::MultiLevelWildcard);
                }
            } else if level.contains('#') {
                return Err(TopicError::MultiLevelWildcard);
            } else if level.contains('+') {
                return Err(TopicError::SingleLevelWildcard);
            }
        }
        Ok(Self(text))
    }

    /// Wraps a text that is known to be a topic filter, such as one kept from an earlier
    /// [`TopicFilter`]. A debug build checks it.
    #[inline]
    #[must_use]
    pub fn assume_valid(text: &'a str) -> Self {
        debug_assert!(Self::new(text).is_ok(), "not a topic filter: {text:?}");
        Self(text)
    }

    /// The text, `$share/group/` included.
    #[inline]
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels of the text, which a `/` separates; a level may be empty.
    #[inline]
    pub fn levels(self) -> impl DoubleEndedIterator<Item = &'a str> + Clone + use<'a> {
        self.0.split('/')
    }

    /// Whether a level is `+` or `#`.
    #[must_use]
    pub fn has_wildcards(self) -> bool {
        // Both stand alone in a level and nowhere else.
        self.0.contains(['+', '#'])
    }

    /// Group and inner filter, when this is a shared subscription's filter.
    #[must_use]
    pub fn shared(self) -> Option<SharedFilter<'a>> {
        let (group, filter) = self.0.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
        Some(SharedFilter {
            group,
            filter: Self(filter),
        })
    }

    /// Whether a message of this topic goes to a subscription of this filter. A shared filter
    /// matches what its inner filter matches. Wildcards in the first level do not match a topic
    /// that begins with `$` [MQTT-4.7.2-1].
    #[must_use]
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        let filter = self.shared().map_or(self, |shared| shared.filter);
        if topic.is_dollar() && filter.0.starts_with(['+', '#']) {
            return false;
        }
        matches(filter.0.as_bytes(), topic.0.as_bytes())
    }
}

/// Walks along both texts. A wildcard byte in a filter always is a whole level, and what is left
/// of the topic begins with the same level then.
fn matches(mut filter: &[u8], mut topic: &[u8]) -> bool {
    loop {
        match (filter, topic) {
            // The level that `#` stands for may be missing with its separator.
            ([], []) | ([b'#'], _) | ([b'/', b'#'], []) => return true,
            ([b'+', rest @ ..], _) => {
                let level = topic.iter().position(|byte| *byte == b'/');
                topic = level.and_then(|end| topic.get(end..)).unwrap_or_default();
                filter = rest;
            }
            ([a, filter_rest @ ..], [b, topic_rest @ ..]) if a == b => {
                filter = filter_rest;
                topic = topic_rest;
            }
            _ => return false,
        }
    }
}

impl fmt::Display for TopicFilter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AsRef<str> for TopicFilter<'_> {
    fn as_ref(&self) -> &str {
        self.0
    }
}

impl<'a> TryFrom<&'a str> for TopicFilter<'a> {
    type Error = TopicError;

    fn try_from(text: &'a str) -> Result<Self, TopicError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        let filter = TopicFilter::new(filter).expect("a filter");
        filter.matches(TopicName::new(topic).expect("a topic"))
    }

    /// The examples of section 4.7.
    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        for (filter, topic) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/monitor/Clients"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("$share/group/sport/+", "sport/tennis"),
            ("+/$SYS", "a/$SYS"),
        ] {
            assert!(matches(filter, topic), "{filter} matches {topic}");
        }
        for (filter, topic) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("$share/group/#", "$SYS/a"),
            ("ACCOUNTS", "Accounts"),
            ("/a", "a"),
            ("a/", "a"),
        ] {
            assert!(!matches(filter, topic), "{filter} does not match {topic}");
        }
    }

    #[test]
    fn names_have_their_limits() {
        let text = "x".repeat(MAX_LEN);
        assert!(TopicName::new(&text).is_ok());
        assert!(TopicFilter::new(&text).is_ok());
        let text = "x".repeat(MAX_LEN + 1);
        assert_eq!(TopicName::new(&text), Err(TopicError::TooLong));
        assert_eq!(TopicFilter::new(&text), Err(TopicError::TooLong));
        assert_eq!(TopicName::new(""), Err(TopicError::Empty));
        assert_eq!(TopicName::new("a\0#"), Err(TopicError::NulCharacter));
        assert_eq!(TopicName::new("a/+"), Err(TopicError::Wildcard));
        assert!(TopicName::new("/").is_ok());
        assert!(TopicName::new("a b/\u{1F600}").is_ok());
    }

    /// No recursion: 32,768 levels.
    #[test]
    fn deep_topics_match() {
        let topic = "/".repeat(32_767);
        let filter = "+/".repeat(32_766) + "#";
        assert!(matches(&filter, &topic));
    }

    #[test]
    fn shared_filters_have_their_parts() {
        let shared = TopicFilter::new("$share/g/a/+").expect("a filter").shared();
        let filter = TopicFilter::new("a/+").expect("a filter");
        assert_eq!(shared, Some(SharedFilter { group: "g", filter }));
        for text in ["$share", "$shared/g/a", "a/$share/g", "$queue/a"] {
            assert_eq!(TopicFilter::new(text).expect("a filter").shared(), None);
        }
    }
}
