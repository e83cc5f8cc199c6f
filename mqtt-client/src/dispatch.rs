//! What arrives on a connection: packets to the session machine, messages to the application,
//! answers to whoever asked.

use bytes::{Buf, BytesMut};
use mqtt_codec::{Ack, Packet, PacketId, PacketType, QoS, ReasonCode, decode};
use mqtt_session::{DropReason, Event, Time, Verdict};

use crate::incoming::Inbox;
use crate::link::{Link, Request};
use crate::{Error, Filter, Message, Received, SubscribeOptions};

/// Bytes of a packet whose buffer is not kept.
const LARGE_PACKET: usize = 256 * 1024;

/// Subscriptions that are made, to make them again if the server loses the session.
pub(crate) type Subscriptions = Vec<(Filter, SubscribeOptions)>;

/// Handles every whole packet that was read.
pub(crate) fn packets(
    link: &mut Link,
    now: Time,
    inbox: &Inbox,
    subscriptions: &mut Subscriptions,
) -> Result<(), Error> {
    link.connection.received(now);
    loop {
        // The buffer is moved out while a packet borrows it.
        let mut input = std::mem::take(&mut link.input);
        let outcome = decode(&input, link.version, link.maximum_packet_size);
        let length = match outcome {
            Ok(Some((packet, length))) => {
                tracing::trace!("received {}", packet.packet_type());
                packet_in(link, now, &packet, inbox, subscriptions).map(|()| Some(length))
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
        link.input = input;
        if length?.is_none() {
            return Ok(());
        }
    }
}

fn packet_in(
    link: &mut Link,
    now: Time,
    packet: &Packet<'_>,
    inbox: &Inbox,
    subscriptions: &mut Subscriptions,
) -> Result<(), Error> {
    match packet {
        Packet::Publish(publish) => {
            let Verdict::Deliver(inbound) = link.connection.handle_publish(now, publish)? else {
                return Ok(());
            };
            if publish.qos > QoS::AtMostOnce || inbox.has_room() {
                tracing::debug!(
                    topic = inbound.topic.as_str(),
                    bytes = publish.payload.len(),
                    "received PUBLISH"
                );
                inbox.deliver(Received {
                    message: Message::copied(inbound.topic, publish),
                    duplicate: publish.dup,
                    packet_id: publish.packet_id,
                    token: Some(inbound.token),
                    resumptions: 0,
                });
            }
            Ok(())
        }
        Packet::PubAck(ack) => ack_in(link, now, PacketType::PubAck, ack),
        Packet::PubRec(ack) => ack_in(link, now, PacketType::PubRec, ack),
        Packet::PubRel(ack) => ack_in(link, now, PacketType::PubRel, ack),
        Packet::PubComp(ack) => ack_in(link, now, PacketType::PubComp, ack),
        Packet::SubAck(answer) => answered(
            link,
            answer.packet_id,
            &answer.reason_codes,
            true,
            subscriptions,
        ),
        Packet::UnsubAck(answer) => answered(
            link,
            answer.packet_id,
            &answer.reason_codes,
            false,
            subscriptions,
        ),
        Packet::PingResp => {
            link.connection.handle_ping(now);
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

fn ack_in(link: &mut Link, now: Time, packet_type: PacketType, ack: &Ack<'_>) -> Result<(), Error> {
    let completed = link.connection.handle_ack(now, packet_type, ack)?;
    if let Some(message) =
        completed.and_then(|completed| Some((completed.handle?, completed.reason)))
    {
        let (message, reason) = message;
        message.resolve(Ok(reason));
    }
    Ok(())
}

fn answered(
    link: &mut Link,
    packet_id: PacketId,
    codes: &[ReasonCode],
    is_suback: bool,
    subscriptions: &mut Subscriptions,
) -> Result<(), Error> {
    let name = if is_suback { "SUBACK" } else { "UNSUBACK" };
    tracing::debug!("received {name}");
    let request = link
        .requests
        .remove(&packet_id)
        .filter(|_| link.connection.release_packet_id(packet_id));
    match (request, is_suback) {
        (Some(Request::Subscribe(filters, options, reply)), true)
            if filters.len() == codes.len() =>
        {
            for (filter, code) in filters.into_iter().zip(codes) {
                subscriptions.retain(|(known, _)| known.as_str() != filter.as_str());
                if !code.is_error() {
                    subscriptions.push((filter, options.clone()));
                }
            }
            if let Some(reply) = reply {
                let _ = reply.send(Ok(codes.to_vec()));
            }
            Ok(())
        }
        (Some(Request::Unsubscribe(filters, reply)), false)
            if filters.len() == codes.len() || !link.version.has_reason_codes() =>
        {
            subscriptions
                .retain(|(known, _)| !filters.iter().any(|filter| filter == known.as_str()));
            let _ = reply.send(Ok(codes.to_vec()));
            Ok(())
        }
        _ => Err(Error::Unexpected(name)),
    }
}

/// Tells the receipts of messages that ended without a packet of the server, and queues again what
/// the server lost with the session.
pub(crate) fn events(link: &mut Link) {
    let mut lost = Vec::new();
    while let Some(event) = link.connection.poll_event() {
        match event {
            Event::Sent(message) => link.output.sent(message),
            Event::Dropped(message, DropReason::SessionLost)
                if message.message.quality() == QoS::AtLeastOnce =>
            {
                lost.push(message);
            }
            Event::Dropped(message, reason) => message.resolve(Err(match reason {
                DropReason::Expired => Error::Expired,
                DropReason::TooLarge => Error::TooLarge,
                DropReason::QosNotSupported => Error::QosNotSupported,
                DropReason::SessionLost => Error::SessionLost,
                _ => Error::Closed,
            })),
            _ => {}
        }
    }
    if !lost.is_empty() {
        let session = link.connection.session_mut();
        lost.extend(session.take_queued(|_| true));
        for message in lost {
            session.push(message);
        }
    }
}
