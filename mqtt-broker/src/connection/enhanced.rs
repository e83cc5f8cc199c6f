//! Enhanced authentication (section 4.12 of 5.0): an exchange of AUTH between CONNECT and CONNACK, and again
//! whenever the client asks for it.

use std::sync::Arc;

use mqtt_codec::{Auth, Connect, Packet, PacketType, ReasonCode};
use mqtt_session::Time;
use tokio::io::AsyncWriteExt;

use crate::auth::{Denial, LoginError, Owner, Proven, ScramExchange};
use crate::connection::Arrival;
use crate::connection::driver::Driver;
use crate::connection::end::End;
use crate::connection::handshake::{Refusal, read_packet};
use crate::hub::Hub;
use crate::transport::Stream;

/// What a connection keeps of its method.
#[derive(Debug)]
pub(crate) struct Enhanced {
    pub(crate) method: Box<str>,
    pub(crate) realm: Option<Arc<str>>,
    /// What CONNACK says to the client.
    pub(crate) last_words: Vec<u8>,
    /// An exchange that the client began after CONNACK, and when it must have come to its end.
    again: Option<(ScramExchange, Time)>,
    /// Since when the broker lets the client wait, whose time stands still meanwhile.
    waits_since: Option<Time>,
}

impl Enhanced {
    /// When an exchange that runs must have come to its end, unless the client is let wait.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let running = self.again.as_ref().filter(|_| self.waits_since.is_none());
        running.map(|(_, deadline)| *deadline)
    }
}

/// [MQTT-4.12.0-1]: a method that there is none of is refused before anything else is looked at.
pub(super) fn check_method(
    hub: &Hub,
    arrival: &Arrival,
    connect: &Connect<'_>,
) -> Result<(), Refusal> {
    let realm = arrival.options.realm.as_ref();
    match connect.properties.authentication_method {
        Some(method) if !hub.config.auth.has_method(realm, method) => Err(Refusal::of(
            connect,
            ReasonCode::BAD_AUTHENTICATION_METHOD,
            "authentication method not supported",
        )),
        _ => Ok(()),
    }
}

/// The exchange before CONNACK. `rest`: what was read after CONNECT.
pub(super) async fn exchange<S: Stream>(
    hub: &Hub,
    arrival: &Arrival,
    connect: &Connect<'_>,
    method: &str,
    stream: &mut S,
    rest: &mut Vec<u8>,
) -> Result<(Proven, Enhanced), Refusal> {
    let denied = || {
        hub.counters.count_denial(Denial::Login);
        Refusal::of(
            connect,
            LoginError::Proof.reason(),
            LoginError::Proof.detail(),
        )
    };
    let violation = |detail| Refusal::of(connect, ReasonCode::PROTOCOL_ERROR, detail);
    let realm = arrival.options.realm.clone();
    let data = connect.properties.authentication_data.unwrap_or_default();
    let begun = hub.config.auth.begin(realm.as_ref(), data);
    let (exchange, server_first) = begun.ok_or_else(denied)?;

    // [MQTT-4.12.0-2]
    let mut auth = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, method);
    auth.properties.authentication_data = Some(server_first.as_bytes());
    let packet = Packet::Auth(auth).to_vec(connect.version);
    let packet = packet.map_err(|_| violation("AUTH cannot be encoded"))?;
    let maximum = connect.properties.maximum_packet_size;
    if maximum.is_some_and(|maximum| packet.len() > maximum.get() as usize) {
        return Err(Refusal::of(
            connect,
            ReasonCode::PACKET_TOO_LARGE,
            "AUTH is larger than the client's maximum packet size",
        ));
    }
    stream.write_all(&packet).await.map_err(Refusal::Gone)?;

    let read = read_packet(hub, stream, rest, PacketType::Auth).await;
    let header = read.map_err(|refusal| match refusal {
        // It takes back what it asked for.
        Refusal::NotConnect(PacketType::Disconnect) => {
            Refusal::Gone(std::io::ErrorKind::ConnectionAborted.into())
        }
        // [MQTT-3.1.2-30]
        Refusal::NotConnect(_) => violation("another packet than AUTH before CONNACK"),
        Refusal::Malformed { error, .. } => Refusal::Malformed {
            error,
            answer: Some(connect.version),
        },
        refusal => refusal,
    })?;
    let frame: Vec<u8> = rest.drain(..header.frame_len()).collect();
    let body = frame.get(usize::from(header.header_len)..);
    let auth = Auth::decode(body.unwrap_or_default(), connect.version);
    let auth = auth.map_err(|error| Refusal::Malformed {
        error,
        answer: Some(connect.version),
    })?;
    // [MQTT-4.12.0-3] and [MQTT-4.12.0-5]
    if auth.reason_code != ReasonCode::CONTINUE_AUTHENTICATION {
        return Err(violation("AUTH: another reason than to continue"));
    }
    if auth.properties.authentication_method != Some(method) {
        return Err(violation("AUTH: another method than in CONNECT"));
    }
    let data = auth.properties.authentication_data.unwrap_or_default();
    let proven = exchange.finish(data).ok_or_else(denied)?;
    let enhanced = Enhanced {
        method: method.into(),
        realm,
        last_words: proven.server_final.clone().into_bytes(),
        again: None,
        waits_since: None,
    };
    Ok((proven, enhanced))
}

