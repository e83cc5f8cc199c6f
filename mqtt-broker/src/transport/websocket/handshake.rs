//! The opening handshake of RFC 6455, section 4.2: one HTTP request, one answer.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::transport::websocket::WebSocketOptions;

/// Longest request that is read, in bytes.
const REQUEST_BYTES: usize = 8 * 1024;
/// Bytes read at once.
const READ: usize = 1_024;
/// Most headers of a request.
const HEADERS: usize = 64;
/// Subprotocols, as section 6 and the practice of 3.1 name them.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why no WebSocket was opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The stream failed or ended.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// What came is no HTTP.
    #[error("no HTTP request: {0}")]
    Malformed(httparse::Error),
    /// More than is read of a request.
    #[error("HTTP request longer than {REQUEST_BYTES} bytes")]
    TooLong,
    /// HTTP that asks for something else, or is not let in.
    #[error("HTTP request refused: {reason}")]
    Refused {
        /// What the answer says.
        status: &'static str,
        /// What the log says.
        reason: &'static str,
    },
}

impl HandshakeError {
    fn status(&self) -> Option<&'static str> {
        match self {
            Self::Lost(_) => None,
            Self::Malformed(_) => Some("400 Bad Request"),
            Self::TooLong => Some("431 Request Header Fields Too Large"),
            Self::Refused { status, .. } => Some(status),
        }
    }
}

/// What the answer to an acceptable request depends on.
#[derive(Debug, PartialEq, Eq)]
struct Acceptance {
    key: String,
    protocol: &'static str,
}

/// Reads the request and answers it.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    options: &WebSocketOptions,
) -> Result<(), HandshakeError> {
    let answer = match read_request(stream, options).await {
        Ok(acceptance) => acceptance.answer(),
        Err(error) => {
            if let Some(status) = error.status() {
                let answer = format!(
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\
                     Sec-WebSocket-Version: 13\r\n\r\n"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
            return Err(error);
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(())
}

async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    options: &WebSocketOptions,
) -> Result<Acceptance, HandshakeError> {
    let mut bytes = Vec::with_capacity(READ);
    loop {
        bytes.reserve(READ);
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if bytes.len() > REQUEST_BYTES {
            return Err(HandshakeError::TooLong);
        }
        if let Some(acceptance) = check_request(&bytes, options)? {
            return Ok(acceptance);
        }
    }
}

/// Checks a request as far as it came; `None` if it is not whole.
fn check_request(
    bytes: &[u8],
    options: &WebSocketOptions,
) -> Result<Option<Acceptance>, HandshakeError> {
    let refuse = |status, reason| Err(HandshakeError::Refused { status, reason });
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes).map_err(HandshakeError::Malformed)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    if request.method != Some("GET") || request.version != Some(1) {
        return refuse("405 Method Not Allowed", "not GET of HTTP/1.1");
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if path != options.path {
        return refuse("404 Not Found", "not the path of the WebSocket");
    }
    let headers = &*request.headers;
    let named = |name| values(headers, name);
    let items = |name| named(name).flat_map(|value| value.split(',').map(str::trim));
    let has = |name, wanted| items(name).any(|item: &str| item.eq_ignore_ascii_case(wanted));
    if !has("Upgrade", "websocket") || !has("Connection", "upgrade") {
        return refuse("426 Upgrade Required", "no upgrade to WebSocket");
    }
    if named("Sec-WebSocket-Version").next() != Some("13") {
        return refuse("426 Upgrade Required", "not version 13 of WebSocket");
    }
    if !options.origins.is_empty()
        && let Some(origin) = named("Origin").next()
        && !options
            .origins
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(origin))
    {
        return refuse("403 Forbidden", "origin not allowed");
    }
    let key = named("Sec-WebSocket-Key").next().unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return refuse("400 Bad Request", "no Sec-WebSocket-Key");
    }
    // [MQTT-6.0.0-3]
    let protocol = items("Sec-WebSocket-Protocol")
        .find_map(|offered| PROTOCOLS.into_iter().find(|known| *known == offered));
    let Some(protocol) = protocol else {
        return refuse("400 Bad Request", "subprotocol is not mqtt [MQTT-6.0.0-3]");
    };
    if bytes.len() > len {
        return refuse("400 Bad Request", "data before the WebSocket is open");
    }
    Ok(Some(Acceptance {
        key: key.to_owned(),
        protocol,
    }))
}

/// The values of all headers of a name.
fn values<'h>(
    headers: &'h [httparse::Header<'h>],
    name: &'static str,
) -> impl Iterator<Item = &'h str> {
    let named = headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name));
    named.map(|header| core::str::from_utf8(header.value).unwrap_or_default())
}

