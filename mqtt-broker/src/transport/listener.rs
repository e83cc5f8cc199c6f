//! Where connections come from, and what each of them has to go through.

use core::fmt;
use core::str::FromStr;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use rustix::net::sockopt::set_socket_reuseport;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::Notify;

use crate::gate::{Asks, AsksCertificate, Doorway};
use crate::policy::ListenerOptions;
use crate::transport::inherited::{self, Inherited};
use crate::transport::unix::{self, SocketFile};
use crate::transport::{Tls, Transport};

/// Connections that may wait for the broker to accept them.
const BACKLOG: u32 = 1_024;

/// Accepted sockets have `TCP_NODELAY` from the socket that they were accepted by: one system call less for each.
const PASSES_NODELAY_ON: bool = cfg!(target_os = "linux");

/// What a listener is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// An address of TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A path of the file system: `unix:/run/mqtt.sock`.
    Unix(PathBuf),
    /// A socket that systemd opened, by its place in the unit: `systemd:0`.
    Systemd(usize),
}

/// Why a text is no address of a listener.
#[derive(Debug, thiserror::Error)]
#[error("not an address: IP:PORT, unix:PATH or systemd:NUMBER are")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(AddressError),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if let Some(number) = text.strip_prefix("systemd:") {
            return number.parse().map(Self::Systemd).map_err(|_| AddressError);
        }
        text.parse().map(Self::Tcp).map_err(|_| AddressError)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(number) => write!(f, "systemd:{number}"),
        }
    }
}

impl Address {
    /// Whether only processes of this machine reach it, as far as it can be told.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
            Self::Systemd(_) => false,
        }
    }
}

/// What holds for the connections that a listener accepts from now on.
#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) options: Arc<ListenerOptions>,
    pub(crate) transport: Transport,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts a connection whose small packets the kernel does not hold back until the peer has acknowledged others.
pub(crate) async fn accept_tcp(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = socket.accept().await?;
    if !PASSES_NODELAY_ON && let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(peer = %address, %error, "cannot set TCP_NODELAY");
    }
    Ok((stream, address))
}

impl Socket {
    fn has_port(&self, port: u16) -> bool {
        match self {
            Self::Tcp(socket) => socket.local_addr().is_ok_and(|own| own.port() == port),
            Self::Unix(_) => false,
        }
    }
}

fn bind_tcp(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    if is_shared {
        set_socket_reuseport(&socket, true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Sockets whose port may be bound by another of this process, for a moment: later it would be open to other processes
/// of the same user as well.
struct Shared<'a>(&'a [Arc<Socket>]);

impl<'a> Shared<'a> {
    fn new(sockets: &'a [Arc<Socket>]) -> io::Result<Self> {
        let shared = Self(sockets);
        shared.allow(true)?;
        Ok(shared)
    }

    fn bind(self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = bind_tcp(address, true)?;
        set_socket_reuseport(&listener, false)?;
        Ok(listener)
    }

    fn allow(&self, is_allowed: bool) -> io::Result<()> {
        for socket in self.0 {
            if let Socket::Tcp(socket) = &**socket {
                set_socket_reuseport(socket, is_allowed)?;
            }
        }
        Ok(())
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.allow(false) {
            tracing::warn!(%error, "the port of a listener stays open to other sockets");
        }
    }
}

/// A bound address that accepts connections.
#[derive(Debug)]
pub struct Listener {
    pub(crate) socket: Arc<Socket>,
    pub(crate) setup: Arc<ArcSwap<Setup>>,
    pub(crate) doorway: Arc<Doorway>,
    pub(crate) closed: Arc<Notify>,
    address: Option<SocketAddr>,
    /// Removed with the listener.
    _file: Option<SocketFile>,
    name: String,
}

/// Changes what holds for the connections that a listener accepts, while it does.
#[derive(Clone, Debug)]
pub struct ListenerControl {
    /// Closed with the listener, whoever holds this.
    socket: Weak<Socket>,
    setup: Arc<ArcSwap<Setup>>,
    doorway: Arc<Doorway>,
    closed: Arc<Notify>,
}

impl ListenerControl {
    /// No more connections are accepted. Those that are there stay.
    pub fn close(&self) {
        self.closed.notify_one();
    }

    /// Gives the file of a unix socket other permissions. Nothing is done for sockets that are no files.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        let Some(socket) = self.socket.upgrade() else {
            return Ok(());
        };
        let Socket::Unix(socket) = &*socket else {
            return Ok(());
        };
        match socket.local_addr()?.as_pathname() {
            Some(path) => unix::set_mode(path, mode),
            None => Ok(()),
        }
    }

    /// From now on this holds. Connections that are there keep what held when they came, but for those whose
    /// certificates would not be accepted now, which end, and for those who have not shown who they are, or no
    /// certificate, or came without TLS, where that is asked now, which end with
    /// [`Broker::look_again`](crate::Broker::look_again).
    pub fn replace(&self, options: ListenerOptions, mut transport: Transport) {
        if let (Some(tls), Some(old)) = (&mut transport.tls, &self.setup.load().transport.tls) {
            tls.replace(old);
        }
        let tls = transport.tls.as_ref();
        self.doorway.set_asks(Asks {
            who: !options.allow_anonymous,
            certificate: tls.map_or(AsksCertificate::No, Tls::asks_certificate),
            encryption: tls.is_some(),
            realm: options.realm.clone(),
        });
        self.setup.store(Arc::new(Setup {
            options: Arc::new(options),
            transport,
        }));
    }
}

