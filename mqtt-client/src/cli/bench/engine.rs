//! Many connections on one thread: one shared read buffer, and one write a connection and round.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use mqtt_codec::FixedHeader;
use socket2::{Domain, Protocol, Socket, Type};

use super::channel::{Channel, Transport};

/// Bytes that one read takes at most.
const READ: usize = 256 * 1024;
/// Events that one poll takes at most.
const EVENTS: usize = 1024;
/// Failures that are kept in words; all are counted.
const SHOWN_FAILURES: usize = 5;
/// Largest packet that is accepted, in bytes.
const LARGEST: u32 = 64 * 1024 * 1024;
/// Connections that share one source address of the loopback network, whose ports are limited.
const PER_SOURCE: usize = 2000;
/// The token of what is no connection: the timer.
pub(super) const TIMER: Token = Token(usize::MAX);

/// System calls so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Calls {
    pub(super) reads: u64,
    pub(super) writes: u64,
}

/// What a poll says of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) token: usize,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// One connection and what waits to be written to it.
struct Link {
    stream: Option<Channel>,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    /// The socket took less than it was given, or is not connected yet.
    blocked: bool,
    dirty: bool,
}

/// All connections of a run.
pub(super) struct Engine {
    transport: Transport,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    input: Vec<u8>,
    dirty: Vec<usize>,
    pub(super) calls: Calls,
    /// Connections that broke, in all.
    pub(super) broken: u64,
    /// The first of them, in words.
    pub(super) failures: Vec<String>,
}

impl Engine {
    pub(super) fn new(transport: &Transport) -> io::Result<Self> {
        Ok(Self {
            transport: transport.clone(),
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            links: Vec::new(),
            input: vec![0; 2 * READ],
            dirty: Vec::new(),
            calls: Calls::default(),
            broken: 0,
            failures: Vec::new(),
        })
    }

    pub(super) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Begins a connection; what is written to it goes out when it is there.
    pub(super) fn dial(&mut self, server: SocketAddr) -> io::Result<usize> {
        let token = self.links.len();
        let channel = self.transport.connect(socket(server, token)?, server)?;
        self.adopt(channel, true)?;
        Ok(token)
    }

