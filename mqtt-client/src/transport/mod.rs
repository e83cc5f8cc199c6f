//! The byte streams under a connection.

#[cfg(feature = "proxy")]
pub(crate) mod proxy;
mod tcp;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "websocket")]
pub(crate) mod websocket;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, Options};

/// A stream that a connection can run on.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// Any stream.
pub(crate) type BoxedStream = Box<dyn Stream>;

/// The server to connect to: the one of the options, or the one that it pointed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address, an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl Target {
    /// The first server of a Server Reference: `host` or `host:port`, an IPv6 address in brackets, and
    /// more of them after a space. `port` is what holds if it names none.
    pub(crate) fn referenced(text: &str, port: u16) -> Option<Self> {
        let first = text.split_whitespace().next()?;
        let (host, port) = match first.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                match rest.strip_prefix(':') {
                    Some(port) => (host, port.parse().ok()?),
                    None if rest.is_empty() => (host, port),
                    None => return None,
                }
            }
            None => match first.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (first, port),
            },
        };
        (!host.is_empty()).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A future that opens a stream.
pub(crate) type Opening<'a> = Pin<Box<dyn Future<Output = Result<BoxedStream, Error>> + Send + 'a>>;

/// Opens streams to a server, one for each connection.
pub(crate) trait Connect: Send + Sync {
    fn connect<'a>(&'a self, options: &'a Options, target: &'a Target) -> Opening<'a>;
}

/// Over the network, as the options say.
pub(crate) struct Network;

impl Connect for Network {
    fn connect<'a>(&'a self, options: &'a Options, target: &'a Target) -> Opening<'a> {
        Box::pin(async move {
            let stream = open(options, target).await?;
            #[cfg(feature = "tls")]
            let (stream, scheme) = match &options.tls {
                Some(tls) => {
                    let stream = tls.connect(stream, &target.host).await?;
                    (Box::new(stream) as BoxedStream, "wss")
                }
                None => (stream, "ws"),
            };
            #[cfg(all(feature = "websocket", not(feature = "tls")))]
            let scheme = "ws";
            #[cfg(feature = "websocket")]
            if let Some(websocket) = &options.websocket {
                let stream = websocket.connect(stream, options, target, scheme).await?;
                return Ok(Box::new(stream) as BoxedStream);
            }
            #[cfg(all(feature = "tls", not(feature = "websocket")))]
            let _ = scheme;
            Ok(stream)
        })
    }
}

/// Opens what lies under TLS and WebSocket.
async fn open(options: &Options, target: &Target) -> Result<BoxedStream, Error> {
    #[cfg(unix)]
    if let Some(path) = &options.unix_path {
        return Ok(Box::new(tokio::net::UnixStream::connect(path).await?));
    }
    #[cfg(feature = "proxy")]
    if let Some(proxy) = &options.proxy {
        return Ok(Box::new(proxy.connect(options, target).await?));
    }
    Ok(Box::new(
        tcp::connect(options, &target.host, target.port).await?,
    ))
}

/// As a function of the caller says.
pub(crate) struct Custom<F>(pub(crate) F);

impl<F, O, S> Connect for Custom<F>
where
    F: Fn(Target) -> O + Send + Sync,
    O: Future<Output = io::Result<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn connect<'a>(&'a self, _options: &'a Options, target: &'a Target) -> Opening<'a> {
        let opening = (self.0)(target.clone());
        Box::pin(async move { Ok(Box::new(opening.await?) as BoxedStream) })
    }
}

/// One stream that is open already.
pub(crate) struct Once(Mutex<Option<BoxedStream>>);

impl Once {
    pub(crate) fn new(stream: BoxedStream) -> Self {
        Self(Mutex::new(Some(stream)))
    }
}

impl Connect for Once {
    fn connect<'a>(&'a self, _options: &'a Options, _target: &'a Target) -> Opening<'a> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move { stream.ok_or(Error::ConnectionLost) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_references_are_taken_apart() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let expected = expected.map(|(host, port)| Target {
                host: host.to_owned(),
                port,
            });
            assert_eq!(Target::referenced(text, 1883), expected, "{text:?}");
        };
        check("other.example", Some(("other.example", 1883)));
        check("other.example:1884 third:1", Some(("other.example", 1884)));
        check("[::1]:1884", Some(("::1", 1884)));
        check("[::1]", Some(("::1", 1883)));
        for text in ["", " ", ":1", "a:b", "a:70000", "[::1", "[::1]x", "[]"] {
            check(text, None);
        }
    }
}
