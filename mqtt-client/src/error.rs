//! What goes wrong with a connection or a request, and whose fault it is.

use std::io;
use std::sync::Arc;

use mqtt_codec::{DecodeError, EncodeError, ReasonCode, TopicError};

/// Who has to change something for the same thing to work next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// Nobody in particular: host, route or connection failed. Trying again may help.
    Network,
    /// The server broke the standard, or refused.
    Server,
    /// This program asked for something impossible.
    Caller,
}

/// Why a connection could not be made or ended, or a request failed.
///
/// It is cheap to clone: the end of a connection is told to everybody who waits on it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host could not be resolved, reached, or the connection broke.
    #[error("{0}")]
    Io(#[source] Arc<io::Error>),
    /// The TLS handshake failed: a certificate is not trusted or wrong, or there is no common version.
    #[cfg(feature = "tls")]
    #[error("TLS: {0}")]
    Tls(#[source] Arc<io::Error>),
    /// The server does not speak WebSocket, or not for MQTT.
    #[cfg(feature = "websocket")]
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// The proxy did not connect.
    #[cfg(feature = "proxy")]
    #[error("the proxy refused: {0}")]
    Proxy(String),
    /// The server ended the connection without a word.
    #[error("the server closed the connection")]
    ConnectionLost,
    /// The server did not answer within the time allowed: to CONNECT, or to PINGREQ.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server refused CONNECT.
    #[error("connection refused: {}{}", reason.name(), detail(reason_string))]
    Refused {
        /// Its reason code; return codes of MQTT 3 are mapped to those of MQTT 5.
        reason: ReasonCode,
        /// Its Reason String.
        reason_string: Option<String>,
        /// Another server to use, with 0x9C and 0x9D.
        server_reference: Option<String>,
    },
    /// The server sent DISCONNECT.
    #[error("disconnected by the server: {}{}", reason.name(), detail(reason_string))]
    Disconnected {
        /// Its reason code.
        reason: ReasonCode,
        /// Its Reason String.
        reason_string: Option<String>,
        /// Another server to use, with 0x9C and 0x9D.
        server_reference: Option<String>,
    },
    /// The server sent bytes that are not a packet.
    #[error("malformed packet from the server: {0}")]
    Malformed(#[source] DecodeError),
    /// The server sent a packet that was not allowed.
    #[error("protocol error of the server: {0} [{clause}]", clause = .0.clause())]
    Protocol(#[source] mqtt_session::Error),
    /// The server sent a packet that only a client sends, or answered what was not asked.
    #[error("protocol error of the server: unexpected {0}")]
    Unexpected(&'static str),
    /// A request cannot be written as a packet.
    #[error("{0}")]
    Encode(#[source] EncodeError),
    /// A topic name or filter is not one.
    #[error("invalid topic: {0}")]
    Topic(#[source] TopicError),
    /// A message may or may not have arrived: it was sent, and then this kept the answer away.
    #[error("the message may or may not have arrived: {0}")]
    Uncertain(#[source] Arc<Self>),
    /// The client has ended for this reason; the message is in its outbox, and will be sent when that is used
    /// again. It may have arrived already.
    #[error("the message is kept in the outbox: {0}")]
    Kept(#[source] Arc<Self>),
    /// The outbox on disk cannot be opened or written.
    #[cfg(feature = "outbox")]
    #[error("outbox: {0}")]
    Outbox(#[source] crate::OutboxError),
    /// The server lost the session.
    #[error("the server lost the session")]
    SessionLost,
    /// The server refused to subscribe or unsubscribe.
    #[error("the server refused: {}", reason.name())]
    SubscriptionRefused {
        /// Its reason code.
        reason: ReasonCode,
    },
    /// The server refused the message of a request.
    #[error("the request was refused: {}", reason.name())]
    RequestRefused {
        /// Its reason code.
        reason: ReasonCode,
    },
    /// The exchange of enhanced authentication failed at this end: a secret is missing, or the server
    /// could not prove that it knows it.
    #[error("authentication failed: {0}")]
    Authentication(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The server, or this build of the client, does not have what was asked for.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// A URL or another option is not valid.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// Which option.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The message expired before it could be sent.
    #[error("the message expired before it was sent")]
    Expired,
    /// The message is larger than the server takes.
    #[error("the message is larger than the server's maximum packet size")]
    TooLarge,
    /// The server does not take messages of this quality of service.
    #[error("the server does not support this quality of service")]
    QosNotSupported,
    /// Every packet identifier is in use.
    #[error("too many requests are unanswered")]
    TooManyRequests,
    /// The client has disconnected, or its task has ended.
    #[error("the client is disconnected")]
    Closed,
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Uncertain(cause) | Self::Kept(cause) => cause.blame(),
            #[cfg(feature = "outbox")]
            Self::Outbox(_) => Blame::Caller,
            Self::Io(_) | Self::ConnectionLost | Self::TimedOut => Blame::Network,
            #[cfg(feature = "proxy")]
            Self::Proxy(_) => Blame::Network,
            #[cfg(feature = "tls")]
            Self::Tls(_) => Blame::Server,
            #[cfg(feature = "websocket")]
            Self::WebSocket(_) => Blame::Server,
            Self::Refused { .. }
            | Self::Disconnected { .. }
            | Self::SessionLost
            | Self::SubscriptionRefused { .. }
            | Self::RequestRefused { .. }
            | Self::Authentication(_)
            | Self::Malformed(_)
            | Self::Protocol(_)
            | Self::Unexpected(_) => Blame::Server,
            Self::Encode(_)
            | Self::Topic(_)
            | Self::Expired
            | Self::TooLarge
            | Self::QosNotSupported
            | Self::TooManyRequests
            | Self::Unsupported(_)
            | Self::Invalid { .. }
            | Self::Closed => Blame::Caller,
        }
    }

    /// Whether a message may have arrived all the same: see [`Uncertain`](Self::Uncertain) and [`Kept`](Self::Kept).
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Uncertain(_) | Self::Kept(_))
    }

    /// The error of a message that was sent before this happened.
    pub(crate) fn uncertain(self) -> Self {
        match self {
            Self::Uncertain(_) | Self::Kept(_) => self,
            cause => Self::Uncertain(Arc::new(cause)),
        }
    }

    /// The error of a message that stays in the outbox when this has ended the client.
    pub(crate) fn kept(self) -> Self {
        Self::Kept(Arc::new(self))
    }

    /// The server that is to be used instead, and whether for good.
    pub(crate) fn redirection(&self) -> Option<(&str, bool)> {
        let (Self::Refused {
            reason,
            server_reference,
            ..
        }
        | Self::Disconnected {
            reason,
            server_reference,
            ..
        }) = self
        else {
            return None;
        };
        match *reason {
            ReasonCode::USE_ANOTHER_SERVER => Some((server_reference.as_deref()?, false)),
            ReasonCode::SERVER_MOVED => Some((server_reference.as_deref()?, true)),
            _ => None,
        }
    }

    /// Whether trying again may help without anybody changing anything.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Refused { reason, .. } | Self::Disconnected { reason, .. } => matches!(
                *reason,
                ReasonCode::NORMAL_DISCONNECTION
                    | ReasonCode::UNSPECIFIED_ERROR
                    | ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
                    | ReasonCode::SERVER_UNAVAILABLE
                    | ReasonCode::SERVER_BUSY
                    | ReasonCode::SERVER_SHUTTING_DOWN
                    | ReasonCode::KEEP_ALIVE_TIMEOUT
                    | ReasonCode::MESSAGE_RATE_TOO_HIGH
                    | ReasonCode::QUOTA_EXCEEDED
                    | ReasonCode::ADMINISTRATIVE_ACTION
                    | ReasonCode::CONNECTION_RATE_EXCEEDED
                    | ReasonCode::MAXIMUM_CONNECT_TIME
            ),
            error => error.blame() == Blame::Network,
        }
    }

    /// The reason code to tell the server before closing, where the connection still works and
    /// the server is at fault.
    pub(crate) fn farewell(&self) -> Option<ReasonCode> {
        match self {
            Self::Malformed(error) => Some(error.reason_code()),
            Self::Protocol(error) => Some(error.reason_code()),
            Self::Unexpected(_) => Some(ReasonCode::PROTOCOL_ERROR),
            Self::TimedOut => Some(ReasonCode::KEEP_ALIVE_TIMEOUT),
            _ => None,
        }
    }
}

fn detail(reason_string: &Option<String>) -> String {
    reason_string
        .as_ref()
        .map(|text| format!(" ({text})"))
        .unwrap_or_default()
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl From<TopicError> for Error {
    fn from(error: TopicError) -> Self {
        Self::Topic(error)
    }
}

impl From<mqtt_session::Error> for Error {
    fn from(error: mqtt_session::Error) -> Self {
        Self::Protocol(error)
    }
}