impl Acceptance {
    /// Section 4.2.2.
    fn answer(&self) -> String {
        let mut hash = Sha1::new();
        hash.update(self.key.as_bytes());
        hash.update(GUID.as_bytes());
        let accept = STANDARD.encode(hash.finalize());
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            self.protocol
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: example.org\r\nUpgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: https://example.org\r\nSec-WebSocket-Protocol: chat, mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn check(request: &str, options: &WebSocketOptions) -> Result<Option<Acceptance>, String> {
        check_request(request.as_bytes(), options).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_of_the_standard_is_accepted() {
        let options = WebSocketOptions::default();
        let acceptance = check(REQUEST, &options).unwrap().unwrap();
        assert_eq!(acceptance.protocol, "mqtt");
        // Section 1.3.
        assert!(
            acceptance
                .answer()
                .contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")
        );
        for end in 0..REQUEST.len() {
            assert_eq!(check(&REQUEST[..end], &options), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        let options = WebSocketOptions {
            origins: vec!["https://example.org".into()],
            ..WebSocketOptions::default()
        };
        let cases = [
            ("GET /mqtt?", "POST /mqtt?", "not GET"),
            ("HTTP/1.1", "HTTP/1.0", "not GET"),
            ("GET /mqtt?", "GET /other?", "path"),
            ("Upgrade: websocket", "Upgrade: h2c", "upgrade"),
            ("keep-alive, Upgrade", "keep-alive", "upgrade"),
            ("-Version: 13", "-Version: 8", "version 13"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "Key"),
            ("chat, mqtt", "chat", "MQTT-6.0.0-3"),
            ("https://example.org\r", "https://evil.example\r", "origin"),
            ("13\r\n\r\n", "13\r\n\r\n\0", "before"),
            ("Host: example.org", "Host\u{1}: x", "no HTTP"),
        ];
        for (from, to, reason) in cases {
            let request = REQUEST.replacen(from, to, 1);
            assert_ne!(request, REQUEST, "{from}");
            let error = check(&request, &options).unwrap_err();
            assert!(error.contains(reason), "{error}: {reason}");
        }
        let old = REQUEST.replace("chat, mqtt", "mqttv3.1");
        let acceptance = check(&old, &options).unwrap().unwrap();
        assert_eq!(acceptance.protocol, "mqttv3.1");
        let no_origin = REQUEST.replace("Origin", "X-Origin");
        assert!(check(&no_origin, &options).unwrap().is_some());
    }

    /// However long a request is, so much of it is kept.
    #[tokio::test]
    async fn an_endless_request_is_cut() {
        let (mut client, mut server) = tokio::io::duplex(4_096);
        let write = tokio::spawn(async move {
            let _ = client.write_all(b"GET /mqtt HTTP/1.1\r\nX: ").await;
            while client.write_all(&[b'x'; 1_024]).await.is_ok() {}
        });
        let error = accept(&mut server, &WebSocketOptions::default()).await;
        assert!(matches!(error, Err(HandshakeError::TooLong)));
        drop(server);
        write.await.unwrap();
    }
}
