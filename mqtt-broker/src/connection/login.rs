//! Who a client is: asked between CONNECT and CONNACK, where anybody is to be asked.

use std::sync::Arc;

use mqtt_codec::{Connect, ReasonCode};

use crate::auth::{Access, Denial, Login, LoginError, Question, Reply, Secret};
use crate::connection::Arrival;
use crate::connection::handshake::Refusal;
use crate::hub::Hub;

/// Lets a client in, or says why not; none where nobody is asked. May be dropped while it waits.
pub(crate) async fn admit(
    hub: &Hub,
    arrival: &Arrival,
    connect: &Connect<'_>,
    client_id: &Arc<str>,
) -> Result<Option<Access>, Refusal> {
    let authority = &hub.config.auth;
    if authority.is_open() {
        return Ok(None);
    }
    let login = Login {
        client_id: Arc::clone(client_id),
        realm: arrival.options.realm.clone(),
        user: connect.username.map(Into::into),
        password: connect.password.map(Secret::new),
        certificate: arrival.peer.certificate.clone(),
        address: arrival.peer.ip(),
        version: connect.version,
    };
    // Boxed, as whatever most connections do not wait for: a connection on its way in is moved once.
    let admitted = Box::pin(authority.admit(login, &hub.counters)).await;
    let access = admitted.map_err(|error| {
        hub.counters.count_denial(match error {
            LoginError::Busy => Denial::LoginQueue,
            LoginError::Service => Denial::Service,
            _ => Denial::Login,
        });
        Refusal::of(connect, error.reason(), error.detail())
    })?;
    check_will(hub, connect, &access).await?;
    Ok(Some(access))
}

/// A client that may not publish its will is not let in.
pub(super) async fn check_will(
    hub: &Hub,
    connect: &Connect<'_>,
    access: &Access,
) -> Result<(), Refusal> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    let reply = match &access.topics {
        _ if !access.publish(will.topic).allows(will.qos, will.retain) => Reply::Denied,
        None => Reply::Allowed,
        Some(topics) => {
            let question = [Question::publish(will.topic, will.qos, will.retain)];
            let mut replies = [Reply::Failed];
            Box::pin(topics.ask(access, &question, &mut replies, &hub.counters)).await;
            let [reply] = replies;
            reply
        }
    };
    match reply {
        Reply::Allowed | Reply::Waived => Ok(()),
        Reply::Denied => {
            hub.counters.count_denial(Denial::Will);
            let detail = "not authorized to publish the will";
            Err(Refusal::of(connect, ReasonCode::NOT_AUTHORIZED, detail))
        }
        Reply::Failed => Err(service_failed(hub, connect)),
    }
}

/// The service that was to be asked failed.
pub(super) fn service_failed(hub: &Hub, connect: &Connect<'_>) -> Refusal {
    hub.counters.count_denial(Denial::Service);
    let error = LoginError::Service;
    Refusal::of(connect, error.reason(), error.detail())
}

/// The session of the identifier belongs to somebody else.
pub(crate) fn not_yours(hub: &Hub, connect: &Connect<'_>) -> Refusal {
    hub.counters.count_denial(Denial::Session);
    Refusal::of(
        connect,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        "the session of this client identifier belongs to another user",
    )
}
