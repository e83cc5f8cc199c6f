//! Topic patterns of rules: filters in which the names of a client may stand.
//!
//! A name takes the place of text and is only ever compared as text: one that contains `+`, `#` or `/` never
//! becomes a wildcard or a level of its own.

use core::fmt;

use mqtt_codec::{TopicFilter, TopicName};

/// What the placeholders of a pattern stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names<'a> {
    /// `%c`: the client identifier.
    pub(crate) client: &'a str,
    /// `%u`: the user name, if there is one.
    pub(crate) user: Option<&'a str>,
}

/// A part of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Client,
    User,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    /// At least one of them is a name.
    Template(Box<[Piece]>),
    /// `+`.
    Any,
}

/// What stands in a level for one client.
enum Stands {
    /// A text, to be compared piece by piece.
    Text,
    /// A name that no level of a topic can be.
    Unsafe,
    /// A name that the client does not have.
    Nothing,
}

/// A topic filter with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: Box<str>,
    levels: Box<[Level]>,
    /// It ends with `#`.
    rest: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    #[error("not a topic filter: {0}")]
    Filter(mqtt_codec::TopicError),
    #[error("a shared subscription ($share/...): permissions name topics, share names have none")]
    Shared,
}

/// How a rule that cannot tell which topics a client's name stands for is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It matches nothing: for rules that allow.
    Nothing,
    /// It matches everything from there on: for rules that deny.
    Everything,
}

impl Pattern {
    /// Reads a pattern; `%c` and `%u` are placeholders if there may be `placeholders`.
    pub(crate) fn parse(text: &str, placeholders: bool) -> Result<Self, PatternError> {
        let filter = TopicFilter::new(text).map_err(PatternError::Filter)?;
        if filter.shared().is_some() {
            return Err(PatternError::Shared);
        }
        let mut levels: Vec<_> = text
            .split('/')
            .map(|level| Level::parse(level, placeholders))
            .collect();
        let rest = text == "#" || text.ends_with("/#");
        if rest {
            levels.pop();
        }
        Ok(Self {
            text: text.into(),
            levels: levels.into(),
            rest,
        })
    }

    /// Whether a message to `topic` is meant.
    pub(crate) fn matches(&self, topic: TopicName<'_>, names: Names<'_>, doubt: Doubt) -> bool {
        if topic.is_dollar() && self.begins_with_wildcard() {
            return false;
        }
        let mut texts = topic.levels();
        for level in &self.levels {
            let Some(text) = texts.next() else {
                return false;
            };
            match level.stands(names) {
                Stands::Nothing => return false,
                Stands::Unsafe => return doubt == Doubt::Everything,
                Stands::Text if level.is(text, names) => {}
                Stands::Text => return false,
            }
        }
        self.rest || texts.next().is_none()
    }

    /// Whether every topic that `filter` matches is meant.
    pub(crate) fn covers(&self, filter: TopicFilter<'_>, names: Names<'_>, doubt: Doubt) -> bool {
        let wanted = Wanted::new(filter);
        if wanted.is_dollar() && self.begins_with_wildcard() {
            return false;
        }
        let mut texts = wanted.levels();
        for level in &self.levels {
            let Some(text) = texts.next() else {
                return false;
            };
            match level.stands(names) {
                Stands::Nothing => return false,
                Stands::Unsafe => return doubt == Doubt::Everything,
                Stands::Text if text == "+" && *level != Level::Any => return false,
                Stands::Text if level.is(text, names) => {}
                Stands::Text => return false,
            }
        }
        self.rest || (texts.next().is_none() && !wanted.rest)
    }

    /// Whether any topic that `filter` matches is meant.
    pub(crate) fn overlaps(&self, filter: TopicFilter<'_>, names: Names<'_>, doubt: Doubt) -> bool {
        let wanted = Wanted::new(filter);
        let begins_with_dollar = |text: &str| text.starts_with('$');
        let first = self.levels.first();
        let is_dollar = matches!(first, Some(Level::Text(text)) if begins_with_dollar(text));
        if wanted.is_dollar() && self.begins_with_wildcard()
            || is_dollar && wanted.begins_with_wildcard()
        {
            return false;
        }
        let mut texts = wanted.levels();
        for level in &self.levels {
            match level.stands(names) {
                Stands::Nothing => return false,
                Stands::Unsafe => return doubt == Doubt::Everything,
                Stands::Text => {}
            }
            match texts.next() {
                // What is left of the pattern is still to be looked at: a name may be missing.
                None if wanted.rest => {}
                None => return false,
                Some("+") => {}
                Some(text) if level.is(text, names) => {}
                Some(_) => return false,
            }
        }
        self.rest || texts.next().is_none()
    }

