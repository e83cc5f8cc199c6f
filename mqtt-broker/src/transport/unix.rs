//! Sockets in the file system.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::policy::{Peer, PeerAddress};

/// A socket that this process made; its file goes with it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have removed it: that is no concern of ours any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds a path. A socket that nobody listens on any more is replaced; `mode` are the permissions of the
/// file, where they are not those that the process gives to files.
pub(crate) fn bind(path: &Path, mode: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket
        && BlockingStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile {
        path: path.to_owned(),
    };
    if let Some(mode) = mode {
        set_mode(path, mode)?;
    }
    Ok((listener, file))
}

/// Gives a file these permissions.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// What is known of the process at the other end.
pub(crate) fn peer(stream: &UnixStream) -> Peer {
    let name = match stream.peer_cred() {
        Ok(credentials) => match credentials.pid() {
            Some(pid) => format!("unix, uid {}, pid {pid}", credentials.uid()),
            None => format!("unix, uid {}", credentials.uid()),
        },
        Err(_) => "unix".to_owned(),
    };
    Peer::new(PeerAddress::Local(name.into()))
}
