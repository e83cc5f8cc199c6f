//! The beginning of a connection: CONNECT, the exchange of AUTH packets if there is one, CONNACK.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use mqtt_codec::{Packet, decode};
use mqtt_session::{Connection, Session};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::authentication::Exchange;
use crate::event_loop::{deadline, time_since};
use crate::link::{Link, poll_read};
use crate::outbound::Outbound;
use crate::output::Output;
use crate::transport::{BoxedStream, Connect, Target};
use crate::{Error, Options, ServerInfo, trace};

/// The largest packet there can be, in bytes.
const LARGEST_PACKET: u32 = 268_435_460;

/// A connection could not be made.
pub(crate) struct Failed {
    pub(crate) session: Box<Session<Outbound>>,
    pub(crate) error: Error,
}

/// Opens a stream to the target and asks the server for a connection, unless told to stop.
pub(crate) async fn connect(
    connector: &dyn Connect,
    target: &Target,
    options: &Options,
    session: Session<Outbound>,
    (clean_start, origin): (bool, Instant),
    stop: &Notify,
) -> Result<Link, Failed> {
    let deadline = deadline(options.connect_timeout);
    let failed = |session, error| {
        Err(Failed {
            session: Box::new(session),
            error,
        })
    };
    let opening = tokio::select! {
        opening = timeout_at(deadline, connector.connect(options, target)) => opening,
        () = stop.notified() => return failed(session, Error::ConnectionLost),
    };
    match opening {
        Ok(Ok(stream)) => {
            let times = (origin, deadline);
            establish(stream, options, session, clean_start, times, stop).await
        }
        Ok(Err(error)) => failed(session, error),
        Err(_) => failed(session, Error::TimedOut),
    }
}

/// Sends CONNECT and reads CONNACK.
async fn establish(
    mut stream: BoxedStream,
    options: &Options,
    session: Session<Outbound>,
    clean_start: bool,
    (origin, deadline): (Instant, Instant),
    stop: &Notify,
) -> Result<Link, Failed> {
    let greeting = timeout_at(deadline, greet(&mut stream, options, clean_start)).await;
    let exchange = match greeting.unwrap_or(Err(Error::TimedOut)) {
        Ok(exchange) => exchange,
        Err(error) => {
            return Err(Failed {
                session: Box::new(session),
                error,
            });
        }
    };
    let now = time_since(origin);
    let mut welcome = Welcome {
        stream,
        input: BytesMut::new(),
        connection: Connection::client(session, options.config(clean_start), now),
        maximum_packet_size: options
            .maximum_packet_size
            .map_or(LARGEST_PACKET, NonZeroU32::get),
        exchange,
    };
    let answer = tokio::select! {
        answer = timeout_at(deadline, welcome.wait(options, origin)) => {
            answer.unwrap_or(Err(Error::TimedOut))
        }
        () = stop.notified() => Err(Error::ConnectionLost),
    };
    match answer {
        Ok(server) => Ok(Link {
            output: Output::new(welcome.stream.is_write_vectored()),
            stream: welcome.stream,
            input: welcome.input,
            connection: welcome.connection,
            requests: Vec::new(),
            server: Arc::new(server),
            version: options.version,
            maximum_packet_size: welcome.maximum_packet_size,
            exchange: welcome.exchange,
            reauthentication: None,
        }),
        Err(error) => Err(Failed {
            session: Box::new(welcome.connection.into_session()),
            error,
        }),
    }
}

async fn greet(
    stream: &mut BoxedStream,
    options: &Options,
    clean_start: bool,
) -> Result<Option<Exchange>, Error> {
    let exchange = options
        .authentication
        .as_ref()
        .map(|authentication| authentication.begin())
        .transpose()?;
    let mut connect = options.connect(clean_start)?;
    if let Some(exchange) = &exchange {
        connect.properties.authentication_method = Some(&exchange.method);
        connect.properties.authentication_data = exchange.data.as_deref();
    }
    let mut bytes = Vec::new();
    connect.encode(options.version, &mut bytes)?;
    trace::sending_bytes(&options.client_id, &bytes, options.version);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(exchange)
}

/// A connection that waits for CONNACK.
struct Welcome {
    stream: BoxedStream,
    input: BytesMut,
    connection: Connection<Outbound>,
    maximum_packet_size: u32,
    exchange: Option<Exchange>,
}

impl Welcome {
    async fn wait(&mut self, options: &Options, origin: Instant) -> Result<ServerInfo, Error> {
        loop {
            let packet = decode(&self.input, options.version, self.maximum_packet_size)?;
            let mut answer = Vec::new();
            if let Some((packet, _)) = &packet {
                let id = match packet {
                    Packet::ConnAck(connack) => connack.properties.assigned_client_identifier,
                    _ => None,
                };
                let id = id.unwrap_or(&options.client_id);
                trace::received(id, packet, options.version);
            }
            let length = match packet {
                Some((Packet::ConnAck(connack), length)) => {
                    if connack.reason_code.is_error() {
                        return Err(Error::Refused {
                            reason: connack.reason_code,
                            reason_string: connack.properties.reason_string.map(str::to_owned),
                            server_reference: connack
                                .properties
                                .server_reference
                                .map(str::to_owned),
                        });
                    }
                    if let Some(exchange) = &mut self.exchange {
                        exchange.finish(connack.properties.authentication_data)?;
                    }
                    let negotiated = *self
                        .connection
                        .handle_connack(time_since(origin), &connack)?;
                    let server = ServerInfo::new(options, &negotiated, &connack);
                    self.input.advance(length);
                    return Ok(server);
                }
                Some((Packet::Auth(auth), length)) => {
                    let exchange = self.exchange.as_mut().ok_or(Error::Unexpected("AUTH"))?;
                    // Before CONNACK there is no success yet.
                    if exchange.handle(&auth)? {
                        return Err(Error::Unexpected("AUTH"));
                    }
                    let reason = mqtt_codec::ReasonCode::CONTINUE_AUTHENTICATION;
                    exchange
                        .packet(reason)
                        .encode(options.version, &mut answer)?;
                    trace::sending_bytes(&options.client_id, &answer, options.version);
                    length
                }
                Some((packet, _)) => return Err(Error::Unexpected(packet.packet_type().name())),
                None => {
                    let read = std::future::poll_fn(|context| {
                        poll_read(&mut self.stream, &mut self.input, context)
                    });
                    if read.await? == 0 {
                        return Err(Error::ConnectionLost);
                    }
                    continue;
                }
            };
            self.input.advance(length);
            self.stream.write_all(&answer).await?;
            self.stream.flush().await?;
        }
    }
}
