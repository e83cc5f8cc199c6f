//! From an error to a sentence that says what is wrong and what helps.

use std::io::ErrorKind;

use mqtt_client::{Error, ReasonCode};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::handshake::{Certificate, date};

/// What a look at the port found there instead of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// MQTT without TLS.
    PlainMqtt,
    /// TLS.
    Tls,
    /// HTTP, perhaps WebSocket.
    Http,
    /// Nothing that is known.
    Unknown,
}

/// Of a connection over TCP that could not be made.
pub(super) fn unreachable(error: &std::io::Error, place: &str) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "nothing listens on {place}: the broker is not running there, or it listens on another port or address."
        ),
        ErrorKind::TimedOut => format!(
            "{place} does not answer: a firewall drops what is sent to it, or the machine is off."
        ),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("there is no way to {place}: check the network of this machine.")
        }
        ErrorKind::NotFound => format!("there is no socket {place}: is the broker running?"),
        ErrorKind::PermissionDenied => {
            format!("this user may not connect to {place}: check its permissions.")
        }
        _ => format!("{place} cannot be reached: {error}."),
    }
}

/// Of the connection of the client.
pub(super) fn refused(error: &Error, place: &str, chain: &[Certificate], found: Found) -> String {
    if let Some(text) = tls_error(error).and_then(|error| certificate(error, place, chain)) {
        return text;
    }
    match (found, error) {
        (Found::PlainMqtt, _) => {
            return format!(
                "{place} speaks MQTT without TLS: leave TLS out (mqtt://), or use the port that has it, usually 8883."
            );
        }
        (Found::Tls, _) => {
            return format!(
                "{place} speaks TLS: use mqtts:// or --tls-use-os-certs, or --cafile with its authority."
            );
        }
        (Found::Http, _) => {
            return format!(
                "{place} speaks HTTP: if it is MQTT over WebSocket, use ws:// or --ws; else it is no broker."
            );
        }
        (Found::Unknown, _) => {}
    }
    match error {
        Error::Refused {
            reason,
            reason_string,
            server_reference,
        } => {
            let said = reason_string
                .as_ref()
                .map(|text| format!(" It says: {text}"))
                .unwrap_or_default();
            let other = server_reference
                .as_ref()
                .map(|text| format!(" It names {text}."))
                .unwrap_or_default();
            format!("{}{other}{said}", refusal(*reason))
        }
        Error::ConnectionLost => format!(
            "{place} closes the connection without an answer to CONNECT: it may not speak this version (try -V 311), or refuse this client without saying so; look at its log."
        ),
        Error::TimedOut => format!(
            "{place} takes the connection and does not answer CONNECT: it is overloaded, or no MQTT broker."
        ),
        Error::Malformed(_) | Error::Protocol(_) | Error::Unexpected(_) => {
            format!("{place} answers with something that is not MQTT: {error}.")
        }
        Error::Proxy(why) => format!("the proxy does not connect to {place}: {why}."),
        Error::WebSocket(why) => format!(
            "{place} does not speak WebSocket for MQTT at this path ({why}): try another --ws-path."
        ),
        Error::Tls(error) => format!("the TLS handshake with {place} fails: {error}."),
        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => {
            format!("{place} closes the connection in the middle of the handshake.")
        }
        Error::Io(error) => unreachable(error, place),
        error => format!("the connection to {place} fails: {error}."),
    }
}

/// The error of rustls within, if there is one.
fn tls_error(error: &Error) -> Option<&TlsError> {
    let (Error::Tls(error) | Error::Io(error)) = error else {
        return None;
    };
    let inner = error.get_ref()?;
    inner
        .downcast_ref()
        .or_else(|| inner.source()?.downcast_ref())
}

/// What is wrong with a certificate, the server's or the client's.
fn certificate(error: &TlsError, place: &str, chain: &[Certificate]) -> Option<String> {
    let own = chain.first();
    let top = chain
        .last()
        .map_or("an authority that it does not name", |last| &last.issuer);
    Some(match error {
        TlsError::InvalidCertificate(what) => match what {
            // A bad signature is that of another authority of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate of {place} comes from {top}, which is not trusted here: give the certificate of that authority with --cafile."
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
                "a certificate of {place} has expired{}: renew it, or set the clock of this machine.",
                own.map(|own| format!(" (its own on {})", date(own.not_after)))
                    .unwrap_or_default()
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
                "a certificate of {place} is not valid yet: the clock of this machine may be wrong."
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                let names = own
                    .map(|own| own.names.join(", "))
                    .filter(|names| !names.is_empty())
                    .unwrap_or_else(|| "no name at all".to_owned());
                format!(
                    "the certificate of {place} is for another name: connect by one of its names ({names})."
                )
            }
            other => format!("the certificate of {place} is not accepted: {other}."),
        },
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => format!(
                "{place} wants a certificate of this client: give one with --cert and --key."
            ),
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate => format!(
                "{place} does not accept the certificate of this client ({alert:?}): check --cert."
            ),
            AlertDescription::ProtocolVersion => {
                format!(
                    "{place} speaks no version of TLS that is wanted here: check --tls-version."
                )
            }
            AlertDescription::NoApplicationProtocol => {
                format!("{place} does not know the protocol of --tls-alpn.")
            }
            alert => format!("{place} ends the TLS handshake: {alert:?}."),
        },
        _ => return None,
    })
}

fn refusal(reason: ReasonCode) -> String {
    let help = match reason {
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => "check -u and -P.",
        ReasonCode::NOT_AUTHORIZED => {
            "the user, or nobody without a user name, may not connect: check -u and -P, and the permissions."
        }
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => "use another client identifier (-i).",
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => "try another version, such as -V 311.",
        ReasonCode::SERVER_UNAVAILABLE | ReasonCode::SERVER_BUSY => "try again later.",
        ReasonCode::BANNED => "this client is banned: ask who runs it.",
        ReasonCode::BAD_AUTHENTICATION_METHOD => {
            "the authentication method is not one of its own: check -D connect authentication-method."
        }
        ReasonCode::QUOTA_EXCEEDED | ReasonCode::CONNECTION_RATE_EXCEEDED => {
            "there are too many connections, or too many in a short time."
        }
        ReasonCode::USE_ANOTHER_SERVER | ReasonCode::SERVER_MOVED => {
            "another server is to be used."
        }
        ReasonCode::PACKET_TOO_LARGE => "CONNECT is too large for it: a smaller Will may help.",
        ReasonCode::TOPIC_NAME_INVALID => "the topic of the Will is not allowed.",
        ReasonCode::RETAIN_NOT_SUPPORTED => "a retained Will is not allowed.",
        ReasonCode::QOS_NOT_SUPPORTED => "the QoS of the Will is not allowed.",
        _ => "its log may say why.",
    };
    format!(
        "the server refuses the connection ({}): {help}",
        reason.name()
    )
}
