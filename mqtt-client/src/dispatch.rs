//! What arrives on a connection: packets to the session machine, messages to the application,
//! answers to whoever asked.

use bytes::{Buf, BytesMut};
use mqtt_codec::{Ack, Packet, PacketId, PacketType, QoS, ReasonCode, decode};
use mqtt_session::{Buffer, DropReason, Event, InFlightState, Time, Verdict};
use tokio::sync::broadcast;

use crate::link::{Link, Request};
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::{Error, Uncertain, trace};

/// Bytes of a packet whose buffer is not kept.
const LARGE_PACKET: usize = 256 * 1024;

/// Where what arrives goes.
pub(crate) struct Dispatch<'a> {
    pub(crate) link: &'a mut Link,
    pub(crate) registry: &'a mut Registry,
    pub(crate) events: &'a broadcast::Sender<crate::Event>,
    pub(crate) now: Time,
}

impl Dispatch<'_> {
    /// Handles every whole packet that was read.
    pub(crate) fn packets(&mut self) -> Result<(), Error> {
        self.link.connection.received(self.now);
        loop {
            // The buffer is moved out while a packet borrows it.
            let mut input = std::mem::take(&mut self.link.input);
            let outcome = decode(&input, self.link.version, self.link.maximum_packet_size);
            let length = match outcome {
                Ok(Some((packet, length))) => {
                    let link = &self.link;
                    trace::received(&link.server.client_id, &packet, link.version);
                    self.packet(&packet).map(|()| Some(length))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error.into()),
            };
            if let Ok(Some(length)) = length {
                input.advance(length);
                if input.is_empty() && length > LARGE_PACKET {
                    input = BytesMut::new();
                }
            }
            self.link.input = input;
            if length?.is_none() {
                return Ok(());
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>) -> Result<(), Error> {
        let link = &mut *self.link;
        match packet {
            Packet::Publish(publish) => {
                let Verdict::Deliver(inbound) =
                    link.connection.handle_publish(self.now, publish)?
                else {
                    return Ok(());
                };
                let by_identifier = link.server.has_subscription_identifiers();
                self.registry
                    .deliver(inbound.topic, publish, inbound.token, by_identifier);
                Ok(())
            }
            Packet::PubAck(ack) => self.ack(PacketType::PubAck, ack),
            Packet::PubRec(ack) => self.ack(PacketType::PubRec, ack),
            Packet::PubRel(ack) => self.ack(PacketType::PubRel, ack),
            Packet::PubComp(ack) => self.ack(PacketType::PubComp, ack),
            Packet::SubAck(answer) => self.suback(answer.packet_id, &answer.reason_codes),
            Packet::UnsubAck(answer) => self.unsuback(answer.packet_id, &answer.reason_codes),
            Packet::PingResp => {
                link.connection.handle_ping(self.now);
                Ok(())
            }
            Packet::Auth(auth) => {
                // A server does not begin an exchange [MQTT-4.12.1-1].
                let (Some(exchange), true) = (&mut link.exchange, link.reauthentication.is_some())
                else {
                    return Err(Error::Unexpected("AUTH"));
                };
                if exchange.handle(auth)? {
                    if let Some(reply) = link.reauthentication.take() {
                        let _ = reply.send(Ok(Vec::new()));
                    }
                    return Ok(());
                }
                let packet = exchange.packet(ReasonCode::CONTINUE_AUTHENTICATION);
                trace::sending(&link.server.client_id, &packet);
                packet.encode(link.version, link.output.bytes())?;
                Ok(())
            }
            Packet::Disconnect(disconnect) if link.version.has_server_disconnect() => {
                Err(Error::Disconnected {
                    reason: disconnect.reason_code,
                    reason_string: disconnect.properties.reason_string.map(str::to_owned),
                    server_reference: disconnect.properties.server_reference.map(str::to_owned),
                })
            }
            packet => Err(Error::Unexpected(packet.packet_type().name())),
        }
    }

    fn ack(&mut self, packet_type: PacketType, ack: &Ack<'_>) -> Result<(), Error> {
        let connection = &mut self.link.connection;
        let completed = connection.handle_ack(self.now, packet_type, ack)?;
        if let Some(completed) = completed
            && let Some(message) = completed.handle
        {
            let reason = match packet_type {
                // The server has taken it with its PUBREC. That it does not know the identifier any more (0x92), as
                // after a PUBREL that is sent again, says nothing of the message.
                PacketType::PubComp => ReasonCode::SUCCESS,
                _ => completed.reason,
            };
            message.resolve(Ok(reason));
        }
        Ok(())
    }

    fn suback(&mut self, packet_id: PacketId, codes: &[ReasonCode]) -> Result<(), Error> {
        let (filters, options, handle, reply) = match self.link.take_request(packet_id) {
            Some(Request::Subscribe {
                filters,
                options,
                handle,
                reply,
            }) if filters.len() == codes.len() => (filters, options, handle, reply),
            other => return Err(unexpected("SUBACK", other)),
        };
        let is_renewal = reply.is_none();
        for (filter, code) in filters.iter().zip(codes) {
            if !code.is_error() {
                self.registry.granted(filter.as_str(), options.identifier);
                continue;
            }
            let handle = handle.as_ref().map(|handle| handle.id);
            self.registry.refused(filter.as_str(), handle);
            if is_renewal {
                // Nobody may be listening.
                let _ = self.events.send(crate::Event::SubscriptionLost {
                    filter: filter.as_str().to_owned(),
                    reason: *code,
                });
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(Ok(codes.to_vec()));
        }
        Ok(())
    }

    fn unsuback(&mut self, packet_id: PacketId, codes: &[ReasonCode]) -> Result<(), Error> {
        let has_codes = self.link.version.has_reason_codes();
        match self.link.take_request(packet_id) {
            Some(Request::Unsubscribe { filters, reply, .. })
                if filters.len() == codes.len() || !has_codes =>
            {
                for filter in &filters {
                    self.registry.unsubscribed(filter);
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(codes.to_vec()));
                }
                Ok(())
            }
            other => Err(unexpected("UNSUBACK", other)),
        }
    }
}

/// An answer that no request is for, or that does not fit the one that it is for; who asked is told.
fn unexpected(packet: &'static str, request: Option<Request>) -> Error {
    if let Some(request) = request.and_then(Request::again) {
        request.refuse(Error::Unexpected(packet));
    }
    Error::Unexpected(packet)
}

/// Tells the receipts of messages that ended without a packet of the server, and queues again what
/// the server lost with the session. Returns the keys of the stored messages that ended with the session.
pub(crate) fn events(link: &mut Link, when_uncertain: Uncertain) -> Vec<u64> {
    let mut anew = Vec::new();
    let mut ended = Vec::new();
    while let Some(event) = link.connection.poll_event() {
        match event {
            Event::Sent(message) => link.output.sent(message),
            Event::Dropped(message, DropReason::SessionLost(state)) => {
                let fate = fate(&message, state, when_uncertain);
                if message.is_stored() && !matches!(fate, Fate::Anew) {
                    ended.push(message.key);
                }
                match fate {
                    Fate::Anew => anew.push(message),
                    Fate::Complete => message.resolve(Ok(ReasonCode::SUCCESS)),
                    Fate::Uncertain => message.resolve(Err(Error::SessionLost.uncertain())),
                }
            }
            Event::Dropped(message, reason) => message.resolve(Err(match reason {
                DropReason::Expired => Error::Expired,
                DropReason::TooLarge => Error::TooLarge,
                DropReason::QosNotSupported => Error::QosNotSupported,
                _ => Error::Closed,
            })),
            _ => {}
        }
    }
    queue_first(link, anew);
    ended
}

/// Queues messages before all others.
pub(crate) fn queue_first(link: &mut Link, mut messages: Vec<Outbound>) {
    if messages.is_empty() {
        return;
    }
    let session = link.connection.session_mut();
    messages.extend(session.take_queued(|_| true));
    for message in messages {
        session.push(message);
    }
}

/// What becomes of a message in flight when the server has lost the session.
pub(crate) enum Fate {
    /// It is published again, as a new message.
    Anew,
    /// The server had taken it over.
    Complete,
    /// The server may have it, and to send it again could make it come twice.
    Uncertain,
}

pub(crate) fn fate(message: &Outbound, state: InFlightState, when_uncertain: Uncertain) -> Fate {
    match state {
        InFlightState::Released => Fate::Complete,
        InFlightState::Published
            if message.message.quality() == QoS::ExactlyOnce
                && when_uncertain == Uncertain::Tell =>
        {
            Fate::Uncertain
        }
        _ => Fate::Anew,
    }
}
