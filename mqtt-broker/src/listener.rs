//! Where connections come from.

use core::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use crate::policy::ListenerOptions;

/// Connections that may wait for the broker to accept them.
const BACKLOG: u32 = 1_024;

/// A bound address that accepts connections.
#[derive(Debug)]
pub struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) options: Arc<ListenerOptions>,
    address: SocketAddr,
}

impl Listener {
    /// Binds a TCP address; port 0 takes a free one, which [`Listener::local_addr`] tells.
    ///
    /// # Errors
    /// What the system says: the address is in use, or not of this machine, or not permitted.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(BACKLOG)?;
        let address = tcp.local_addr()?;
        Ok(Self {
            tcp,
            options: Arc::default(),
            address,
        })
    }

    /// The same listener with these options for its connections.
    #[must_use]
    pub fn with_options(mut self, options: ListenerOptions) -> Self {
        self.options = Arc::new(options);
        self
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tcp://{}", self.address)
    }
}
