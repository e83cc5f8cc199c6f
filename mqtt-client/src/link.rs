//! One connection: a stream, its buffers, and the session machine on top.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use mqtt_codec::{Packet, PacketId, ProtocolVersion, ReasonCode, decode};
use mqtt_session::{Connection, Persistence, Session, Time};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::event_loop::time_since;
use crate::outbound::Outbound;
use crate::transport::Stream;
use crate::{Error, Filter, Options, ServerInfo, SubscribeOptions};

/// Bytes asked of the stream at once.
const READ_SIZE: usize = 16 * 1024;
/// Bytes handed to the stream at once, a packet more at most.
const WRITE_SIZE: usize = 64 * 1024;
/// How many messages the session holds before the rest waits in the channel.
const WINDOW: u32 = 256;
/// The largest packet there can be, in bytes.
const LARGEST_PACKET: u32 = 268_435_460;

/// A session that no server knows yet.
pub(crate) fn new_session() -> Session<Outbound> {
    let mut session = Session::new(Persistence::Ephemeral);
    session.set_window(WINDOW);
    session
}

/// Who waits for the answer to a request.
pub(crate) type Reply = oneshot::Sender<Result<Vec<ReasonCode>, Error>>;

/// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
#[derive(Debug)]
pub(crate) enum Request {
    /// SUBSCRIBE; nobody waits if the client makes its subscriptions anew by itself.
    Subscribe(Vec<Filter>, SubscribeOptions, Option<Reply>),
    /// UNSUBSCRIBE.
    Unsubscribe(Vec<String>, Reply),
}

/// A connection that the server has accepted.
pub(crate) struct Link {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    pub(crate) input: BytesMut,
    pub(crate) output: Output,
    pub(crate) connection: Connection<Outbound>,
    pub(crate) requests: HashMap<PacketId, Request>,
    pub(crate) server: Arc<ServerInfo>,
    pub(crate) version: ProtocolVersion,
    pub(crate) maximum_packet_size: u32,
}

/// What waits to be written, and the messages of QoS 0 in it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    /// How many bytes were written before `bytes`.
    before: u64,
    unflushed: bool,
    /// Messages of QoS 0 with the place in the stream where they end.
    sent: VecDeque<(u64, Outbound)>,
}

impl Output {
    fn pending(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Appends to what is to be written.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// A message of QoS 0 is in the buffer.
    pub(crate) fn sent(&mut self, message: Outbound) {
        self.sent
            .push_back((self.before + self.bytes.len() as u64, message));
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        self.unflushed = true;
        let place = self.before + self.written as u64;
        while self.sent.front().is_some_and(|(end, _)| *end <= place) {
            if let Some((_, message)) = self.sent.pop_front() {
                message.resolve(Ok(ReasonCode::SUCCESS));
            }
        }
        if self.pending().is_empty() {
            self.before = place;
            self.written = 0;
            self.bytes.clear();
            // A large message does not keep its memory.
            self.bytes.shrink_to(2 * WRITE_SIZE);
        }
    }

    /// Whether everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending().is_empty()
    }

    /// Messages of QoS 0 that were not written whole.
    pub(crate) fn unwritten(&mut self) -> impl Iterator<Item = Outbound> {
        self.sent.drain(..).map(|(_, message)| message)
    }
}

/// A finished step of [`Link::progress`].
pub(crate) enum Progress {
    /// This many bytes were read; 0: the server closed.
    Read(usize),
    /// Something was written.
    Written,
}

