//! What a configuration says about who may do what.

use std::path::PathBuf;

use serde::Deserialize;

use crate::auth::certificate::CertificateIdentity;
use crate::settings::section;

section! {
    /// How clients show who they are, and what they may do. Nothing said: whoever comes may do everything.
    struct AuthSettings {
        /// Whether a client without a user name is let in. Without it: only if nothing else here lets clients
        /// in. A listener may still refuse them.
        allow_anonymous: Option<bool> = None, "false";
        /// File of users and hashes of their passwords, as `mqtt-broker passwd` and
        /// mosquitto_passwd write it.
        password_file: Option<PathBuf> = None, "\"passwords\"";
        /// What of a certificate is the user name of a client that shows one, at a listener that asks for it
        /// and checks it: "cn", "dn" or "san". Such a client needs no password. Without it: certificates do
        /// not tell who a client is.
        certificate_identity: Option<CertificateIdentity> = None, "\"cn\"";
        /// File of permissions: TOML if its name ends with `.toml`, else as mosquitto's `acl_file`. What it
        /// does not allow is denied. Without it: everything is allowed.
        acl_file: Option<PathBuf> = None, "\"permissions.toml\"";
        /// What a client of 3.1 or 3.1.1 gets for a message above QoS 0 that it may not publish, as these
        /// versions cannot say no: "acknowledge" or "disconnect".
        denied_publish: DeniedPublish = DeniedPublish::Acknowledge, "\"acknowledge\"";
        /// Checks of passwords that run at once. 0: half of the processors.
        password_checks: usize = 0, "0";
        /// Logins that wait for their check; what comes beyond is refused (0x97).
        waiting_logins: usize = 128, "128";
    }
}

impl AuthSettings {
    /// Whether clients are asked who they are.
    pub(crate) fn asks(&self) -> bool {
        self.password_file.is_some() || self.certificate_identity.is_some()
    }

    /// Whether a client is let in that does not say who it is.
    pub(crate) fn admits_anybody(&self) -> bool {
        self.allow_anonymous.unwrap_or(!self.asks())
    }

    /// The files that it names, each under its key.
    pub(crate) fn files(
        &mut self,
    ) -> impl Iterator<Item = (&'static [&'static str], &mut Option<PathBuf>)> {
        let files: [(&'static [&'static str], _); 2] = [
            (&["password_file"], &mut self.password_file),
            (&["acl_file"], &mut self.acl_file),
        ];
        files.into_iter()
    }
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
