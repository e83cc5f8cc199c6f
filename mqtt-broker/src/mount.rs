//! Mount points: the part of all topics that the clients of one listener live in, without knowing it.
//!
//! Everywhere but on the wire of such a client its topics, its filters and its response topics begin with the mount
//! point, and its session goes by an identifier that does as well. The mount point is the start of that identifier up
//! to a U+0000, which no identifier of a client contains: so a session knows its mount point after a restart too.

use mqtt_codec::{Publish, TopicFilter, TopicName, Will};

/// Longest mount point, in bytes.
pub(crate) const LONGEST: usize = 1_024;

/// Between the mount point and what the client calls itself.
const SEPARATOR: char = '\0';

/// Whether topics can begin with this text: whole levels without a wildcard.
pub(crate) fn is_valid(mount: &str) -> bool {
    mount.len() <= LONGEST
        && mount.ends_with('/')
        && !mount.starts_with('$')
        && TopicName::new(mount).is_ok()
}

/// What the session of a client goes by.
pub(crate) fn scoped(mount: Option<&str>, client_id: &str) -> String {
    match mount {
        None => client_id.to_owned(),
        Some(mount) => format!("{mount}{SEPARATOR}{client_id}"),
    }
}

/// The mount point of a session, empty where there is none, and what its client calls itself.
pub(crate) fn split(id: &str) -> (&str, &str) {
    id.split_once(SEPARATOR).unwrap_or(("", id))
}

/// A filter as everybody else would write it: in a shared one the mount point comes behind the name of the group.
pub(crate) fn filter(mount: &str, filter: TopicFilter<'_>) -> String {
    let text = filter.as_str();
    let own = filter
        .shared()
        .map_or(text.len(), |shared| shared.filter.as_str().len());
    let (group, own) = text.split_at(text.len() - own);
    [group, mount, own].concat()
}

/// The topics of a message, as everybody else knows them.
#[derive(Debug)]
pub(crate) struct Mounted {
    topic: String,
    response: Option<String>,
}

impl Mounted {
    fn new(mount: &str, topic: TopicName<'_>, response: Option<TopicName<'_>>) -> Self {
        Self {
            topic: [mount, topic.as_str()].concat(),
            response: response.map(|response| [mount, response.as_str()].concat()),
        }
    }

    /// Of a message with this topic.
    pub(crate) fn of_publish(mount: &str, topic: TopicName<'_>, publish: &Publish<'_>) -> Self {
        Self::new(mount, topic, publish.properties.response_topic)
    }

    /// Of a will.
    pub(crate) fn of_will(mount: &str, will: &Will<'_>) -> Self {
        Self::new(mount, will.topic, will.properties.response_topic)
    }

    /// The topic and the response topic; none if one is longer than a topic may be.
    pub(crate) fn names(&self) -> Option<(TopicName<'_>, Option<TopicName<'_>>)> {
        let topic = TopicName::new(&self.topic).ok()?;
        let response = match &self.response {
            Some(response) => Some(TopicName::new(response).ok()?),
            None => None,
        };
        Some((topic, response))
    }
}

/// Encoded properties without the mount point in their response topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) before: &'a [u8],
    /// The response topic; none where there is none, or where it is out of the client's reach.
    pub(crate) response: Option<&'a [u8]>,
    pub(crate) after: &'a [u8],
}

/// The identifier of the property Response Topic.
pub(crate) const RESPONSE_TOPIC: u8 = 0x08;

impl<'a> Seen<'a> {
    /// How a client behind `mount` sees the properties that were encoded for forwarding; an empty one changes
    /// nothing.
    pub(crate) fn new(properties: &'a [u8], mount: &[u8]) -> Self {
        let whole = Self {
            before: properties,
            response: None,
            after: &[],
        };
        if mount.is_empty() {
            return whole;
        }
        let mut at = 0;
        while let Some((id, len)) = next_property(properties, at) {
            let (Some(before), Some(one), Some(after)) = (
                properties.get(..at),
                properties.get(at..at + len),
                properties.get(at + len..),
            ) else {
                return whole;
            };
            if id == RESPONSE_TOPIC {
                let topic = one.get(3..).unwrap_or_default();
                return Self {
                    before,
                    // Whatever it published to another topic would arrive behind its mount point.
                    response: topic.strip_prefix(mount).filter(|topic| !topic.is_empty()),
                    after,
                };
            }
            at += len;
        }
        whole
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> usize {
        self.before.len() + self.response.map_or(0, |topic| 3 + topic.len()) + self.after.len()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before);
        if let Some(topic) = self.response {
            out.push(RESPONSE_TOPIC);
            out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
            out.extend_from_slice(topic);
        }
        out.extend_from_slice(self.after);
    }
}

/// The identifier and the length of the property that begins at `at`, of those that are forwarded (section 2.2.2.2).
fn next_property(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let id = *bytes.get(at)?;
    let field = |from: usize| -> Option<usize> {
        let [high, low] = *bytes.get(from..from + 2)? else {
            return None;
        };
        Some(2 + usize::from(u16::from_be_bytes([high, low])))
    };
    let len = match id {
        // Payload Format Indicator.
        0x01 => 1,
        // Content Type, Response Topic, Correlation Data.
        0x03 | RESPONSE_TOPIC | 0x09 => field(at + 1)?,
        // User Property.
        0x26 => {
            let name = field(at + 1)?;
            name + field(at + 1 + name)?
        }
        _ => return None,
    };
    Some((id, 1 + len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_whole_levels() {
        for good in ["a/", "a/b/", "/", "ä/"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a", "a/#", "+/", "#", "$share/g/", "a\0/"] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(!is_valid(&format!("{}/", "x".repeat(LONGEST))));
    }

    #[test]
    fn identifiers_are_taken_apart() {
        assert_eq!(split(&scoped(None, "client")), ("", "client"));
        assert_eq!(split(&scoped(Some("a/"), "client")), ("a/", "client"));
        assert_ne!(scoped(Some("a/"), "b/c"), scoped(Some("a/b/"), "c"));
    }

    #[test]
    fn filters_are_mounted_behind_the_name_of_the_group() {
        for (given, expected) in [
            ("b", "a/b"),
            ("#", "a/#"),
            ("+/c", "a/+/c"),
            ("/", "a//"),
            ("$share/g/b/#", "$share/g/a/b/#"),
        ] {
            let found = filter("a/", TopicFilter::new(given).unwrap());
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_response_topic_is_found_among_others() {
        let properties = b"\x01\x01\x03\0\x01c\x08\0\x03a/b\x09\0\x01d\x26\0\x01n\0\x01v";
        let seen = |mount: &[u8]| {
            let mut out = Vec::new();
            let seen = Seen::new(properties, mount);
            seen.encode(&mut out);
            assert_eq!(seen.len(), out.len());
            out
        };
        assert_eq!(seen(b""), properties);
        assert_eq!(
            seen(b"a/"),
            b"\x01\x01\x03\0\x01c\x08\0\x01b\x09\0\x01d\x26\0\x01n\0\x01v"
        );
        assert_eq!(
            seen(b"x/"),
            b"\x01\x01\x03\0\x01c\x09\0\x01d\x26\0\x01n\0\x01v"
        );
        // Nothing that is not understood is changed.
        for broken in [&b"\x08\0\x09a"[..], b"\x26\0\x01n", b"\x7f", b"\x09"] {
            let mut out = Vec::new();
            Seen::new(broken, b"a/").encode(&mut out);
            assert_eq!(out, broken);
        }
    }
}
