//! What a configuration says about who may do what.

use std::path::PathBuf;

use serde::Deserialize;

use crate::auth::certificate::CertificateIdentity;

/// How clients show who they are, and what they may do. Nothing said: whoever comes may do everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AuthSettings {
    /// Whether a client without a user name is let in. Default: only if nothing else here lets clients in.
    pub allow_anonymous: Option<bool>,
    /// File of users and hashes of their passwords, as `mqtt-broker passwd` and mosquitto_passwd write it.
    pub password_file: Option<PathBuf>,
    /// What of a certificate is the user name of a client that shows one, at a listener that asks for it and
    /// checks it. Such a client needs no password, and what CONNECT calls it is of no account. Default: nothing,
    /// certificates do not tell who a client is.
    pub certificate_identity: Option<CertificateIdentity>,
    /// File of permissions: TOML if its name ends with `.toml`, else as mosquitto's `acl_file`. What it does
    /// not allow is denied. Default: everything is allowed.
    pub acl_file: Option<PathBuf>,
    /// What a client of 3.1 or 3.1.1 gets for a message above QoS 0 that it may not publish: these versions
    /// cannot say no. Default: an acknowledgement.
    pub denied_publish: DeniedPublish,
    /// Checks of passwords that run at once. 0: half of the processors. Default 0.
    pub password_checks: usize,
    /// Logins that wait for their check; what comes beyond is refused (0x97). Default 128.
    pub waiting_logins: usize,
}

/// What becomes of a denied message whose version has no code for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeniedPublish {
    /// It is acknowledged and dropped.
    #[default]
    Acknowledge,
    /// The connection is closed.
    Disconnect,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            allow_anonymous: None,
            password_file: None,
            certificate_identity: None,
            acl_file: None,
            denied_publish: DeniedPublish::Acknowledge,
            password_checks: 0,
            waiting_logins: 128,
        }
    }
}
