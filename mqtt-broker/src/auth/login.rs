//! What a client says of itself, and why it is not believed.

use core::net::IpAddr;
use std::sync::Arc;

use mqtt_codec::{ProtocolVersion, ReasonCode};

use crate::auth::secret::Secret;

/// What CONNECT says of its client.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) client_id: Arc<str>,
    /// Of the listener.
    pub(crate) realm: Option<Arc<str>>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) password: Option<Secret>,
    /// What the client proved to own, in DER.
    pub(crate) certificate: Option<Arc<[u8]>>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) version: ProtocolVersion,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoginError {
    /// No such user, or another password: nobody is told which.
    Credentials,
    /// Its certificate names no user.
    Certificate,
    /// It did not say who it is.
    Anonymous,
    /// The exchange of enhanced authentication did not come to its end: nobody is told why.
    Proof,
    /// Too many logins wait.
    Busy,
    /// The service that was to be asked failed.
    Service,
}

impl LoginError {
    pub(crate) fn reason(self) -> ReasonCode {
        match self {
            Self::Credentials | Self::Proof => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            Self::Anonymous | Self::Certificate => ReasonCode::NOT_AUTHORIZED,
            Self::Busy => ReasonCode::QUOTA_EXCEEDED,
            Self::Service => ReasonCode::SERVER_UNAVAILABLE,
        }
    }

    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Credentials => "wrong user name or password",
            Self::Certificate => "the certificate names no user",
            Self::Anonymous => "clients without a user name are not let in",
            Self::Proof => "no such user, or no proof of the password",
            Self::Busy => "too many logins wait",
            Self::Service => "the authorisation service failed",
        }
    }
}
