//! TCP, to the first address of the host that answers.

use std::io;

use tokio::net::{TcpSocket, TcpStream, lookup_host};

use crate::Options;

/// Resolves the host and connects to the first of its addresses that answers.
pub(crate) async fn connect(options: &Options, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((host, port)).await? {
        let attempt = match &options.bind_address {
            None => TcpStream::connect(address).await,
            Some(local) => connect_from(local, address).await,
        };
        match attempt {
            Ok(stream) => {
                stream.set_nodelay(options.nodelay)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Connects from a local address of the same family as the remote one.
async fn connect_from(local: &str, remote: std::net::SocketAddr) -> io::Result<TcpStream> {
    let mut candidates = lookup_host((local, 0)).await?;
    let local = candidates
        .find(|address| address.is_ipv4() == remote.is_ipv4())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "no local address of the family of the remote one",
            )
        })?;
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(local)?;
    socket.connect(remote).await
}