    /// Whether it means everything that `other` means, whoever the client is. May say no where it does.
    pub(crate) fn includes(&self, other: &Self) -> bool {
        let is_dollar =
            matches!(other.levels.first(), Some(Level::Text(text)) if text.starts_with('$'));
        if is_dollar && self.begins_with_wildcard() {
            return false;
        }
        let mut levels = other.levels.iter();
        for own in &self.levels {
            match levels.next() {
                Some(level) if *own == Level::Any || own == level => {}
                _ => return false,
            }
        }
        self.rest || (levels.next().is_none() && !other.rest)
    }

    fn begins_with_wildcard(&self) -> bool {
        self.levels
            .first()
            .map_or(self.rest, |level| *level == Level::Any)
    }

    /// Whether it names the client or its user.
    pub(crate) fn has_placeholders(&self) -> bool {
        let is_template = |level: &Level| matches!(level, Level::Template(_));
        self.levels.iter().any(is_template)
    }
}

impl Level {
    fn parse(text: &str, placeholders: bool) -> Self {
        if text == "+" {
            return Self::Any;
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while placeholders
            && let Some(at) = rest.find("%c").into_iter().chain(rest.find("%u")).min()
        {
            let (before, name) = rest.split_at(at);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let is_client = name.starts_with("%c");
            pieces.push(if is_client {
                Piece::Client
            } else {
                Piece::User
            });
            rest = name
                .strip_prefix("%c")
                .or_else(|| name.strip_prefix("%u"))
                .unwrap_or_default();
        }
        if pieces.is_empty() {
            return Self::Text(text.into());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Self::Template(pieces.into())
    }

    /// What becomes of the placeholders.
    fn stands(&self, names: Names<'_>) -> Stands {
        let Self::Template(pieces) = self else {
            return Stands::Text;
        };
        for piece in pieces {
            match piece.value(names) {
                None => return Stands::Nothing,
                Some(name) if name.is_empty() || name.contains(['+', '#', '/']) => {
                    return Stands::Unsafe;
                }
                Some(_) => {}
            }
        }
        Stands::Text
    }

    /// Whether it is, or stands for, this text.
    fn is(&self, text: &str, names: Names<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Text(own) => **own == *text,
            Self::Template(pieces) => {
                let left = pieces
                    .iter()
                    .try_fold(text, |rest, piece| rest.strip_prefix(piece.value(names)?));
                left == Some("")
            }
        }
    }
}

impl Piece {
    fn value<'a>(&'a self, names: Names<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Client => Some(names.client),
            Self::User => names.user,
        }
    }
}

/// A filter that a client asks for.
struct Wanted<'a> {
    /// Without `#`.
    text: &'a str,
    rest: bool,
}

impl<'a> Wanted<'a> {
    fn new(filter: TopicFilter<'a>) -> Self {
        let text = filter.shared().map_or(filter, |shared| shared.filter);
        let text = text.as_str();
        let before = text.strip_suffix('#');
        Self {
            text: before.unwrap_or(text),
            rest: before.is_some(),
        }
    }

