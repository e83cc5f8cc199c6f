//! Ways in: from the bytes of a socket to the stream that carries packets.

mod inherited;
mod listener;
mod network;
mod proxy;
mod shown;
mod tls;
mod unix;
mod websocket;

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::counters::RefusalReason;
use crate::policy::{Peer, PeerAddress};
use crate::transport::proxy::ProxyError;
use crate::transport::websocket::{HandshakeError, WebSocketStream};

pub use crate::transport::listener::{Address, AddressError, Listener, ListenerControl};
pub use crate::transport::network::{Network, NetworkError};
pub use crate::transport::proxy::ProxyOptions;
pub use crate::transport::tls::{Tls, TlsError, TlsOptions, TlsVersion};
pub use crate::transport::websocket::WebSocketOptions;

pub(crate) use crate::transport::listener::{Socket, accept_tcp};
#[cfg(feature = "fuzzing")]
pub(crate) use crate::transport::proxy::read_header as read_proxy_header;
pub(crate) use crate::transport::shown::Shown;
pub(crate) use crate::transport::unix::peer as unix_peer;

/// A connected stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the connections of a listener go through before they carry packets, in this order. Default: nothing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Transport {
    /// A header of the PROXY protocol.
    pub proxy: Option<Arc<ProxyOptions>>,
    /// TLS.
    pub tls: Option<Tls>,
    /// WebSocket.
    pub websocket: Option<Arc<WebSocketOptions>>,
}

/// A stream that carries packets.
pub(crate) enum Opened<S> {
    /// The socket itself.
    Plain(S),
    /// Behind TLS or WebSocket. One form for all of them: what they cost is far more than the indirection.
    Wrapped(Wrapped),
}

/// A stream of any kind.
pub(crate) struct Wrapped(Box<dyn Stream>);

/// Why a connection does not come as far as a stream that carries packets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("PROXY: {0}")]
    Proxy(#[from] ProxyError),
    #[error("{0}")]
    Refused(RefusalReason),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("WebSocket handshake: {0}")]
    WebSocket(#[from] HandshakeError),
}

impl TransportError {
    /// Under what it is counted.
    pub(crate) fn reason(&self) -> RefusalReason {
        match self {
            Self::Proxy(ProxyError::Untrusted) => RefusalReason::UntrustedProxy,
            Self::Proxy(_) => RefusalReason::Proxy,
            Self::Refused(reason) => *reason,
            Self::Tls(_) => RefusalReason::Tls,
            Self::WebSocket(_) => RefusalReason::WebSocket,
        }
    }
}

impl Transport {
    /// Whether there is something to go through.
    pub(crate) fn is_plain(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && self.websocket.is_none()
    }

    /// Goes through all of it. What it learns of the client is put into `peer`. `admits` is asked before a
    /// handshake of TLS, when the address is known.
    pub(crate) async fn open<S: Stream + 'static>(
        &self,
        mut stream: S,
        peer: &mut Peer,
        admits: impl FnOnce(&Peer) -> Result<(), RefusalReason>,
    ) -> Result<Opened<S>, TransportError> {
        if let Some(proxy) = &self.proxy {
            if !proxy.trusts(peer.ip()) {
                return Err(ProxyError::Untrusted.into());
            }
            if let Some(address) = proxy::read_header(&mut stream).await? {
                peer.address = PeerAddress::Socket(address);
            }
        }
        let Some(tls) = &self.tls else {
            return match &self.websocket {
                None => Ok(Opened::Plain(stream)),
                Some(options) => {
                    websocket::accept(&mut stream, options).await?;
                    Ok(Opened::wrapped(WebSocketStream::new(stream)))
                }
            };
        };
        admits(peer).map_err(TransportError::Refused)?;
        let (mut stream, certificate) = tls.accept(stream).await.map_err(TransportError::Tls)?;
        if let Some((certificate, shown)) = certificate {
            peer.certificate = Some(certificate);
            peer.shown = Some(shown);
        }
        match &self.websocket {
            None => Ok(Opened::wrapped(stream)),
            Some(options) => {
                websocket::accept(&mut stream, options).await?;
                Ok(Opened::wrapped(WebSocketStream::new(stream)))
            }
        }
    }
}

impl<S> Opened<S> {
    fn wrapped(stream: impl Stream + 'static) -> Self {
        Self::Wrapped(Wrapped(Box::new(stream)))
    }
}

impl AsyncRead for Wrapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wrapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
