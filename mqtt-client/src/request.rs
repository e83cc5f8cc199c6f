//! SUBSCRIBE, UNSUBSCRIBE and AUTH on their way out; the answers are handled where packets arrive.

use mqtt_codec::{Packet, ReasonCode, TopicFilter, Unsubscribe, UnsubscribeProperties};
use mqtt_session::Time;

use crate::authentication::Authentication;
use crate::control::{Handle, Reply};
use crate::link::{Link, Request};
use crate::registry::Registry;
use crate::{Error, Filter, SubscribeOptions, filter, message};

/// Writes SUBSCRIBE for someone who asked, or tells why not.
pub(crate) fn subscribe(
    link: &mut Link,
    registry: &mut Registry,
    now: Time,
    filters: Vec<Filter>,
    mut options: SubscribeOptions,
    handle: Option<Handle>,
    reply: Reply,
) {
    if handle
        .as_ref()
        .is_some_and(|handle| handle.mailbox.is_closed())
    {
        // Who asked has stopped waiting.
        return;
    }
    let filters: Vec<_> = filters
        .into_iter()
        .map(|filter| registry.merged(filter))
        .collect();
    if let Err(error) = check(link, &filters) {
        let _ = reply.send(Err(error));
        return;
    }
    if handle.is_some() {
        options.identifier = match link.server.has_subscription_identifiers() {
            true => registry.identifier(),
            false => None,
        };
    }
    if let Err((error, reply)) = send(link, now, &filters, &options, &handle, Some(reply)) {
        if let Some(reply) = reply {
            let _ = reply.send(Err(error));
        }
        return;
    }
    registry.claim(&filters, &options, handle.as_ref());
}

/// Writes SUBSCRIBE for a subscription that the server has lost.
pub(crate) fn renew(
    link: &mut Link,
    registry: &mut Registry,
    now: Time,
    filters: Vec<Filter>,
    options: SubscribeOptions,
) {
    if let Err((error, _)) = send(link, now, &filters, &options, &None, None) {
        tracing::warn!("cannot subscribe again: {error}");
        for filter in &filters {
            registry.remove(filter.as_str());
        }
    }
}

fn check(link: &Link, filters: &[Filter]) -> Result<(), Error> {
    let server = &link.server;
    for filter in filters {
        if filter.has_wildcards() && !server.wildcard_subscription_available {
            return Err(Error::Unsupported(
                "wildcards in subscriptions, by this server",
            ));
        }
        if filter.is_shared() && !server.shared_subscription_available {
            return Err(Error::Unsupported("shared subscriptions, by this server"));
        }
    }
    Ok(())
}

fn send(
    link: &mut Link,
    now: Time,
    filters: &[Filter],
    options: &SubscribeOptions,
    handle: &Option<Handle>,
    reply: Option<Reply>,
) -> Result<(), (Error, Option<Reply>)> {
    let Some(packet_id) = link.connection.allocate_packet_id() else {
        return Err((Error::TooManyRequests, reply));
    };
    let packet = Packet::Subscribe(filter::packet(packet_id, filters, options));
    if let Err(error) = link.append(&packet, now) {
        link.connection.release_packet_id(packet_id);
        return Err((error, reply));
    }
    let request = Request::Subscribe {
        filters: filters.to_vec(),
        options: options.clone(),
        handle: handle.clone(),
        reply,
    };
    link.requests.push((packet_id, request));
    Ok(())
}

/// Writes UNSUBSCRIBE, or tells why not.
pub(crate) fn unsubscribe(
    link: &mut Link,
    registry: &mut Registry,
    now: Time,
    filters: Vec<String>,
    user_properties: Vec<(String, String)>,
    reply: Option<Reply>,
) {
    let mut refuse = |reply: Option<Reply>, error| {
        for filter in &filters {
            registry.unsubscribed(filter);
        }
        if let Some(reply) = reply {
            let _ = reply.send(Err(error));
        }
    };
    let parsed: Result<Vec<_>, _> = filters
        .iter()
        .map(|filter| TopicFilter::new(filter))
        .collect();
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return refuse(reply, error.into()),
    };
    let Some(packet_id) = link.connection.allocate_packet_id() else {
        return refuse(reply, Error::TooManyRequests);
    };
    let packet = Packet::Unsubscribe(Unsubscribe {
        packet_id,
        filters: parsed,
        properties: UnsubscribeProperties {
            user_properties: message::user_properties(&user_properties),
        },
    });
    if let Err(error) = link.append(&packet, now) {
        link.connection.release_packet_id(packet_id);
        return refuse(reply, error);
    }
    for filter in &filters {
        registry.remove(filter);
    }
    let request = Request::Unsubscribe {
        filters,
        user_properties,
        reply,
    };
    link.requests.push((packet_id, request));
}

/// Writes the AUTH that begins to authenticate again.
pub(crate) fn reauthenticate(
    link: &mut Link,
    authentication: Option<&Authentication>,
    now: Time,
    reply: Reply,
) {
    let begun = match authentication {
        Some(_) if link.reauthentication.is_some() => Err(Error::TooManyRequests),
        Some(authentication) => authentication.begin(),
        None => Err(Error::Unsupported(
            "to authenticate again without an authenticator",
        )),
    };
    let sent = begun.and_then(|exchange| {
        link.append(&exchange.packet(ReasonCode::REAUTHENTICATE), now)?;
        Ok(exchange)
    });
    match sent {
        Ok(exchange) => {
            link.exchange = Some(exchange);
            link.reauthentication = Some(reply);
        }
        Err(error) => {
            let _ = reply.send(Err(error));
        }
    }
}