    /// Takes an accepted connection.
    pub(super) fn accept(&mut self, stream: TcpStream) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        let token = self.links.len();
        self.adopt(Channel::Plain(stream), false)?;
        Ok(token)
    }

    fn adopt(&mut self, mut channel: Channel, blocked: bool) -> io::Result<()> {
        self.poll.registry().register(
            channel.socket_mut(),
            Token(self.links.len()),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.links.push(Link {
            stream: Some(channel),
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
            blocked,
            dirty: false,
        });
        Ok(())
    }

    /// Waits until something happens, and appends it to `ready`. Returns whether the timer fired.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<bool> {
        ready.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(false),
            Err(error) => return Err(error),
        }
        let mut timer = false;
        for event in &self.events {
            if event.token() == TIMER {
                timer = true;
                continue;
            }
            ready.push(Ready {
                token: event.token().0,
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable(),
            });
        }
        Ok(timer)
    }

    /// Number of connections, broken ones included.
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// What is to be written to a connection by the next [`flush`](Self::flush).
    #[inline]
    pub(super) fn out(&mut self, token: usize) -> &mut Vec<u8> {
        let link = &mut self.links[token];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(token);
        }
        &mut link.out
    }

    /// Whether earlier bytes wait for the socket.
    #[inline]
    pub(super) fn is_blocked(&self, token: usize) -> bool {
        self.links[token].blocked
    }

    pub(super) fn is_open(&self, token: usize) -> bool {
        self.links[token].stream.is_some()
    }

    /// Ends a connection without a word.
    pub(super) fn close(&mut self, token: usize) {
        let link = &mut self.links[token];
        // Closing the socket takes it out of the poll.
        link.stream = None;
        link.out = Vec::new();
        link.partial = Vec::new();
        link.written = 0;
    }

    /// Writes what has been put into [`out`](Self::out) since the last call.
    pub(super) fn flush(&mut self) {
        let mut list = std::mem::take(&mut self.dirty);
        for &token in &list {
            self.links[token].dirty = false;
            if !self.links[token].blocked {
                self.write(token);
            }
        }
        list.clear();
        self.dirty = list;
    }

    /// Goes on writing to a socket that has become writable.
    #[inline]
    pub(super) fn writable(&mut self, token: usize) {
        if self.links[token].blocked {
            self.links[token].blocked = false;
            self.write(token);
        }
    }

    fn write(&mut self, token: usize) {
        let link = &mut self.links[token];
        let Some(stream) = &mut link.stream else {
            link.out.clear();
            link.written = 0;
            return;
        };
        while let Some(rest) = link.out.get(link.written..)
            && !rest.is_empty()
        {
            self.calls.writes += 1;
            match stream.write(rest) {
                Ok(count) => link.written += count,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::NotConnected
                    ) =>
                {
                    link.blocked = true;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fail(token, &format!("write: {error}"));
                    return;
                }
            }
        }
        link.out.clear();
        link.written = 0;
        match stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => link.blocked = true,
            Err(error) => self.fail(token, &format!("write: {error}")),
        }
    }

    /// Reads what a connection has and writes it to others at once, without a look at it.
    pub(super) fn copy(&mut self, token: usize, sinks: &[usize]) {
        loop {
            let Some(stream) = &mut self.links[token].stream else {
                return;
            };
            self.calls.reads += 1;
            let count = match stream.read(&mut self.input[..READ]) {
                Ok(0) => return self.close(token),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(token),
            };
            for &sink in sinks {
                let bytes = &self.input[..count];
                let link = &mut self.links[sink];
                let mut written = 0;
                if let Some(stream) = &mut link.stream
                    && !link.blocked
                    && link.out.is_empty()
                {
                    self.calls.writes += 1;
                    // What it does not take, or why, is found again when the rest is written.
                    written = stream.write(bytes).unwrap_or(0);
                }
                if written < count {
                    link.out.extend_from_slice(&bytes[written..]);
                    self.write(sink);
                }
            }
            if count < READ {
                return;
            }
        }
    }

    fn fail(&mut self, token: usize, what: &str) {
        self.broken += 1;
        if self.failures.len() < SHOWN_FAILURES {
            self.failures.push(format!("connection {token}: {what}"));
        }
        self.close(token);
    }

    /// Reads what a connection has and gives every whole packet, fixed header and body, to
    /// `handle`, with the buffer for answers. Returns whether the connection is still there.
    #[inline]
    pub(super) fn read(
        &mut self,
        token: usize,
        mut handle: impl FnMut(FixedHeader, &[u8], &mut Vec<u8>),
    ) -> bool {
        self.read_bytes(token, |bytes, out| {
            let mut rest = bytes;
            loop {
                match FixedHeader::parse(rest) {
                    Ok(Some(header)) => {
                        header
                            .check_size(LARGEST)
                            .map_err(|error| error.to_string())?;
                        let len = header.frame_len();
                        let Some(body) = rest.get(usize::from(header.header_len)..len) else {
                            break;
                        };
                        handle(header, body, out);
                        rest = rest.get(len..).unwrap_or_default();
                    }
                    Ok(None) => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(bytes.len() - rest.len())
        })
    }

    /// Reads what a connection has; `handle` says how much of it it has used, and the rest is
    /// shown again with what follows.
    #[inline]
    pub(super) fn read_bytes(
        &mut self,
        token: usize,
        mut handle: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, String>,
    ) -> bool {
        loop {
            let link = &mut self.links[token];
            let Some(stream) = &mut link.stream else {
                return false;
            };
            let kept = link.partial.len();
            if self.input.len() < kept + READ {
                self.input.resize(kept + READ, 0);
            }
            let (begin, space) = self.input.split_at_mut(kept);
            begin.copy_from_slice(&link.partial);
            self.calls.reads += 1;
            let is_plain = stream.is_plain();
            let count = match stream.read(&mut space[..READ]) {
                Ok(0) => {
                    self.fail(token, "closed by the server");
                    return false;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.fail(token, &format!("read: {error}"));
                    return false;
                }
            };
            let bytes = &self.input[..kept + count];
            let used = match handle(bytes, &mut link.out) {
                Ok(used) => used,
                Err(what) => {
                    self.fail(token, &what);
                    return false;
                }
            };
            link.partial.clear();
            link.partial
                .extend_from_slice(bytes.get(used..).unwrap_or_default());
            if !link.out.is_empty() && !link.dirty {
                link.dirty = true;
                self.dirty.push(token);
            }
            // A read that did not fill the buffer has taken all there was; the poll tells of more.
            if count < READ && is_plain {
                return true;
            }
        }
    }
}

/// A socket to be connected. On the loopback network of Linux each has one of many
/// source addresses, so that no run uses up the ports of one.
fn socket(server: SocketAddr, number: usize) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if let IpAddr::V4(host) = server.ip()
        && host.is_loopback()
        && cfg!(target_os = "linux")
        && number >= PER_SOURCE
    {
        let process = std::process::id();
        let group = (number / PER_SOURCE) as u32;
        let source = Ipv4Addr::new(
            127,
            1 + (process % 200) as u8,
            (process / 200 % 250) as u8,
            1 + (group % 250) as u8,
        );
        socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
    }
    Ok(socket)
}
