//! What is wrong with a configuration, shown at the place where it is.

use core::fmt;
use core::ops::Range;
use std::path::Path;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::settings::hidden::{Shown, without_value};

/// Why a configuration is not used, or what is odd about it: a text of several lines that points at file,
/// line and column. It may be logged: values that may be secrets are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    report: String,
    warning: bool,
}

impl Problem {
    /// Something that is no part of a file.
    pub(crate) fn elsewhere(what: impl fmt::Display) -> Self {
        Self {
            report: format!("error: {what}"),
            warning: false,
        }
    }

    pub(crate) fn new(
        source: &Source<'_>,
        span: Option<Range<usize>>,
        message: &str,
        warning: bool,
    ) -> Self {
        let level = if warning {
            Level::WARNING
        } else {
            Level::ERROR
        };
        let path = source.file.display().to_string();
        let shown = Shown::new(source.text);
        let hidden = span.as_ref().is_some_and(|span| shown.hides(span));
        let message = match hidden {
            true => &without_value(message),
            false => message,
        };
        let title = level.primary_title(message);
        let group = match span {
            Some(span) => {
                let snippet = Snippet::source(&shown.text)
                    .path(&path)
                    .annotation(AnnotationKind::Primary.span(shown.narrowed(span)));
                title.element(snippet)
            }
            None => title.element(annotate_snippets::Origin::path(&path)),
        };
        // What is left out ends in spaces, as many as it was long.
        let report = Renderer::plain().render(&[group]);
        let lines: Vec<_> = report.lines().map(str::trim_end).collect();
        Self {
            report: lines.join("\n"),
            warning,
        }
    }

    /// Whether the configuration can be used all the same.
    #[must_use]
    pub fn is_warning(&self) -> bool {
        self.warning
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl std::error::Error for Problem {}

/// A file and its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a Path,
    pub(crate) text: &'a str,
}

/// One step to a value: the key of a table, or the place in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Place(usize),
}

impl Source<'_> {
    /// Where a value stands: its key, or the nearest table around it.
    pub(crate) fn span(&self, path: &[Step<'_>]) -> Option<Range<usize>> {
        let root = toml::de::DeTable::parse(self.text).ok()?;
        let (first, rest) = path.split_first()?;
        let Step::Key(first) = first else { return None };
        let (key, mut value) = root.get_ref().get_key_value(*first)?;
        let mut span = key.span();
        for step in rest {
            match (step, value.get_ref()) {
                (Step::Key(name), toml::de::DeValue::Table(table)) => {
                    let Some((key, inner)) = table.get_key_value(*name) else {
                        break;
                    };
                    span = key.span();
                    value = inner;
                }
                (Step::Place(number), toml::de::DeValue::Array(array)) => {
                    let Some(inner) = array.get(*number) else {
                        break;
                    };
                    span = inner.span();
                    value = inner;
                }
                _ => break,
            }
        }
        Some(span)
    }
}

/// Says which known key an unknown one may have been meant to be.
pub(crate) fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else {
        return message.to_owned();
    };
    let mut names = rest.split('`');
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.skip(1).step_by(2).collect();
    let nearest = known
        .iter()
        .map(|name| (distance(unknown, name), *name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
    match nearest {
        Some((_, name)) => format!("unknown key `{unknown}`: did you mean `{name}`?"),
        None => format!("unknown key `{unknown}`: known are {}", known.join(", ")),
    }
}

/// How many letters have to be changed, added or removed.
fn distance(from: &str, to: &str) -> usize {
    // Keys are short; what is far longer is no misspelling, and costs nothing.
    if from.len() > 64 {
        return usize::MAX;
    }
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (number, letter) in from.chars().enumerate() {
        let mut diagonal = number;
        let mut left = number + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = *cell;
            *cell = changed.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, expected) in [
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("adress", "address", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), expected);
            assert_eq!(distance(to, from), expected);
        }
    }

    #[test]
    fn the_nearest_key_is_named() {
        let message = "unknown field `adress`, expected one of `address`, `mode`";
        assert_eq!(
            explain(message),
            "unknown key `adress`: did you mean `address`?"
        );
        let message = "unknown field `zzz`, expected `watch`";
        assert_eq!(explain(message), "unknown key `zzz`: known are watch");
        assert_eq!(explain("something else"), "something else");
    }
}
