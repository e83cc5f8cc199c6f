//! What a configuration says about who may do what.

use std::path::PathBuf;

use serde::Deserialize;

use crate::auth::certificate::CertificateIdentity;
use crate::settings::{Span, section};

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
        /// JSON Web Tokens in place of passwords: a section [auth.jwt] lets clients in by them.
        jwt: Option<JwtSettings> = None, "";
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
        self.password_file.is_some() || self.certificate_identity.is_some() || self.jwt.is_some()
    }

    /// Whether a client is let in that does not say who it is.
    pub(crate) fn admits_anybody(&self) -> bool {
        self.allow_anonymous.unwrap_or(!self.asks())
    }

    /// The files that it names.
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut Option<PathBuf>> {
        let tokens = self.jwt.iter_mut();
        let tokens =
            tokens.flat_map(|jwt| [&mut jwt.secret_file, &mut jwt.key_file, &mut jwt.jwks_file]);
        [&mut self.password_file, &mut self.acl_file]
            .into_iter()
            .chain(tokens)
    }
}

section! {
    /// Tokens (JWT) that clients send as their password. The user is named by the token, whatever CONNECT says.
    struct JwtSettings {
        /// File with the secret of HS256, of 32 bytes or more.
        secret_file: Option<PathBuf> = None, "\"jwt.secret\"";
        /// File with a public key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
        key_file: Option<PathBuf> = None, "\"jwt.pem\"";
        /// File with a set of keys (JWKS), of which those of these algorithms are taken.
        jwks_file: Option<PathBuf> = None, "\"jwks.json\"";
        /// Claim that names the user.
        user_claim: String = "sub".to_owned(), "\"sub\"";
        /// Claim with what the client may do, if a token has it: an object with the lists of a role of a TOML file
        /// of permissions, such as { "publish": ["a/#"], "subscribe": [] }. It adds to what the `acl_file` says.
        permissions_claim: String = "mqtt".to_owned(), "\"mqtt\"";
        /// Audiences (`aud`) one of which a token must name; none: it is not looked at.
        audience: Vec<String> = Vec::new(), "[]";
        /// Issuers (`iss`) one of which a token must name; none: it is not looked at.
        issuer: Vec<String> = Vec::new(), "[]";
        /// How far the clocks may be apart. A connection ends this long after its token has (`exp`, which it must
        /// have).
        leeway: Span = Span(core::time::Duration::ZERO), "\"0s\"";
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