impl Listener {
    /// Binds a TCP address; port 0 takes a free one, which [`Listener::local_addr`] tells.
    ///
    /// # Errors
    /// What the system says: the address is in use, or not of this machine, or not permitted.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Self::bind(&Address::Tcp(address), None)
    }

    /// Binds an address, or takes the socket that systemd has bound; `mode` are the permissions of a socket
    /// in the file system. Must be called within a tokio runtime. A socket of systemd stays open as long as the
    /// process lives, and can be bound again.
    ///
    /// # Errors
    /// What the system says, or that systemd has passed no such socket.
    pub fn bind(address: &Address, mode: Option<u32>) -> io::Result<Self> {
        Self::bind_beside(address, mode, &[])
    }

    /// The same where listeners that are still open and are to be closed for this one have the port of the address, as
    /// of 127.0.0.1 when it is 0.0.0.0 now: until they are closed both accept connections. After an error they are as
    /// before.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub fn bind_beside(
        address: &Address,
        mode: Option<u32>,
        leaving: &[ListenerControl],
    ) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => match bind_tcp(*address, false) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let sockets = leaving.iter().filter_map(|one| one.socket.upgrade());
                    let shared: Vec<Arc<Socket>> = sockets
                        .filter(|socket| socket.has_port(address.port()))
                        .collect();
                    if shared.is_empty() {
                        return Err(error);
                    }
                    Self::on_tcp(Shared::new(&shared)?.bind(*address)?)
                }
                bound => Self::on_tcp(bound?),
            },
            Address::Unix(path) => {
                let (listener, file) = unix::bind(path, mode)?;
                let name = path.display().to_string();
                Ok(Self::on(Socket::Unix(listener), None, Some(file), name))
            }
            Address::Systemd(number) => Self::from_systemd(*number),
        }
    }

    fn from_systemd(number: usize) -> io::Result<Self> {
        match inherited::socket(number)? {
            Inherited::Tcp(listener) => Self::on_tcp(TcpListener::from_std(listener)?),
            // Its file is systemd's.
            Inherited::Unix(listener) => {
                let listener = UnixListener::from_std(listener)?;
                let path = listener.local_addr()?;
                let path = path.as_pathname().map(|path| path.display().to_string());
                let name = path.unwrap_or_else(|| Address::Systemd(number).to_string());
                Ok(Self::on(Socket::Unix(listener), None, None, name))
            }
        }
    }

    fn on_tcp(listener: TcpListener) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if PASSES_NODELAY_ON {
            SockRef::from(&listener).set_tcp_nodelay(true)?;
        }
        let name = address.to_string();
        Ok(Self::on(Socket::Tcp(listener), Some(address), None, name))
    }

    fn on(
        socket: Socket,
        address: Option<SocketAddr>,
        file: Option<SocketFile>,
        name: String,
    ) -> Self {
        Self {
            socket: Arc::new(socket),
            setup: Arc::new(ArcSwap::from_pointee(Setup::default())),
            doorway: Arc::default(),
            closed: Arc::default(),
            address,
            _file: file,
            name,
        }
    }

    /// The same listener with these options for its connections.
    #[must_use]
    pub fn with_options(self, options: ListenerOptions) -> Self {
        let transport = self.setup.load().transport.clone();
        self.control().replace(options, transport);
        self
    }

    /// The same listener with what its connections go through first.
    #[must_use]
    pub fn with_transport(self, transport: Transport) -> Self {
        let options = ListenerOptions::clone(&self.setup.load().options);
        self.control().replace(options, transport);
        self
    }

    /// For changes while it is served.
    #[must_use]
    pub fn control(&self) -> ListenerControl {
        ListenerControl {
            socket: Arc::downgrade(&self.socket),
            setup: Arc::clone(&self.setup),
            doorway: Arc::clone(&self.doorway),
            closed: Arc::clone(&self.closed),
        }
    }

    /// The address that clients connect to, of a TCP socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = &self.setup.load().transport;
        let secure = transport.tls.is_some();
        let scheme = match (&*self.socket, &transport.websocket, secure) {
            (Socket::Unix(_), _, _) => "unix",
            (Socket::Tcp(_), None, false) => "tcp",
            (Socket::Tcp(_), None, true) => "tls",
            (Socket::Tcp(_), Some(_), false) => "ws",
            (Socket::Tcp(_), Some(_), true) => "wss",
        };
        write!(f, "{scheme}://{}", self.name)?;
        match (&*self.socket, &transport.websocket) {
            (Socket::Tcp(_), Some(websocket)) => f.write_str(&websocket.path),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn small_packets_are_not_held_back() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let Socket::Tcp(socket) = &*listener.socket else {
            unreachable!("bound to TCP");
        };
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (accepted, _client) = tokio::join!(accept_tcp(socket), client);
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }

    fn port_of(listener: &Listener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    /// A port that is open to others for a moment is so for no longer, whether the other socket was bound or not.
    #[tokio::test]
    async fn a_listener_may_be_bound_beside_those_that_leave() {
        let old = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = port_of(&old);
        let everywhere = Address::Tcp(([0, 0, 0, 0], port).into());
        let in_use = |bound: io::Result<Listener>| {
            assert_eq!(bound.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        };
        in_use(Listener::bind(&everywhere, None));
        let stranger = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = Address::Tcp(([0, 0, 0, 0], port_of(&stranger)).into());
        in_use(Listener::bind_beside(&taken, None, &[old.control()]));

        // Somebody else has the address that is wanted, beside one that leaves.
        let other = Listener::tcp(([127, 0, 0, 2], port).into()).await.unwrap();
        in_use(Listener::bind_beside(&everywhere, None, &[old.control()]));
        in_use(Listener::bind(&everywhere, None));
        drop(other);

        let new = Listener::bind_beside(&everywhere, None, &[old.control()]).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        drop(old);
        assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
        in_use(Listener::bind(
            &Address::Tcp(([127, 0, 0, 1], port).into()),
            None,
        ));
        drop(new);
    }

    #[test]
    fn addresses_are_read_and_written() {
        for text in [
            "127.0.0.1:1883",
            "[::1]:0",
            "unix:/run/mqtt.sock",
            "systemd:2",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let with_slashes: Address = "unix:///run/mqtt.sock".parse().unwrap();
        assert_eq!(with_slashes, Address::Unix("/run/mqtt.sock".into()));
        for text in [
            "",
            "localhost",
            "127.0.0.1",
            "unix:",
            "systemd:x",
            "tcp://1.2.3.4:5",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
