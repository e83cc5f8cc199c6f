//! A WebSocket as a stream of bytes: what its frames hold, one after the other.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use std::io::{self, IoSlice};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::websocket::frame::{Decoder, Requests, binary_header, put_close, put_pong};

/// Longest frame that is written, in bytes of payload.
const FRAME_BYTES: usize = 64 * 1024;
/// Buffers handed to the system in one write, the frame's header included.
const SLICES: usize = 17;
/// Bytes of PONGs that wait while one of them is being written.
const PONG_BYTES: usize = 1_024;
/// The status of a Close frame after which nothing is wrong.
const NORMAL: u16 = 1000;

/// The frames of a client on a stream, without a buffer for them: data is unmasked where it was read, and
/// written from where it is.
///
/// Packets need not be aligned with frames in either direction (section 6 of MQTT 5.0).
#[derive(Debug)]
pub(crate) struct WebSocketStream<S> {
    stream: S,
    decoder: Decoder,
    /// Header of the frame that is being written, and how much of it was.
    header: [u8; 10],
    header_len: usize,
    header_written: usize,
    /// Bytes of that frame's payload that are still to come.
    payload_left: usize,
    /// Control frames to be written between two frames of data.
    control: Vec<u8>,
    control_written: usize,
    /// CLOSE was received, or the framing broken: there is nothing more to read.
    ended: bool,
    /// CLOSE is written, or in `control`.
    closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    /// The frames on a stream whose opening handshake is done.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            header: [0; 10],
            header_len: 0,
            header_written: 0,
            payload_left: 0,
            control: Vec::new(),
            control_written: 0,
            ended: false,
            closing: false,
        }
    }

    fn between_frames(&self) -> bool {
        self.payload_left == 0 && self.header_written == self.header_len
    }

    /// Writes control frames, if their turn has come.
    fn poll_control(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.between_frames() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.control.get(self.control_written..)
            && !rest.is_empty()
        {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.control_written += count;
        }
        self.control = Vec::new();
        self.control_written = 0;
        Poll::Ready(Ok(()))
    }

    fn close(&mut self, status: u16) {
        if !self.closing {
            self.closing = true;
            put_close(status, &mut self.control);
        }
    }

    /// Does what the peer asked for. PONGs that are not written yet are few: a peer that reads none of them
    /// gets the one that is being written, and the last.
    fn answer(&mut self, requests: Requests) {
        if let Some(payload) = requests.ping
            && !self.closing
        {
            if self.control_written == 0 {
                self.control.clear();
                put_pong(&payload, &mut self.control);
            } else if self.control.len() < PONG_BYTES {
                put_pong(&payload, &mut self.control);
            }
        }
        if requests.close {
            self.ended = true;
            self.close(NORMAL);
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Poll::Ready(Ok(0));
        }
        if self.between_frames() {
            ready!(self.poll_control(cx))?;
            if self.closing {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.payload_left = total.min(FRAME_BYTES);
            self.header_len = binary_header(self.payload_left, &mut self.header);
            self.header_written = 0;
        }
        loop {
            let header = self
                .header
                .get(self.header_written..self.header_len)
                .unwrap_or_default();
            let header_left = header.len();
            let mut out = [IoSlice::new(&[]); SLICES];
            let filled = fill(&mut out, header, slices, self.payload_left);
            let out = out.get(..filled).unwrap_or_default();
            let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, out))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_header = count.min(header_left);
            self.header_written += of_header;
            let written = count - of_header;
            self.payload_left -= written;
            if written > 0 {
                return Poll::Ready(Ok(written));
            }
        }
    }
}