impl Driver {
    /// Section 4.12.1: the client shows again who it is, while everything else goes on.
    pub(super) fn handle_auth(&mut self, now: Time, auth: &Auth<'_>) -> Result<(), End> {
        let wrong = |detail: &str| Err(End::violation(ReasonCode::PROTOCOL_ERROR, detail));
        let Some(enhanced) = &mut self.enhanced else {
            return wrong("AUTH: CONNECT named no authentication method [MQTT-4.12.0-7]");
        };
        if auth.properties.authentication_method != Some(&*enhanced.method) {
            return wrong("AUTH: another method than in CONNECT [MQTT-4.12.1-1]");
        }
        let data = auth.properties.authentication_data.unwrap_or_default();
        match (auth.reason_code, enhanced.again.take()) {
            (ReasonCode::REAUTHENTICATE, None) => {
                let begun = self.hub.config.auth.begin(enhanced.realm.as_ref(), data);
                let Some((exchange, server_first)) = begun else {
                    return self.deny_again(now);
                };
                let deadline = now + self.hub.limits.load().connect_timeout;
                enhanced.again = Some((exchange, deadline));
                self.write_auth(ReasonCode::CONTINUE_AUTHENTICATION, &server_first)
            }
            (ReasonCode::CONTINUE_AUTHENTICATION, Some((exchange, _))) => {
                let Some(proven) = exchange.finish(data) else {
                    return self.deny_again(now);
                };
                // The session does not change hands.
                if !self.hub.proved_again(
                    &self.client,
                    &Owner::User(Arc::clone(&proven.user)),
                    &proven,
                ) {
                    return self.deny_again(now);
                }
                self.write_auth(ReasonCode::SUCCESS, &proven.server_final)
            }
            _ => wrong("AUTH out of its order [section 4.12]"),
        }
    }

    /// The broker does not read for its own reasons: what the client was given time for does not come to its end.
    pub(super) fn lets_wait(&mut self, now: Time) {
        if let Some(enhanced) = &mut self.enhanced
            && enhanced.again.is_some()
        {
            enhanced.waits_since.get_or_insert(now);
        }
    }

    /// The broker reads on, or it is for the client that it does not.
    pub(super) fn goes_on(&mut self, now: Time) {
        if let Some(enhanced) = &mut self.enhanced
            && let Some(since) = enhanced.waits_since.take()
            && let Some((_, deadline)) = &mut enhanced.again
        {
            *deadline = *deadline + now.saturating_since(since);
        }
    }

    /// When the client must have shown again who it is, if it began to.
    pub(super) fn shown_again_by(&self) -> Option<Time> {
        self.enhanced.as_ref()?.deadline()
    }

    /// [MQTT-4.12.1-2]
    pub(super) fn deny_again(&mut self, now: Time) -> Result<(), End> {
        self.deny(now, Denial::Login, "");
        Err(End::violation(
            ReasonCode::NOT_AUTHORIZED,
            "AUTH: the client could not show again who it is",
        ))
    }

    fn write_auth(&mut self, reason: ReasonCode, data: &str) -> Result<(), End> {
        let Some(enhanced) = &self.enhanced else {
            return Ok(());
        };
        let mut auth = Auth::new(reason, &enhanced.method);
        auth.properties.authentication_data = Some(data.as_bytes());
        let packet = Packet::Auth(auth).to_vec(self.version);
        let limit = self.connection.negotiated().outbound.maximum_packet_size;
        let fits =
            |packet: &Vec<u8>| limit.is_none_or(|limit| packet.len() <= limit.get() as usize);
        match packet.ok().filter(fits) {
            Some(packet) => {
                self.output
                    .control_with(|out| out.extend_from_slice(&packet));
                Ok(())
            }
            None => Err(End::violation(
                ReasonCode::PACKET_TOO_LARGE,
                "AUTH is larger than the client's maximum packet size",
            )),
        }
    }
}
