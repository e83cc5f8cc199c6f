//! What lies between a socket and MQTT: nothing, TLS, WebSocket, or WebSocket over TLS.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use mio::net::TcpStream;
use mqtt_codec::ProtocolVersion;
use socket2::{SockRef, Socket};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::client::{ClientRequestBuilder, client_with_config};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame, WebSocket};

/// How long a handshake may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How connections are made.
#[derive(Clone, Default)]
pub(super) struct Transport {
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Host, path and subprotocol of the WebSocket.
    websocket: Option<(String, &'static str)>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Transport {
    /// TLS to a server of this name, whose certificate an authority in this file has signed.
    pub(super) fn with_tls(mut self, host: &str, cafile: &Path) -> Result<Self, String> {
        let failed = |error: &dyn fmt::Display| format!("--cafile {}: {error}", cafile.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(cafile).map_err(|error| failed(&error))? {
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate).map_err(|error| failed(&error))?;
        }
        if roots.is_empty() {
            return Err(failed(&"there is no certificate in it"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name =
            ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        self.tls = Some((Arc::new(config), name));
        Ok(self)
    }

    /// WebSocket at this path of the server.
    pub(super) fn with_websocket(
        mut self,
        server: SocketAddr,
        path: &str,
        version: ProtocolVersion,
    ) -> Self {
        let protocol = match version {
            ProtocolVersion::V3_1 => "mqttv3.1",
            ProtocolVersion::V3_1_1 | ProtocolVersion::V5 => "mqtt",
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        self.websocket = Some((format!("{server}{slash}{path}"), protocol));
        self
    }

    /// Its name in the figures.
    pub(super) fn name(&self) -> &'static str {
        match (&self.tls, &self.websocket) {
            (None, None) => "tcp",
            (Some(_), None) => "tls",
            (None, Some(_)) => "ws",
            (Some(_), Some(_)) => "wss",
        }
    }

    /// Connects a new socket. Without layers that only begins it; their handshakes are waited for, since the
    /// time of the generator is not what is measured.
    pub(super) fn connect(&self, socket: Socket, server: SocketAddr) -> io::Result<Channel> {
        if self.tls.is_none() && self.websocket.is_none() {
            socket.set_nonblocking(true)?;
            match socket.connect(&server.into()) {
                Ok(()) => {}
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        || error.raw_os_error() == Some(IN_PROGRESS) => {}
                Err(error) => return Err(error),
            }
            return Ok(Channel::Plain(TcpStream::from_std(socket.into())));
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&server.into())?;
        let stream = TcpStream::from_std(socket.into());
        let layered: Box<dyn Layered> = match &self.tls {
            Some((config, name)) => {
                let session = ClientConnection::new(Arc::clone(config), name.clone())
                    .map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(session, stream);
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                match &self.websocket {
                    Some(websocket) => Box::new(Frames::open(stream, "wss", websocket)?),
                    None => Box::new(stream),
                }
            }
            None => match &self.websocket {
                Some(websocket) => Box::new(Frames::open(stream, "ws", websocket)?),
                None => Box::new(stream),
            },
        };
        SockRef::from(layered.socket()).set_nonblocking(true)?;
        Ok(Channel::Layered(layered))
    }
}

/// EINPROGRESS, for which the standard library has no stable name.
const IN_PROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// A connection that bytes of MQTT go through. What it takes but cannot pass on, `flush` passes on.
pub(super) enum Channel {
    Plain(TcpStream),
    Layered(Box<dyn Layered>),
}

/// A stream over a socket.
pub(super) trait Layered: Read + Write + Send {
    fn socket(&self) -> &TcpStream;
    fn socket_mut(&mut self) -> &mut TcpStream;
}

impl Channel {
    /// The socket under it, for the poll.
    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Layered(stream) => stream.socket_mut(),
        }
    }

    /// A read that does not fill its buffer has taken all there is.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Channel {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Layered(stream) => stream.read(buffer),
        }
    }
}

impl Write for Channel {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Layered(stream) => stream.write(bytes),
        }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Layered(stream) => stream.flush(),
        }
    }
}

impl Layered for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        self
    }
}

impl Layered for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.sock
    }
}

/// The bytes in the binary frames of a WebSocket.
struct Frames<S> {
    socket: WebSocket<S>,
    /// Of the last frame, what was not read.
    left: Bytes,
}

impl<S: Layered> Frames<S> {
    fn open(stream: S, scheme: &str, (place, protocol): &(String, &str)) -> io::Result<Self> {
        let uri = format!("{scheme}://{place}")
            .parse()
            .map_err(io::Error::other)?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(*protocol);
        // A frame waits until it is flushed; nothing else would say whether it has been taken.
        let config = WebSocketConfig::default()
            .write_buffer_size(usize::MAX - 1)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(None)
            .max_frame_size(None);
        let (socket, _response) = client_with_config(request, stream, Some(config))
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            socket,
            left: Bytes::new(),
        })
    }
}

fn io_error(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        error => io::Error::new(ErrorKind::InvalidData, error),
    }
}

impl<S: Layered> Read for Frames<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.is_empty() {
            match self.socket.read() {
                Ok(Frame::Binary(bytes)) => self.left = bytes,
                Ok(Frame::Text(_)) => {
                    let error = "a text frame [MQTT-6.0.0-1]";
                    return Err(io::Error::new(ErrorKind::InvalidData, error));
                }
                Ok(Frame::Close(_)) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => {
                    return Ok(0);
                }
                // The library answers pings.
                Ok(_) => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        let count = self.left.len().min(buffer.len());
        self.left
            .split_to(count)
            .copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl<S: Layered> Write for Frames<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // What waits goes first, so that no more than one frame does.
        self.flush()?;
        let frame = Frame::Binary(Bytes::copy_from_slice(bytes));
        self.socket.write(frame).map_err(io_error)?;
        match self.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush().map_err(io_error)
    }
}

impl<S: Layered> Layered for Frames<S> {
    fn socket(&self) -> &TcpStream {
        self.socket.get_ref().socket()
    }

    fn socket_mut(&mut self) -> &mut TcpStream {
        self.socket.get_mut().socket_mut()
    }
}
