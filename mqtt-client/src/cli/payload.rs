//! Where payloads come from: the command line, a file, or standard input.

use std::ffi::OsStr;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

use super::args::PayloadArgs;
use super::connection::bytes;
use super::{Failure, UsageError};

/// Longest payload of a packet.
const MAX_PAYLOAD: usize = 268_435_455;

/// Reads the payload that was asked for; `None` if none was.
pub(crate) async fn read(args: &PayloadArgs) -> Result<Option<Bytes>, Failure> {
    if args.message.len() + args.file.len() > 1 {
        let text = "Error: Only one message can be sent at once.";
        return Err(UsageError(text.to_owned()).into());
    }
    let payload = if let Some(text) = args.message.first() {
        bytes(text.clone())
    } else if let Some(file) = args.file.first() {
        read_file(file).await.map_err(Failure::Message)?
    } else if args.stdin_file {
        read_all(tokio::io::stdin())
            .await
            .map_err(Failure::Message)?
    } else if args.null_message {
        Vec::new()
    } else {
        return Ok(None);
    };
    if payload.len() > MAX_PAYLOAD {
        let text = format!("Error: Message length must be less than {MAX_PAYLOAD} bytes.");
        return Err(Failure::Message(text));
    }
    Ok(Some(payload.into()))
}

async fn read_file(path: &OsStr) -> Result<Vec<u8>, String> {
    let shown = path.display();
    match tokio::fs::read(path).await {
        Ok(content) if content.is_empty() => Err(format!("Error: File \"{shown}\" is empty.")),
        Ok(content) => Ok(content),
        Err(error) => Err(format!("Error: Unable to open file \"{shown}\": {error}.")),
    }
}

async fn read_all(mut input: impl AsyncRead + Unpin) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    match input.read_to_end(&mut content).await {
        Ok(0) => Err("Error: Zero length input.".to_owned()),
        Ok(_) => Ok(content),
        Err(error) => Err(format!("Error: Unable to read standard input: {error}.")),
    }
}

/// Lines of bytes, their line feeds cut off. A last line without one counts.
pub(crate) struct Lines<R> {
    input: R,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Reads lines from this input.
    pub(crate) fn new(input: R) -> Self {
        Self { input }
    }

    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut line = Vec::new();
        if self.input.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        Ok(Some(line.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_at_line_feeds_only() {
        let mut lines = Lines::new(&b"l1\n\nl3\r\n\xff\0\nlast"[..]);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        assert_eq!(all, [&b"l1"[..], b"", b"l3\r", b"\xff\0", b"last"]);
    }

    #[tokio::test]
    async fn empty_input_is_an_error() {
        assert!(read_all(&b""[..]).await.is_err());
        assert_eq!(read_all(&b"x\n"[..]).await.unwrap(), b"x\n");
        assert!(read_file(OsStr::new("/nonexistent/file")).await.is_err());
    }
}
