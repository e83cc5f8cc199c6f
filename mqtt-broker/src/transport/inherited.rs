//! Sockets that systemd has passed to the process, for as long as it lives: a listener has a descriptor of its own, so
//! that one that is closed, or that comes to nothing, can be opened again by a later configuration.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, OnceLock, PoisonError};

use listenfd::ListenFd;

/// A socket that listens already.
pub(crate) enum Inherited {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct Sockets {
    passed: ListenFd,
    /// Those that were asked for, by their place in the unit.
    taken: HashMap<usize, Inherited>,
}

impl Inherited {
    fn take(passed: &mut ListenFd, number: usize) -> io::Result<Self> {
        let missing =
            || io::Error::new(io::ErrorKind::NotFound, "systemd has passed no such socket");
        match passed.take_tcp_listener(number) {
            Ok(listener) => {
                let listener = listener.ok_or_else(missing)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            // Not of TCP: it may be one of the file system.
            Err(_) => {
                let listener = passed.take_unix_listener(number)?.ok_or_else(missing)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

/// The socket of this number, with a descriptor of its own.
pub(crate) fn socket(number: usize) -> io::Result<Inherited> {
    // The environment is read once, which clears it.
    static SOCKETS: OnceLock<Mutex<Sockets>> = OnceLock::new();
    let sockets = SOCKETS.get_or_init(|| {
        Mutex::new(Sockets {
            passed: ListenFd::from_env(),
            taken: HashMap::new(),
        })
    });
    let mut sockets = sockets.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(taken) = sockets.taken.get(&number) {
        return taken.try_clone();
    }
    let taken = Inherited::take(&mut sockets.passed, number)?;
    let own = taken.try_clone();
    sockets.taken.insert(number, taken);
    own
}
