//! What strace has written (`-f -y -ttt -T -xx`), call by call in the order in which they ended.

use std::collections::HashMap;

use anyhow::{Context, Result};

/// What strace is told to record.
pub(super) const CALLS: &str = "trace=openat,open,creat,write,pwrite64,writev,pwritev,fsync,fdatasync,\
    sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,ftruncate,fallocate,mkdir,mkdirat,\
    lseek,link,linkat,copy_file_range";

/// A line of the trace.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A call that takes its time has begun; the descriptor that it is on.
    Begun {
        thread: u32,
        name: String,
        on: i64,
    },
    Done(Call),
}

/// A call that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) thread: u32,
    pub(super) name: String,
    pub(super) arguments: Vec<Argument>,
    /// -1 where it failed.
    pub(super) result: i64,
    /// When it had ended, in microseconds since 1970.
    pub(super) ended: u64,
}

/// One argument: what strace wrote, and what it says in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Argument {
    pub(super) text: String,
    /// The number that it begins with.
    pub(super) number: Option<i64>,
    /// The path of a descriptor.
    pub(super) path: Option<String>,
    /// The string, or the strings of a vector one after another.
    pub(super) bytes: Vec<u8>,
}

/// Reads a trace.
pub(super) fn read(text: &str) -> Result<Vec<Line>> {
    let mut begun: HashMap<u32, String> = HashMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let parsed = parse(line, &mut begun).with_context(|| {
            let shown: String = line.chars().take(200).collect();
            format!("no line of strace: {shown}")
        })?;
        lines.extend(parsed);
    }
    Ok(lines)
}

/// The outer `None`: it cannot be read. The inner one: it is no call, or a part of one.
fn parse(line: &str, begun: &mut HashMap<u32, String>) -> Option<Option<Line>> {
    let (thread, rest) = line.trim_start().split_once(' ')?;
    let thread = thread.parse().ok()?;
    let (time, rest) = rest.trim_start().split_once(' ')?;
    let time = micros(time)?;
    if rest.starts_with("+++") || rest.starts_with("---") {
        return Some(None);
    }
    if let Some(head) = rest.strip_suffix("<unfinished ...>") {
        let head = head.trim_end();
        begun.insert(thread, head.to_owned());
        let (name, arguments) = head.split_once('(')?;
        let on = split(arguments).first().and_then(|it| it.number);
        return Some(Some(Line::Begun {
            thread,
            name: name.to_owned(),
            on: on.unwrap_or(-1),
        }));
    }
    let (whole, resumed) = match rest.strip_prefix("<... ") {
        Some(rest) => {
            let (_, tail) = rest.split_once(" resumed>")?;
            let mut whole = begun.remove(&thread)?;
            whole.push_str(tail);
            (whole, true)
        }
        None => (rest.to_owned(), false),
    };
    let (call, outcome) = whole.rsplit_once(" = ")?;
    let (name, arguments) = call.split_once('(')?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let mut ended = time;
    if !resumed {
        let took = outcome.rsplit_once('<').map(|(_, took)| took);
        ended += took
            .and_then(|it| micros(it.strip_suffix('>')?))
            .unwrap_or(0);
    }
    Some(Some(Line::Done(Call {
        thread,
        name: name.to_owned(),
        arguments: split(arguments),
        // A call that the kill cut off has no result.
        result: leading(outcome).unwrap_or(-1),
        ended,
    })))
}

/// `1795564015.667050`
fn micros(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.')?;
    let (seconds, fraction): (u64, u64) = (seconds.parse().ok()?, fraction.parse().ok()?);
    Some(seconds * 1_000_000 + fraction)
}

fn leading(text: &str) -> Option<i64> {
    let end = text
        .char_indices()
        .find(|(at, letter)| !(letter.is_ascii_digit() || *at == 0 && *letter == '-'));
    text[..end.map_or(text.len(), |(at, _)| at)].parse().ok()
}

/// Strings are written in hexadecimal, so that no comma, quote or bracket is in them.
fn split(text: &str) -> Vec<Argument> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
        .into_iter()
        .map(|part| argument(part.trim()))
        .collect()
}

fn argument(text: &str) -> Argument {
    let path = text
        .split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'));
    let strings = text.split('"').skip(1).step_by(2);
    let bytes: Vec<u8> = strings.flat_map(unescape).collect();
    Argument {
        number: leading(text),
        path: path.map(|(path, _)| String::from_utf8_lossy(&unescape(path)).into_owned()),
        text: if bytes.is_empty() {
            text.to_owned()
        } else {
            String::new()
        },
        bytes,
    }
}

/// `\x2f` and plain letters.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4 + 1);
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail
            .get(1..3)
            .filter(|_| *first == b'\\' && tail[0] == b'x');
        let value = digits.and_then(|it| u8::from_str_radix(str::from_utf8(it).ok()?, 16).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(text: &str) -> Vec<Call> {
        let lines = read(text).unwrap().into_iter();
        let calls = lines.filter_map(|line| match line {
            Line::Done(call) => Some(call),
            Line::Begun { .. } => None,
        });
        calls.collect()
    }

    #[test]
    fn a_write_is_read() {
        let call = &done(r#"7 12.000100 write(4<\x2f\x61>, "\x68\x2c", 2) = 2 <0.000017>"#)[0];
        assert_eq!(
            (call.name.as_str(), call.result, call.ended),
            ("write", 2, 12_000_117)
        );
        assert_eq!(call.arguments[0].number, Some(4));
        assert_eq!(call.arguments[0].path.as_deref(), Some("/a"));
        assert_eq!(call.arguments[1].bytes, b"h,");
    }

    #[test]
    fn the_parts_of_a_vector_are_joined() {
        let text = r#"7 1.000000 writev(4</a>, [{iov_base="\x61", iov_len=1}, {iov_base="\x62", iov_len=1}], 2) = 2 <0.000001>"#;
        assert_eq!(done(text)[0].arguments[1].bytes, b"ab");
    }

    #[test]
    fn a_call_that_was_interrupted_ends_when_it_is_resumed() {
        let text = "7 1.000000 fsync(4</a> <unfinished ...>\n\
            8 1.000001 fsync(5</b>) = -1 EIO (Input/output error) (INJECTED) <0.000002>\n\
            7 1.000005 <... fsync resumed>) = 0 <0.000005>\n\
            7 1.000009 +++ exited with 0 +++";
        let begun = Line::Begun {
            thread: 7,
            name: "fsync".to_owned(),
            on: 4,
        };
        assert_eq!(read(text).unwrap()[0], begun);
        let calls = done(text);
        assert_eq!((calls[0].result, calls[0].ended), (-1, 1_000_003));
        assert_eq!((calls[1].result, calls[1].ended), (0, 1_000_005));
    }
}
