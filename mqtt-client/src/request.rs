//! SUBSCRIBE and UNSUBSCRIBE on their way out; the answers are handled where packets arrive.

use mqtt_codec::{Packet, TopicFilter, Unsubscribe, UnsubscribeProperties};
use mqtt_session::Time;

use crate::link::{Link, Reply, Request};
use crate::{Error, Filter, SubscribeOptions, message, subscription};

/// Writes SUBSCRIBE, or tells why not. Nobody waits for the answer if `reply` is absent.
pub(crate) fn subscribe(
    link: &mut Link,
    now: Time,
    filters: Vec<Filter>,
    options: SubscribeOptions,
    reply: Option<Reply>,
) {
    let refuse = |reply: Option<Reply>, error| {
        if let Some(reply) = reply {
            let _ = reply.send(Err(error));
        }
    };
    let Some(packet_id) = link.connection.allocate_packet_id() else {
        return refuse(reply, Error::TooManyRequests);
    };
    tracing::debug!("sending SUBSCRIBE");
    let packet = Packet::Subscribe(subscription::packet(packet_id, &filters, &options));
    match link.append(&packet, now) {
        Ok(()) => {
            link.requests
                .insert(packet_id, Request::Subscribe(filters, options, reply));
        }
        Err(error) => {
            link.connection.release_packet_id(packet_id);
            refuse(reply, error);
        }
    }
}

/// Writes UNSUBSCRIBE, or tells why not.
pub(crate) fn unsubscribe(
    link: &mut Link,
    now: Time,
    filters: Vec<String>,
    user_properties: &[(String, String)],
    reply: Reply,
) {
    let parsed: Result<Vec<_>, _> = filters
        .iter()
        .map(|filter| TopicFilter::new(filter))
        .collect();
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = reply.send(Err(error.into()));
            return;
        }
    };
    let Some(packet_id) = link.connection.allocate_packet_id() else {
        let _ = reply.send(Err(Error::TooManyRequests));
        return;
    };
    tracing::debug!("sending UNSUBSCRIBE");
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id,
        filters: parsed,
        properties: UnsubscribeProperties {
            user_properties: message::user_properties(user_properties),
        },
    });
    match link.append(&packet, now) {
        Ok(()) => {
            link.requests
                .insert(packet_id, Request::Unsubscribe(filters, reply));
        }
        Err(error) => {
            link.connection.release_packet_id(packet_id);
            let _ = reply.send(Err(error));
        }
    }
}
