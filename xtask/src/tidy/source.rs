//! A Rust file split into code and comments, line by line, so that rules do not trip over text in
//! string literals.

/// One Rust source file.
pub(crate) struct Source {
    pub(crate) lines: Vec<Line>,
}

/// What one line holds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Line {
    /// The code, with the insides of literals and all comments left out.
    pub(crate) code: String,
    /// The text of the comment on this line, without its markers.
    pub(crate) comment: String,
    pub(crate) kind: CommentKind,
    /// Whether it belongs to a `#[cfg(test)]` item or a test file.
    pub(crate) test: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommentKind {
    #[default]
    None,
    Plain,
    /// `///`, `//!` and their block forms.
    Doc,
}

impl Source {
    /// Splits `text`; `test_file` says that the whole file is a test.
    pub(crate) fn parse(text: &str, test_file: bool) -> Self {
        let mut splitter = Splitter {
            characters: text.chars().collect(),
            position: 0,
            lines: vec![Line::default()],
        };
        splitter.split();
        let mut source = Self {
            lines: splitter.lines,
        };
        if text.ends_with('\n') {
            source.lines.pop();
        }
        source.mark_tests(test_file);
        source
    }

    /// The text of the attribute that begins at `line`, over as many lines as it takes.
    pub(crate) fn attribute(&self, line: usize) -> String {
        let mut text = String::new();
        let mut depth = 0;
        for line in self.lines.iter().skip(line) {
            for character in line.code.chars() {
                text.push(character);
                match character {
                    '[' => depth += 1,
                    ']' => depth -= 1,
                    _ => continue,
                }
                if depth == 0 {
                    return text;
                }
            }
            text.push(' ');
        }
        text
    }

    fn mark_tests(&mut self, test_file: bool) {
        let mut inside: Option<i32> = None;
        for line in &mut self.lines {
            let code = line.code.replace(' ', "");
            if inside.is_none() && code.contains("#[cfg(test)]") {
                inside = Some(0);
            }
            line.test = test_file || inside.is_some();
            let Some(depth) = &mut inside else { continue };
            let before = *depth;
            *depth += braces(&line.code);
            let opened = line.code.contains('{');
            let ended = *depth == 0 && (before > 0 || opened || code.ends_with(';'));
            if ended && code != "#[cfg(test)]" {
                inside = None;
            }
        }
    }
}

/// How many braces more a line opens than it closes.
pub(crate) fn braces(code: &str) -> i32 {
    code.chars()
        .map(|character| match character {
            '{' => 1,
            '}' => -1,
            _ => 0,
        })
        .sum()
}

struct Splitter {
    characters: Vec<char>,
    position: usize,
    lines: Vec<Line>,
}

