//! One connection: a stream, its buffers, and the session machine on top.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use mqtt_codec::{Packet, PacketId, ProtocolVersion};
use mqtt_session::{Buffer, Connection, Session, Time};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::authentication::Exchange;
use crate::control::{Control, Handle, Reply};
use crate::outbound::Outbound;
use crate::output::{Output, WRITE_SIZE};
use crate::transport::BoxedStream;
use crate::{Error, Filter, ServerInfo, SubscribeOptions, trace};

/// Bytes asked of the stream at once.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// A request that is not answered.
#[derive(Debug)]
pub(crate) enum Request {
    /// SUBSCRIBE. Nobody waits if the client makes its subscriptions anew by itself.
    Subscribe {
        filters: Vec<Filter>,
        options: SubscribeOptions,
        handle: Option<Handle>,
        reply: Option<Reply>,
    },
    /// UNSUBSCRIBE. Nobody waits if a subscription was dropped.
    Unsubscribe {
        filters: Vec<String>,
        user_properties: Vec<(String, String)>,
        reply: Option<Reply>,
    },
}

impl Request {
    /// The request as it was made, for another connection; `None` if nobody waits for it.
    pub(crate) fn again(self) -> Option<Control> {
        match self {
            Self::Subscribe {
                filters,
                options,
                handle,
                reply: Some(reply),
            } => Some(Control::Subscribe {
                filters,
                options,
                handle,
                reply,
            }),
            Self::Unsubscribe {
                filters,
                user_properties,
                reply: Some(reply),
            } => Some(Control::Unsubscribe {
                filters,
                user_properties,
                reply,
            }),
            Self::Subscribe { reply: None, .. } | Self::Unsubscribe { reply: None, .. } => None,
        }
    }
}

/// A connection that the server has accepted.
pub(crate) struct Link {
    pub(crate) stream: BoxedStream,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    pub(crate) connection: Connection<Outbound>,
    /// In the order they were written.
    pub(crate) requests: Vec<(PacketId, Request)>,
    pub(crate) server: Arc<ServerInfo>,
    pub(crate) version: ProtocolVersion,
    pub(crate) maximum_packet_size: u32,
    pub(crate) exchange: Option<Exchange>,
    /// Who waits for the end of an exchange of AUTH packets.
    pub(crate) reauthentication: Option<Reply>,
}

/// What [`Link::progress`] has done.
pub(crate) enum Progress {
    /// This many bytes were read; 0: the server closed.
    Read(usize),
    /// Something was written.
    Written,
}

/// What is left of a connection.
pub(crate) struct Remains {
    pub(crate) session: Session<Outbound>,
    /// Messages of QoS 0 that were not written.
    pub(crate) unwritten: Vec<Outbound>,
    pub(crate) requests: Vec<Request>,
}

impl Link {
    /// Lets the session write, unless what it wrote before is written in part.
    pub(crate) fn fill(&mut self, now: Time) {
        if !self.output.is_begun() {
            self.fill_up_to(now, WRITE_SIZE);
        }
    }

    /// Lets the session write behind what is not written yet.
    pub(crate) fn fill_up_to(&mut self, now: Time, size: usize) {
        let before = self.output.size();
        // What is left leaves when this is written.
        let _ = self.connection.poll_transmit(now, &mut self.output, size);
        if trace::is_on() {
            let added = self.output.copy_behind(before);
            trace::sending_bytes(&self.server.client_id, &added, self.version);
        }
    }

    /// Appends a packet of this client's own; nothing is appended on error.
    pub(crate) fn append(&mut self, packet: &Packet<'_>, now: Time) -> Result<(), Error> {
        let size = packet.encoded_len(self.version)?;
        if self
            .server
            .maximum_packet_size
            .is_some_and(|maximum| size > maximum as usize)
        {
            return Err(Error::TooLarge);
        }
        packet.encode(self.version, self.output.bytes())?;
        trace::sending(&self.server.client_id, packet);
        self.connection.sent(now);
        Ok(())
    }

    /// Takes the request that an answer is for.
    pub(crate) fn take_request(&mut self, packet_id: PacketId) -> Option<Request> {
        let place = self.requests.iter().position(|(id, _)| *id == packet_id)?;
        self.connection.release_packet_id(packet_id);
        Some(self.requests.remove(place).1)
    }

    /// Writes what the stream takes, then reads. Cancel safe.
    pub(crate) async fn progress(&mut self) -> io::Result<Progress> {
        std::future::poll_fn(|context| self.poll_progress(context)).await
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Progress>> {
        let mut has_written = false;
        while !self.output.is_empty() {
            match self
                .output
                .poll_write(Pin::new(&mut self.stream), context)?
            {
                Poll::Ready(()) => has_written = true,
                Poll::Pending => break,
            }
        }
        if self.output.is_empty()
            && self.output.is_unflushed()
            && Pin::new(&mut self.stream).poll_flush(context)?.is_ready()
        {
            self.output.flushed();
        }
        match self.poll_read(context)? {
            Poll::Ready(count) => Poll::Ready(Ok(Progress::Read(count))),
            Poll::Pending if has_written => Poll::Ready(Ok(Progress::Written)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read(&mut self.stream, &mut self.input, context)
    }

    /// Ends the connection.
    pub(crate) fn leave(mut self) -> Remains {
        if let Some(reply) = self.reauthentication.take() {
            let _ = reply.send(Err(Error::ConnectionLost));
        }
        Remains {
            unwritten: self.output.take_unwritten(),
            session: self.connection.into_session(),
            requests: self
                .requests
                .into_iter()
                .map(|(_, request)| request)
                .collect(),
        }
    }

    /// Writes everything, then closes this end and waits for the server to close the other. What
    /// still arrives is read, lest both ends wait for each other, and dropped.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        while !self.output.is_empty() || self.output.is_unflushed() {
            self.input.clear();
            if let Progress::Read(0) = self.progress().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        // Everything is with the server, which may have closed already.
        let stream = &mut self.stream;
        let _ = std::future::poll_fn(|context| Pin::new(&mut *stream).poll_shutdown(context)).await;
        loop {
            self.input.clear();
            let read = std::future::poll_fn(|context| self.poll_read(context)).await;
            // An error now is the end as well.
            if !matches!(read, Ok(1..)) {
                return Ok(());
            }
        }
    }
}

/// Reads some bytes to the end of the buffer.
pub(crate) fn poll_read(
    stream: &mut BoxedStream,
    input: &mut BytesMut,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if input.capacity() - input.len() < READ_SIZE / 4 {
        input.reserve(READ_SIZE);
    }
    // The future keeps nothing between polls.
    pin!(stream.read_buf(input)).poll(context)
}
