//! MQTT over WebSocket (section 6 of MQTT 5.0): the opening handshake and the frames.

mod frame;
mod handshake;
mod stream;

pub(crate) use crate::transport::websocket::handshake::{HandshakeError, accept};
pub(crate) use crate::transport::websocket::stream::WebSocketStream;

/// What a listener asks of those who open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebSocketOptions {
    /// The path of the request, without its query. Default `/mqtt`.
    pub path: String,
    /// Origins that a browser's page may have, such as `https://example.org`; empty: any. Clients that are
    /// not browsers name none and are let in.
    pub origins: Vec<String>,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: "/mqtt".into(),
            origins: Vec::new(),
        }
    }
}