impl Splitter {
    fn split(&mut self) {
        while let Some(character) = self.peek(0) {
            match (character, self.peek(1)) {
                ('/', Some('/')) => self.line_comment(),
                ('/', Some('*')) => self.block_comment(),
                ('"', _) => self.string(),
                ('r', Some('"' | '#')) if !self.in_word() => self.raw_string(),
                ('b', Some('r')) if !self.in_word() && matches!(self.peek(2), Some('"' | '#')) => {
                    self.code();
                    self.raw_string();
                }
                ('\'', _) => self.quote(),
                _ => self.code(),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.position + ahead).copied()
    }

    /// The next character, which is not kept; a line break begins a new line.
    fn skip(&mut self) -> Option<char> {
        let character = self.peek(0)?;
        self.position += 1;
        if character == '\n' {
            self.lines.push(Line::default());
        }
        Some(character)
    }

    fn line(&mut self) -> &mut Line {
        if self.lines.is_empty() {
            self.lines.push(Line::default());
        }
        let last = self.lines.len() - 1;
        &mut self.lines[last]
    }

    fn code(&mut self) {
        if let Some(character) = self.skip()
            && character != '\n'
        {
            self.line().code.push(character);
        }
    }

    /// Whether the character before is part of a word, as the `r` of `for` is.
    fn in_word(&self) -> bool {
        self.position
            .checked_sub(1)
            .and_then(|before| self.characters.get(before))
            .is_some_and(|c| c.is_alphanumeric() || *c == '_')
    }

    fn line_comment(&mut self) {
        let kind = match (self.peek(2), self.peek(3)) {
            (Some('!'), _) => CommentKind::Doc,
            (Some('/'), next) if next != Some('/') => CommentKind::Doc,
            _ => CommentKind::Plain,
        };
        self.position += if kind == CommentKind::Doc { 3 } else { 2 };
        self.line().kind = kind;
        while let Some(character) = self.peek(0) {
            if character == '\n' {
                return;
            }
            self.line().comment.push(character);
            self.position += 1;
        }
    }

    fn block_comment(&mut self) {
        let kind = match self.peek(2) {
            Some('*' | '!') if self.peek(3) != Some('/') => CommentKind::Doc,
            _ => CommentKind::Plain,
        };
        let mut depth = 0;
        while let Some(character) = self.peek(0) {
            match (character, self.peek(1)) {
                ('/', Some('*')) => depth += 1,
                ('*', Some('/')) => depth -= 1,
                ('\n', _) => {
                    self.skip();
                    continue;
                }
                _ => {
                    let line = self.line();
                    line.kind = kind;
                    line.comment.push(character);
                    self.position += 1;
                    continue;
                }
            }
            self.position += 2;
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.code();
        while let Some(character) = self.skip() {
            match character {
                '\\' => _ = self.skip(),
                '"' => {
                    self.line().code.push('"');
                    return;
                }
                _ => {}
            }
        }
    }

    fn raw_string(&mut self) {
        let mut hashes = 0;
        while self.peek(1 + hashes) == Some('#') {
            hashes += 1;
        }
        if self.peek(1 + hashes) != Some('"') {
            // A raw identifier such as r#type.
            self.code();
            return;
        }
        self.position += 2 + hashes;
        self.line().code.push('"');
        while let Some(character) = self.skip() {
            let closes = (0..hashes).all(|ahead| self.peek(ahead) == Some('#'));
            if character == '"' && closes {
                self.position += hashes;
                self.line().code.push('"');
                return;
            }
        }
    }

    /// A character literal, or a lifetime, whose quote stands alone.
    fn quote(&mut self) {
        let literal = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.code();
        if !literal {
            return;
        }
        while let Some(character) = self.skip() {
            match character {
                '\\' => _ = self.skip(),
                '\'' => {
                    self.line().code.push('\'');
                    return;
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        let source = Source::parse(text, false);
        source.lines.into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn literals_and_comments_are_no_code() {
        assert_eq!(code("let a = \"x // y\"; // z\n"), ["let a = \"\"; "]);
        assert_eq!(
            code("a(b'\"', '\\'', r#\"\"todo\"#)\n"),
            ["a(b'', '', \"\")"]
        );
        assert_eq!(code("/* a /* b */ c */ d\n"), [" d"]);
        assert_eq!(
            code("fn f<'a>(x: &'a str) {}\n"),
            ["fn f<'a>(x: &'a str) {}"]
        );
        assert_eq!(code("for r#type in br\"x\" {}"), ["for r#type in b\"\" {}"]);
        assert_eq!(code("\"one\ntwo\"\nthree"), ["\"", "\"", "three"]);
    }

    #[test]
    fn comments_have_a_kind() {
        let source = Source::parse("//! a\n/// b\n// c\n//// d\ne\n", false);
        let kinds: Vec<_> = source.lines.iter().map(|line| line.kind).collect();
        use CommentKind::{Doc, None, Plain};
        assert_eq!(kinds, [Doc, Doc, Plain, Plain, None]);
        assert_eq!(source.lines[0].comment, " a");
    }

    #[test]
    fn test_modules_are_marked() {
        let text = "a\n#[cfg(test)]\nmod tests {\n  b { }\n}\nc\n#[cfg(test)]\nmod more;\nd\n";
        let source = Source::parse(text, false);
        let marks: String = source
            .lines
            .iter()
            .map(|line| if line.test { 't' } else { '.' })
            .collect();
        assert_eq!(marks, ".tttt.tt.");
    }

    #[test]
    fn attributes_may_take_several_lines() {
        let source = Source::parse("#[allow(\n    dead_code,\n)]\nfn f() {}\n", false);
        assert_eq!(source.attribute(0), "#[allow(     dead_code, )]");
    }
}