/// Puts a header and at most `limit` bytes of `slices` into `out`; returns how many slots were used.
fn fill<'a>(
    out: &mut [IoSlice<'a>],
    header: &'a [u8],
    slices: &'a [IoSlice<'_>],
    mut limit: usize,
) -> usize {
    let mut filled = 0;
    let parts = core::iter::once(header).chain(slices.iter().map(|slice| &**slice));
    for (number, part) in parts.enumerate() {
        let part = if number == 0 {
            part
        } else {
            let part = part.get(..limit).unwrap_or(part);
            limit -= part.len();
            part
        };
        if !part.is_empty()
            && let Some(slot) = out.get_mut(filled)
        {
            *slot = IoSlice::new(part);
            filled += 1;
        }
    }
    filled
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.ended && buffer.remaining() > 0 {
            let mut raw = ReadBuf::new(buffer.initialize_unfilled());
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut raw))?;
            if raw.filled().is_empty() {
                this.ended = true;
                break;
            }
            let mut requests = Requests::default();
            let decoded = this.decoder.decode(raw.filled_mut(), &mut requests);
            if let Err(error) = &decoded {
                this.ended = true;
                this.close(error.status());
            }
            this.answer(requests);
            if !this.control.is_empty() {
                // What cannot be written now is written with what is sent next, or when there is room.
                let _ = this.poll_control(cx)?;
            }
            let count =
                decoded.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if count > 0 {
                buffer.advance(count);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_frame(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_frame(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_control(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // A frame that was cut leaves no place for CLOSE.
        if this.between_frames() {
            this.close(NORMAL);
            ready!(this.poll_control(cx))?;
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![0x80 | opcode, 0x80 | payload.len() as u8];
        out.extend_from_slice(&mask);
        out.extend(
            payload
                .iter()
                .enumerate()
                .map(|(at, byte)| byte ^ mask[at % 4]),
        );
        out
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_data_follows() {
        let (mut client, server) = duplex(1_024);
        let mut server = WebSocketStream::new(server);
        client.write_all(&masked(9, b"hi")).await.unwrap();
        client.write_all(&masked(2, b"data")).await.unwrap();
        let mut buffer = [0; 64];
        let count = server.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..count], b"data");
        let mut pong = [0; 4];
        client.read_exact(&mut pong).await.unwrap();
        assert_eq!(&pong, b"\x8a\x02hi");
    }

    #[tokio::test]
    async fn a_text_frame_is_refused_with_its_status() {
        let (mut client, server) = duplex(1_024);
        let mut server = WebSocketStream::new(server);
        client.write_all(&masked(1, b"text")).await.unwrap();
        let error = server.read(&mut [0; 64]).await.unwrap_err();
        assert!(error.to_string().contains("MQTT-6.0.0-1"));
        let mut close = [0; 4];
        client.read_exact(&mut close).await.unwrap();
        assert_eq!(close, [0x88, 2, 0x03, 0xeb]);
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn close_is_answered_and_ends_the_stream() {
        let (mut client, server) = duplex(1_024);
        let mut server = WebSocketStream::new(server);
        client.write_all(&masked(8, &[0x03, 0xe8])).await.unwrap();
        assert_eq!(server.read(&mut [0; 64]).await.unwrap(), 0);
        server.shutdown().await.unwrap();
        let mut rest = Vec::new();
        drop(server);
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, [0x88, 2, 0x03, 0xe8], "one CLOSE, not two");
    }

    /// A pipe of a few bytes cuts headers and payloads anywhere; what arrives is whole frames all the same.
    #[tokio::test]
    async fn frames_survive_short_writes() {
        let (mut client, server) = duplex(3);
        let mut server = WebSocketStream::new(server);
        let text: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let expected = text.clone();
        let write = tokio::spawn(async move {
            let (first, second) = text.split_at(100);
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            let count = server.write_vectored(&slices).await.unwrap();
            server.write_all(&text[count..]).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).await.unwrap();
        write.await.unwrap();
        let mut data = Vec::new();
        let mut rest = bytes.as_slice();
        while let [0x82, len, after @ ..] = rest {
            let (len, after) = match len {
                126 => (
                    usize::from(u16::from_be_bytes([after[0], after[1]])),
                    &after[2..],
                ),
                127 => (
                    u64::from_be_bytes(after[..8].try_into().unwrap()) as usize,
                    &after[8..],
                ),
                len => (usize::from(*len), after),
            };
            data.extend_from_slice(&after[..len]);
            rest = &after[len..];
        }
        assert_eq!(rest, [0x88, 2, 0x03, 0xe8]);
        assert!(data == expected);
    }

    /// A peer that sends PINGs and reads nothing makes the broker keep a few of them at most.
    #[tokio::test]
    async fn unread_pongs_are_bounded() {
        let (mut client, server) = duplex(64);
        let mut server = WebSocketStream::new(server);
        let reader = tokio::spawn(async move {
            let _ = server.read(&mut [0; 64]).await;
            server
        });
        for _ in 0..10_000 {
            client.write_all(&masked(9, &[7; 100])).await.unwrap();
        }
        client.write_all(&masked(2, b"end")).await.unwrap();
        let server = reader.await.unwrap();
        assert!(server.control.len() < 8 * 1_024, "{}", server.control.len());
    }
}
