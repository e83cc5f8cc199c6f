//! MQTT over WebSocket (MQTT 5.0, section 6): a stream of bytes in binary frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use mqtt_codec::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame};

use super::{Stream, Target};
use crate::{Error, Options};

/// Bytes read from the socket at once.
const READ_BUFFER: usize = 8 * 1024;
/// Bytes of a message of the server unless packets may be larger.
const LARGEST_MESSAGE: usize = 256 * 1024 * 1024 + 64 * 1024;

/// How to reach the server over WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self::new("/mqtt")
    }
}

impl WebSocket {
    /// At this path of the server, with a query if there is one. Most servers use `/mqtt`.
    pub fn new(path: impl Into<String>) -> Self {
        let mut path = path.into();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        Self {
            path,
            headers: Vec::new(),
        }
    }

    /// Adds a header to the request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Asks the server behind a stream to speak WebSocket.
    pub(crate) async fn connect<S: Stream>(
        &self,
        stream: S,
        options: &Options,
        target: &Target,
        scheme: &str,
    ) -> Result<Bytestream<S>, Error> {
        let uri = format!("{scheme}://{target}{}", self.path);
        let uri = uri.parse().map_err(|_| Error::Invalid {
            what: "WebSocket path",
            why: format!("{uri:?} is no URI"),
        })?;
        let protocol = match options.version {
            ProtocolVersion::V3_1 => "mqttv3.1",
            ProtocolVersion::V3_1_1 | ProtocolVersion::V5 => "mqtt",
        };
        let mut request = ClientRequestBuilder::new(uri).with_sub_protocol(protocol);
        for (name, value) in &self.headers {
            request = request.with_header(name, value);
        }
        let largest = options
            .maximum_packet_size
            .map_or(LARGEST_MESSAGE, |size| size.get() as usize + 64 * 1024);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest));
        let connected = tokio_tungstenite::client_async_with_config(request, stream, Some(config));
        let (socket, _response) = connected.await.map_err(|error| match error {
            WsError::Io(error) => error.into(),
            error => Error::WebSocket(error.to_string()),
        })?;
        Ok(Bytestream {
            socket,
            left: Bytes::new(),
        })
    }
}

/// The bytes in the frames of a WebSocket.
#[derive(Debug)]
pub(crate) struct Bytestream<S> {
    socket: WebSocketStream<S>,
    /// Of the last frame, what was not read.
    left: Bytes,
}

fn io_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::ConnectionReset.into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

impl<S: Stream> AsyncRead for Bytestream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.left.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Frame::Binary(bytes))) => self.left = bytes,
                // [MQTT-6.0.0-1]
                Some(Ok(Frame::Text(_))) => {
                    let error = "the server sent a text frame";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
                Some(Ok(Frame::Close(_))) | None => return Poll::Ready(Ok(())),
                // The library answers pings.
                Some(Ok(_)) => {}
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let count = self.left.len().min(buffer.remaining());
        if let Some(bytes) = self.left.get(..count) {
            buffer.put_slice(bytes);
        }
        self.left.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> AsyncWrite for Bytestream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(context)).map_err(io_error)?;
        let frame = Frame::Binary(Bytes::copy_from_slice(bytes));
        socket.start_send(frame).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket)
            .poll_flush(context)
            .map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.socket).poll_close(context)) {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }
}
