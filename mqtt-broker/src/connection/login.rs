//! Who a client is: asked between CONNECT and CONNACK, where anybody is to be asked.

use std::sync::Arc;

use mqtt_codec::{Connect, ReasonCode};

use crate::auth::{Access, Denial, Login, LoginError, Secret};
use crate::connection::Arrival;
use crate::connection::handshake::Refusal;
use crate::hub::Hub;

/// Lets a client in, or says why not; none where nobody is asked.
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
    };
    let access = authority.admit(login).await.map_err(|error| {
        hub.counters.count_denial(match error {
            LoginError::Busy => Denial::LoginQueue,
            _ => Denial::Login,
        });
        Refusal::of(connect, error.reason(), error.detail())
    })?;
    check_will(hub, connect, &access)?;
    Ok(Some(access))
}

/// A client that may not publish its will is not let in.
pub(super) fn check_will(hub: &Hub, connect: &Connect<'_>, access: &Access) -> Result<(), Refusal> {
    if let Some(will) = &connect.will
        && !access.publish(will.topic).allows(will.qos, will.retain)
    {
        hub.counters.count_denial(Denial::Will);
        return Err(Refusal::of(
            connect,
            ReasonCode::NOT_AUTHORIZED,
            "not authorized to publish the will",
        ));
    }
    Ok(())
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