impl Link {
    /// Sends CONNECT and reads CONNACK. On failure the session is given back.
    pub(crate) async fn establish(
        stream: Box<dyn Stream>,
        options: &Options,
        session: Session<Outbound>,
        clean_start: bool,
        (origin, deadline): (Instant, Instant),
    ) -> Result<Self, (Box<Session<Outbound>>, Error)> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let greeting = timeout_at(deadline, greet(&mut writer, options, clean_start)).await;
        if let Err(error) = greeting.unwrap_or(Err(Error::TimedOut)) {
            return Err((Box::new(session), error));
        }
        let now = time_since(origin);
        let mut connection = Connection::client(session, options.config(clean_start), now);
        let mut input = BytesMut::new();
        let maximum_packet_size = options
            .maximum_packet_size
            .map_or(LARGEST_PACKET, |size| size.get());
        let welcome = welcome(
            &mut reader,
            &mut input,
            &mut connection,
            options,
            maximum_packet_size,
            origin,
        );
        match timeout_at(deadline, welcome)
            .await
            .unwrap_or(Err(Error::TimedOut))
        {
            Ok(server) => Ok(Self {
                reader,
                writer,
                input,
                output: Output::default(),
                connection,
                requests: HashMap::new(),
                server: Arc::new(server),
                version: options.version,
                maximum_packet_size,
            }),
            Err(error) => Err((Box::new(connection.into_session()), error)),
        }
    }

    /// Lets the session write, if everything before is written.
    pub(crate) fn fill(&mut self, now: Time) {
        if self.output.pending().is_empty() {
            // What is left leaves when this is written.
            let _ = self
                .connection
                .poll_transmit(now, &mut self.output.bytes, WRITE_SIZE);
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
        packet.encode(self.version, &mut self.output.bytes)?;
        self.connection.sent(now);
        Ok(())
    }

    /// Reads and writes whatever is possible first. Cancel safe.
    pub(crate) async fn progress(&mut self) -> io::Result<Progress> {
        if self.input.capacity() - self.input.len() < READ_SIZE / 4 {
            self.input.reserve(READ_SIZE);
        }
        let idle = self.output.pending().is_empty() && !self.output.unflushed;
        tokio::select! {
            read = self.reader.read_buf(&mut self.input) => Ok(Progress::Read(read?)),
            step = step(&mut self.writer, self.output.pending()), if !idle => {
                match step? {
                    Some(count) => self.output.advance(count),
                    None => self.output.unflushed = false,
                }
                Ok(Progress::Written)
            }
        }
    }

    /// Ends the connection, tells who waits for an answer, and gives the session back.
    pub(crate) fn leave(mut self, error: &Error) -> Session<Outbound> {
        for (_, request) in self.requests.drain() {
            let (Request::Subscribe(.., Some(reply)) | Request::Unsubscribe(_, reply)) = request
            else {
                continue;
            };
            let _ = reply.send(Err(error.clone()));
        }
        for message in self.output.unwritten() {
            message.resolve(Err(error.clone()));
        }
        self.connection.into_session()
    }

    /// Writes everything, then closes this end and waits for the server to close the other. What
    /// still arrives is read, lest both ends wait for each other, and dropped.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            self.input.clear();
            if let Progress::Read(0) = self.progress().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.writer.flush().await?;
        // Everything is with the server, which may have closed already.
        let _ = self.writer.shutdown().await;
        loop {
            self.input.clear();
            // An error now is the end as well.
            if !matches!(self.reader.read_buf(&mut self.input).await, Ok(1..)) {
                return Ok(());
            }
        }
    }
}

/// Writes some bytes, or flushes if there are none. Cancel safe.
async fn step(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    pending: &[u8],
) -> io::Result<Option<usize>> {
    if pending.is_empty() {
        writer.flush().await?;
        return Ok(None);
    }
    match writer.write(pending).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(Some(count)),
    }
}

async fn greet(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    options: &Options,
    clean_start: bool,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    options
        .connect(clean_start)?
        .encode(options.version, &mut bytes)?;
    tracing::debug!(client = options.client_id, "sending CONNECT");
    writer.write_all(&bytes).await?;
    writer.flush().await?;
    Ok(())
}

async fn welcome(
    reader: &mut ReadHalf<Box<dyn Stream>>,
    input: &mut BytesMut,
    connection: &mut Connection<Outbound>,
    options: &Options,
    maximum: u32,
    origin: Instant,
) -> Result<ServerInfo, Error> {
    loop {
        if let Some((packet, length)) = decode(input, options.version, maximum)? {
            let Packet::ConnAck(connack) = packet else {
                return Err(Error::Unexpected(packet.packet_type().name()));
            };
            tracing::debug!("received CONNACK ({})", connack.reason_code.name());
            if connack.reason_code.is_error() {
                return Err(Error::Refused {
                    reason: connack.reason_code,
                    reason_string: connack.properties.reason_string.map(str::to_owned),
                    server_reference: connack.properties.server_reference.map(str::to_owned),
                });
            }
            let negotiated = *connection.handle_connack(time_since(origin), &connack)?;
            let server = ServerInfo::new(options, &negotiated, &connack);
            input.advance(length);
            return Ok(server);
        }
        input.reserve(READ_SIZE);
        if reader.read_buf(input).await? == 0 {
            return Err(Error::ConnectionLost);
        }
    }
}
