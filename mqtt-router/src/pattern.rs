//! Walking an ordered set of topics with a filter: does a topic match, and if not, which is the least
//! text that could.

use alloc::string::String;

use mqtt_codec::TopicFilter;

/// What comparing one topic says about it and those that follow it in byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The topic matches.
    Match,
    /// It does not; the one after it may.
    Next,
    /// It does not, nor does any text below the target.
    Seek,
    /// Neither it nor any later one does.
    End,
}

/// A filter, as compared with ascending topics.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pattern<'f> {
    filter: &'f str,
}

impl<'f> Pattern<'f> {
    pub(crate) fn new(filter: TopicFilter<'f>) -> Self {
        Self {
            filter: filter.as_str(),
        }
    }

    /// The least text that could match: the levels before the first wildcard.
    pub(crate) fn start(&self) -> &'f str {
        let mut end = 0;
        for level in self.filter.split('/') {
            match level {
                // A final `#` matches the levels before it alone.
                "#" => return prefix(self.filter, end.max(1) - 1),
                "+" => return prefix(self.filter, end),
                _ => end += level.len() + 1,
            }
        }
        self.filter
    }

    /// Compares `topic`, and for [`Verdict::Seek`] writes to `target` a text above `topic` below which
    /// nothing above `topic` matches.
    pub(crate) fn compare(&self, topic: &str, target: &mut String) -> Verdict {
        if topic.starts_with('$') && self.filter.starts_with(['+', '#']) {
            seek(target, "", "%");
            return Verdict::Seek;
        }
        let mut levels = self.filter.split('/');
        let mut rest = Some(topic);
        // Where the last level that stands for a `+` ends.
        let mut plus_end = None;
        loop {
            let (level, tail) = match (levels.next(), rest) {
                (Some("#"), _) | (None, None) => return Verdict::Match,
                (Some(_), None) => return Verdict::Next,
                (None, Some(_)) => return beyond(topic, plus_end, target),
                (Some(level), Some(tail)) => (level, tail),
            };
            let start = topic.len() - tail.len();
            let present = match tail.split_once('/') {
                Some((present, following)) => {
                    rest = Some(following);
                    present
                }
                None => {
                    rest = None;
                    tail
                }
            };
            if level == "+" {
                plus_end = Some(start + present.len());
            } else if level != present {
                let before = prefix(topic, start);
                if tail < level {
                    seek(target, before, level);
                    return Verdict::Seek;
                }
                // Such as `a!` for `a/b`: behind `a`, before `a/`.
                let between = tail
                    .strip_prefix(level)
                    .and_then(|after| after.bytes().next())
                    .is_some_and(|byte| byte < b'/');
                if between && levels.next().is_some() {
                    seek(target, before, level);
                    target.push('/');
                    return Verdict::Seek;
                }
                return beyond(topic, plus_end, target);
            }
        }
    }
}

/// The levels up to the last `+` are used up with what this topic has there: on to what follows all
/// topics below them. `0` is the byte after `/`.
fn beyond(topic: &str, plus_end: Option<usize>, target: &mut String) -> Verdict {
    let Some(end) = plus_end else {
        return Verdict::End;
    };
    seek(target, prefix(topic, end), "0");
    Verdict::Seek
}

fn seek(target: &mut String, before: &str, text: &str) {
    target.clear();
    target.push_str(before);
    target.push_str(text);
}

/// The first `len` bytes; `len` is the start or the end of a level.
fn prefix(text: &str, len: usize) -> &str {
    text.get(..len).unwrap_or(text)
}