    /// Its levels; those before `#` where it ends with that.
    fn levels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let count = self.text.split('/').count() - usize::from(self.rest);
        self.text.split('/').take(count)
    }

    fn is_dollar(&self) -> bool {
        self.text.starts_with('$')
    }

    fn begins_with_wildcard(&self) -> bool {
        self.levels().next().is_none_or(|level| level == "+")
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: Names<'_> = Names {
        client: "dev1",
        user: Some("anna"),
    };

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text, true).unwrap()
    }

    fn matches(text: &str, topic: &str, names: Names<'_>) -> bool {
        pattern(text).matches(TopicName::new(topic).unwrap(), names, Doubt::Nothing)
    }

    fn covers(text: &str, filter: &str) -> bool {
        pattern(text).covers(TopicFilter::new(filter).unwrap(), NAMES, Doubt::Nothing)
    }

    fn overlaps(text: &str, filter: &str) -> bool {
        pattern(text).overlaps(TopicFilter::new(filter).unwrap(), NAMES, Doubt::Nothing)
    }

    #[test]
    fn names_stand_in_levels() {
        assert!(matches("d/%c/#", "d/dev1/x", NAMES));
        assert!(matches("d/%c/#", "d/dev1", NAMES));
        assert!(!matches("d/%c/#", "d/dev2/x", NAMES));
        assert!(matches("u-%u.%c/a", "u-anna.dev1/a", NAMES));
        assert!(!matches("u-%u.%c/a", "u-anna.dev1x/a", NAMES));
        assert!(matches("%x/%", "%x/%", NAMES));
        let literal = Pattern::parse("d/%c", false).unwrap();
        assert!(literal.matches(TopicName::new("d/%c").unwrap(), NAMES, Doubt::Nothing));
        assert!(!literal.has_placeholders());
    }

    /// CVE-2017-7650: an identifier such as `#` or `+/x` opens nothing that is not its own.
    #[test]
    fn names_are_never_wildcards() {
        for name in ["#", "+", "+/#", "a/b", "a/", "/", "", "x#", "y+"] {
            let names = Names {
                client: name,
                user: Some(name),
            };
            for text in ["d/%c", "d/%u", "d/%c/#", "%u/#", "d/x%c"] {
                let pattern = pattern(text);
                for topic in [
                    "d/x", "d/a/b", "d/a", "d/", "x/y", "d/a/", "a/b", "/", "d/xa/b",
                ] {
                    let topic = TopicName::new(topic).unwrap();
                    assert!(
                        !pattern.matches(topic, names, Doubt::Nothing),
                        "{text} with {name:?} allows {topic}"
                    );
                }
                for filter in ["d/#", "d/+", "#", "+/#", "+", "d/a/b", "/#"] {
                    let filter = TopicFilter::new(filter).unwrap();
                    assert!(!pattern.covers(filter, names, Doubt::Nothing));
                    assert!(!pattern.overlaps(filter, names, Doubt::Nothing));
                }
            }
            // What is denied to such a client is not opened by its name.
            let topic = TopicName::new("secret/a/b").unwrap();
            assert!(pattern("secret/%c").matches(topic, names, Doubt::Everything));
        }
    }

    #[test]
    fn who_has_no_user_name_matches_no_pattern_with_one() {
        let names = Names {
            client: "dev1",
            user: None,
        };
        let topic = TopicName::new("u/anna").unwrap();
        assert!(!pattern("u/%u").matches(topic, names, Doubt::Nothing));
        assert!(!pattern("u/%u").matches(topic, names, Doubt::Everything));
        assert!(!pattern("u/%u").overlaps(TopicFilter::new("#").unwrap(), names, Doubt::Nothing));
        assert!(matches("u/%c", "u/dev1", names));
    }

    #[test]
    fn wildcards_cover_what_they_match() {
        for (text, filter) in [
            ("a/#", "a/#"),
            ("a/#", "a"),
            ("a/#", "a/+/b"),
            ("#", "#"),
            ("#", "+/a"),
            ("a/+", "a/+"),
            ("a/+", "a/b"),
            ("$SYS/#", "$SYS/+/x"),
            ("d/%c/#", "d/dev1/+"),
            ("a/#", "$share/group/a/b"),
        ] {
            assert!(covers(text, filter), "{text} covers {filter}");
            assert!(overlaps(text, filter), "{text} overlaps {filter}");
        }
        for (text, filter) in [
            ("a/#", "#"),
            ("a/#", "+/#"),
            ("a/+", "a/#"),
            ("a/b", "a/+"),
            ("d/%c", "d/+"),
            ("a/+/#", "a/#"),
        ] {
            assert!(!covers(text, filter), "{text} does not cover {filter}");
            assert!(overlaps(text, filter), "{text} overlaps {filter}");
        }
        for (text, filter) in [
            ("#", "$SYS/#"),
            ("+/x", "$SYS/x"),
            ("$SYS/#", "#"),
            ("$SYS/x", "+/x"),
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/b/#", "a"),
            ("a", "$share/group/b"),
        ] {
            assert!(!covers(text, filter), "{text} does not cover {filter}");
            assert!(!overlaps(text, filter), "{text} does not overlap {filter}");
        }
    }

    fn any_level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$x")]
    }

    fn any_topic() -> impl Strategy<Value = String> {
        proptest::collection::vec(any_level(), 1..4)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("a topic has a character", |topic| !topic.is_empty())
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => any_level(), 2 => Just("+")];
        (proptest::collection::vec(level, 0..4), any::<bool>())
            .prop_map(|(levels, rest)| {
                let mut levels = levels;
                levels.extend(rest.then_some("#"));
                levels.join("/")
            })
            .prop_filter("a filter has a character", |filter| !filter.is_empty())
    }

    proptest! {
        /// Covering and overlapping say the same as matching does topic by topic.
        #[test]
        fn filters_are_compared_as_they_match(
            text in any_filter(), wanted in any_filter(), topics in proptest::collection::vec(any_topic(), 40),
        ) {
            let rule = pattern(&text);
            let filter = TopicFilter::new(&wanted).unwrap();
            let covers = rule.covers(filter, NAMES, Doubt::Nothing);
            let overlaps = rule.overlaps(filter, NAMES, Doubt::Nothing);
            prop_assert!(overlaps || !covers);
            for topic in &topics {
                let topic = TopicName::new(topic).unwrap();
                let allowed = rule.matches(topic, NAMES, Doubt::Nothing);
                prop_assert_eq!(allowed, TopicFilter::new(&text).unwrap().matches(topic));
                if filter.matches(topic) {
                    prop_assert!(allowed || !covers, "{} covers {} but not {}", text, wanted, topic);
                    prop_assert!(overlaps || !allowed, "{} and {} both match {}", text, wanted, topic);
                }
            }
        }
    }
}
